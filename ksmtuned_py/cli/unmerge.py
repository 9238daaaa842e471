"""`ksmtuned-py unmerge`: merged memory given back, of one guest while it runs, or of the whole host."""

from argparse import Namespace
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from ksmtuned_py.cli.guests import find_guest
from ksmtuned_py.cli.options import add_config, add_runtime_dir, add_verb, load_config
from ksmtuned_py.cli.terminal import err, out

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ksmtuned_py.cli.options import Subparsers
    from ksmtuned_py.machine import Machine


def add(subparsers: "Subparsers") -> None:
    """Adds the verb."""
    parser = add_verb(
        subparsers,
        "unmerge",
        run,
        "give merged memory back, of one guest or of all",
        "In stages, each after a look whether the host and the guest's cgroup have the room. "
        "A guest (a libvirt domain) is taken out of merging and stays out, until --undo or a restart of it. "
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
    """Raises NoRoom, NotUnmerged, NotSwitched, UnknownGuest, or AlreadyRunning (with --all)."""
    from ksmtuned_py.runtime import Runtime

    if not args.all:
        _one(args)
        return 0
    with Runtime(args.runtime_dir).locked():
        _all(args)
    return 0


def _one(args: Namespace) -> None:
    from ksmtuned_py.giveback import give_back_guest, switch_and_wait
    from ksmtuned_py.guests.switch import switch

    with _machine(args) as (machine, uri):
        now = machine.host.observe()
        guest = find_guest(now.guests, args.undo or args.guest)
        act = partial(switch, machine.door, uri)
        if args.undo:
            out().print(f"{guest.name}: {switch_and_wait(guest, True, act, now.page_bytes, _tell)}")
        else:
            give_back_guest(machine.host, guest, act, _tell)


def _all(args: Namespace) -> None:
    from ksmtuned_py.giveback import give_back_all
    from ksmtuned_py.guests.switch import empty
    from ksmtuned_py.units import human_bytes

    with _machine(args) as (machine, uri):
        try:
            give_back_all(machine.host, partial(empty, machine.door, uri), _tell)
        finally:
            left = human_bytes(machine.host.observe().saved_bytes)
            out().print(f"{left} still merged; ksmd is stopped (run=0)")


@contextmanager
def _machine(args: Namespace) -> "Iterator[tuple[Machine, str]]":
    from ksmtuned_py.door import Door
    from ksmtuned_py.machine import LIBVIRT_SECONDS, kernel_machine

    config = load_config(args).config
    with kernel_machine(Door(), config, dry=False) as machine:
        if machine.link is not None:
            machine.link.wait_first(LIBVIRT_SECONDS)
        yield machine, config.guests.libvirt_uri


def _tell(sentence: str) -> None:
    err().print(sentence)
