"""Draws runs as a picture: saved memory, and ksmd's CPU, over time."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ksmtuned_py.errors import KsmtunedError
from ksmtuned_py.simulate.run import SimulatedRun
from ksmtuned_py.simulate.scenario import Scenario
from ksmtuned_py.units import GIB

if TYPE_CHECKING:
    from matplotlib.figure import Figure

HOUR_SECONDS = 3600
HOURS_FROM_SECONDS = 2 * HOUR_SECONDS
"""Longer scenarios are drawn in hours."""


@dataclass(eq=False)
class NoPlot(KsmtunedError):
    """Raised when the picture cannot be written."""

    path: str
    reason: str
    template = "{path}: no plot: {reason}"
    hint_template = "matplotlib draws it: pip install 'ksmtuned-py[bench]'; what the terminal shows needs nothing"


def new_figure(path: Path, width_inches: float, height_inches: float) -> "Figure":
    """Returns an empty picture that can be written to this path; raises NoPlot."""
    try:
        from matplotlib import rcParams
        from matplotlib.figure import Figure  # not pyplot, which looks for a screen
    except ImportError as error:
        raise NoPlot(str(path), "matplotlib is not installed") from error
    rcParams["text.parse_math"] = False  # a name with two dollar signs is no formula
    figure = Figure(figsize=(width_inches, height_inches), layout="constrained")
    kinds = figure.canvas.get_supported_filetypes()
    if path.suffix.lower().removeprefix(".") not in kinds:
        raise NoPlot(str(path), f"wanted a name that ends in .svg or .png, or in one of {', '.join(sorted(kinds))}")
    return figure


def write_figure(figure: "Figure", path: Path) -> None:
    """Writes a picture, of the kind that the file's name says; raises NoPlot."""
    try:
        figure.savefig(path)
    except (OSError, ValueError) as error:
        raise NoPlot(str(path), str(error)) from error


def draw(scenario: Scenario, runs: Sequence[SimulatedRun], path: Path) -> None:
    """Draws the runs into a file, of the kind that its name says (.svg, .png, .pdf); raises NoPlot."""
    figure = new_figure(path, 9, 7)
    unit, length = ("hours", HOUR_SECONDS) if scenario.seconds >= HOURS_FROM_SECONDS else ("seconds", 1)
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
    write_figure(figure, path)
