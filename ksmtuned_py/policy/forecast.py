"""Forecast: when memory will be short, if it goes on as in the last minutes. Pure.

Theory of operation
===================
What is left until memory is short is written down at each look. How fast it falls is seen from each earlier look to
now, and the fastest fall counts. Some rules keep it from crying wolf:

- A fall predicts as far ahead as AHEAD times back. A guest that takes 8 GiB in two seconds says nothing of an hour.
- Only what falls below the lowest of the minute before is a fall. So memory that swings is none.
- Merging makes memory available, and must not hide a fall. So what would be left without it is written down, too.
- One guest's growth has an end. The fall goes on at most as fast as without it, once that guest has all it may take.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import inf
from typing import NamedTuple

from ksmtuned_py.policy.grower import Grower

NEAR_SECONDS = 2.0
"""A look back that is shorter sees one allocation."""
AHEAD = 5.0
"""Times as far ahead as back."""
SWING_SECONDS = 60.0
"""What swings within so short a time is no fall, at first."""
APART_SECONDS = 1.0
FAR_APART_SECONDS = 15.0
"""Between two looks that are kept, and between those of longer ago."""
KEPT_SECONDS = 600.0
"""As far as a fall is looked back for: it predicts 50 minutes, in which one core makes four passes over 3 TiB."""


class Margin(NamedTuple):
    """What is left until memory is short, in bytes; less than 0 once it is."""

    seconds: float
    """When it was so (monotonic)."""
    bytes: int
    unmerged_bytes: int
    """Margin if nothing were merged."""


class Level(NamedTuple):
    """What was left at one look, and the least of the minute before."""

    left: Margin
    least_bytes: int
    least_unmerged_bytes: int
    is_whole: bool
    """There was a minute before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """What was left at the last looks, and what comes of it."""

    kept: tuple[Level, ...] = ()
    """The oldest first."""
    left_bytes: int = 0
    """Until it is, now."""
    short_in_seconds: float = inf
    """0 when it is, and infinite when it is not to be seen."""
    at_worst_seconds: float = inf
    """The same if each fall went on for ever, so worth another look."""

    @property
    def is_young(self) -> bool:
        """Whether too little was seen to tell how fast memory falls."""
        return not self.kept or self.kept[-1].left.seconds - self.kept[0].left.seconds < NEAR_SECONDS

    def after(
        self,
        now: Margin,
        grower: Grower = Grower(),  # noqa: B008 - frozen
        swing_seconds: float = SWING_SECONDS,
    ) -> "Forecast":
        """The forecast after one more look. What swings within `swing_seconds` is no fall.

        Looks with a later time are of another clock, and are forgotten.
        """
        past = tuple(level for level in self.kept if level.left.seconds <= now.seconds)
        kept = past
        if not past or now.seconds - past[-1].left.seconds >= APART_SECONDS:
            kept = (*_thinned(past, now), _level(past, now, swing_seconds))
        falls = list(_falls(past, now))
        without_grower = [(back, fall - grower.grown_bytes) for back, fall in falls]
        return Forecast(
            kept=kept,
            left_bytes=now.bytes,
            short_in_seconds=max(
                _short_in_seconds(now.bytes, falls), _short_in_seconds(now.bytes - grower.more_bytes, without_grower)
            ),
            at_worst_seconds=_short_in_seconds(now.bytes, falls, ahead=inf),
        )

    def falls_by_bytes(self, seconds: float) -> float:
        """What memory falls by in so long a time, by the fall that is foreseen."""
        return self.left_bytes / self.short_in_seconds * seconds if self.short_in_seconds else 0.0


def _level(past: tuple[Level, ...], now: Margin, swing_seconds: float) -> Level:
    near = [now, *(level.left for level in past if now.seconds - level.left.seconds <= swing_seconds)]
    is_whole = bool(past) and now.seconds - past[0].left.seconds >= SWING_SECONDS
    return Level(now, min(left.bytes for left in near), min(left.unmerged_bytes for left in near), is_whole)


def _short_in_seconds(left_bytes: int, falls: Iterable[tuple[float, int]], ahead: float = AHEAD) -> float:
    """The soonest end of what is left, by any of the falls that predicts as far ahead."""
    if left_bytes <= 0:
        return 0.0
    times = ((left_bytes * back / fall, back) for back, fall in falls if fall > 0)
    return min((seconds for seconds, back in times if seconds <= back * ahead), default=inf)


def _falls(past: tuple[Level, ...], now: Margin) -> Iterator[tuple[float, int]]:
    """The time since each earlier look, and the bytes by which memory has fallen since then."""
    for level in past:
        back = now.seconds - level.left.seconds
        if back >= NEAR_SECONDS and (level.is_whole or back <= SWING_SECONDS):
            yield back, max(level.least_bytes - now.bytes, level.least_unmerged_bytes - now.unmerged_bytes)


def _thinned(past: tuple[Level, ...], now: Margin) -> Iterator[Level]:
    """What is kept of the past: the last minute, before it a look now and then, and always the last."""
    before = -inf
    for level in past:
        seconds = level.left.seconds
        back = now.seconds - seconds
        old = back > SWING_SECONDS
        if level is not past[-1] and (back > KEPT_SECONDS or (old and seconds - before < FAR_APART_SECONDS)):
            continue
        before = seconds
        yield level
