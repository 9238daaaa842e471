"""Reads NUMA policies of mappings from /proc/PID/numa_maps, so that mbind(2) can set them again. Pure."""

import re
from dataclasses import dataclass

from ksmtuned_py.door.text import kernel_lines

MOST_NODES = 1024
"""The number of bits in the mask that is passed to mbind."""
_LINE = re.compile(r"(?P<start>[0-9a-f]+) (?P<policy>(?:prefer \(many\)|weighted interleave|[^ =:]+)(?:[=:]\S*)?)")
_POLICY = re.compile(r"(?P<mode>[a-z ()]+?)(?:=(?P<flags>[a-z|]+))?(?::(?P<nodes>[\d,-]+))?$")
_MODES = {"prefer": 1, "bind": 2, "interleave": 3, "local": 4, "prefer (many)": 5, "weighted interleave": 6}
_FLAGS = {"": 0, "static": 0x8000, "balancing": 0x2000, "static|balancing": 0xA000}
"""'relative' is left out: numa_maps shows what its nodes have become, not those that were asked for."""


@dataclass(frozen=True, slots=True)
class NumaPolicy:
    """A NUMA policy in the form that mbind takes."""

    text: str
    mode: int
    nodes: int
    """One bit for each node."""


def policies(numa_maps: str) -> dict[int, str]:
    """Returns each mapping's policy by its begin; '' is the process's own, which holds without being restored."""
    found, own = {}, "default"
    for line in kernel_lines(numa_maps):
        if match := _LINE.match(line):
            found[int(match["start"], 16)] = match["policy"]
            if line[match.end() :].startswith(" stack"):
                own = match["policy"]
    same = (own, "local") if own == "default" else (own,)  # the system's default is the local node
    return {start: "" if policy in same else policy for start, policy in found.items()}


def parse_policy(text: str) -> NumaPolicy | None:
    """Returns the policy that this text describes; None for one that mbind cannot set."""
    match = _POLICY.match(text)
    if not match or match["mode"] not in _MODES or (match["flags"] or "") not in _FLAGS:
        return None
    nodes = _mask(match["nodes"] or "")
    mode = _MODES[match["mode"]] | _FLAGS[match["flags"] or ""]
    return NumaPolicy(text, mode, nodes) if nodes < 2**MOST_NODES else None


def _mask(nodes: str) -> int:
    mask = 0
    for part in nodes.split(",") if nodes else []:
        first, _, last = part.partition("-")
        for node in range(int(first), int(last or first) + 1):
            mask |= 1 << node
    return mask
