"""How many more guests fit, and with what chance the host runs out within a day. Pure.

Theory of operation
===================
The question is whether the memory that is wanted within the next 24 hours exceeds what there is. What is wanted rises
when guests grow, when they write to merged pages, and when many do so at once.

- The record of the host is made one of the guests that are there now. Who left is left out. Who came later is taken to
  have done before, in proportion, what the others did.
- A new guest is one more like the model. What it does with all others it does at the same moments as they do. What it
  does alone is the model's record, moved by whole days, so that new guests are not busy in step.
- Each day of the record then has a worst moment, and how far that was above the mean of the day before is its rise. The
  rises tell with what chance the next one is more than what is left (extremes.py).
- A record of less than eight days is cut into parts of a day. The growth seen in it is taken to go on all day.
- With two or three days the same quarters of all days are compared (fewdays.py).
- A record of less than a day has not seen all hours. Its rises count as wider: twice, where half of them were seen.
- Where a new guest lands, nothing of it is shared yet. So there has to be room for all of it, after those before it.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from statistics import median

from ksmtuned_py.model import Guest, Snapshot
from ksmtuned_py.policy.demand import DemandRecord, demands, key_of, landing_bytes, limits, own_bytes
from ksmtuned_py.policy.extremes import Worst
from ksmtuned_py.policy.fewdays import QUARTERS, chance_by_quarters, few_days
from ksmtuned_py.units import MIB, human_seconds

DAY_SECONDS = 86_400.0
LEAST_SPAN = 1 / 4
"""The least that a record must cover without its gaps, in days.

By shorter ones nearly every host would run out (bench/capacity.py).
"""
PARTS = (1, 2, 4, 8, 24, 48, 144, 288)
"""Into so many parts a day may be cut."""
LEAST_RISES = 7
LEAST_COVER = 0.5
"""The share of a part's moments that must be there; the host may have been off."""
BEFORE_SHARE = 0.25
"""The share of a short record that a rise is measured against."""
LEAST_WIDTH_SHARE = 0.001
LEAST_WIDTH_BYTES = MIB
"""No record is so even that memory could not differ by so much tomorrow."""
OTHERS_LEAST = 2
"""With fewer others nobody can tell what a guest does with them and what alone."""
MOST_GUESTS = 1000
"""The search ends here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """How many more guests fit, and what that rests on."""

    guests: int
    """So many more fit."""
    risk: float
    """The chance that is allowed for, 0 to 1."""
    chance_now: float
    """The chance that the room is exceeded within a day, with no guest more."""
    chance: float
    """The same with so many more."""
    chance_one_more: float
    """The same with one more than that."""
    like: str
    """The name of the guest that is the model for the next."""
    own_bytes: int
    """What it has for itself."""
    landing_bytes: int
    """What it takes where it lands, before anything of it is shared."""
    lands: bool
    """Whether one more than that would land, so that only the risk forbids it."""
    cgroup: str
    """The slice that is full first; '' for the host."""
    room_bytes: int
    """What is left there now."""
    debt_bytes: int
    """What all guests would take on top if every merged page was written to."""
    record_seconds: float
    rises: int
    """The parts of the record that were compared."""
    part_seconds: float

    @property
    def is_short(self) -> bool:
        """Whether the record has not seen all hours of a day."""
        return self.record_seconds < DAY_SECONDS


def median_guest(now: Snapshot) -> Guest | None:
    """The guest of which as many are larger as smaller; None when there is none."""
    ordered = sorted(now.guests, key=lambda guest: (guest.rss_bytes, guest.key))
    return ordered[len(ordered) // 2] if ordered else None


def missing(record: DemandRecord, day_seconds: float = DAY_SECONDS) -> str | None:
    """What keeps anybody from an answer, as a sentence; None when nothing does."""
    recorded, least = record.seen_seconds, day_seconds * LEAST_SPAN
    if recorded < least:
        return f"the record has {human_seconds(recorded)}, and {human_seconds(least)} are the least"
    if len(record.moments) <= LEAST_RISES or len(_parts(record, day_seconds).spans) < LEAST_RISES:
        return "the record has too many gaps"
    return None


def outlook(record: DemandRecord, now: Snapshot, like: Guest, risk: float, day_seconds: float = DAY_SECONDS) -> Outlook:
    """How many more guests like this one fit, where nothing is missing, on the host and in the guest's slice."""
    places = ["", *([like.slice.cgroup] if like.slice else [])]
    found = [_at_place(record, now, like, risk, day_seconds, place) for place in places]
    return min(found, key=lambda one: (one.guests, -one.chance))


def _at_place(record: DemandRecord, now: Snapshot, like: Guest, risk: float, day_seconds: float, place: str) -> Outlook:
    demand = Demand(record, now, like, place, day_seconds)
    room = max(0, limits(now)[place] - demands(now)[place])
    own, landing = own_bytes(now)[key_of(like)], landing_bytes(like, now.page_bytes)
    lands = min(MOST_GUESTS, 1 + (room - landing) // max(1, own)) if landing <= room else 0
    fits = bisect_right(range(1, lands + 1), risk, key=demand.chance)
    return Outlook(
        guests=fits,
        risk=risk,
        chance_now=demand.chance(0),
        chance=demand.chance(fits),
        chance_one_more=demand.chance(fits + 1),
        like=like.name,
        own_bytes=own,
        landing_bytes=landing,
        lands=fits < lands,
        cgroup=place,
        room_bytes=room,
        debt_bytes=now.saved_bytes,
        record_seconds=record.span_seconds,
        rises=demand.rises,
        part_seconds=demand.part_seconds,
    )


@dataclass(frozen=True, slots=True)
class _Parts:
    """The parts into which a record is cut, as ranges of its moments."""

    in_a_day: int
    spans: tuple[tuple[int, int, int], ...]
    """Of each part where the time before it begins, where it begins itself, and where it ends."""
    before: int
    """Where the time before the next day begins."""


def _parts(record: DemandRecord, day_seconds: float) -> _Parts:
    """The longest parts of which there are enough, up to a day; the shortest when there are never enough."""
    times = [moment.seconds for moment in record.moments]
    end, span, apart = times[-1], record.span_seconds, record.apart_seconds
    back = min(day_seconds, span * BEFORE_SHARE)
    found = _Parts(1, (), 0)
    for in_a_day in PARTS:
        length = day_seconds / in_a_day
        least = LEAST_COVER * max(1.0, length / apart)
        spans = []
        for number in range(int((span - back) / length)):
            begin, until = end - (number + 1) * length, end - number * length
            places = [bisect_right(times, at) for at in (begin - back, begin, until)]
            if places[2] - places[1] >= least and places[1] > places[0]:
                spans.append((places[0], places[1], places[2]))
        found = _Parts(in_a_day, tuple(spans), bisect_right(times, end - back))
        if len(spans) >= LEAST_RISES or length < 2 * apart:
            break
    return found


class Demand:
    """What is wanted at one place at each moment of the record, with any number of further guests."""

    def __init__(self, record: DemandRecord, now: Snapshot, like: Guest, place: str, day_seconds: float) -> None:
        """Make the record one of the guests that are there now."""
        self.parts = _parts(record, day_seconds)
        self.limit_bytes = limits(now)[place]
        self._day_seconds = day_seconds
        self._span_seconds = record.span_seconds
        self._times = [moment.seconds for moment in record.moments]
        self._days = few_days(self._times, min(day_seconds, self._span_seconds * BEFORE_SHARE), day_seconds)
        there = {key_of(guest) for guest in now.guests if not place or (guest.slice and guest.slice.cgroup == place)}
        self._now, own, crowd = _as_now(record, place, there, key_of(like), own_bytes(now))
        days = int(self._span_seconds / day_seconds)
        crowd = crowd if len(there) > OTHERS_LEAST and days >= OTHERS_LEAST else []
        self._more = _NewGuests(own, crowd, day_seconds / record.step_seconds, days)

    @property
    def rises(self) -> int:
        """The parts of the record that are compared."""
        return len(self._days) * QUARTERS or len(self.parts.spans)

    @property
    def part_seconds(self) -> float:
        """How long each of them is."""
        return self._day_seconds / (QUARTERS if self._days else self.parts.in_a_day)

    def chance(self, more: int) -> float:
        """The chance that the place has not enough within a day, with so many guests more."""
        wanted = [now + new for now, new in zip(self._now, self._more.together(more), strict=True)]
        sums = [0.0, *accumulate(wanted)]
        level = (sums[-1] - sums[self.parts.before]) / (len(wanted) - self.parts.before)
        least = max(LEAST_WIDTH_BYTES, LEAST_WIDTH_SHARE * level)
        if self._days:
            return chance_by_quarters(self._days, wanted, self.limit_bytes - level, least)
        rises = [
            max(wanted[begin:end]) - (sums[begin] - sums[before]) / (begin - before)
            for before, begin, end in self.parts.spans
        ]
        left = self.limit_bytes - level - self._growth(wanted)
        return Worst(self._widened(rises), least).chance(left, self.parts.in_a_day)

    def _growth(self, wanted: Sequence[float]) -> float:
        """The growth from the end of a part to that of the day, if it goes on as all the time before."""
        seconds = self._day_seconds * (1 - 1 / self.parts.in_a_day)
        return max(0.0, _slope(self._times, wanted)) * seconds if seconds else 0.0

    def _widened(self, rises: Sequence[float]) -> Sequence[float]:
        """The rises, further from their middle where the record has not seen all hours of a day."""
        factor, middle = max(1.0, self._day_seconds / self._span_seconds), median(rises)
        return [middle + factor * (rise - middle) for rise in rises]


class _NewGuests:
    """What guests to come will have for themselves at each moment, by the model's record and that of the others."""

    def __init__(self, like: Sequence[float], crowd: Sequence[float], steps_a_day: float, days: int) -> None:
        """Tell apart what the model does with the crowd and what alone; without a crowd, all new ones do the same."""
        count = len(like)
        self._with_others: Sequence[float] = like
        self._alone: Sequence[float] = [0.0] * count
        self._steps, self._days = steps_a_day, max(1, days)
        if not crowd:
            return
        crowd = [value - sum(crowd) / count for value in crowd]
        square = sum(value * value for value in crowd)
        mean = sum(like) / count
        follows = sum(one * (other - mean) for one, other in zip(crowd, like, strict=True)) / square if square else 0.0
        rest = [one - mean - follows * other for one, other in zip(like, crowd, strict=True)]
        slope = _slope(range(count), rest)
        self._alone = [value - slope * (place - (count - 1) / 2) for place, value in enumerate(rest)]
        self._with_others = [one - alone for one, alone in zip(like, self._alone, strict=True)]

    def together(self, guests: int) -> Sequence[float]:
        """What so many of them have at each moment."""
        total = [guests * value for value in self._with_others]
        count = len(total)
        for day in range(min(guests, self._days)):
            times = (guests - day - 1) // self._days + 1
            shift = round((day + 1) % self._days * self._steps) % count
            moved = [*self._alone[shift:], *self._alone[:shift]]
            total = [one + times * other for one, other in zip(total, moved, strict=True)]
        return total


def _as_now(
    record: DemandRecord, place: str, there: set[str], like: str, last: dict[str, int]
) -> tuple[list[float], list[float], list[float]]:
    """What was wanted at each moment, had the guests been those of now; of that the model's part, and the others'.

    Guests are not kept one by one, because a record of many would be a large part of the daemon's memory.
    """
    levels, pattern = _levels(record, there, last)
    wanted, own, crowd = [], [], []
    for moment, busy in zip(record.moments, pattern, strict=True):
        have = moment.own_of()
        known = sum(value for key, value in have.items() if not place or key in there)
        others = max(0, moment.demand.get(place, 0) - known)
        guests = sum(have.get(key, levels[key] * busy) for key in there)
        own.append(have.get(like, levels[like] * busy))
        crowd.append(guests - own[-1])
        wanted.append(others + guests)
    return wanted, own, crowd


def _levels(record: DemandRecord, there: set[str], last: dict[str, int]) -> tuple[dict[str, float], list[float]]:
    """What each guest has at a usual moment, and how much more than that those who were always there have at each."""
    always = there.intersection(*(moment.guests for moment in record.moments))
    crowd = [sum(value for key, value in moment.own_of().items() if key in always) for moment in record.moments]
    mean = sum(crowd) / len(crowd)
    pattern = [value / mean for value in crowd] if mean else [1.0] * len(crowd)
    seen = dict.fromkeys(there, (0.0, 0.0))
    for moment, busy in zip(record.moments, pattern, strict=True):
        for key, value in moment.own_of().items():
            if key in seen:
                seen[key] = seen[key][0] + value, seen[key][1] + busy
    return {key: own / busy if busy else float(last[key]) for key, (own, busy) in seen.items()}, pattern


def _slope(times: Sequence[float], values: Sequence[float]) -> float:
    """The growth of the values in a unit of time, on average."""
    count = len(values)
    middle, mean = sum(times) / count, sum(values) / count
    square = sum((time - middle) ** 2 for time in times)
    return sum((time - middle) * (value - mean) for time, value in zip(times, values, strict=True)) / (square or 1)
