"""`ksmtuned-py unmerge`: gives merged memory back, of one guest while it runs, or of the whole host."""

from argparse import Namespace
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from ksmtuned_py.cli.guests import find_guest
from ksmtuned_py.cli.options import add_config, add_runtime_dir, add_verb, load_config, runtime_of
from ksmtuned_py.cli.terminal import err, out

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ksmtuned_py.cli.options import Subparsers
    from ksmtuned_py.daemon.machine import Machine
    from ksmtuned_py.door.runtime import Runtime
    from ksmtuned_py.undo.giveback import Ways


def add(subparsers: "Subparsers") -> None:
    """Adds the verb."""
    parser = add_verb(
        subparsers,
        "unmerge",
        run,
        "give merged memory back, of one guest or of all",
        "In stages, each after a look whether the host and the guest's cgroup have the room; what does not fit stays "
        "merged. A libvirt domain is taken out of merging and stays out, until --undo or a restart of it. "
        "Any other guest gets its pages back from outside, and ksmd merges them again unless it is stopped. "
        "--all needs that no daemon runs, and leaves ksmd stopped. "
        "Ctrl-C ends it cleanly: what was given back stays so.",
    )
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("guest", nargs="?", metavar="GUEST", help="its name, UUID or PID")
    which.add_argument("--all", action="store_true", help="everything that is merged on this host")
    which.add_argument("--undo", metavar="GUEST", help="let it merge again")
    add_config(parser)
    add_runtime_dir(parser)


def run(args: Namespace) -> int:
    """Gives memory back; raises NoRoom, NotUnmerged, NotSwitched, UnknownGuest, or AlreadyRunning (with --all)."""
    if not args.all:
        _one(args)
        return 0
    runtime = runtime_of(args)
    with runtime.locked():
        _all(args, runtime)
    return 0


def _one(args: Namespace) -> None:
    from ksmtuned_py.hypervisor.switch import switch
    from ksmtuned_py.undo.giveback import give_back_guest, switch_and_wait

    with _ways(args) as (machine, ways):
        now = machine.host.observe()
        guest = find_guest(now.guests, args.undo or args.guest)
        act = partial(switch, machine.door, load_config(args).config.guests.libvirt_uri)
        if args.undo:
            out().print(f"{guest.name}: {switch_and_wait(guest, True, act, now.page_bytes, _tell)}")
        else:
            give_back_guest(ways, guest, act if guest.libvirt_age_seconds is not None else None)


def _all(args: Namespace, runtime: "Runtime") -> None:
    from ksmtuned_py.model import Knobs, Run
    from ksmtuned_py.undo.giveback import give_back
    from ksmtuned_py.undo.knobs import set_knobs
    from ksmtuned_py.undo.originals import origin_of
    from ksmtuned_py.undo.putback import put_back
    from ksmtuned_py.units import human_bytes

    with _ways(args) as (machine, ways):
        try:
            give_back(ways)
            put_back(ways, runtime, origin_of(machine.door, "kernel"), "stop")  # structural knobs that waited for this
        finally:
            set_knobs(machine.host, Knobs(run=Run.STOP))
            left = human_bytes(machine.host.observe().saved_bytes)
            out().print(f"at most {left} still merged; ksmd is stopped (run=0)")


@contextmanager
def _ways(args: Namespace) -> "Iterator[tuple[Machine, Ways]]":
    from ksmtuned_py.daemon.machine import kernel_machine, ways_of
    from ksmtuned_py.door import Door

    config = load_config(args).config
    with kernel_machine(Door(), config, dry=False) as machine:
        machine.hear_libvirt()
        yield machine, ways_of(machine, config.guests.libvirt_uri, _tell, _tell)


def _tell(sentence: str) -> None:
    err().print(sentence)
