"""Reads which boot of the host this is: PIDs, and times since boot, mean something within one boot only."""

from ksmtuned_py.door import Door

BOOT_ID = "proc/sys/kernel/random/boot_id"


def boot_id(door: Door) -> str:
    """The kernel's name for this boot; '' where it does not tell."""
    return (door.read_if_there(BOOT_ID) or "").strip()
