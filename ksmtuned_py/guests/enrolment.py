"""Tells whether a whole process is enrolled for merging (PR_SET_MEMORY_MERGE, MemoryKSM=yes)."""

from ksmtuned_py.door import Door
from ksmtuned_py.guests.parse import parse_merge_any
from ksmtuned_py.guests.patience import ask_one
from ksmtuned_py.guests.process import Inside, ProcessFiles
from ksmtuned_py.guests.smaps import parse_smaps

ANSWER_SECONDS = 5.0


def is_enrolled(door: Door, pid: int) -> bool | None:
    """Whether a process is enrolled, by ksm_stat, or before Linux 6.18 by the flag mg in smaps; None = unknown."""
    return ask_one(ProcessFiles(door, pid), _is_enrolled, ANSWER_SECONDS)


def _is_enrolled(inside: Inside) -> bool | None:
    said = parse_merge_any(inside.read("ksm_stat") or "")
    mappings = [] if said is not None else parse_smaps(inside.read("smaps") or "")
    return any(mapping.mergeable for mapping in mappings) if mappings else said
