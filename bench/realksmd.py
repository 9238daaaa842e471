"""Leads the real ksmd by hand: one batch is one pass, and a change of its long sleep begins the next."""

import time
from dataclasses import dataclass
from itertools import count

from ksmtuned_py.backends.ksmd import find_ksmd
from ksmtuned_py.door import Door
from tests.support.ksmlock import RealKsm

WHOLE_PASS = 10_000_000
LONG_SLEEPS_MS = count(3_600_000)
"""Sleeps that each differ from the one before, so that writing one wakes ksmd."""
PASSES = 3
"""Passes that are measured where one would do, because this machine has other work, too."""


@dataclass(frozen=True, slots=True)
class Pass:
    """What one pass cost."""

    cpu_ns: int
    pages: int
    """Pages that were looked at, skipped ones included."""

    @property
    def page_ns(self) -> float:
        """CPU time for each page, in ns."""
        return self.cpu_ns / max(1, self.pages)


class RealKsmd:
    """The kernel's ksmd with its CPU clock."""

    def __init__(self, ksm: RealKsm) -> None:
        self.ksm = ksm
        self._door = Door()
        self._pid = find_ksmd(self._door)
        self._passes = 0

    def cpu_ns(self) -> int:
        """CPU time since boot, in ns."""
        return int(self._door.read(f"proc/{self._pid}/schedstat").split()[0])

    def lead(self, *, smart_scan: int = 0, use_zero_pages: int = 0) -> Pass:
        """Begins with nothing known, and does the first pass."""
        self.ksm.unmerge()
        self._passes = 0
        self.ksm.write("smart_scan", smart_scan)
        self.ksm.write("use_zero_pages", use_zero_pages)
        self.ksm.write("pages_to_scan", WHOLE_PASS)
        self.ksm.write("sleep_millisecs", next(LONG_SLEEPS_MS))
        return self._measured("run", 1)

    def next_pass(self) -> Pass:
        """Does one more pass."""
        return self._measured("sleep_millisecs", next(LONG_SLEEPS_MS))

    def usual_pass(self) -> Pass:
        """Returns the middle one of the next few passes."""
        return sorted((self.next_pass() for _ in range(PASSES)), key=lambda one: one.cpu_ns)[PASSES // 2]

    def _measured(self, knob: str, value: int) -> Pass:
        cpu, pages = self.cpu_ns(), self._pages()
        self.ksm.write(knob, value)
        self._passes += 1
        while self.ksm.number("full_scans") < self._passes or self._is_running():
            time.sleep(0.01)
        assert self.ksm.number("full_scans") == self._passes, "somebody else leads ksmd, too"
        return Pass(self.cpu_ns() - cpu, self._pages() - pages)

    def _is_running(self) -> bool:
        return self._door.read(f"proc/{self._pid}/stat").split()[2] == "R"

    def _pages(self) -> int:
        return self.ksm.number("pages_scanned") + self.ksm.number("pages_skipped")
