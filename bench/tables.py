"""What the runs came to, as Markdown and as JSON: medians over the turns, with the least and the most beside them."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median

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


COLUMNS = (
    Column("s to 50 %", lambda figures: figures.seconds_50),
    Column("s to 90 %", lambda figures: figures.seconds_90),
    Column("s to 95 %", lambda figures: figures.seconds_95),
    Column("ksmd CPU-s to 50 %", lambda figures: figures.cpu_50, 2),
    Column("ksmd CPU-s to 90 %", lambda figures: figures.cpu_90, 2),
    Column("ksmd CPU-s to 95 %", lambda figures: figures.cpu_95, 2),
    Column("passes to 95 %", lambda figures: figures.passes_95, 0),
    Column("area %", lambda figures: _times(100, figures.area)),
    Column("saved at end %", lambda figures: _times(100, figures.saved_share)),
    Column("ksmd steady %", lambda figures: figures.steady_cpu * 100, 2),
    Column("ksmd CPU-s in all", lambda figures: figures.ksmd_cpu_seconds, 2),
    Column("all guests s", lambda figures: figures.guests_seconds),
    Column("first knob ms", lambda figures: _times(1000, figures.reaction_seconds), 0),
    Column("passes at a loss", lambda figures: figures.loss_passes, 0),
    Column("least available MiB", lambda figures: figures.least_available_bytes / MIB, 0),
    Column("own CPU-s", lambda figures: figures.own_cpu_seconds, 2),
    Column("own RSS MiB", lambda figures: _times(1 / MIB, figures.own_resident_bytes)),
)
RESTORED = {None: NOT_APPLICABLE, True: "yes", False: "no"}


def as_markdown(runs: Sequence[Run]) -> str:
    """One table for each load."""
    loads = list(dict.fromkeys(run.load for run in runs))
    return "\n".join(_table(load, [run for run in runs if run.load == load]) for load in loads)


def as_json(machine: Mapping[str, object], runs: Sequence[Run]) -> str:
    """Everything; what was never reached is null there, as is what does not apply."""
    return json.dumps(_finite({"machine": machine, "runs": [asdict(run) for run in runs]})) + "\n"


def middle(values: Sequence[float | None], digits: int) -> str:
    """'12.3', or with several turns '12.3 (11.9 to 13.0)'."""
    known = [value for value in values if value is not None]
    if not known:
        return NOT_APPLICABLE
    whole = _number(median(known), digits)
    least, most = _number(min(known), digits), _number(max(known), digits)
    return whole if least == most else f"{whole} ({least} to {most})"


def _table(load: str, runs: Sequence[Run]) -> str:
    titles = ["manager", *(column.title for column in COLUMNS), "knobs restored"]
    managers = dict.fromkeys(run.manager for run in sorted(runs, key=lambda run: run.turn))
    rows = [titles, ["---"] + ["---:"] * (len(titles) - 1)]
    rows += [_row(name, [run.figures for run in runs if run.manager == name]) for name in managers]
    turns = max(run.turn for run in runs)
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([f"### {load} ({turns} turn{'s' if turns > 1 else ''})", "", *lines, ""])


def _row(manager: str, figures: Sequence[Figures]) -> list[str]:
    cells = [middle([column.value(one) for one in figures], column.digits) for column in COLUMNS]
    restored = dict.fromkeys(RESTORED[one.restored] for one in figures)
    return [manager, *cells, "/".join(restored)]


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
