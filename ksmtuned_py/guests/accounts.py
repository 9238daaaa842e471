"""What each process saves: /proc/PID/ksm_stat, and what Linux 6.1 keeps beside it."""

from ksmtuned_py.door import parse_int
from ksmtuned_py.guests.parse import parse_ksm_stat
from ksmtuned_py.guests.process import Inside
from ksmtuned_py.model import GuestKsm


def read_account(inside: Inside, page_bytes: int) -> GuestKsm | None:
    """One process's account; None when it is not ours to read, is gone, or has no memory; raises Garbage."""
    text = inside.read("ksm_stat")
    if not text:  # kernel threads and zombies have an empty one
        return None
    beside = None if "ksm_merging_pages" in text else inside.read("ksm_merging_pages")
    merging = parse_int(inside.path("ksm_merging_pages"), beside) if beside else 0
    return parse_ksm_stat(text, inside.path("ksm_stat"), merging_pages=merging, page_bytes=page_bytes)


def has_asked(account: GuestKsm | None) -> bool:
    """Whether the process is known to have asked for merging: the kernel says so, or ksmd has looked at its pages."""
    if account is None:
        return False
    return account.rmap_items > 0 if account.mergeable is None else account.mergeable
