"""Leaves the host as it was found, and changes the knobs that can change only while nothing is merged."""

from dataclasses import replace

from ksmtuned_py.config import Kernel
from ksmtuned_py.config.types import OnExit
from ksmtuned_py.door.runtime import Origin, Runtime
from ksmtuned_py.errors import KsmtunedError, NoRoom, NotRestored, NotUnmerged
from ksmtuned_py.model import ASIDE, KNOB_NAMES, Knobs, Run, Write
from ksmtuned_py.plan import STRUCTURAL
from ksmtuned_py.undo.giveback import Ways, give_back
from ksmtuned_py.undo.knobs import RETRIED_SECONDS, set_knobs, structural_writes, without
from ksmtuned_py.undo.originals import owed

QUICK_SECONDS = 5.0
OF_KSM = frozenset(KNOB_NAMES) - ASIDE


def put_back(ways: Ways, runtime: Runtime, origin: Origin, on_exit: OnExit, *, quickly: bool = False) -> Knobs | None:
    """Do what on_exit wants with the saved knobs, and forget them.

    Returns the knobs that were put back; None when nothing was owed.

    Memory is given back only with on_exit "unmerge", or where run=2 was found. With `quickly`, for the thread that
    answers a watchdog, not even then. So structural knobs stay as they are while pages are merged, which is told once.
    They stay owed, and a restart that wants the same again unmerges nothing.

    With "restore", a knob that somebody else wrote after us stays as it is: whoever took over is not switched off. One
    outside KSM's directory does so in any case, and is else put back in any case: nobody would follow need with it.

    Raises NotRestored, which names the knobs that did not take, or NotOurs for knobs of another origin.
    """
    found, sentence = owed(runtime, origin)
    if sentence:
        ways.say(sentence)
    if found is None:
        runtime.forget_originals()
        return None
    if on_exit == "keep":
        found = without(found, OF_KSM)
    if taken := ways.host.taken() if on_exit == "restore" else ways.host.taken() & ASIDE:
        ways.say(f"left as somebody else has set them: {', '.join(sorted(taken))}")
        found = without(found, taken)
    wanted = found if on_exit == "keep" else _with_run(ways, found, on_exit, quickly=quickly)
    structural = structural_writes(ways.host.backend.knobs(), found)
    stay = structural if structural and _anything_merged(ways) else ()
    if stay:
        wanted = without(wanted, STRUCTURAL)
    if left := set_knobs(ways.host, wanted, QUICK_SECONDS if quickly else RETRIED_SECONDS):
        raise NotRestored("; ".join(left))
    runtime.forget_originals()
    if stay:
        runtime.save_originals(origin, Knobs.of({write.knob: write.new for write in stay}))
        if wanted.items():
            ways.say(_stays(stay))
    return wanted


def take(ways: Ways, kernel: Kernel) -> list[str]:
    """Bring the knobs that [kernel] asks for in force, and return sentences on those that are not.

    Structural knobs change only where the host has the room to unmerge.
    """
    wanted = wanted_of(kernel)
    structural = structural_writes(ways.host.backend.knobs(), wanted)
    try:
        if structural and _anything_merged(ways):
            give_back(ways)
    except (NoRoom, NotUnmerged) as error:
        refused = [f"{write.knob}={write.new} ({error})" for write in structural]
        return refused + set_knobs(ways.host, without(wanted, STRUCTURAL))
    return set_knobs(ways.host, wanted)


def not_restored(now: Knobs, runtime: Runtime, origin: Origin, kernel: Kernel) -> int | None:
    """How many saved knobs are not as they were found; None when what was saved cannot be read.

    Those that [kernel] asks for are as somebody wants them, and do not count.
    """
    try:
        saved = runtime.originals()
    except KsmtunedError:
        return None
    if saved is None or saved.origin != origin:
        return 0
    wanted = wanted_of(kernel)
    return sum(value != now.get(name) and wanted.get(name) is None for name, value in saved.knobs.items())


def wanted_of(kernel: Kernel) -> Knobs:
    """The knobs that the admin asks for in [kernel]; "keep" asks for nothing, and the policy sets those aside."""
    asked = {name: value for name, value in kernel.model_dump().items() if value not in ("keep", "need")}
    return without(Knobs.of(asked), ASIDE)


def sets_structural(kernel: Kernel) -> bool:
    """Whether the admin asks for a structural knob, which can be put back only while nothing is merged."""
    wanted = wanted_of(kernel)
    return any(wanted.get(name) is not None for name in STRUCTURAL)


def _with_run(ways: Ways, found: Knobs, on_exit: OnExit, *, quickly: bool) -> Knobs:
    """The knobs to put back, after giving memory back if that is wanted. They have run=2 only when that succeeded."""
    run = found.run if on_exit == "restore" else Run.STOP
    if on_exit != "unmerge" and run != Run.UNMERGE:
        return replace(found, run=run)
    try:
        if quickly:
            raise NotUnmerged("it would take too long now; ksmtuned-py unmerge --all does it")
        give_back(ways)
    except KsmtunedError as error:  # whatever failed, the other knobs are put back
        ways.say(f"memory stays merged, and ksmd is stopped (run=0): {error}")
        run = Run.STOP
    return replace(found, run=run)


def _anything_merged(ways: Ways) -> bool:
    """Whether any page is merged, so that the kernel refuses structural knobs. Unknown counts as yes."""
    try:
        return bool(ways.host.backend.counters().pages_shared)
    except KsmtunedError:
        return True


def _stays(writes: tuple[Write, ...]) -> str:
    knobs = ", ".join(f"{write.knob}={write.old} ({write.new} was found)" for write in writes)
    return f"left as they are while pages are merged: {knobs}; ksmtuned-py unmerge --all puts them back, a reboot too"
