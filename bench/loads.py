"""Loads: what guests do while a manager is at work."""

from collections.abc import Callable
from dataclasses import dataclass

from bench.stage import Size, Stage
from ksmtuned_py.cli.workload import PAGE_BYTES, Mix
from ksmtuned_py.units import GIB

SEED = 20_260
"""A seed that no other workload uses, should there be one at the same time."""
LAST_BYTES = GIB
"""Memory that stays available to the host when it is short."""
TWIN_AGE_PASSES = 25
PRESSURE_SHARE = 1 / 3
"""The share of the load's time in which available memory falls."""


def nothing(_: Stage) -> None:
    """Does nothing."""


@dataclass(frozen=True, slots=True)
class Load:
    """What happens while the manager is at work, and what was there before; both may end early."""

    play: Callable[[Stage], None]
    before: Callable[[Stage], None] = nothing
    quiet_seconds: float = 2.0
    """Time between the manager's start and the play."""
    guests: int | None = None
    """How many guests there will be; None when the size decides that."""


def usual(size: Size) -> Mix:
    """Returns a guest's memory: half equal, 15 % zero, 25 % unique, 10 % rewritten each second."""
    return mix(size, equal=50, zero=15, unique=25, changing=10)


def mix(size: Size, *, equal: int = 0, zero: int = 0, unique: int = 0, changing: int = 0) -> Mix:
    """Returns a guest's memory, given in percent; what changes is rewritten once a second."""
    percent = size.guest_bytes // 100
    return Mix(
        seed=SEED,
        equal_bytes=equal * percent,
        zero_bytes=zero * percent,
        unique_bytes=unique * percent,
        changing_bytes=changing * percent,
        changes_per_second=changing * percent / PAGE_BYTES,
    )


def everybody(stage: Stage) -> None:
    """Starts all guests at once."""
    stage.start(*[usual(stage.size)] * stage.size.guests)


def one_by_one(stage: Stage) -> None:
    """Starts one guest after the other, over half of the time."""
    for _ in zip(range(stage.size.guests), stage.every(stage.size.seconds / 2 / stage.size.guests), strict=False):
        stage.start(usual(stage.size))


def grow_old(stage: Stage) -> None:
    """Starts a guest with nothing to merge, scanned until smart_scan skips most of it most of the time."""
    stage.start(mix(stage.size, equal=100))
    stage.age(TWIN_AGE_PASSES)


def twin(stage: Stage) -> None:
    """Starts a guest whose every page the old one has, too."""
    stage.start(mix(stage.size, equal=100))


def come_and_go(stage: Stage) -> None:
    """Starts all guests, and then replaces each in turn within the time."""
    everybody(stage)
    for _ in stage.every(stage.size.seconds / (stage.size.guests + 1)):
        stage.end_oldest()
        stage.start(usual(stage.size))


def rewrite(stage: Stage) -> None:
    """Has guests overwrite what they share, faster and faster, until at the end nothing is left to merge."""
    stage.start(*[mix(stage.size, equal=90, unique=10)] * stage.size.guests)
    steps = max(1, int(stage.seconds_left()) - 1)
    all_pages = stage.guests[0].mix.equal_bytes / PAGE_BYTES
    for number, _ in enumerate(stage.every(1), 1):
        stage.spoil(round(all_pages * number * 2 / (steps * (steps + 1))))


def idle(stage: Stage) -> None:
    """Starts guests with nothing to merge."""
    stage.start(*[mix(stage.size, unique=100)] * stage.size.guests)


def pressure(stage: Stage) -> None:
    """Starts all guests, while somebody else takes the host's memory."""
    stage.leave(stage.size.all_bytes + LAST_BYTES, stage.size.seconds * PRESSURE_SHARE)
    everybody(stage)


def only_the_cap(stage: Stage) -> None:
    """Leaves the host little more memory than density may use."""
    stage.leave(stage.size.cap_bytes + LAST_BYTES)


def density(stage: Stage) -> None:
    """Starts as many guests as fit under the cap, each when there is space for it."""
    dense = mix(stage.size, equal=55, zero=25, unique=18, changing=2)
    stage.goal = [dense] * stage.size.guests
    for _ in stage.every(0.05):
        if len(stage.guests) < stage.size.guests and stage.fits_one_more():
            stage.start(dense)


LOADS = {
    "storm": Load(everybody),
    "takeover": Load(nothing, before=everybody, quiet_seconds=0),
    "ramp": Load(one_by_one),
    "twin": Load(twin, before=grow_old, quiet_seconds=20, guests=2),
    "churn": Load(come_and_go),
    "rewrite": Load(rewrite),
    "idle": Load(idle),
    "pressure": Load(pressure),
    "density": Load(density, before=only_the_cap),
}


def takes_memory(load: str) -> bool:
    """Whether the load NAME or NAME@PERCENT needs memory that its guests do not use."""
    return load in ("pressure", "density") or "@" in load
