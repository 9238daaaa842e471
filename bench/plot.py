"""Draws what managers saved: over time beside ksmd's CPU time, and against what it cost the guests."""

from collections.abc import Sequence
from math import inf
from pathlib import Path
from statistics import median

import matplotlib

matplotlib.use("svg")  # no display wanted

from matplotlib import colormaps, pyplot
from matplotlib.axes import Axes

from bench.runs import Figures, Run
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
FIELD_MIDDLE_PERCENT = 50
NAME_HEIGHT = 0.03
"""In speeds, in a picture of cost."""
POINTS = 300
"""Points of one line: more than a figure of this width can show would only make the file large."""


def draw(load: str, runs: Sequence[Run], path: Path) -> None:
    """Draws the runs of one load, every turn; the path's suffix says which kind of picture."""
    figure, (saved, cpu) = pyplot.subplots(2, 1, figsize=(9, 7), sharex=True, layout="constrained")
    colours = _colours(runs)
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


def draw_cost(runs: Sequence[Run], path: Path) -> None:
    """Draws what each manager saved against the speed of the guests' memory, a field for each load that measured it."""
    measured = [run for run in runs if run.figures.harm and run.figures.harm.speed]
    loads = list(dict.fromkeys(run.load for run in measured))
    figure, fields = pyplot.subplots(
        1, len(loads), figsize=(5.5 * len(loads), 4.5), layout="constrained", squeeze=False
    )
    for axes, load in zip(fields[0], loads, strict=True):
        axes.axhline(1, color="0.8", linewidth=1, zorder=0)
        axes.set(title=_title(load), xlabel="saved, % of what could be", xlim=(-5, 140), ylim=(0.5, 1.15))
        axes.spines[["top", "right"]].set_visible(False)
        points = {
            manager: _point(
                axes, [run.figures for run in measured if (run.load, run.manager) == (load, manager)], colour
            )
            for manager, colour in _colours(measured).items()
            if any((run.load, run.manager) == (load, manager) for run in measured)
        }
        _name_points(axes, points, _colours(measured))
    fields[0][0].set_ylabel("speed of the guests' memory; 1 = whole huge pages")
    figure.savefig(path)
    pyplot.close(figure)


def _title(load: str) -> str:
    """Returns which guests there are, and how much of the host's memory is available."""
    name, _, percent = load.partition("@")
    return f"{name.removeprefix('harm-')} guests, " + (
        f"{percent} % of memory available" if percent else "memory plenty"
    )


def _colours(runs: Sequence[Run]) -> dict[str, Colour]:
    return dict(zip(sorted({run.manager for run in runs}), map(colormaps["tab10"], range(10)), strict=False))


def _point(axes: Axes, turns: Sequence[Figures], colour: Colour) -> tuple[float, float]:
    """Draws the middle of all turns, with lines to the least and the most; returns where it is."""
    speeds = [figures.harm.speed for figures in turns if figures.harm and figures.harm.speed]
    shares = [100 * (figures.saved_share or 0) for figures in turns]
    speed, share = median(speeds), median(shares)
    axes.plot(share, speed, "o", color=colour)
    axes.plot([share, share], [min(speeds), max(speeds)], color=colour)
    axes.plot([min(shares), max(shares)], [speed, speed], color=colour)
    return share, speed


def _name_points(axes: Axes, points: dict[str, tuple[float, float]], colours: dict[str, Colour]) -> None:
    """Writes each manager's name beside its point, one above the other where points lie together."""
    taken: dict[int, float] = {}
    for manager, (share, speed) in sorted(points.items(), key=lambda item: item[1][1]):
        column = int(share > FIELD_MIDDLE_PERCENT)
        taken[column] = max(speed, taken.get(column, -inf) + NAME_HEIGHT)
        axes.text(share + 3, taken[column], NAMES.get(manager, manager), color=colours[manager], va="center")


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
