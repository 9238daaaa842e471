"""Translates Harvester's Ksmtuned, as `kubectl get ksmtuned NODE -o yaml` prints it, into ksmtuned.conf. Pure.

It is ksmtuned's arithmetic in a resource of Kubernetes, with the same settings under other names.
"""

import re

_NAMES = {
    "boost": "KSM_NPAGES_BOOST",
    "decay": "KSM_NPAGES_DECAY",
    "minPages": "KSM_NPAGES_MIN",
    "maxPages": "KSM_NPAGES_MAX",
    "sleepMsec": "KSM_SLEEP_MSEC",
    "thresCoef": "KSM_THRES_COEF",
    "mergeAcrossNodes": "MERGE_ACROSS_NODES",
    "mode": "MODE",
    "run": "RUN",
}
_IS_ONE = re.compile(r"^kind:\s*Ksmtuned\s*$", re.MULTILINE)
_SPEC = re.compile(r"^spec:\s*$")
_LINE = re.compile(r"^\s+(\w+):\s*(\S+)\s*$")


def translated(text: str) -> str:
    """Translate line for line into ksmtuned.conf. Any other text stays as it is."""
    if not _IS_ONE.search(text):
        return text
    lines, in_spec = [], False
    for line in text.split("\n"):
        in_spec = bool(_SPEC.match(line)) or (in_spec and (line[:1] in " \t" or not line))
        lines.append(_translated(line) if in_spec else "")
    return "\n".join(lines)


def _translated(line: str) -> str:
    match = _LINE.match(line)
    name = _NAMES.get(match[1]) if match else None
    if not match or not name:
        return ""
    value = match[2].strip("\"'")
    return f"{name}={f'-{value}' if match[1] == 'decay' and value.isdecimal() and value != '0' else value}"
