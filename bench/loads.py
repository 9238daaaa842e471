"""Loads: what guests do while a manager is at work."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import cycle
from typing import get_args

from bench.contents import Layout
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
RELIEF_SHARE = 1 / 3
"""The share of the load's time after which memory is plenty again."""
RELIEF_RATE = 4 * GIB
"""How fast it got short before, in bytes a second."""


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
    takes_memory: bool = False
    """Whether it needs memory that its guests do not use."""
    wants_work: bool = False
    """Whether it is of guests at work, and so of none with small pages."""


def usual(size: Size) -> Mix:
    """Returns a guest's memory: half equal, 15 % zero, 25 % unique, 10 % rewritten each second."""
    return mix(size, equal=50, zero=15, unique=25, changing=10)


def thin(size: Size) -> Mix:
    """Returns the memory of a guest with little to merge: a tenth equal, 5 % zero."""
    return mix(size, equal=10, zero=5, unique=75, changing=10)


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


def sparse_and_dense(stage: Stage) -> None:
    """Starts all guests; in every second one, from the first on, little merges and thinly spread, in others much."""
    mixes = {"sparse": thin(stage.size), "dense": usual(stage.size)}
    for _, layout in zip(range(stage.size.guests), cycle(get_args(Layout)[::-1]), strict=False):
        stage.start(mixes[layout], layout=layout)


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


def one_is_measured(stage: Stage, layout: Layout) -> None:
    """Starts all guests, of which the first measures all the time; much merges in dense ones, little in sparse ones."""
    mixes = [usual(stage.size) if layout == "dense" else thin(stage.size)] * stage.size.guests
    stage.start(*mixes, tasks=["probe"], layout=layout)


def busy(stage: Stage) -> None:
    """Starts all guests, so many of them busy that no core is idle."""
    stage.start(*[usual(stage.size)] * stage.size.guests, tasks=["busy"] * (os.cpu_count() or 1))


def fill(stage: Stage, gib_per_second: float) -> None:
    """Takes the host's memory but for the last GiB, and keeps it."""
    with stage.short(LAST_BYTES, gib_per_second * GIB):
        time.sleep(stage.seconds_left())


def relief(stage: Stage) -> None:
    """Takes the host's memory but for the last GiB, and gives it back after a third of the time."""
    with stage.short(LAST_BYTES, RELIEF_RATE):
        time.sleep(max(0.0, stage.seconds_left() - stage.size.seconds * (1 - RELIEF_SHARE)))


def real_guests(stage: Stage) -> None:
    """Boots guests under QEMU; of the files of each, half is equal in all."""
    stage.boot(*[mix(stage.size, equal=12, unique=12)] * stage.size.guests)


LOADS = {
    "storm": Load(everybody),
    "takeover": Load(nothing, before=everybody, quiet_seconds=0),
    "ramp": Load(one_by_one),
    "twin": Load(twin, before=grow_old, quiet_seconds=20, guests=2),
    "churn": Load(come_and_go),
    "rewrite": Load(rewrite),
    "idle": Load(idle),
    "pressure": Load(pressure, takes_memory=True),
    "density": Load(density, before=only_the_cap, takes_memory=True),
    "harm-dense": Load(nothing, partial(one_is_measured, layout="dense"), quiet_seconds=0, wants_work=True),
    "harm-sparse": Load(nothing, partial(one_is_measured, layout="sparse"), quiet_seconds=0, wants_work=True),
    "busy": Load(nothing, busy, quiet_seconds=0, wants_work=True),
    "fill-0.1": Load(partial(fill, gib_per_second=0.1), everybody, takes_memory=True),
    "fill-0.5": Load(partial(fill, gib_per_second=0.5), everybody, takes_memory=True),
    "fill-2": Load(partial(fill, gib_per_second=2), everybody, takes_memory=True),
    "qemu": Load(nothing, real_guests, quiet_seconds=0, wants_work=True),
    "relief": Load(relief, sparse_and_dense, quiet_seconds=0, takes_memory=True),
}


def takes_memory(load: str) -> bool:
    """Whether the load NAME or NAME@PERCENT needs memory that its guests do not use."""
    return LOADS[load.partition("@")[0]].takes_memory or "@" in load
