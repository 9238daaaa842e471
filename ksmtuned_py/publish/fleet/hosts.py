"""The hosts of a fleet: what Prometheus is asked of all of them at once, and the figures in its answers. Pure."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

from ksmtuned_py.door.text import printable

JOB = "(.+/)?ksmtuned-py"
"""The jobs that the alerts know, too. Any other job is known by the hosts of it that answer."""
JOBS_MOST = 20
LABEL_LENGTH = 100
"""Characters of a label that are shown. An exporter may say anything."""
MOST_FIGURE = 2.0**63
"""No host has as much of anything. Sums of more would be infinite."""
Figure = Literal[
    "saved_bytes",
    "debt_bytes",
    "could_find_bytes",
    "profit_bytes",
    "memory_bytes",
    "guests",
    "scanner_cpu_ratio",
    "huge_pages_lost",
    "ticks_late",
    "foreign_writes",
    "cow_storm",
    "knobs_not_restored",
]
LEVELS: Mapping[Figure, str] = {
    "saved_bytes": "ksmtuned_saved_bytes",
    "debt_bytes": "ksmtuned_debt_bytes",
    "could_find_bytes": "ksmtuned_debt_room_bytes",
    "profit_bytes": "ksmtuned_profit_bytes",
    "memory_bytes": "ksmtuned_memory_base_bytes",
    "guests": "ksmtuned_guests",
    "cow_storm": "ksmtuned_cow_storm",
    "knobs_not_restored": "ksmtuned_knobs_not_restored",
}
"""The figures of a host that are metrics as they are. One question is for all of them."""
SUMS: Mapping[Figure, str] = {
    "scanner_cpu_ratio": "rate(ksmtuned_scanner_cpu_seconds_total[1h])",
    "huge_pages_lost": "increase(ksmtuned_huge_pages_split_total[1h])",
    "ticks_late": "increase(ksmtuned_ticks_late_total[1h])",
    "foreign_writes": "sum without (knob) (increase(ksmtuned_foreign_writes_total[1h]))",
}
"""The figures that add up, over the last hour, with their expressions."""
FIGURES: tuple[Figure, ...] = get_args(Figure)
JOBS_QUERY = "count by (job) (ksmtuned_build_info)"


class Series(NamedTuple):
    """One series of an answer."""

    labels: Mapping[str, str]
    value: float


Answers = Mapping[str, Iterable[Series]]


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetHost:
    """One host, as Prometheus knows it. Its texts are printable."""

    name: str
    """Its label `instance`."""
    answers: bool = True
    """Its daemon answered the last scrape."""
    version: str = ""
    config_hash: str = ""
    mode: str = ""
    """Whether its daemon steers: "manage" or "observe"."""
    figures: Mapping[Figure, float]
    """Those that are known."""

    def get(self, figure: Figure) -> float | None:
        """One figure; None when it is not known."""
        return self.figures.get(figure)

    @property
    def risk(self) -> float | None:
        """The debt as a share of what the host could find for it; more than 1 is more than it could."""
        debt, could_find = self.get("debt_bytes"), self.get("could_find_bytes")
        if debt is None or could_find is None:
            return None
        return debt / max(could_find, 1.0)

    @property
    def saved_share(self) -> float | None:
        """The saved memory as a share of the host's; None also where no guest runs, and nothing can be saved."""
        saved, memory = self.get("saved_bytes"), self.get("memory_bytes")
        return saved / memory if saved is not None and memory and self.get("guests") else None


def queries(jobs: Iterable[str]) -> dict[str, str]:
    """The questions to Prometheus, over all hosts. `jobs` are those of hosts that answer."""
    known = "|".join([JOB, *map(re.escape, sorted(jobs)[:JOBS_MOST])])
    return {
        "up": f"max by (instance) (up{{job=~{json.dumps(known)}}})",
        "build": "max by (instance, version) (ksmtuned_build_info)",
        "config": "max by (instance, hash, mode) (ksmtuned_config_info)",
        "levels": f"max by (__name__, instance) ({{__name__=~{json.dumps('|'.join(LEVELS.values()))}}})",
        **{figure: f"max by (instance) ({expression})" for figure, expression in SUMS.items()},
    }


def jobs_in(answer: Iterable[Series]) -> list[str]:
    """The jobs in the answer to JOBS_QUERY."""
    return [job for series in answer if (job := series.labels.get("job"))]


def hosts_in(answers: Answers) -> tuple[FleetHost, ...]:
    """The hosts in the answers, by their names. A figure that is no number is not known."""
    up = {_instance(series): series.value > 0 for series in answers["up"]}
    builds = {_instance(series): series.labels for series in answers["build"]}
    configs = {_instance(series): series.labels for series in answers["config"]}
    figures: dict[str, dict[Figure, float]] = {}
    for figure, series in _figures_in(answers):
        if abs(series.value) < MOST_FIGURE:  # which what is no number is not
            figures.setdefault(_instance(series), {})[figure] = series.value
    return tuple(
        FleetHost(
            name=_shown(name) or "?",
            answers=up.get(name, name in builds),
            version=_shown(builds.get(name, {}).get("version", "")),
            config_hash=_shown(configs.get(name, {}).get("hash", "")),
            mode=_shown(configs.get(name, {}).get("mode", "")),
            figures=figures.get(name, {}),
        )
        for name in sorted({*up, *builds})
    )


def _figures_in(answers: Answers) -> Iterator[tuple[Figure, Series]]:
    """The figures in the answers, each with its host."""
    known = {metric: figure for figure, metric in LEVELS.items()}
    for series in answers["levels"]:
        if figure := known.get(series.labels.get("__name__", "")):
            yield figure, series
    for figure in SUMS:
        yield from ((figure, series) for series in answers[figure])


def _instance(series: Series) -> str:
    return series.labels.get("instance", "")


def _shown(text: str) -> str:
    """A label's text for a terminal: no scraped host can steer it, or fill it."""
    return printable(text[:LABEL_LENGTH])
