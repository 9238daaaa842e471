"""What merging could save as a picture: one bar for each guest."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ksmtuned_py.units import GIB, MIB, human_bytes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ksmtuned_py.backends.scan.estimate import Sample, Saveable

WIDTH_INCHES = 9.0
MOST_HEIGHT_INCHES = 100.0


def height_inches(guests: int) -> float:
    """Of a picture with so many bars."""
    return min(MOST_HEIGHT_INCHES, 2.0 + 0.4 * guests)


def bars(samples: Sequence["Sample"], each: Sequence["Saveable"], page_bytes: int) -> dict[str, list[int]]:
    """The parts of each guest's bar, in bytes, by what they are."""
    private = [(one.zero_pages + one.filled_pages) * page_bytes for one in samples]
    return {
        "zero": [one.zero_bytes for one in each],
        "shared within the guest": [one.self_bytes for one in each],
        "shared across guests": [one.cross_bytes for one in each],
        "its own": [max(0, size - one.saveable_bytes) for size, one in zip(private, each, strict=True)],
    }


def draw(
    figure: "Figure", samples: Sequence["Sample"], each: Sequence["Saveable"], found: "Saveable", page_bytes: int
) -> None:
    """Fills the picture; the black line on a bar is where what it could save ends with 95 % confidence."""
    parts = bars(samples, each, page_bytes)
    widest = max(map(sum, zip(*parts.values(), strict=True)), default=0)
    unit, length = ("GiB", GIB) if widest >= GIB else ("MiB", MIB)
    axes, places = figure.subplots(), range(len(samples))
    begin = [0.0] * len(samples)
    for (kind, sizes), color in zip(parts.items(), ("tab:green", "tab:blue", "tab:orange", "lightgray"), strict=True):
        widths = [size / length for size in sizes]
        axes.barh(places, widths, left=begin, color=color, label=kind)
        begin = [left + width for left, width in zip(begin, widths, strict=True)]
    ends = [one.saveable_bytes / length for one in each]
    below = [max(0.0, end - one.low / length) for end, one in zip(ends, each, strict=True)]
    above = [max(0.0, one.high / length - end) for end, one in zip(ends, each, strict=True)]
    axes.errorbar(ends, places, xerr=(below, above), fmt="none", color="black", capsize=3)
    axes.set_yticks(places, [one.name for one in samples])
    axes.invert_yaxis()
    axes.set(
        xlabel=f"private memory, {unit}",
        title=f"{human_bytes(found.saveable_bytes)} could be saved "
        f"({human_bytes(found.low)} to {human_bytes(found.high)} with 95 % confidence)",
    )
    figure.legend(loc="outside lower center", ncols=len(parts), fontsize="small")
