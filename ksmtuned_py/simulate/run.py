"""Takes one policy through one scenario, in the model's time."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from math import inf

from ksmtuned_py.backends.model import ModelBackend
from ksmtuned_py.config import Config
from ksmtuned_py.host import Host
from ksmtuned_py.ksmdmodel.hugeranges import HUGE_PAGES
from ksmtuned_py.ksmdmodel.modelhost import ModelHost
from ksmtuned_py.model import Clock, Guest, Memory, Mode, Vmstat, Wake
from ksmtuned_py.policy.trend import Trend
from ksmtuned_py.simulate.scenario import Event, Guests, Scenario, events
from ksmtuned_py.tick import decide
from ksmtuned_py.units import GIB

MINUTES_OF_DAY = 1440


@dataclass(frozen=True, slots=True)
class SimulatedSample:
    """How things stood at one tick."""

    seconds: float
    saved_bytes: int
    """With what splits of huge pages freed."""
    achievable_bytes: int
    """What could be saved at best."""
    cpu_seconds: float
    """CPU time of ksmd so far."""
    passes: int
    mode: Mode
    available_bytes: int = 0
    huge_share: float | None = None
    """The share of the guests' memory that is in huge pages; None where it never was."""
    speed: float | None = None
    """The speed of the guests' memory, of that in huge pages alone."""


@dataclass(frozen=True, slots=True)
class SimulatedRun:
    """A policy's way through a scenario."""

    policy: str
    samples: tuple[SimulatedSample, ...]
    deciding_seconds: float
    """CPU time of this process spent on trend, decision and plan."""
    seconds: float
    """Wall time that the simulation took."""


@dataclass
class Stage:
    """The model with the scenario's guests, and its clock; to the host it is backend and senses."""

    scenario: Scenario
    now_seconds: float = 0.0
    guests_now: dict[str, tuple[Guest, Guests]] = field(default_factory=dict)
    achievable_bytes: int = 0

    def __post_init__(self) -> None:
        size = self.scenario.host
        self.model = ModelHost(
            total_bytes=round(size.total_gib * GIB), used_bytes=round(size.used_gib * GIB), cpus=size.cpus
        )
        self.backend = ModelBackend(self.model, lambda: self.now_seconds)
        self.cpus = size.cpus
        self.next_stall_seconds = size.stall_every_seconds or inf

    def clock(self) -> Clock:
        """Returns the simulated time; its day begins at midnight."""
        minute = int(self.now_seconds // 60) % MINUTES_OF_DAY
        return Clock(monotonic_seconds=self.now_seconds, unix_seconds=self.now_seconds, local_minute_of_day=minute)

    def play(self, happened: list[Event]) -> None:
        """Lets guests come and go, up to now."""
        for event in happened:
            if event.comes:
                kind = self.scenario.guests[event.kind]
                groups = kind.groups(event.number, self.model.page_bytes)
                guest = self.model.add_guest(event.name, groups, pages=kind.pages)
                self.guests_now[event.name] = (replace(guest, ksm=None), kind)
            else:
                self.model.remove_guest(event.name)
                del self.guests_now[event.name]
        if happened:
            self.achievable_bytes = self.model.mergeable_pages() * self.model.page_bytes

    def fill(self) -> None:
        """Lets others than guests take memory, up to now."""
        self.model.used_bytes = round(self.scenario.host.used_now_gib(self.now_seconds) * GIB)

    def huge(self) -> tuple[float | None, float | None]:
        """Returns the share of the guests' memory that is in huge pages, and how fast that makes it."""
        pages = [huge for huge in map(self.model.huge_pages, self.guests_now) if huge]
        count = sum(huge.count for huge in pages)
        if not count:
            return None, None
        share = sum(huge.whole for huge in pages) / count
        return share, sum(huge.speed * huge.count for huge in pages) / count

    def stalls(self) -> bool:
        """Returns whether some task stalls on memory now; if so, sets the next stall for later."""
        stalls = self.now_seconds >= self.next_stall_seconds
        if stalls:
            self.next_stall_seconds += self.scenario.host.stall_every_seconds
        return stalls

    def memory(self) -> Memory:
        """Returns the model's memory."""
        return self.backend.memory()

    def pressure(self) -> None:
        """Always None: nobody stalls in the model."""

    def cpu_pressure(self) -> None:
        """Always None: the model knows no other work."""

    def idle_seconds(self) -> None:
        """Always None: the model knows no other work."""

    def vmstat(self) -> Vmstat:
        """Returns the model's events."""
        return self.backend.vmstat()

    def guests(self, now_seconds: float) -> tuple[Guest, ...]:  # noqa: ARG002 - the clock is ours
        """Returns the guests as they came, without ksmd's accounts: at every tick those of 500 would take long."""
        return tuple(self._guest_now(guest, kind) for guest, kind in self.guests_now.values())

    def _guest_now(self, guest: Guest, kind: Guests) -> Guest:
        if kind.swing_percent:
            guest = replace(guest, rss_bytes=round(guest.rss_bytes * kind.resident_share(self.now_seconds)))
        if huge := self.model.huge_pages(guest.name):
            guest = replace(guest, huge_bytes=huge.whole * HUGE_PAGES * self.model.page_bytes)
        return guest

    def suspects(self) -> tuple[str, ...]:
        """Always empty: no other program runs in the model."""
        return ()

    def problems(self) -> tuple[str, ...]:
        """Always empty: the model can always be looked at."""
        return ()


def simulate(scenario: Scenario, config: Config, name: str) -> SimulatedRun:
    """Simulates the whole scenario under the configured policy; the daemon is told at once of guests that come."""
    config = _with_ticks(config, scenario)
    began = time.perf_counter()
    deciding, samples = [], []
    for sample, seconds in _ticks(scenario, config):
        samples.append(sample)
        deciding.append(seconds)
    return SimulatedRun(name, tuple(samples), sum(deciding), time.perf_counter() - began)


def _with_ticks(config: Config, scenario: Scenario) -> Config:
    ticks = {"tick_seconds": scenario.tick_seconds, "idle_tick_seconds": scenario.idle_tick_seconds}
    return config.model_copy(update={"daemon": config.daemon.model_copy(update=ticks)})


def _ticks(scenario: Scenario, config: Config) -> Iterator[tuple[SimulatedSample, float]]:
    """Yields the daemon's ticks, with the time that the policy took."""
    stage, trend = Stage(scenario), Trend.begin(config)
    host = Host(stage.backend, stage, stage.clock)
    coming = events(scenario)[::-1]
    while stage.now_seconds <= scenario.seconds:
        happened = []
        while coming and coming[-1].seconds <= stage.now_seconds:
            happened.append(coming.pop())
        host.backend.counters()  # the model catches up with the clock before its guests change
        stage.play(happened)
        stage.fill()
        woken_by = {Wake.GUEST} if any(event.comes for event in happened) else set()
        snapshot = host.observe(frozenset(woken_by | ({Wake.PRESSURE} if stage.stalls() else set())))
        began = time.process_time()
        trend, decision, writes = decide(snapshot, config, trend)
        seconds = time.process_time() - began
        host.apply(writes)
        share, speed = stage.huge()
        yield (
            SimulatedSample(
                seconds=stage.now_seconds,
                saved_bytes=snapshot.saved_bytes + stage.model.freed_pages() * stage.model.page_bytes,
                achievable_bytes=stage.achievable_bytes,
                cpu_seconds=snapshot.scanner_cpu_seconds or 0.0,
                passes=trend.passes.done,
                mode=decision.mode,
                available_bytes=snapshot.memory.available_bytes,
                huge_share=share,
                speed=speed,
            ),
            seconds,
        )
        next_tick = stage.now_seconds + decision.next_tick_seconds
        stage.now_seconds = min(next_tick, stage.next_stall_seconds, *(event.seconds for event in coming[-1:]))
