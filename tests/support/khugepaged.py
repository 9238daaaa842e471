"""The kernel's khugepaged, which one run of tests at a time may change."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

KHUGEPAGED = Path("/sys/kernel/mm/transparent_hugepage/khugepaged")
LOCK = Path("/run/lock/ksmtuned-py-khugepaged.lock")
SLEEP = KHUGEPAGED / "scan_sleep_millisecs"


@contextmanager
def khugepaged_at_rest() -> Iterator[None]:
    """Has khugepaged sleep for an hour in a with block, or it would make ranges whole by itself. One at a time."""
    with LOCK.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        found = SLEEP.read_text()
        SLEEP.write_text("3600000")
        try:
            yield
        finally:
            SLEEP.write_text(found)
