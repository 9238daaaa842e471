"""Tells where this host would put swapped-out pages of zeros; needs neither numpy nor the scanner."""

from ksmtuned_py.door import Door
from ksmtuned_py.scanner.swapplace import parse_swaps, refusal
from ksmtuned_py.sensors.vmstat import read_vmstat

_ZSWAP = "sys/module/zswap/parameters"


def place_refusal(door: Door, *, to_disk: bool) -> str | None:
    """Returns why zero pages must not be swapped out on this host now; None when they may be."""
    swaps = parse_swaps(door.read_if_there("proc/swaps") or "")
    if to_disk and any(device.has_room for device in swaps):
        return None
    return refusal(swaps, zeromap=zero_swapouts(door) is not None, zswap=_has_zswap(door))


def zero_swapouts(door: Door) -> int | None:
    """Returns how many pages were swapped out as zeros since boot; None before Linux 6.12."""
    return read_vmstat(door).swpout_zero


def _has_zswap(door: Door) -> bool:
    on = (door.read_if_there(f"{_ZSWAP}/{name}") for name in ("enabled", "same_filled_pages_enabled"))
    return all((text or "").strip() == "Y" for text in on)
