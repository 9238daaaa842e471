"""The kernel's own scan-time advisor, in its integer arithmetic (mm/ksm.c: scan_time_advisor, Linux 6.8 and later)."""

from dataclasses import dataclass

from ksmtuned_py.ksmdmodel.settings import Settings

CPU_MIN_PERCENT = 10
WEIGHT_PERCENT = 30
"""Weight of the newest change in its moving average."""


@dataclass
class ModelAdvisor:
    """What the advisor remembers between passes. A new mode makes it forget: ksmd's lifetime is then one pass."""

    began_ns: int = 0
    scan_seconds: int = 0
    change_percent: int = 0
    cpu_ns: int = 0

    def pages_to_scan(self, now_ns: int, cpu_ns: int, settings: Settings) -> int:
        """Returns the pages_to_scan that the advisor sets at the end of a pass."""
        seconds = max(1, (now_ns - self.began_ns) // 1_000_000_000)
        percent = max(1, (cpu_ns - self.cpu_ns) // 1_000_000 * 100 // (seconds * 1000))
        pages = settings.pages_to_scan * 100 // max(1, settings.advisor_target_scan_time * 100 // seconds)
        self.change_percent = self._change(seconds)
        self.scan_seconds, self.cpu_ns = seconds, cpu_ns
        pages = pages * self.change_percent // 100
        pages_per_percent = max(1, settings.pages_to_scan // percent)
        pages = min(pages, pages_per_percent * settings.advisor_max_cpu)
        pages = max(pages, pages_per_percent * CPU_MIN_PERCENT)
        return min(pages, settings.advisor_max_pages_to_scan)

    def _change(self, seconds: int) -> int:
        newest = max(1, seconds * 100 // (self.scan_seconds or seconds))
        return ((100 - WEIGHT_PERCENT) * self.change_percent + WEIGHT_PERCENT * newest) // 100
