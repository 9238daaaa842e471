"""Leaving the host as it was found, and changing what can only be changed while nothing is merged."""

import time
from collections.abc import Callable
from dataclasses import replace

from ksmtuned_py.config import Kernel
from ksmtuned_py.configtypes import OnExit
from ksmtuned_py.errors import NoRoom, NotRestored
from ksmtuned_py.host import Host
from ksmtuned_py.model import KnobName, Knobs, Outcome, Write, WriteStatus
from ksmtuned_py.plan import STRUCTURAL, plan
from ksmtuned_py.policy.room import could_find_bytes
from ksmtuned_py.runtime import Runtime

SETTLE_SECONDS = 10.0
UNMERGE_SECONDS = 60.0
RETRY_SECONDS = 0.05
Say = Callable[[str], None]


def put_back(host: Host, runtime: Runtime, on_exit: OnExit, say: Say) -> None:
    """Do what on_exit wants with the saved knobs, and forget them; NotRestored names those that did not take."""
    originals = runtime.originals()
    if originals is None:
        return
    if on_exit != "keep":
        wanted = originals if on_exit == "restore" else replace(originals, run=0)
        if on_exit == "unmerge":
            _try(lambda: unmerge(host), say)
        restore(host, wanted, say)
    runtime.forget_originals()


def restore(host: Host, wanted: Knobs, say: Say) -> None:
    """Bring all knobs to these values, structural ones too where the host has the room."""
    structural = structural_writes(host.backend.knobs(), wanted)
    if structural:
        _try(lambda: restructure(host, structural), say)
    left = settle(host, wanted)
    if left:
        raise NotRestored(
            ", ".join(f"{result.write.knob}={result.write.new} ({result.detail})" for result in left.results)
        )


def structural_writes(now: Knobs, wanted: Knobs) -> tuple[Write, ...]:
    """The writes that need everything unmerged first."""
    pairs: list[tuple[KnobName, int | str | None, int | str | None]] = [
        (name, now.get(name), wanted.get(name)) for name in sorted(STRUCTURAL)
    ]
    return tuple(
        Write(knob=name, old=old, new=new)  # type: ignore[arg-type] # these two are whole numbers
        for name, old, new in pairs
        if old is not None and new is not None and old != new
    )


def wanted_of(kernel: Kernel) -> Knobs:
    """What the admin asked for in [kernel]; "keep" asks for nothing."""
    asked = {name: value for name, value in kernel.model_dump().items() if value != "keep"}
    return Knobs(**asked)


def restructure(host: Host, writes: tuple[Write, ...]) -> None:
    """Unmerge everything if need be, then make these writes; NoRoom when the host could not bear it."""
    if host.backend.counters().pages_shared:
        unmerge(host)
    else:
        settle(host, Knobs(run=0))
    for write in writes:
        _insist(host, write)


def unmerge(host: Host) -> None:
    """Give every merged page back (run=2), after a look whether the host has the room; NoRoom when it has not."""
    snapshot = host.observe()
    found = could_find_bytes(snapshot.memory)
    if snapshot.saved_bytes > found:
        raise NoRoom(snapshot.saved_bytes, found)
    settle(host, Knobs(run=2))
    deadline = time.monotonic() + UNMERGE_SECONDS
    while host.backend.counters().pages_shared and not host.dry:
        found = could_find_bytes(host.observe().memory)
        if not found or time.monotonic() > deadline:
            host.backend.close()  # ends the child: what was unmerged stays so, and run reads 0
            raise NoRoom(snapshot.saved_bytes, found)
        time.sleep(RETRY_SECONDS)


def settle(host: Host, wanted: Knobs, timeout_seconds: float = SETTLE_SECONDS) -> Outcome | None:
    """Plan and apply until nothing is left to write: None; or the last outcome when the time is over."""
    deadline = time.monotonic() + timeout_seconds
    while writes := plan(host.backend.knobs(), wanted):
        outcome = host.apply(writes)
        if host.dry:
            return None
        if time.monotonic() > deadline:
            return replace(outcome, results=tuple(r for r in outcome.results if r.status is not WriteStatus.OK))
        if outcome.results[-1].status is not WriteStatus.OK:
            time.sleep(RETRY_SECONDS)
    return None


def _insist(host: Host, write: Write) -> None:
    """A write that is EBUSY for as long as an exiting process still holds merged pages."""
    deadline = time.monotonic() + SETTLE_SECONDS
    while (outcome := host.apply((write,))).results[0].status is not WriteStatus.OK and not host.dry:
        if time.monotonic() > deadline:
            raise NotRestored(f"{write.knob}={write.new} ({outcome.results[0].detail})")
        time.sleep(RETRY_SECONDS)


def _try(act: Callable[[], None], say: Say) -> None:
    try:
        act()
    except (NoRoom, NotRestored) as error:
        say(str(error))
