"""Reads what merging saves each process, from /proc/PID/ksm_stat. Linux 6.1 keeps a part in a file beside it."""

from ksmtuned_py.door.text import parse_int
from ksmtuned_py.guests.parse import parse_ksm_stat
from ksmtuned_py.guests.process import Inside
from ksmtuned_py.model import GuestKsm


def read_account(inside: Inside, page_bytes: int) -> GuestKsm | None:
    """Read one process's account.

    None when the process is gone or has no memory, or when we may not read the account. Raises Garbage.
    """
    text = inside.read("ksm_stat")
    if not text:  # the file of a kernel thread or a zombie is empty
        return None
    beside = None if "ksm_merging_pages" in text else inside.read("ksm_merging_pages")
    merging = parse_int(inside.path("ksm_merging_pages"), beside) if beside else 0
    return parse_ksm_stat(text, inside.path("ksm_stat"), merging_pages=merging, page_bytes=page_bytes)


def has_asked(account: GuestKsm | None) -> bool:
    """Whether the process has asked for merging, by the kernel's word or because ksmd has records of its pages."""
    if account is None:
        return False
    return account.rmap_items > 0 if account.mergeable is None else account.mergeable
