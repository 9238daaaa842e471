"""A model of a host whose memory is taken at a steady rate, by something that is no guest."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from ksmtuned_py.backends.model import ModelBackend
from ksmtuned_py.config import Config
from ksmtuned_py.host import Host
from ksmtuned_py.ksmdmodel.guestmemory import equal, unique
from ksmtuned_py.ksmdmodel.modelhost import ModelHost
from ksmtuned_py.model import Clock, Decision, Guest, Memory, Run, Snapshot, Vmstat, Write
from ksmtuned_py.policy.trend import Trend
from ksmtuned_py.tick import decide
from ksmtuned_py.units import GIB


@dataclass(frozen=True)
class Filled:
    """How things stood at one tick."""

    snapshot: Snapshot
    trend: Trend
    decision: Decision


class FillingHost:
    """64 GiB with 8 guests of 2 GiB, half of them equal, all in huge pages; it is backend's clock and senses."""

    cpus = 4

    def __init__(self, gib_per_second: float, from_seconds: float) -> None:
        self.now_seconds = 0.0
        self._rate, self._from_seconds = gib_per_second, from_seconds
        model = ModelHost()
        pages = 2 * GIB // model.page_bytes
        for number in range(8):
            model.add_guest(f"vm-{number}", (equal("system", pages // 2), unique(pages // 2)))
        self._backend = ModelBackend(model, lambda: self.now_seconds)
        self._backend.write(Write(knob="run", old=0, new=Run.STOP))
        self.host = Host(self._backend, self, self.clock)

    def clock(self) -> Clock:
        return Clock(monotonic_seconds=self.now_seconds, unix_seconds=self.now_seconds)

    def memory(self) -> Memory:
        """The model's memory, without what was taken so far."""
        seen = self._backend.memory()
        taken = round(max(0.0, self.now_seconds - self._from_seconds) * self._rate * GIB)
        return replace(seen, available_bytes=max(0, seen.available_bytes - taken), anon_huge_bytes=16 * GIB)

    def pressure(self) -> None:
        """Nobody stalls here."""

    def cpu_pressure(self) -> None:
        """There is no other work."""

    def idle_seconds(self) -> None:
        """There is no other work."""

    def vmstat(self) -> Vmstat:
        return self._backend.vmstat()

    def guests(self, now_seconds: float) -> tuple[Guest, ...]:
        return tuple(replace(guest, huge_bytes=guest.rss_bytes) for guest in self._backend.guests())

    def suspects(self) -> tuple[str, ...]:
        return ()

    def problems(self) -> tuple[str, ...]:
        return ()

    def ticks(self, config: Config) -> Iterator[Filled]:
        """The daemon's ticks."""
        trend = Trend.begin(config)
        while True:
            snapshot = self.host.observe()
            trend, decision, writes = decide(snapshot, config, trend)
            self.host.apply(writes)
            yield Filled(snapshot, trend, decision)
            self.now_seconds += decision.next_tick_seconds
