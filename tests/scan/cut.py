"""A guest whose huge pages' ranges are cut: `python -m tests.scan.cut RANGES REST`.

REST is what there is of each range beside one page in a mapping of its own: 'none', 'half', 'zeros' or 'all'.
"""

import ctypes
import mmap
import sys

from ksmtuned_py.cli.nobody import become_nobody
from tests.scan.contents import PAGE

RANGE = 2 << 20
READ_WRITE, PRIVATE_ANONYMOUS, MAYMOVE_FIXED = 3, 0x22, 3
PR_SET_THP_DISABLE = 41
_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = _libc.mremap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
_libc.mremap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_int, ctypes.c_void_p]
_libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]


def in_huge_pages(size: int) -> int:
    address: int = _libc.mmap(None, size, READ_WRITE, PRIVATE_ANONYMOUS, -1, 0)
    _libc.madvise(address, size, mmap.MADV_HUGEPAGE)
    return address


def cut(start: int, rest: str) -> None:
    """Moves a page of its own into the middle of a range, then touches what is to be there beside it."""
    page, middle = in_huge_pages(PAGE), start + RANGE // 2
    ctypes.memset(page, 1, PAGE)
    assert _libc.mremap(page, PAGE, PAGE, MAYMOVE_FIXED, middle) == middle
    others = [start + at for at in range(0, RANGE, PAGE) if start + at != middle]
    for address in others[: {"none": 0, "half": len(others) // 2}.get(rest)]:
        if rest == "zeros":
            ctypes.string_at(address, 1)  # a read maps the zero page
        else:
            ctypes.memset(address, 2, PAGE)


def main(ranges: int, rest: str) -> None:
    start = -(-in_huge_pages((ranges + 1) * RANGE) // RANGE) * RANGE
    for number in range(ranges):
        cut(start + number * RANGE, rest)
    become_nobody()
    print("ready", flush=True)
    for line in sys.stdin:
        if line == "no more\n":
            _libc.prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0)
        print("done", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
