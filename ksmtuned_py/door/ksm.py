"""Tells whether the kernel has KSM, or whether that cannot be seen."""

from ksmtuned_py.door import Door
from ksmtuned_py.errors import HiddenKsm, NoKsm
from ksmtuned_py.model import KSM_DIRECTORY

MM_DIRECTORY = "sys/kernel/mm"
"""Every kernel has it, so where it is missing there is no sysfs."""


def check_ksm(door: Door) -> None:
    """Raises NoKsm where the kernel has no KSM, or HiddenKsm where that cannot be seen."""
    path = door.path(KSM_DIRECTORY)
    if not door.exists(MM_DIRECTORY):
        raise HiddenKsm(path, door.path(MM_DIRECTORY))
    if not door.exists(KSM_DIRECTORY):
        raise NoKsm(path)
    if not door.exists(f"{KSM_DIRECTORY}/run"):
        raise HiddenKsm(path, f"{path}/run")


def has_none(door: Door) -> bool:
    """Whether the kernel was built without KSM for sure."""
    return door.exists(MM_DIRECTORY) and not door.exists(KSM_DIRECTORY)
