"""PURE: NUMA policies of mappings, as /proc/PID/numa_maps shows them and as mbind(2) sets them again."""

import re
from dataclasses import dataclass

MOST_NODES = 1024
"""As many bits has the mask that is passed to mbind."""
_LINE = re.compile(r"(?P<start>[0-9a-f]+) (?P<policy>(?:prefer \(many\)|weighted interleave|[^ =:]+)(?:[=:]\S*)?)")
_POLICY = re.compile(r"(?P<mode>[a-z ()]+?)(?:=(?P<flags>[a-z|]+))?(?::(?P<nodes>[\d,-]+))?$")
_MODES = {"prefer": 1, "bind": 2, "interleave": 3, "local": 4, "prefer (many)": 5, "weighted interleave": 6}
_FLAGS = {"": 0, "static": 0x8000, "balancing": 0x2000, "static|balancing": 0xA000}
"""Not 'relative': the nodes that were asked for are not shown, only what they have become."""


@dataclass(frozen=True, slots=True)
class Policy:
    """As mbind takes it."""

    text: str
    mode: int
    nodes: int
    """One bit for each."""


def policies(numa_maps: str) -> dict[int, str]:
    """The policy of each mapping by its begin; '' where it is the process's own, which holds without being restored."""
    found, own = {}, "default"
    for line in numa_maps.splitlines():
        if match := _LINE.match(line):
            found[int(match["start"], 16)] = match["policy"]
            if line[match.end() :].startswith(" stack"):
                own = match["policy"]
    same = (own, "local") if own == "default" else (own,)  # the system's default is the local node
    return {start: "" if policy in same else policy for start, policy in found.items()}


def parse_policy(text: str) -> Policy | None:
    """What sets it again; None for one that cannot be expressed."""
    match = _POLICY.match(text)
    if not match or match["mode"] not in _MODES or (match["flags"] or "") not in _FLAGS:
        return None
    nodes = _mask(match["nodes"] or "")
    mode = _MODES[match["mode"]] | _FLAGS[match["flags"] or ""]
    return Policy(text, mode, nodes) if nodes < 2**MOST_NODES else None


def _mask(nodes: str) -> int:
    mask = 0
    for part in nodes.split(",") if nodes else []:
        first, _, last = part.partition("-")
        for node in range(int(first), int(last or first) + 1):
            mask |= 1 << node
    return mask
