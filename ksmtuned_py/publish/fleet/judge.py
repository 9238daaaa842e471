"""Which hosts of a fleet are odd, and why, in a sentence each. Pure.

Theory of operation
===================
Some things are wrong on one host alone: its daemon does not answer, or its debt is more than it could find. A cause
hides what only follows from it.

Others are odd because most hosts are otherwise. A version, or a configuration, is odd where more than half of the hosts
have another. A figure is odd when it is far from the median, in units of the median distance from it (MAD), which not
even a third of the hosts can move. The limit is the usual one for that (Iglewicz and Hoaglin, 1993). Where more than
half of the hosts have the same figure that unit is 0, and the mean distance takes its place. A distance that nobody
would mind is not odd, however rare it is.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import NamedTuple

from ksmtuned_py.publish.fleet.hosts import FleetHost
from ksmtuned_py.units import human_bytes, human_percent

ODD_SCORE = 3.5
MAD_TO_SIGMA, MEAN_TO_SIGMA = 1.4826, 1.2533
"""What a MAD, or a mean distance, has to be multiplied by to be a standard deviation, if the figures were normal."""
HOSTS_LEAST = 5
"""Of fewer hosts a median says nothing."""
CPU_LEAST = 0.01
"""1 % of a core."""
SAVED_LEAST = 0.01
"""1 % of the host's memory."""
HUGE_PAGES_LEAST = 512
"""1 GiB, as for the alert."""
TICKS_LEAST = 3
"""As for the alert."""


class Oddity(NamedTuple):
    """One reason why a host is odd."""

    code: str
    """One of a few fixed words, for programs."""
    sentence: str


class Judged(NamedTuple):
    """A host, and what is odd about it."""

    host: FleetHost
    oddities: tuple[Oddity, ...]


@dataclass(frozen=True, slots=True)
class _Measure:
    """A figure that is compared with those of all other hosts."""

    code: str
    read: Callable[[FleetHost], float | None]
    least: float
    """A smaller distance from the median is not odd."""
    sign: int
    """1 when much of it is odd, -1 when little of it is."""
    sentence: Callable[[float, float], str]
    """What is said of a host's figure and the median."""


MEASURES = (
    _Measure(
        "scanner_cpu",
        lambda host: host.get("scanner_cpu_ratio"),
        CPU_LEAST,
        1,
        lambda own, usual: f"its scanner takes {human_percent(own)} of a core, the median is {human_percent(usual)}",
    ),
    _Measure(
        "huge_pages_lost",
        lambda host: host.get("huge_pages_lost"),
        HUGE_PAGES_LEAST,
        1,
        lambda own, usual: f"it lost {own:.0f} huge pages in the last hour, the median is {usual:.0f}",
    ),
    _Measure(
        "ticks_late",
        lambda host: host.get("ticks_late"),
        TICKS_LEAST,
        1,
        lambda own, usual: f"{own:.0f} ticks were late in the last hour, the median is {usual:.0f}",
    ),
    _Measure(
        "saves_little",
        lambda host: host.saved_share,
        SAVED_LEAST,
        -1,
        lambda own, usual: f"it saves {human_percent(own)} of its memory, the median is {human_percent(usual)}",
    ),
)


def judge(hosts: Sequence[FleetHost]) -> tuple[Judged, ...]:
    """Every host with what is odd about it: first those that do not answer, then odd ones, then by risk."""
    answering = [host for host in hosts if host.answers]
    version = _most_have(host.version for host in answering)
    of_version = [host for host in answering if host.version == version]
    config = _most_have(host.config_hash for host in of_version)
    mode = _most_have(host.mode for host in answering)
    usual = [(measure, _spread(answering, measure)) for measure in MEASURES]

    def oddities(host: FleetHost) -> Iterator[Oddity]:
        if not host.answers:
            yield Oddity("down", "its daemon does not answer Prometheus")
            return
        yield from _wrong(host)
        if version and host.version != version:
            yield Oddity("version", f"it runs {host.version or 'an unknown version'}, most run {version}")
        if mode and host.mode != mode:
            yield Oddity("mode", f"its mode is {host.mode or 'unknown'}, on most hosts it is {mode}")
        elif config and host.version == version and host.config_hash != config:
            yield Oddity("config", f"its configuration is {host.config_hash}, most have {config}")
        for measure, spread in usual:
            own = measure.read(host)
            if own is not None and spread is not None and spread.is_far(own, measure):
                yield Oddity(measure.code, measure.sentence(own, spread.median))

    judged = [Judged(host, tuple(oddities(host))) for host in hosts]
    return tuple(sorted(judged, key=_rank))


def _rank(judged: Judged) -> tuple[bool, bool, float, str]:
    host = judged.host
    return not judged.oddities, host.answers, -(host.risk or 0.0), host.name


def _wrong(host: FleetHost) -> Iterator[Oddity]:
    """What is wrong with a host, whatever others are like."""
    debt, could_find = host.get("debt_bytes"), host.get("could_find_bytes")
    if debt is not None and could_find is not None and debt > could_find:
        sentence = f"its debt is {human_bytes(debt)}, and it could find {human_bytes(could_find)}"
        yield Oddity("debt", sentence)
    if (profit := host.get("profit_bytes")) is not None and profit < 0:
        yield Oddity("profit", f"merging takes {human_bytes(-profit)} more than it saves")
    if writes := round(host.get("foreign_writes") or 0):
        yield Oddity("foreign_writer", f"somebody else wrote its knobs {writes} times in the last hour")
    if host.get("cow_storm"):
        yield Oddity("cow_storm", "its guests write to many merged pages")
    if knobs := host.get("knobs_not_restored"):
        yield Oddity("knobs_not_restored", f"{knobs:.0f} knobs are as an earlier daemon has left them")


def _most_have(values: Iterable[str]) -> str:
    """What more than half of them are; '' when there is nothing like it."""
    counts = Counter(values)
    value, count = counts.most_common(1)[0] if counts else ("", 0)
    return value if 2 * count > counts.total() else ""


class _Spread(NamedTuple):
    """How the figures of all hosts lie."""

    median: float
    deviation: float
    """A robust estimate of their standard deviation."""

    def is_far(self, own: float, measure: _Measure) -> bool:
        """Whether a figure is odd."""
        distance = (own - self.median) * measure.sign
        return distance >= measure.least and distance > ODD_SCORE * self.deviation


def _spread(hosts: Sequence[FleetHost], measure: _Measure) -> _Spread | None:
    figures = [figure for host in hosts if (figure := measure.read(host)) is not None]
    if len(figures) < HOSTS_LEAST:
        return None
    middle = median(figures)
    distances = [abs(figure - middle) for figure in figures]
    deviation = median(distances) * MAD_TO_SIGMA or fmean(distances) * MEAN_TO_SIGMA
    return _Spread(middle, deviation)
