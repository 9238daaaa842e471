"""Draws saved memory and ksmd's CPU time over time, one line for each manager, with its name at its end."""

from collections.abc import Sequence
from math import inf
from pathlib import Path

import matplotlib

matplotlib.use("svg")  # no display wanted

from matplotlib import colormaps, pyplot
from matplotlib.axes import Axes

from bench.runs import Run
from bench.samples import Sample
from ksmtuned_py.units import GIB

Colour = tuple[float, float, float, float]
NAMES = {
    "nothing": "no merging",
    "ksmd-defaults": "ksmd's defaults",
    "ksmd-full-speed": "ksmd at full speed",
    "advisor": "the kernel's advisor",
    "advisor-20s": "the advisor, 20 s",
    "ours-adaptive-quiet": "ksmtuned-py, quiet",
    "ours-adaptive-balanced": "ksmtuned-py",
    "ours-adaptive-eager": "ksmtuned-py, eager",
}
LINE_SHARE = 0.07
"""The share of the picture's height that a line of text takes."""
POINTS = 300
"""Points of one line: more than a figure of this width can show would only make the file large."""


def draw(load: str, runs: Sequence[Run], path: Path) -> None:
    """Draws the runs of one load, every turn; the path's suffix says which kind of picture."""
    figure, (saved, cpu) = pyplot.subplots(2, 1, figsize=(9, 7), sharex=True, layout="constrained")
    managers = sorted({run.manager for run in runs})
    colours = dict(zip(managers, map(colormaps["tab10"], range(10)), strict=False))
    for run in runs:
        points = _thinned(run.samples)
        seconds = [sample.seconds for sample in points]
        saved.plot(seconds, [sample.saved_bytes / GIB for sample in points], color=colours[run.manager])
        cpu.plot(seconds, [sample.ksmd_cpu_seconds for sample in points], color=colours[run.manager])
    _possible(saved, runs[0].samples)
    saved.set(ylabel="saved, GiB", title=load)
    cpu.set(ylabel="ksmd, CPU-seconds", xlabel="seconds")
    for axes, heights in ((saved, _saved_at_end(runs)), (cpu, _cpu_at_end(runs))):
        _name_lines(axes, runs[0].samples[-1].seconds, heights, colours)
    figure.savefig(path)
    pyplot.close(figure)


def _saved_at_end(runs: Sequence[Run]) -> dict[str, float]:
    return {run.manager: run.samples[-1].saved_bytes / GIB for run in runs}


def _cpu_at_end(runs: Sequence[Run]) -> dict[str, float]:
    return {run.manager: run.samples[-1].ksmd_cpu_seconds for run in runs}


def _name_lines(axes: Axes, seconds: float, heights: dict[str, float], colours: dict[str, Colour]) -> None:
    """Writes each manager's name beside the end of its lines, one above the other where they end together."""
    axes.set_xlim(0, seconds)
    axes.spines[["top", "right"]].set_visible(False)
    low, high = axes.get_ylim()
    taken = -inf
    for manager in sorted(heights, key=lambda name: heights[name]):
        taken = max(heights[manager], taken + LINE_SHARE * (high - low))
        axes.text(seconds * 1.01, taken, NAMES.get(manager, manager), color=colours[manager], va="center")


def _possible(axes: Axes, samples: Sequence[Sample]) -> None:
    points = _thinned(samples)
    heights = [sample.possible_bytes / GIB for sample in points]
    axes.plot([sample.seconds for sample in points], heights, "k:")
    axes.text(points[0].seconds, max(heights), "  what could be saved", va="bottom", size="small")


def _thinned(samples: Sequence[Sample]) -> Sequence[Sample]:
    return samples[:: max(1, len(samples) // POINTS)]
