"""`ksmtuned-py pause` and `ksmtuned-py resume`: stop scanning for a while, for work that must not be disturbed."""

import re
from argparse import ArgumentTypeError, Namespace
from typing import TYPE_CHECKING

from ksmtuned_py.cli.options import add_runtime_dir, add_verb, runtime_of
from ksmtuned_py.cli.tell import pause_sentence
from ksmtuned_py.cli.terminal import out

if TYPE_CHECKING:
    from ksmtuned_py.cli.options import Subparsers
    from ksmtuned_py.door.runtime import Runtime
    from ksmtuned_py.model import Clock, Pause
    from ksmtuned_py.publish.statusfile import Status

DURATION = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?")
UNIT_SECONDS = (86_400, 3600, 60, 1)
LONGEST_SECONDS = 7 * 86_400
"""The longest pause. Whoever needs no merging for longer can configure that."""
REASON_MAX = 200
HEEDED_SECONDS = 10.0
"""The time a daemon has until it heeds a pause, for which it is woken."""


def add(subparsers: "Subparsers") -> None:
    """Adds both verbs."""
    parser = add_verb(
        subparsers,
        "pause",
        pause,
        "stop scanning for a while: for a live migration, a backup, a real-time window",
        "What is merged stays merged. It ends by itself, survives a restart of the daemon, and not a reboot. "
        "Another pause takes the place of the one before.",
    )
    parser.add_argument(
        "--for",
        dest="seconds",
        type=_seconds,
        required=True,
        metavar="TIME",
        help="how long: 90s, 30m, 1h, 1h30m, 2d; a week at most",
    )
    parser.add_argument(
        "--reason", type=_reason, default="no reason given", metavar="TEXT", help="what for; status shows it"
    )
    add_runtime_dir(parser)
    parser = add_verb(subparsers, "resume", resume, "end a pause now")
    add_runtime_dir(parser)


def pause(args: Namespace) -> int:
    """Asks for a pause, and waits until the daemon heeds it; raises NoRuntimeDirectory without the right to."""
    from ksmtuned_py.door import Door
    from ksmtuned_py.door.boot import boot_id
    from ksmtuned_py.model import Pause

    now = _now()
    asked = Pause(
        until_unix_seconds=now.unix_seconds + args.seconds,
        until_monotonic_seconds=now.monotonic_seconds + args.seconds,
        boot_id=boot_id(Door()),
        reason=args.reason,
    )
    runtime = runtime_of(args)
    runtime.act_as_owner()
    runtime.save_pause(asked)
    out().print(f"paused {pause_sentence(asked)}")
    _tell_whether_heeded(args, asked)
    return 0


def resume(args: Namespace) -> int:
    """Ends the pause, and waits until the daemon heeds that."""
    runtime = runtime_of(args)
    runtime.act_as_owner()
    if _asked(runtime) is None:
        out().print("nobody asked for a pause")
        return 0
    runtime.forget_pause()
    out().print("the pause is over")
    _tell_whether_heeded(args, None)
    return 0


def _asked(runtime: "Runtime") -> "Pause | None":
    """The pause that is in force. A file that holds none is cleared away: who resumes wants no problem to stay."""
    from ksmtuned_py.cli.terminal import err
    from ksmtuned_py.errors import Garbage

    try:
        return runtime.pause(_now())
    except Garbage as error:
        err().print(f"{error}; it is removed", style="yellow")
        runtime.forget_pause()
        return None


def _now() -> "Clock":
    import time

    from ksmtuned_py.model import Clock

    return Clock(monotonic_seconds=time.monotonic(), unix_seconds=time.time())


def _tell_whether_heeded(args: Namespace, wanted: "Pause | None") -> None:
    import time

    from ksmtuned_py.cli.seen import daemons_word

    deadline, woken = time.monotonic() + HEEDED_SECONDS, False
    while (found := daemons_word(args)) is not None:
        if found.snapshot.pause == wanted:
            out().print(f"the daemon heeds it: {found.decision.reason}")
            return
        if time.monotonic() > deadline:
            out().print(f"the daemon does not heed it yet; ksmtuned-py status tells: {found.line}", style="yellow")
            return
        woken = woken or _wake(args, found)
        time.sleep(0.05)
    out().print("no daemon runs now")


def _wake(args: Namespace, found: "Status") -> bool:
    """Have the daemon tick now. Anybody could write a status, so only a process of the file's owner gets the signal."""
    import os
    import signal

    import psutil

    if psutil.Process(found.pid).uids().real == runtime_of(args).status_path.stat().st_uid:
        os.kill(found.pid, signal.SIGUSR1)
    return True


def _reason(text: str) -> str:
    """One printable line: whatever an argument may hold, it is shown on other people's terminals."""
    from ksmtuned_py.door.text import printable

    reason = printable(" ".join(text.split()))
    if not 0 < len(reason) <= REASON_MAX:
        raise ArgumentTypeError(f"wanted a reason of 1 to {REASON_MAX} signs, not of {len(reason)}")
    return reason


def _seconds(text: str) -> int:
    parts = DURATION.fullmatch(text)
    numbers = (int(part or 0) for part in parts.groups()) if parts else (0, 0, 0, 0)
    seconds = sum(number * unit for number, unit in zip(numbers, UNIT_SECONDS, strict=True))
    if not 0 < seconds <= LONGEST_SECONDS:
        raise ArgumentTypeError(f"{text}: wanted a time like 90s, 30m, 1h or 2d, a week at most")
    return seconds
