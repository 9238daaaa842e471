"""The kernel's khugepaged, which one run of tests at a time may change."""

import fcntl
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

KHUGEPAGED = Path("/sys/kernel/mm/transparent_hugepage/khugepaged")
LOCK = Path("/run/lock/ksmtuned-py-khugepaged.lock")
SLEEP = KHUGEPAGED / "scan_sleep_millisecs"


@contextmanager
def khugepaged_with(settings: Mapping[Path, int]) -> Iterator[None]:
    """Has these files of the kernel other numbers in a with block. One at a time."""
    with LOCK.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        found = {file: int(file.read_text()) for file in settings}
        _write(settings)
        try:
            yield
        finally:
            _write(found)


def khugepaged_at_rest() -> AbstractContextManager[None]:
    """Has khugepaged sleep for an hour in a with block, or it would make ranges whole by itself."""
    return khugepaged_with({SLEEP: 3_600_000})


def _write(settings: Mapping[Path, int]) -> None:
    for file, number in settings.items():
        file.write_text(str(number))
