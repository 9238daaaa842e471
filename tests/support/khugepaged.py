"""The kernel's khugepaged, which one run of tests at a time may change."""

from pathlib import Path

KHUGEPAGED = Path("/sys/kernel/mm/transparent_hugepage/khugepaged")
LOCK = Path("/run/lock/ksmtuned-py-khugepaged.lock")
