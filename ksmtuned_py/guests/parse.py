"""Parses what the kernel says of one process. Every parser raises Garbage, which names the file. Pure."""

from ksmtuned_py.door.text import parse_int
from ksmtuned_py.errors import Garbage
from ksmtuned_py.model import RMAP_ITEM_BYTES, GuestKsm
from ksmtuned_py.sensors.pages import OWN_PAGE_BYTES
from ksmtuned_py.sensors.status import parse_status, status_bytes

_NUMBERS = ("ksm_rmap_items", "ksm_merging_pages", "ksm_zero_pages", "ksm_process_profit")
_SWITCHES = ("ksm_mergeable:", "ksm_merge_any:")  # only these lines have a colon


def split_words(text: str) -> list[str]:
    """The words of /proc/PID/cmdline. A process that wrote over it leaves no NUL; then spaces divide the words."""
    words = text.removesuffix("\0").split("\0")
    return words[0].split(" ") if words[0] and len(words) == 1 else [word for word in words if words != [""]]


def parse_statm(text: str, path: str = "statm") -> tuple[int, int]:
    """The size and the resident memory from /proc/PID/statm, in pages. Kernel threads and zombies have size 0."""
    fields = text.split()
    if len(fields) < 2:
        raise Garbage(path, text[:60], "the fields of a process's memory")
    return parse_int(path, fields[0]), parse_int(path, fields[1])


def parse_swapped(text: str) -> int:
    """The bytes of a process in swap, from the line of /proc/PID/status that everybody may read."""
    return status_bytes(parse_status(text), "VmSwap") or 0


def parse_ksm_stat(
    text: str, path: str = "ksm_stat", *, merging_pages: int = 0, page_bytes: int = OWN_PAGE_BYTES
) -> GuestKsm:
    """Read a process's KSM account from the lines that its kernel knows.

    `merging_pages` is for Linux 6.1, which keeps it in a file of its own. `page_bytes` is for the profit, which 6.1
    does not give. Source: proc_pid_ksm_stat in fs/proc/base.c, ksm_process_profit in mm/ksm.c.
    """
    lines = dict(line.partition(" ")[::2] for line in text.splitlines())
    if "ksm_rmap_items" not in lines:  # the first line in every kernel
        raise Garbage(path, text[:60], "a line ksm_rmap_items")
    numbers = {name: parse_int(path, lines[name]) for name in _NUMBERS if name in lines}
    rmap_items = numbers["ksm_rmap_items"]
    merging = numbers.get("ksm_merging_pages", merging_pages)
    zero_pages = max(0, numbers.get("ksm_zero_pages", 0))  # printed signed, and may pass below 0
    computed = (merging + zero_pages) * page_bytes - rmap_items * RMAP_ITEM_BYTES
    return GuestKsm(
        rmap_items=rmap_items,
        merging_pages=merging,
        zero_pages=zero_pages,
        profit_bytes=numbers.get("ksm_process_profit", computed),
        mergeable=_mergeable(lines),
    )


def parse_merge_any(text: str) -> bool | None:
    """Whether a ksm_stat says that the whole process is enrolled; None where the kernel does not say."""
    lines = dict(line.partition(":")[::2] for line in text.splitlines())
    said = lines.get("ksm_merge_any")
    return None if said is None else said.strip() == "yes"


def _mergeable(lines: dict[str, str]) -> bool | None:
    answers = [lines[name].strip() == "yes" for name in _SWITCHES if name in lines]
    return any(answers) if answers else None
