"""`python -m bench.validate ARENA.json`: the same load in the model, beside what the arena saw of the real ksmd."""

import argparse
import json
import math
import tomllib
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

from bench.managers import MANAGERS, Ours, Settings, manager
from ksmtuned_py.config import Config
from ksmtuned_py.simulate.figures import MARKS, Figures, figures
from ksmtuned_py.simulate.run import SimulatedSample, simulate
from ksmtuned_py.simulate.scenario import Guests, HostSize, Scenario
from ksmtuned_py.units import KIB, MIB

LOADS: dict[str, dict[str, Any]] = {
    "takeover": {"equal_percent": 50, "zero_percent": 15},
    "harm-dense": {"equal_percent": 50, "zero_percent": 15, "pages": "rows"},
    "harm-sparse": {"equal_percent": 10, "zero_percent": 5, "pages": "mixed"},
}
"""What the guests of each load have in their memory, all of whom are there from the first moment on."""
HOST_SHARE = 12
"""A host's memory over that of its guests."""
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


def scenario_of(arena: Recorded, load: str) -> Scenario:
    """Returns the load as a scenario."""
    size = arena["machine"]["arguments"]
    kind = Guests(
        name="arena",
        count=size["guests"],
        memory_gib=size["guest_mib"] / KIB,
        changing_percent=10,
        **LOADS[load],
    )
    return Scenario(
        title=load,
        seconds=size["seconds"],
        tick_seconds=TICK_SECONDS,
        idle_tick_seconds=TICK_SECONDS,
        host=HostSize(total_gib=size["guests"] * size["guest_mib"] / KIB * HOST_SHARE, cpus=2),
        guests=[kind],
    )


def compared(runs: Sequence[Recorded], model: Figures, last: SimulatedSample) -> Iterator[tuple[str, float, float]]:
    """Returns each figure: its name, the median of the real ones, and the model's."""
    reached = {mark.share: mark for mark in model.reached}
    for share in MARKS:
        of_ksmd = _median(runs, f"cpu_{share * 100:.0f}")
        yield f"CPU-s to {share:.0%}", of_ksmd, reached[share].cpu_seconds if share in reached else math.inf
    yield "CPU-s in all", _median(runs, "ksmd_cpu_seconds"), model.cpu_seconds
    yield "steady % of a core", 100 * _median(runs, "steady_cpu"), 100 * model.steady_cpu
    harms = [run["figures"].get("harm") for run in runs]
    if last.speed is not None and last.huge_share is not None and all(harms):
        yield "saved MiB", median(harm["saved_bytes"] for harm in harms) / MIB, last.saved_bytes / MIB
        yield "huge pages kept %", 100 * median(harm["huge_share"] for harm in harms), 100 * last.huge_share
        yield "speed", median(harm["speed"] for harm in harms), last.speed


def _median(runs: Sequence[Recorded], name: str) -> float:
    """Returns the median; what was never reached is null in the file."""
    return median(math.inf if run["figures"][name] is None else run["figures"][name] for run in runs)


def main() -> None:
    """Prints a Markdown table; needs no root, and touches nothing."""
    parser = argparse.ArgumentParser("python -m bench.validate", description=__doc__)
    parser.add_argument("arena", type=Path, metavar="ARENA.json", help=f"of a run with {', '.join(LOADS)}")
    arena = json.loads(parser.parse_args().arena.read_text())
    print("| load | manager | figure | ksmd | model | error |\n|---|---|---|---:|---:|---:|")
    for load, name in product(LOADS, MANAGERS):
        runs = [run for run in arena["runs"] if run["load"] == load and run["manager"] == name]
        config = config_of(name)
        if runs and config:
            scenario = scenario_of(arena, load)
            simulated = simulate(scenario, config, name)
            for row in compared(runs, figures(scenario, simulated), simulated.samples[-1]):
                print(_row(load, name, *row))


def _row(load: str, name: str, figure: str, real: float, model: float) -> str:
    error = f"{model / real - 1:+.0%}" if math.isfinite(real) and math.isfinite(model) and real else "-"
    numbers = ("never" if math.isinf(number) else f"{number:.2f}" for number in (real, model))
    return f"| {load} | {name} | {figure} | {' | '.join(numbers)} | {error} |"


if __name__ == "__main__":
    main()
