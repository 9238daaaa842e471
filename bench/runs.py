"""One run: a manager at work on a load, from a clean KSM to a clean KSM, and its figures."""

import tempfile
import time
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from bench import measures
from bench.harm import Harm, harm_of
from bench.loads import LOADS, Load
from bench.managers import manager
from bench.samples import Sample, Sampler
from bench.stage import Size, Stage
from ksmtuned_py.door import Door
from ksmtuned_py.guests.accounts import has_asked
from ksmtuned_py.guests.discovery import GuestFinder
from ksmtuned_py.sensors.memory import read_memory
from ksmtuned_py.units import MIB
from tests.support.ksmlock import RealKsm, knobs
from tests.support.process import wait_for

DEFAULTS = {
    "advisor_mode": "none",
    "advisor_target_scan_time": 200,
    "advisor_max_cpu": 70,
    "pages_to_scan": 100,
    "sleep_millisecs": 20,
    "smart_scan": 1,
    "use_zero_pages": 0,
}
"""The kernel's own (mm/ksm.c), so that every manager finds the same; those that a kernel lacks are left out.
advisor_mode is first: while the advisor is on, pages_to_scan cannot be written."""
STILL_BYTES = 8 * MIB
STILL_SECONDS = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """The figures of one run. Infinite means: not reached. None means: does not apply."""

    seconds_50: float
    seconds_90: float
    seconds_95: float
    cpu_50: float
    """ksmd's CPU-seconds to 50 % of what can be merged."""
    cpu_90: float
    cpu_95: float
    passes_95: float
    share_after_3_passes: float | None
    """Share of what can be merged that was saved three whole passes after all guests were there."""
    area: float | None
    saved_share: float | None
    """Share saved at the end."""
    steady_cpu: float
    """ksmd's share of a core in the last quarter."""
    ksmd_cpu_seconds: float
    guests_seconds: float
    """Time until all guests were there, their memory filled."""
    reaction_seconds: float | None
    """Time until the knobs first changed."""
    loss_passes: int
    """The most passes in a row at a net loss."""
    least_available_bytes: int
    own_cpu_seconds: float | None
    """CPU time of the manager since it started."""
    own_resident_bytes: int | None
    restored: bool | None
    """Whether all knobs were as before once it had stopped."""
    harm: Harm | None
    """What it was like for the guests; None where they have small pages."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """Which run, and what came of it."""

    load: str
    manager: str
    turn: int
    strangers: tuple[str, ...]
    """Guests of somebody else, whose memory merges as well."""
    figures: Figures
    samples: list[Sample]


@dataclass(frozen=True, slots=True)
class Footprint:
    """What the manager itself took."""

    cpu_seconds: float
    resident_bytes: int


def perform(ksm: RealKsm, load: str, who: str, turn: int, size: Size, tell: Callable[[Sample], None]) -> Run:
    """Performs the run. A load NAME@PERCENT leaves no more than that share of the host's memory available to it."""
    name, _, percent = load.partition("@")
    clean(ksm)
    strangers = guests_now()
    with tempfile.TemporaryDirectory(prefix="arena-") as scratch, Stage(ksm, size) as stage:
        if percent:
            stage.leave(size.all_bytes + round(read_memory(Door()).total_bytes * float(percent) / 100))
        LOADS[name].before(stage)
        set_defaults(ksm)
        before = knobs()
        with manager(who).at_work(ksm, Path(scratch)) as process:
            sampler = _play(LOADS[name], stage, tell)
            harm = harm_of(sampler.samples, stage.reports(), stage.short_seconds, stage.relief_seconds)
            footprint = _footprint(process) if process else None
        restored = knobs() == before if process else None
    clean(ksm)
    strangers |= guests_now()
    return Run(
        load=load,
        manager=who,
        turn=turn,
        strangers=tuple(sorted(strangers)),
        figures=_figures(sampler, LOADS[name].guests or size.guests, footprint, restored, harm),
        samples=sampler.samples,
    )


def _play(load: Load, stage: Stage, tell: Callable[[Sample], None]) -> Sampler:
    time.sleep(load.quiet_seconds)
    stage.begin()
    with Sampler(stage.size.seconds, stage, tell) as sampler:
        load.play(stage)
        time.sleep(stage.seconds_left())
    return sampler


def clean(ksm: RealKsm) -> None:
    """Unmerges all, sets the kernel's default knobs, and waits for the memory of what has ended."""
    ksm.unmerge()
    set_defaults(ksm)
    with suppress(AssertionError):  # somebody else on the machine keeps taking memory, and we do not wait for that
        wait_for(_memory_is_still, STILL_SECONDS, "end of changes")


def set_defaults(ksm: RealKsm) -> None:
    """Sets the kernel's default knobs; what is merged stays so."""
    ksm.write("run", 0)
    for name, value in DEFAULTS.items():
        if name in knobs():
            ksm.write(name, value)


def guests_now() -> set[str]:
    """Returns the names of all processes that may merge."""
    with closing(GuestFinder(Door())) as finder:
        return {guest.name for guest in finder.find(time.monotonic()) if has_asked(guest.ksm)}


def _memory_is_still() -> bool:
    before = read_memory(Door()).available_bytes
    time.sleep(0.25)
    return abs(read_memory(Door()).available_bytes - before) < STILL_BYTES


def _footprint(process: psutil.Process) -> Footprint:
    """Returns what the process took, and its children, those included that it has waited for."""
    family = [process, *process.children(recursive=True)]
    times = [member.cpu_times() for member in family]
    waited_for = times[0].children_user + times[0].children_system
    return Footprint(
        cpu_seconds=sum(time.user + time.system for time in times) + waited_for,
        resident_bytes=sum(member.memory_info().rss for member in family),
    )


def _figures(sampler: Sampler, guests: int, own: Footprint | None, restored: bool | None, harm: Harm | None) -> Figures:
    samples = sampler.samples
    half, most, nearly_all = (measures.reached(samples, share) for share in (0.5, 0.9, 0.95))
    return Figures(
        seconds_50=half.seconds,
        seconds_90=most.seconds,
        seconds_95=nearly_all.seconds,
        cpu_50=half.ksmd_cpu_seconds,
        cpu_90=most.ksmd_cpu_seconds,
        cpu_95=nearly_all.ksmd_cpu_seconds,
        passes_95=nearly_all.passes,
        share_after_3_passes=measures.share_after_passes(samples, guests, 3),
        area=measures.area(samples),
        saved_share=measures.saved_share(samples),
        steady_cpu=measures.steady_cpu_share(samples),
        ksmd_cpu_seconds=samples[-1].ksmd_cpu_seconds,
        guests_seconds=measures.all_guests_seconds(samples, guests),
        reaction_seconds=sampler.reaction_seconds,
        loss_passes=measures.passes_at_a_loss(samples, guests),
        least_available_bytes=min(sample.available_bytes for sample in samples),
        own_cpu_seconds=own.cpu_seconds if own else None,
        own_resident_bytes=own.resident_bytes if own else None,
        restored=restored,
        harm=harm,
    )
