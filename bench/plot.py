"""Saved memory and ksmd's CPU time over time, one line for each manager."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("svg")  # no display wanted

from matplotlib import colormaps, pyplot
from matplotlib.axes import Axes

from bench.runs import Run
from bench.samples import Sample
from ksmtuned_py.units import GIB

POINTS = 300
"""Of one line: more than a figure of this width can show would only make the file large."""


def draw(load: str, runs: Sequence[Run], path: Path) -> None:
    """The runs of one load, every turn; the path's suffix says which kind of picture."""
    figure, (saved, cpu) = pyplot.subplots(2, 1, figsize=(10, 9), sharex=True, layout="constrained")
    managers = sorted({run.manager for run in runs})
    colours = dict(zip(managers, map(colormaps["tab20"], range(20)), strict=False))
    for run in runs:
        label = run.manager if run.turn == 1 else None
        points = _thinned(run.samples)
        seconds = [sample.seconds for sample in points]
        saved.plot(seconds, [sample.saved_bytes / GIB for sample in points], color=colours[run.manager], label=label)
        cpu.plot(seconds, [sample.ksmd_cpu_seconds for sample in points], color=colours[run.manager])
    _possible(saved, runs[0].samples)
    saved.set(ylabel="saved, GiB", title=load)
    cpu.set(ylabel="ksmd, CPU-seconds", xlabel="seconds")
    figure.legend(loc="outside right upper")
    figure.savefig(path)
    pyplot.close(figure)


def _possible(axes: Axes, samples: Sequence[Sample]) -> None:
    points = _thinned(samples)
    heights = [sample.possible_bytes / GIB for sample in points]
    axes.plot([sample.seconds for sample in points], heights, "k:", label="possible")


def _thinned(samples: Sequence[Sample]) -> Sequence[Sample]:
    return samples[:: max(1, len(samples) // POINTS)]
