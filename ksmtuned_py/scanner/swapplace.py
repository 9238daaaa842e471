"""Tells where swapped-out zero pages go, and why not to swap them out where that is a disk. Pure."""

from dataclasses import dataclass
from pathlib import PurePath

NO_SWAP = "there is no swap with room: zram is enough (see docs/scan-backend.md)"


@dataclass(frozen=True, slots=True)
class SwapDevice:
    """One line of /proc/swaps."""

    path: str
    size_kib: int
    used_kib: int
    priority: int

    @property
    def has_room(self) -> bool:
        """Whether more than a sixteenth of it is free, which is left for those who swap because they have to."""
        return self.size_kib - self.used_kib > self.size_kib // 16

    @property
    def zram(self) -> bool:
        """Whether it is compressed memory, in which a page of one repeated word takes no space."""
        return PurePath(self.path).name.startswith("zram")


def parse_swaps(text: str) -> list[SwapDevice]:
    """Returns the devices of /proc/swaps; the name of a deleted file may hold further words."""
    rows = [line.split() for line in text.splitlines()[1:]]
    return [SwapDevice(row[0], int(row[-3]), int(row[-2]), int(row[-1])) for row in rows if len(row) >= 5]


def refusal(swaps: list[SwapDevice], *, zeromap: bool, zswap: bool) -> str | None:
    """Returns why zero pages must not be swapped out here; None when nothing would be written to a disk.

    Linux 6.12+ keeps zero-filled pages in a bitmap (vmstat then has swpout_zero) and never writes them. Before, zswap
    and zram keep same-filled pages without storing them.
    """
    with_room = [device for device in swaps if device.has_room]
    if not with_room:
        return NO_SWAP
    if zeromap or zswap:
        return None
    first = max(device.priority for device in with_room)
    for device in with_room:
        if device.priority == first and not device.zram:
            return f"zero pages would really be written to {device.path}: no zram or zswap, and a kernel before 6.12"
    return None
