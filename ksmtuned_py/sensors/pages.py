"""The one place that knows the size of a page: 4 KiB on most machines, 16 or 64 KiB on some of arm64."""

import mmap
import os

from ksmtuned_py.door import Door
from ksmtuned_py.sensors.status import parse_status, status_bytes

OWN_PAGE_BYTES = mmap.PAGESIZE
"""The page size of the machine that this runs on."""


def page_bytes(door: Door) -> int:
    """The page size of the host. In another host's tree it is found from a process's size in KiB and in pages."""
    if os.path.realpath(door.root) != "/":
        for pid in filter(str.isdecimal, door.names("proc")):
            if size := _of_process(door, pid):
                return size
    return OWN_PAGE_BYTES


def _of_process(door: Door, pid: str) -> int:
    """The page size by one process; 0 when it does not tell, or grew between the two reads."""
    try:
        size_bytes = status_bytes(parse_status(door.read(f"proc/{pid}/status")), "VmSize")
        pages = door.read(f"proc/{pid}/statm").split()[:1]
    except OSError:
        return 0
    if not size_bytes or not pages or not pages[0].isdecimal() or pages == ["0"]:
        return 0
    size, over = divmod(size_bytes, int(pages[0]))
    return size if not over and size.bit_count() == 1 else 0
