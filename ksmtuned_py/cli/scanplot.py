"""Draws what merging could save, with one bar for each guest."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ksmtuned_py.units import GIB, MIB

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ksmtuned_py.scanner.estimate import Sample, Saveable

WIDTH_INCHES = 9.0
MOST_HEIGHT_INCHES = 100.0


def height_inches(guests: int) -> float:
    """The height of a picture with one bar for each of so many guests."""
    return min(MOST_HEIGHT_INCHES, 2.0 + 0.4 * guests)


def bars(samples: Sequence["Sample"], each: Sequence["Saveable"], page_bytes: int) -> dict[str, list[int]]:
    """The parts of each guest's bar in bytes, by their label."""
    private = [(one.zero_pages + one.filled_pages) * page_bytes for one in samples]
    return {
        "zero": [one.zero_bytes for one in each],
        "shared within the guest": [one.self_bytes for one in each],
        "shared across guests": [one.cross_bytes for one in each],
        "its own": [max(0, size - one.saveable_bytes) for size, one in zip(private, each, strict=True)],
    }


def margins(each: Sequence["Saveable"]) -> tuple[list[int], list[int]]:
    """The bytes by which each guest's true savings may be below and above the estimate; 0 above where unknown."""
    below = [max(0, one.saveable_bytes - one.low) for one in each]
    above = [0 if one.high is None else max(0, one.high - one.saveable_bytes) for one in each]
    return below, above


def draw(
    figure: "Figure", samples: Sequence["Sample"], each: Sequence["Saveable"], title: str, page_bytes: int
) -> None:
    """Fill the picture. The black line on a bar is the range of its savings with 95 % confidence.

    An arrow at its end says that the savings may be more, by an unknown amount.
    """
    parts = bars(samples, each, page_bytes)
    widest = max(map(sum, zip(*parts.values(), strict=True)), default=0)
    unit, length = ("GiB", GIB) if widest >= GIB else ("MiB", MIB)
    axes, places = figure.subplots(), range(len(samples))
    begin = [0.0] * len(samples)
    for (kind, sizes), color in zip(parts.items(), ("tab:green", "tab:blue", "tab:orange", "lightgray"), strict=True):
        lengths = [size / length for size in sizes]
        axes.barh(places, lengths, left=begin, color=color, label=kind)
        begin = [left + more for left, more in zip(begin, lengths, strict=True)]
    ends = [one.saveable_bytes / length for one in each]
    widths = [[size / length for size in sizes] for sizes in margins(each)]
    axes.errorbar(ends, places, xerr=widths, fmt="none", color="black", capsize=3)
    unknown = [place for place, one in zip(places, each, strict=True) if one.high is None]
    axes.plot([ends[place] for place in unknown], unknown, ">", color="black")
    axes.set_yticks(places, [one.name for one in samples])
    axes.invert_yaxis()
    axes.set(xlabel=f"private memory, {unit}", title=title)
    figure.legend(loc="outside lower center", ncols=len(parts), fontsize="small")
