"""`ksmtuned-py demo`: processes with memory to merge, the daemon at work on them, and a picture of what it saves."""

from argparse import ArgumentTypeError, Namespace
from contextlib import ExitStack, closing, contextmanager
from typing import TYPE_CHECKING

from ksmtuned_py.cli.options import RUNTIME_DIR, add_verb, backend
from ksmtuned_py.errors import FAILED

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ksmtuned_py.cli.live.livescreen import LiveScreen
    from ksmtuned_py.cli.options import Subparsers
    from ksmtuned_py.cli.workload import Mix
    from ksmtuned_py.config import Config
    from ksmtuned_py.daemon.machine import Machine
    from ksmtuned_py.daemon.wait import Waiter
    from ksmtuned_py.model import Wake


DAEMON = {"backend": "kernel", "idle_tick_seconds": 1.0}


def add(subparsers: "Subparsers") -> None:
    """Adds the verb."""
    parser = add_verb(
        subparsers,
        "demo",
        run,
        "show what merging saves, on processes made for it",
        "Their memory is in huge pages, as that of guests is. Half of it is equal, 40 % unique, 10 % rewritten "
        "all the time. Puts everything back at the end. With --backend model it needs no rights: the host is a model.",
    )
    parser.add_argument(
        "--backend", type=backend, choices=("kernel", "model"), default="kernel", help="default: %(default)s"
    )
    parser.add_argument("--guests", type=_positive, default=4, metavar="N", help="how many (default: %(default)s)")
    parser.add_argument("--size", type=_positive, default=256, metavar="MIB", help="of each (default: %(default)s)")
    parser.add_argument("--seconds", type=_positive, default=30, metavar="N", help="how long (default: %(default)s)")
    parser.add_argument(
        "--profile",
        choices=("quiet", "balanced", "eager"),
        default="eager",
        help="of the policy: the others leave guests with huge pages alone (default: %(default)s)",
    )


def run(args: Namespace) -> int:
    """Runs the demo until the time is over, or until q or Ctrl-C."""
    import time

    from ksmtuned_py.cli.live.livescreen import can_live, live_screen
    from ksmtuned_py.cli.screen import Screen
    from ksmtuned_py.config import Config
    from ksmtuned_py.daemon.loop import Daemon
    from ksmtuned_py.daemon.wait import Signals, Waiter

    config = Config.model_validate({"adaptive": {"profile": args.profile}, "daemon": DAEMON})
    with ExitStack() as undo:
        signals = undo.enter_context(closing(Signals()))
        machine, achievable_bytes = undo.enter_context(_stage(args, config))
        live = undo.enter_context(live_screen()) if can_live() else None
        screen = Screen(achievable_bytes, args.profile, live)
        waits = _Until(Waiter(signals, switches=live), time.monotonic() + args.seconds, live)
        Daemon(machine.host, machine.in_force, waits, screen).run()
    if live is not None and live.is_gone:
        return FAILED
    print(screen.summary())
    return 0


class _Until:
    """Stops the daemon when the demo's time is over, or whoever looks has seen enough."""

    def __init__(self, waiter: "Waiter", end_seconds: float, live: "LiveScreen | None") -> None:
        self._waiter = waiter
        self._end_seconds = end_seconds
        self._live = live

    def until(self, deadline_seconds: float) -> "frozenset[Wake]":
        from ksmtuned_py.model import Wake

        words = self._waiter.until(min(deadline_seconds, self._end_seconds))
        if self._live is not None and self._live.is_over:
            return frozenset({Wake.STOP})
        return words or frozenset({Wake.STOP} if deadline_seconds >= self._end_seconds else ())


@contextmanager
def _stage(args: Namespace, config: "Config") -> "Iterator[tuple[Machine, int]]":
    """The machine with its guests, and the bytes that can be saved at best; all is put back at the end."""
    from ksmtuned_py.door import Door
    from ksmtuned_py.units import MIB

    if args.backend == "model":
        yield _model_stage(args.guests, args.size * MIB, config)
        return
    from ksmtuned_py.cli.terminal import err
    from ksmtuned_py.cli.workload import PAGE_BYTES, achievable_pages, workloads
    from ksmtuned_py.daemon.machine import kernel_machine, ways_of
    from ksmtuned_py.daemon.merger import merger_of
    from ksmtuned_py.door.runtime import Runtime
    from ksmtuned_py.undo.giveback import give_back
    from ksmtuned_py.undo.originals import origin_of, save
    from ksmtuned_py.undo.putback import put_back

    runtime = Runtime(RUNTIME_DIR)
    merger_of(Door(), config)
    with ExitStack() as undo:
        undo.enter_context(runtime.locked())
        machine = undo.enter_context(kernel_machine(Door(), config, dry=False))
        ways = ways_of(machine, config.guests.libvirt_uri, err().print, lambda _: None)
        origin = origin_of(machine.door, "kernel")
        put_back(ways, runtime, origin, "restore")
        save(runtime, origin, machine.host, config.kernel)
        undo.callback(put_back, ways, runtime, origin, "restore")
        if not machine.host.backend.counters().pages_shared:
            undo.callback(give_back, ways)  # clears ksmd's records of the ended processes
        mixes = [_mix(args.size * MIB)] * args.guests
        undo.enter_context(workloads(mixes, prefix="demo", huge_pages=True))
        yield machine, achievable_pages(mixes) * PAGE_BYTES


def _mix(size_bytes: int) -> "Mix":
    from ksmtuned_py.cli.workload import PAGE_BYTES, Mix

    changing_bytes = size_bytes * 10 // 100
    return Mix(
        equal_bytes=size_bytes * 50 // 100,
        unique_bytes=size_bytes * 40 // 100,
        changing_bytes=changing_bytes,
        changes_per_second=changing_bytes / PAGE_BYTES / 4,
    )


def _model_stage(guests: int, size_bytes: int, config: "Config") -> "tuple[Machine, int]":
    from ksmtuned_py.daemon.machine import model_machine, small_model

    model = small_model(guests, size_bytes)
    return model_machine(model, config, dry=False), model.mergeable_pages() * model.page_bytes


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ArgumentTypeError(f"{text}: wanted a whole number from 1 on")
    return number
