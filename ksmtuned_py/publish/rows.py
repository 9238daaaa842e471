"""The row that describes one metric family: name, help, type, labels, and where its values come from."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from ksmtuned_py.model import Snapshot
from ksmtuned_py.publish.totals import Totals
from ksmtuned_py.report import Report

Sample = tuple[tuple[str, ...], float | None]
"""The label values and the value of one series; None gives no series."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What holds from one tick to the next: the configuration in force, and what the host was not given back."""

    config_hash: str = ""
    policy: str = ""
    profile: str = ""
    """The profile of the adaptive policy; '' with any other."""
    knobs_not_restored: int | None = None
    """The knobs that are still as a daemon before this one has left them, though nobody wants them so.

    None = what was saved of them cannot be read.
    """


@dataclass(frozen=True, slots=True)
class Told:
    """The basis of all metrics: one report, the sums up to it, and what holds meanwhile."""

    report: Report
    totals: Totals
    standing: Standing = Standing()

    @property
    def snapshot(self) -> Snapshot:
        """The report's snapshot."""
        return self.report.snapshot


@dataclass(frozen=True, slots=True)
class Row:
    """One metric family. Its name lacks the prefix `ksmtuned_` and, on counters, `_total`."""

    name: str
    help: str
    kind: Literal["gauge", "counter"]
    labels: tuple[str, ...]
    samples: Callable[[Told], Iterable[Sample]]


def gauge(name: str, help_text: str, value: Callable[[Told], float | None]) -> Row:
    """A gauge without labels."""
    return Row(name, help_text, "gauge", (), lambda told: [((), value(told))])


def counter(name: str, help_text: str, value: Callable[[Told], float | None]) -> Row:
    """A counter without labels."""
    return Row(name, help_text, "counter", (), lambda told: [((), value(told))])
