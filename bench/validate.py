"""`python -m bench.validate ARENA.json`: the same takeover in the model, beside what the arena saw of the real ksmd."""

import argparse
import json
import math
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from bench.managers import MANAGERS, Ours, Settings, manager
from ksmtuned_py.config import Config
from ksmtuned_py.simulate.figures import MARKS, Figures, figures
from ksmtuned_py.simulate.run import simulate
from ksmtuned_py.simulate.scenario import Guests, HostSize, Scenario
from ksmtuned_py.units import KIB

LOAD = "takeover"
TICK_SECONDS = 0.2
"""A tick is also a sample."""
Recorded = dict[str, Any]
"""A run as the arena wrote it."""


def config_of(name: str) -> Config | None:
    """Returns the configuration that steers as this manager does; None for those that the model does not have."""
    match manager(name):
        case Ours(toml=toml):
            return Config.model_validate(tomllib.loads(toml))
        case Settings(knobs=knobs) if "advisor_mode" not in knobs and "run" in knobs:
            return Config.model_validate({"policy": {"name": "fixed"}, "fixed": {"pages_to_scan": 100, **knobs}})
    return None


def scenario_of(arena: Recorded) -> Scenario:
    """Returns the load as a scenario, in which all guests are there from the first moment on."""
    size = arena["machine"]["arguments"]
    kind = Guests(
        name="arena",
        count=size["guests"],
        memory_gib=size["guest_mib"] / KIB,
        equal_percent=50,
        zero_percent=15,
        changing_percent=10,
    )
    return Scenario(
        title=LOAD,
        seconds=size["seconds"],
        tick_seconds=TICK_SECONDS,
        idle_tick_seconds=TICK_SECONDS,
        host=HostSize(total_gib=size["guests"] * size["guest_mib"] / KIB * 3, cpus=2),
        guests=[kind],
    )


def compared(runs: Sequence[Recorded], model: Figures) -> Iterator[tuple[str, float, float]]:
    """Returns each figure: its name, the median of the real ones, and the model's."""
    reached = {mark.share: mark for mark in model.reached}
    for share in MARKS:
        of_ksmd = _median(runs, f"cpu_{share * 100:.0f}")
        yield f"CPU-s to {share:.0%}", of_ksmd, reached[share].cpu_seconds if share in reached else math.inf
    yield "CPU-s in all", _median(runs, "ksmd_cpu_seconds"), model.cpu_seconds
    yield "steady % of a core", 100 * _median(runs, "steady_cpu"), 100 * model.steady_cpu


def _median(runs: Sequence[Recorded], name: str) -> float:
    """Returns the median; what was never reached is null in the file."""
    return median(math.inf if run["figures"][name] is None else run["figures"][name] for run in runs)


def main() -> None:
    """Prints a Markdown table; needs no root, and touches nothing."""
    parser = argparse.ArgumentParser("python -m bench.validate", description=__doc__)
    parser.add_argument("arena", type=Path, metavar="ARENA.json", help=f"of a run with the load {LOAD}")
    arena = json.loads(parser.parse_args().arena.read_text())
    print("| manager | figure | ksmd | model | error |\n|---|---|---:|---:|---:|")
    for name in MANAGERS:
        runs = [run for run in arena["runs"] if run["load"] == LOAD and run["manager"] == name]
        config = config_of(name)
        if runs and config:
            scenario = scenario_of(arena)
            for row in compared(runs, figures(scenario, simulate(scenario, config, name))):
                print(_row(name, *row))


def _row(name: str, figure: str, real: float, model: float) -> str:
    error = f"{model / real - 1:+.0%}" if math.isfinite(real) and math.isfinite(model) and real else "-"
    numbers = ("never" if math.isinf(number) else f"{number:.2f}" for number in (real, model))
    return f"| {name} | {figure} | {' | '.join(numbers)} | {error} |"


if __name__ == "__main__":
    main()
