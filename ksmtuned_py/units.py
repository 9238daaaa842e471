"""Units: the few conversions that the whole program shares, and the numbers as people read them."""

from math import isfinite

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB
LEAST_CHANCE = 0.0001
"""No record is long enough to tell a smaller chance from none."""

_STEPS = (("TiB", GIB * 1024), ("GiB", GIB), ("MiB", MIB), ("KiB", KIB))


def human_bytes(count: float) -> str:
    """A byte count for a person: '1.5 GiB', '-12 MiB', '0 B'."""
    for name, size in _STEPS:
        if abs(count) >= size:
            return f"{_short(count / size)} {name}"
    return f"{count:.0f} B"


def human_part(part: float, whole: float) -> str:
    """A part and the whole for a person, as '6 of 8 GiB'. A common unit is said once."""
    first, second = human_bytes(part), human_bytes(whole)
    number, _, unit = first.partition(" ")
    return f"{number} of {second}" if second.endswith(f" {unit}") else f"{first} of {second}"


def human_seconds(seconds: float) -> str:
    """A duration for a person: '240 ms', '12.5 s', '3 min 20 s', '2 h 5 min'."""
    if not isfinite(seconds):
        return f"{seconds} s"
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{_short(seconds)} s"
    minutes, left = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {left} s" if left else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"


def human_percent(fraction: float) -> str:
    """A fraction for a person: 0.0312 is '3.1 %'."""
    percent = fraction * 100
    return f"{percent:.2g} %" if abs(percent) < 1 else f"{percent:.3g} %"


def human_chance(chance: float) -> str:
    """A chance for a person: '0.4 %', and 'below 0.01 %' where nobody could tell more."""
    return f"below {human_percent(LEAST_CHANCE)}" if chance < LEAST_CHANCE else human_percent(chance)


def _short(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0") if abs(value) < 100 else f"{value:.0f}"
