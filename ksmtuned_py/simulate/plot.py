"""Runs as a picture: saved memory, and ksmd's CPU, over time."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ksmtuned_py.errors import KsmtunedError
from ksmtuned_py.simulate.run import Run
from ksmtuned_py.simulate.scenario import Scenario
from ksmtuned_py.units import GIB

HOUR_SECONDS = 3600
HOURS_FROM_SECONDS = 2 * HOUR_SECONDS
"""Longer scenarios are drawn in hours."""


@dataclass(eq=False)
class NoPlot(KsmtunedError):
    """The picture cannot be written."""

    path: str
    reason: str
    template = "{path}: no plot: {reason}"
    hint_template = "matplotlib draws it: pip install 'ksmtuned-py[bench]'; the curves in the terminal need nothing"


def draw(scenario: Scenario, runs: Sequence[Run], path: Path) -> None:
    """Writes the picture; its kind goes by the file's name (.svg, .png, .pdf). Raises NoPlot."""
    try:
        from matplotlib.figure import Figure  # not pyplot, which looks for a screen
    except ImportError as error:
        raise NoPlot(str(path), "matplotlib is not installed") from error
    unit, length = ("hours", HOUR_SECONDS) if scenario.seconds >= HOURS_FROM_SECONDS else ("seconds", 1)
    figure = Figure(figsize=(9, 7), layout="constrained")
    saved, cpu = figure.subplots(2, 1, sharex=True)
    for run in runs:
        times = [sample.seconds / length for sample in run.samples]
        saved.plot(times, [sample.saved_bytes / GIB for sample in run.samples], label=run.policy)
        cpu.plot(times, [sample.cpu_seconds for sample in run.samples], label=run.policy)
    best = runs[0].samples
    times = [sample.seconds / length for sample in best]
    saved.plot(times, [sample.achievable_bytes / GIB for sample in best], "k:", label="what can be saved")
    saved.set(title=scenario.title, ylabel="saved, GiB")
    cpu.set(xlabel=unit, ylabel="ksmd, CPU-seconds")
    saved.legend()
    try:
        figure.savefig(path)
    except (OSError, ValueError) as error:
        raise NoPlot(str(path), str(error)) from error
