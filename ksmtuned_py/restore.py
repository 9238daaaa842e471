"""Leaving the host as it was found, and changing what can only be changed while nothing is merged."""

import time
from collections.abc import Callable
from dataclasses import replace

from ksmtuned_py.config import Kernel
from ksmtuned_py.config.types import OnExit
from ksmtuned_py.errors import NoRoom, NotRestored, NotUnmerged
from ksmtuned_py.host import Host
from ksmtuned_py.model import KnobName, Knobs, Write, WriteResult, WriteStatus
from ksmtuned_py.plan import STRUCTURAL, plan
from ksmtuned_py.policy.room import could_find_bytes
from ksmtuned_py.runtime import Runtime
from ksmtuned_py.units import human_bytes

SETTLE_SECONDS = 10.0
UNMERGE_SECONDS = 60.0
RETRY_SECONDS = 0.05
RUN_STOP, RUN_UNMERGE = 0, 2
Say = Callable[[str], None]


def put_back(host: Host, runtime: Runtime, on_exit: OnExit, say: Say) -> None:
    """Do what on_exit wants with the saved knobs, and forget them; NotRestored names those that did not take."""
    originals = runtime.originals()
    if originals is None:
        return
    if on_exit == "unmerge":
        try:
            unmerge(host)
        except (NoRoom, NotUnmerged) as error:
            say(str(error))
    if on_exit != "keep":
        left = bring_to(host, originals if on_exit == "restore" else replace(originals, run=RUN_STOP))
        if left:
            raise NotRestored("; ".join(left))
    runtime.forget_originals()


def bring_to(host: Host, wanted: Knobs) -> list[str]:
    """Bring all knobs to these values, structural ones too where the host has the room; says what did not take."""
    structural = structural_writes(host.backend.knobs(), wanted)
    left = _restructure(host, structural) if structural else []
    return left + settle(host, wanted) + _confirm_run(host, wanted)


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


def unmerge(host: Host) -> None:
    """Give every merged page back (run=2); NoRoom before it begins, NotUnmerged when it was cut short."""
    snapshot = host.observe()
    found = could_find_bytes(snapshot.memory)
    if snapshot.saved_bytes > found:
        raise NoRoom(human_bytes(snapshot.saved_bytes), human_bytes(found))
    write = Write(knob="run", old=snapshot.knobs.run or RUN_STOP, new=RUN_UNMERGE)
    deadline = time.monotonic() + UNMERGE_SECONDS
    while (result := host.apply((write,)).results[0]).status is WriteStatus.PENDING:
        if not could_find_bytes(host.observe().memory) or time.monotonic() > deadline:
            host.backend.close()  # ends the child: what was unmerged stays so, and run reads 0
            raise NotUnmerged("the host's memory ran short, or time did")
        time.sleep(RETRY_SECONDS)
    if result.status in (WriteStatus.REFUSED, WriteStatus.LOST):
        raise NotUnmerged(result.detail)


def settle(host: Host, wanted: Knobs) -> list[str]:
    """Plan and write until nothing is left, or the time is over; says what is left, and why."""
    return _until_taken(host, lambda: plan(host.backend.knobs(), wanted))


def _restructure(host: Host, writes: tuple[Write, ...]) -> list[str]:
    """Unmerge everything if need be, then make these writes; says what was not taken, and why."""
    try:
        if host.backend.counters().pages_shared:
            unmerge(host)
        else:
            settle(host, Knobs(run=RUN_STOP))
    except (NoRoom, NotUnmerged) as error:
        return [f"{write.knob}={write.new} ({error})" for write in writes]
    wanted = Knobs(**{write.knob: write.new for write in writes})  # type: ignore[arg-type] # whole numbers
    return _until_taken(host, lambda: structural_writes(host.backend.knobs(), wanted))


def _confirm_run(host: Host, wanted: Knobs) -> list[str]:
    """Once more, though it reads right: an earlier write may still wait for ksmd's mutex, and would come after us."""
    if wanted.run is None:
        return []
    again = Write(knob="run", old=wanted.run, new=wanted.run)
    deadline = time.monotonic() + SETTLE_SECONDS
    while (result := _alone(host, again)).status is WriteStatus.PENDING:
        if time.monotonic() > deadline:
            return [_sentence(result)]
        time.sleep(RETRY_SECONDS)
    return []


def _until_taken(host: Host, left: Callable[[], tuple[Write, ...]]) -> list[str]:
    """Make the writes that are left, over and over for a while: an exiting process can hold merged pages (EBUSY)."""
    deadline = time.monotonic() + SETTLE_SECONDS
    while writes := left():
        results = [_alone(host, write) for write in writes]
        failed = [result for result in results if result.status is not WriteStatus.OK]
        if host.dry:
            return []
        if failed and time.monotonic() > deadline:
            return [_sentence(result) for result in failed]
        if failed:
            time.sleep(RETRY_SECONDS)
    return []


def _alone(host: Host, write: Write) -> WriteResult:
    """One write that does not keep those behind it from being tried, whatever becomes of it."""
    return host.apply((write,)).results[0]


def _sentence(result: WriteResult) -> str:
    return f"{result.write.knob}={result.write.new} ({result.detail})"
