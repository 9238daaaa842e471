"""Draws the demo's picture: what is saved of what can be, the CPU for it, and the daemon's reasons."""

from types import TracebackType
from typing import Self

from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ksmtuned_py.cli.terminal import err, out
from ksmtuned_py.report import Report
from ksmtuned_py.units import GIB, human_bytes, human_percent, human_seconds

BARS = " ▁▂▃▄▅▆▇█"
CURVE_WIDTH = 60


class Screen:
    """Draws each report, in place on a terminal, and else as one line."""

    def __init__(self, achievable_bytes: int) -> None:
        self._achievable_bytes = max(1, achievable_bytes)
        self._first: Report | None = None
        self._last: Report | None = None
        self._curve: list[float] = []
        self._reached: dict[float, float] = {}
        self._live = Live(console=out(), auto_refresh=False) if out().is_terminal else None

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()

    def publish(self, report: Report) -> None:
        """Draw a completed tick."""
        self._first = self._first or report
        self._last = report
        share = self._share(report)
        self._curve.append(share)
        for mark in (0.5, 0.9, 0.95):
            if share >= mark:
                self._reached.setdefault(mark, self._seconds(report))
        if self._live:
            self._live.update(self._picture(report), refresh=True)
        else:
            out().print(f"{self._seconds(report):5.1f} s  {self._line(report)}  {report.decision.reason}")

    def failed_tick(self, error: Exception) -> None:
        """Tell of a tick that raised this error."""
        err().print(f"tick failed: {error}")

    def summary(self) -> str:
        """The result of the demo, for its end."""
        if self._last is None:
            return "no tick was completed"
        reached = ", ".join(f"{human_percent(mark)} after {human_seconds(at)}" for mark, at in self._reached.items())
        return f"{self._line(self._last)}; of what can be saved: {reached or 'less than 50 %'}"

    def _picture(self, report: Report) -> RenderableType:
        curve = "".join(BARS[round(min(max(share, 0), 1) * (len(BARS) - 1))] for share in self._curve[-CURVE_WIDTH:])
        return Group(
            Text(report.decision.reason, style="bold"),
            ProgressBar(total=1, completed=self._share(report), width=CURVE_WIDTH),
            Text(self._line(report), style="green"),
            Text(curve, style="cyan"),
            _guests(report),
        )

    def _line(self, report: Report) -> str:
        cpu = self._cpu_seconds(report)
        saved = report.snapshot.saved_bytes
        price = f", {cpu / (saved / GIB):.2g} CPU-s per GiB" if saved else ""
        share = report.trend.scanner.share
        now = f", {human_percent(share)} of a core now" if share is not None else ""
        best = f"{human_bytes(self._achievable_bytes)} saved ({human_percent(self._share(report))})"
        return f"{human_bytes(saved)} of {best}; ksmd {cpu:.2f} CPU-s{now}{price}"

    def _share(self, report: Report) -> float:
        return report.snapshot.saved_bytes / self._achievable_bytes

    def _seconds(self, report: Report) -> float:
        assert self._first is not None
        return report.snapshot.clock.monotonic_seconds - self._first.snapshot.clock.monotonic_seconds

    def _cpu_seconds(self, report: Report) -> float:
        assert self._first is not None
        return (report.snapshot.scanner_cpu_seconds or 0) - (self._first.snapshot.scanner_cpu_seconds or 0)


def _guests(report: Report) -> Table:
    table = Table("guest", "memory", "merged", "profit", box=None)
    for guest in report.snapshot.guests[:12]:
        ksm = guest.ksm
        merged = human_bytes(ksm.merging_pages * report.snapshot.page_bytes) if ksm else "?"
        table.add_row(guest.name, human_bytes(guest.rss_bytes), merged, human_bytes(ksm.profit_bytes) if ksm else "?")
    return table
