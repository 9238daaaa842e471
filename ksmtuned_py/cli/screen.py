"""Shows the demo: what is saved of what can be, the CPU for it, and the daemon's reasons."""

from dataclasses import replace
from typing import TYPE_CHECKING

from ksmtuned_py.cli.live.past import Past
from ksmtuned_py.cli.live.sight import Sight
from ksmtuned_py.cli.live.watching import host_name
from ksmtuned_py.cli.terminal import err, out
from ksmtuned_py.publish.statusfile import status_of
from ksmtuned_py.publish.totals import Totals
from ksmtuned_py.report import Report
from ksmtuned_py.units import GIB, human_bytes, human_percent, human_seconds

if TYPE_CHECKING:
    from ksmtuned_py.cli.live.livescreen import LiveScreen


class Screen:
    """Shows each report on the live screen where there is one, and else as one line."""

    def __init__(self, achievable_bytes: int, profile: str, live: "LiveScreen | None") -> None:
        self._profile = profile
        self._achievable_bytes = max(1, achievable_bytes)
        self._first: Report | None = None
        self._last: Report | None = None
        self._totals = Totals()
        self._past = Past()
        self._sight: Sight | None = None
        self._reached: dict[float, float] = {}
        self._live = live

    def publish(self, report: Report) -> None:
        """Show a completed tick."""
        self._first = self._first or report
        self._last = report
        share = self._share(report)
        for mark in (0.5, 0.9, 0.95):
            if share >= mark:
                self._reached.setdefault(mark, self._seconds(report))
        if self._live is not None:
            self._sight = self._seen(report)
            self._live.show(self._sight)
        else:
            out().print(f"{self._seconds(report):5.1f} s  {self._line(report)}  {report.decision.reason}")

    def failed_tick(self, error: Exception) -> None:
        """Tell of a tick that raised this error."""
        if self._live is not None and self._sight is not None:
            self._live.show(replace(self._sight, trouble=f"tick failed: {error}", headline_style="red"))
        else:
            err().print(f"tick failed: {error}")

    def summary(self) -> str:
        """The result of the demo, for its end."""
        if self._last is None:
            return "no tick was completed"
        reached = ", ".join(f"{human_percent(mark)} after {human_seconds(at)}" for mark, at in self._reached.items())
        result = f"{self._line(self._last)}; of what can be saved: {reached or 'less than 50 %'}"
        return "\n".join([result, *self._cost(self._last)])

    def _cost(self, report: Report) -> list[str]:
        """What it cost the processes, and who would have spared them, as lines."""
        split = report.trend.huge_cost.split
        if not split:
            return []
        price = f"for that {split} huge pages were split: the memory there is slower from then on"
        if self._profile != "eager":
            return [price]
        return [
            price,
            "the profile eager merges at all times; the default, balanced, leaves guests alone until memory is needed",
        ]

    def _seen(self, report: Report) -> Sight:
        self._totals = self._totals.after(report)
        self._past = self._past.after(report.snapshot)
        status = status_of(report, self._totals)
        return Sight(
            status=status,
            host=host_name(),
            headline=f"demo, {human_seconds(self._seconds(report))}: {status.line}",
            headline_style="green",
            past=self._past,
            more=(("demo", self._line(report), self._share(report)),),
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
