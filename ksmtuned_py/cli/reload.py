"""`ksmtuned-py reload`: has the running daemon read its configuration anew, and tells what it made of it."""

from argparse import Namespace
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ksmtuned_py.cli.options import add_runtime_dir, add_verb, runtime_of
from ksmtuned_py.cli.seen import process_at
from ksmtuned_py.errors import FAILED, KsmtunedError

if TYPE_CHECKING:
    from psutil import Process

    from ksmtuned_py.cli.options import Subparsers
    from ksmtuned_py.door.runtime import Runtime
    from ksmtuned_py.publish.reloadanswer import ReloadAnswer

ANSWER_SECONDS = 60.0
"""The time for an answer. The watchdog ends a daemon that hangs after half of it."""
STEP_SECONDS = 0.05


@dataclass(eq=False)
class ReloadRefused(KsmtunedError):
    """The daemon does not take the new configuration."""

    reason: str
    template = "reload refused, the old configuration stays: {reason}"
    hint_template = "ksmtuned-py check --sample prints every key with its default and what it takes"


@dataclass(eq=False)
class NobodyReloads(KsmtunedError):
    """Nobody says what became of the new configuration."""

    reason: str
    exit_code = FAILED
    template = "no daemon has taken the configuration: {reason}"
    hint_template = "systemctl status ksmtuned-py; a start reads it in any case"


def add(subparsers: "Subparsers") -> None:
    """Adds the verb."""
    parser = add_verb(
        subparsers,
        "reload",
        run,
        "have the daemon read its configuration anew, and wait for its answer",
        "It takes the whole new one, or keeps the whole old one, tells every mistake and exits with 2. "
        "The unit runs it for systemctl reload.",
    )
    add_runtime_dir(parser)


def run(args: Namespace) -> int:
    """Asks the daemon; raises ReloadRefused, or NobodyReloads where none runs or none answers."""
    import signal
    import time

    import psutil

    runtime = runtime_of(args)
    runtime.act_as_owner()
    daemon = process_at(*(runtime.holder() or (0, 0.0)))
    if daemon is None:
        raise NobodyReloads("none runs")
    if not _is_daemon(daemon.pid):
        raise NobodyReloads(f"process {daemon.pid} has the lock, and is no daemon")
    asked = time.monotonic()
    try:
        daemon.send_signal(signal.SIGHUP)
    except psutil.AccessDenied:
        raise NobodyReloads(f"not permitted to signal process {daemon.pid}") from None
    answer = _answer(runtime, daemon, asked)
    if answer.refused:
        raise ReloadRefused(answer.refused)
    print(answer.told)
    return 0


def _is_daemon(pid: int) -> bool:
    """Whether it catches SIGHUP, which would end another: `restore` and `unmerge` have the lock at work, too."""
    import re
    import signal

    from ksmtuned_py.door import Door

    caught = re.search(r"^SigCgt:\s*([0-9a-f]+)$", Door().read_if_there(f"proc/{pid}/status") or "", re.MULTILINE)
    return caught is not None and bool(int(caught[1], 16) >> (signal.SIGHUP - 1) & 1)


def _answer(runtime: "Runtime", daemon: "Process", asked_seconds: float) -> "ReloadAnswer":
    """The answer to a reload that began after it was asked for."""
    import time

    from ksmtuned_py.publish.reloadanswer import read

    while time.monotonic() < asked_seconds + ANSWER_SECONDS:
        answer = read(runtime.answer_path)
        if answer is not None and answer.began_seconds >= asked_seconds:
            return answer
        if _has_ended(daemon):
            raise NobodyReloads("it has ended")
        time.sleep(STEP_SECONDS)
    raise NobodyReloads(f"process {daemon.pid} does not answer")


def _has_ended(daemon: "Process") -> bool:
    import psutil

    try:
        return not daemon.is_running() or daemon.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
