"""Writes what the runs came to as Markdown and as JSON: medians over the turns, with the least and the most."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from statistics import median

from bench.harm import Harm
from bench.runs import Figures, Run
from ksmtuned_py.units import MIB

NEVER, NOT_APPLICABLE = "never", "-"


@dataclass(frozen=True, slots=True)
class Column:
    """One figure of the table: its heading, where it comes from, and how many digits it wants."""

    title: str
    value: Callable[[Figures], float | None]
    digits: int = 1


def _times(factor: float, value: float | None) -> float | None:
    return None if value is None else value * factor


def _of_harm(value: Callable[[Harm], float | None]) -> Callable[[Figures], float | None]:
    return lambda figures: value(figures.harm) if figures.harm else None


def _wait(harm: Harm, name: str, place: int) -> float | None:
    return harm.waits[name][place] if name in harm.waits else None


MERGING = (
    Column("s to 50 %", lambda figures: figures.seconds_50),
    Column("90 %", lambda figures: figures.seconds_90),
    Column("95 %", lambda figures: figures.seconds_95),
    Column("passes to 95 %", lambda figures: figures.passes_95, 0),
    Column("% after 3 passes", lambda figures: _times(100, figures.share_after_3_passes)),
    Column("area %", lambda figures: _times(100, figures.area)),
    Column("saved at the end %", lambda figures: _times(100, figures.saved_share)),
    Column("s to all guests", lambda figures: figures.guests_seconds),
    Column("ms to first knob", lambda figures: _times(1000, figures.reaction_seconds), 0),
    Column("least available MiB", lambda figures: figures.least_available_bytes / MIB, 0),
)
COST = (
    Column("ksmd CPU-s to 50 %", lambda figures: figures.cpu_50, 2),
    Column("90 %", lambda figures: figures.cpu_90, 2),
    Column("95 %", lambda figures: figures.cpu_95, 2),
    Column("in all", lambda figures: figures.ksmd_cpu_seconds, 2),
    Column("steady % of a core", lambda figures: figures.steady_cpu * 100, 2),
    Column("passes at a loss", lambda figures: figures.loss_passes, 0),
    Column("own CPU-s", lambda figures: figures.own_cpu_seconds, 2),
    Column("own RSS MiB", lambda figures: _times(1 / MIB, figures.own_resident_bytes)),
    Column("knobs restored", lambda figures: figures.restored, 0),
)

GUESTS = (
    Column("huge pages kept %", _of_harm(lambda harm: harm.huge_share * 100)),
    Column("of the first guest %", _of_harm(lambda harm: harm.first_huge_share * 100)),
    Column("s till back", _of_harm(lambda harm: harm.back_seconds)),
    Column("split", _of_harm(lambda harm: harm.split_pages), 0),
    Column("split per GiB saved", _of_harm(lambda harm: harm.splits_per_gib), 0),
    Column("saved MiB", _of_harm(lambda harm: harm.saved_bytes / MIB), 0),
    Column("speed", _of_harm(lambda harm: harm.speed), 3),
    Column("reads M/s", _of_harm(lambda harm: harm.reads_per_second / 1e6), 2),
    Column("had % of a core", _of_harm(lambda harm: harm.cpu_share * 100)),
    Column("waited % of a core", _of_harm(lambda harm: harm.waited_share * 100)),
    Column("saved at need %", _of_harm(lambda harm: _times(100, harm.saved_at_need))),
)
WAITS = tuple(
    Column(f"{name.replace('_', ' ')} {quantile}, us", _of_harm(partial(_wait, name=name, place=place)), 1)
    for name in ("first_write", "read", "timer")
    for place, quantile in enumerate(("p50", "p99", "p99.9"))
)


def as_markdown(runs: Sequence[Run]) -> str:
    """Returns the tables of each load: how soon, at what cost, and what it was like for the guests."""
    return "\n".join(
        _of_load(load, [run for run in runs if run.load == load]) for load in dict.fromkeys(run.load for run in runs)
    )


def as_json(machine: Mapping[str, object], runs: Sequence[Run]) -> str:
    """Returns everything; what was never reached is null there, as is what does not apply."""
    return json.dumps(_finite({"machine": machine, "runs": [asdict(run) for run in runs]})) + "\n"


def middle(values: Sequence[float | None], digits: int) -> str:
    """Returns '12.3', or with several turns '12.3 (11.9 to 13.0)'; for truths, whether all are true."""
    known = [value for value in values if value is not None]
    if not known:
        return NOT_APPLICABLE
    if all(isinstance(value, bool) for value in known):
        return "yes" if all(known) else "no"
    whole = _number(median(known), digits)
    least, most = _number(min(known), digits), _number(max(known), digits)
    return whole if least == most else f"{whole} ({least} to {most})"


def _of_load(load: str, runs: Sequence[Run]) -> str:
    turns = max(run.turn for run in runs)
    heading = f"### {load} ({turns} turn{'s' if turns > 1 else ''})"
    shown = [MERGING, COST, *([GUESTS, WAITS] if any(run.figures.harm for run in runs) else [])]
    return "\n\n".join([heading, *(_table(runs, columns) for columns in shown), ""])


def _table(runs: Sequence[Run], columns: Sequence[Column]) -> str:
    rows = [["manager", *(column.title for column in columns)], ["---"] + ["---:"] * len(columns)]
    for manager in dict.fromkeys(run.manager for run in runs):
        figures = [run.figures for run in runs if run.manager == manager]
        rows.append([manager, *(middle([column.value(one) for one in figures], column.digits) for column in columns)])
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def _number(value: float, digits: int) -> str:
    return f"{value:.{digits}f}" if math.isfinite(value) else NEVER


def _finite(value: object) -> object:
    match value:
        case float() if not math.isfinite(value):
            return None
        case float():
            return round(value, 4)
        case dict():
            return {key: _finite(part) for key, part in value.items()}
        case list():
            return [_finite(part) for part in value]
        case _:
            return value
