"""Days of made-up hosts: guests with a rhythm of the day, bursts, wake-ups together, growth, and rare large events."""

from array import array
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ksmtuned_py.model import Clock, Counters, Guest, GuestKsm, Knobs, Memory, Snapshot
from ksmtuned_py.policy.demand import DemandRecord, Moment, key_of
from ksmtuned_py.units import GIB

STEP_SECONDS = 600.0
A_DAY = 144
NEW = 10
"""So many guests more are made up of each host, who are in no record."""
PAGE = 4096
Series = NDArray[np.float64]
"""Rows are moments, columns guests."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mix:
    """What guests do, in shares of what each has for itself at rest."""

    rhythm: float = 0.2
    """How much more by day than by night."""
    days_differ: float = 0.15
    together: float = 0.5
    """How often a day many wake up together."""
    together_size: float = 0.15
    alone: float = 1.0
    """How often a day each has a burst of its own."""
    alone_size: float = 0.15
    tail: float = 3.0
    """The lower, the more often an event is far larger than others (Pareto's alpha)."""
    hours: float = 1.5
    """How long an event lasts."""
    growth: float = 0.0
    """How much guests grow in a day, on average."""


MIXES = {
    "calm": Mix(rhythm=0.05, together=0.1, alone=0.3),
    "office": Mix(rhythm=0.5, days_differ=0.25),
    "bursts": Mix(alone=4.0, alone_size=0.3, tail=2.0),
    "together": Mix(together=2.0, together_size=0.25, alone=0.5),
    "growing": Mix(growth=0.02),
    "rare": Mix(together=0.15, together_size=0.5, tail=2.0, hours=3.0),
}


@dataclass(frozen=True, slots=True)
class HostDays:
    """A made-up host: what was recorded, and what came after."""

    record: DemandRecord
    now: Snapshot
    like: Guest
    worst: tuple[float, ...]
    """The worst demand of the day after, with no guest more, one more, and so on."""


def host_days(rng: np.random.Generator, mix: Mix, days: float) -> HostDays:
    """Makes a host up: some days that are recorded, and one more."""
    recorded = round(days * A_DAY)
    bases, sizes = _guests(rng)
    count = len(bases) - NEW
    own = _own(rng, mix, bases, sizes, recorded + A_DAY)
    others = 4 * GIB + GIB * 0.02 * np.cumsum(rng.normal(size=len(own))) / 12
    guests = tuple(_guest(place, own[recorded - 1, place], sizes[place]) for place in range(count))
    demand = others + own[:, :count].sum(axis=1)
    later = demand[recorded:]
    worst = [float(later.max())]
    for place in range(count, count + NEW):
        later = later + own[recorded:, place]
        worst.append(float(later.max()))
    return HostDays(
        record=_record(demand[:recorded], own[:recorded, :count], guests),
        now=_snapshot(recorded * STEP_SECONDS, demand[recorded - 1], guests),
        like=guests[count // 2],
        worst=tuple(worst),
    )


def _guests(rng: np.random.Generator) -> tuple[Series, Series]:
    """What each guest has for itself at rest, and its size; those to come are like the one in the middle."""
    count = int(rng.integers(6, 31))
    bases = np.sort(rng.lognormal(0, 0.5, count)) * GIB
    sizes = bases * rng.uniform(2, 4, count)
    order = np.argsort(sizes)
    bases, sizes = bases[order], sizes[order]
    middle = count // 2
    return np.append(bases, [bases[middle]] * NEW), np.append(sizes, [sizes[middle]] * NEW)


def _own(rng: np.random.Generator, mix: Mix, bases: Series, sizes: Series, steps: int) -> Series:
    """What each guest has for itself at each moment; nobody has more than its size."""
    count, days = len(bases), -(-steps // A_DAY) + 1
    hour = (np.arange(steps) + rng.integers(A_DAY)) / A_DAY
    day_factors = rng.lognormal(0, mix.days_differ, days)[hour.astype(int) % days]
    rhythm = np.clip(np.sin(2 * np.pi * hour), 0, None) * day_factors
    share = np.outer(rhythm * mix.rhythm, _each(rng, count, 0.5, 1.5))
    share += np.outer(_events(rng, mix, steps, mix.together, mix.together_size), _each(rng, count, 0.4, 1.2))
    share += np.stack([_events(rng, mix, steps, mix.alone, mix.alone_size) for _ in range(count)], axis=1)
    share += np.outer(np.arange(steps) / A_DAY, _each(rng, count, 0, 2) * mix.growth)
    share += rng.normal(0, 0.01, (steps, count))
    clipped: Series = np.clip(bases * (1 + share), 0, sizes)
    return clipped


def _each(rng: np.random.Generator, count: int, low: float, high: float) -> Series:
    """A number for each guest; those to come have that of the one that they are like."""
    found: Series = rng.uniform(low, high, count)
    found[count - NEW :] = found[(count - NEW) // 2]
    return found


def _events(rng: np.random.Generator, mix: Mix, steps: int, a_day: float, size: float) -> Series:
    """The sum of events at each moment: each begins at once and then fades away."""
    found = np.zeros(steps)
    fading = np.exp(-np.arange(A_DAY) / (mix.hours * A_DAY / 24))
    for begin in rng.integers(-A_DAY, steps, rng.poisson(a_day * (steps / A_DAY + 1))):
        height = size * (rng.pareto(mix.tail) + 0.3)
        first = max(0, begin)
        part = fading[first - begin : first - begin + steps - first]
        found[first : first + len(part)] += height * part
    return found


def _guest(number: int, own: float, size: float) -> Guest:
    merged = int((size - own) // PAGE)
    ksm = GuestKsm(merging_pages=merged, rmap_items=int(size // PAGE), mergeable=True)
    return Guest(pid=number + 1, start_ticks=1, name=f"guest-{number}", kind="qemu", rss_bytes=int(size), ksm=ksm)


def _snapshot(seconds: float, demand: float, guests: tuple[Guest, ...]) -> Snapshot:
    total = 1024 * GIB
    return Snapshot(
        clock=Clock(monotonic_seconds=seconds, unix_seconds=seconds),
        backend="model",
        page_bytes=PAGE,
        cpus=2,
        knobs=Knobs(),
        counters=Counters(),
        memory=Memory(total_bytes=total, available_bytes=total - int(demand)),
        guests=guests,
    )


def _record(demand: Series, own: Series, guests: tuple[Guest, ...]) -> DemandRecord:
    record, keys = DemandRecord(), tuple(key_of(guest) for guest in guests)
    rows: NDArray[np.uint64] = own.astype(np.uint64)
    for number, (taken, row) in enumerate(zip(demand.tolist(), rows, strict=True), 1):
        seconds = number * STEP_SECONDS
        record.add(Moment(seconds, {"": int(taken)}, keys, array("Q", row.tobytes()), taken / (1024 * GIB)))
    return record
