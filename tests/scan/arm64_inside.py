"""The program of an emulated aarch64 machine: tries in short what test_remap.py and test_kill_points.py try.

It runs without pytest, whose import alone takes an emulated processor a while. The last line it prints is OK.
"""

import os
import re
import signal
import socket
import sys
import traceback
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from ksmtuned_py.scanner.remap.stop import ptrace
from tests.scan import remap_once
from tests.scan.inside import MIB, give_back, say, sharing, unharmed
from tests.scan.writers import Writer, runs_freely, stores, writers
from tests.support.process import wait_for

BIND = 2
POINTS = [
    *(("_request", number) for number in (1, 49, 145, 300, 900)),
    ("send", 3),
    *(("recv", number) for number in (1, 3)),
]
"""Functions of the worker, and the call of each at which it is killed; `_request` is a system call of ptrace."""


def main() -> None:
    """Runs all parts; raises AssertionError when a guest was harmed."""
    with writers(2, MIB) as guests:
        share_and_give_back(guests)
        killed = sum(killed_at(name, number, guests[0]) for name, number in POINTS)
        assert killed >= len(POINTS) * 3 // 4, killed
        assert not killed_at("", 0, guests[0])
        for one in guests:
            unharmed(one)
    print("OK", flush=True)


def share_and_give_back(guests: list[Writer]) -> None:
    """Shares pages and gives them back with a worker process, as the daemon has it, on two nodes.

    Shared pages, and those given back, are on the node that their guest is bound to.
    """
    with ExitStack() as stack:
        at = {node: stack.enter_context(bound(node)) for node in (0, 1)}
        with sharing([*guests, *at.values()]) as backend:
            wait_for(lambda: all(len(stores(one)) == 1 for one in at.values()), 120.0, "sharing by all")
            assert stores(at[0]).isdisjoint(stores(at[1]))
            say("stops, in ms:", backend.window_milliseconds)
            for one in guests:
                unharmed(one)
            all_at_home(at)
            give_back(backend)
            all_at_home(at)
            assert backend.restarts == 0, backend.problems


def bound(node: int) -> Writer:
    """Starts a guest with its memory on that node."""
    words = (str(MIB), str(BIND), str(1 << node))
    return Writer(f"bound-to-{node}", command=(sys.executable, "-m", "tests.scan.bound", *words))


def all_at_home(guests: dict[int, Writer]) -> None:
    """Checks that none of the guests' pages is elsewhere, and none is wrong."""
    for node, one in guests.items():
        assert nodes_of(one) == {node}, (node, nodes_of(one))
        unharmed(one)
    say("all pages are on their nodes")


def nodes_of(one: Writer) -> set[int]:
    """Returns the nodes that the guest's memory is on."""
    start = int(one.ask("where"))
    lines = Path(f"/proc/{one.pid}/numa_maps").read_text().splitlines()
    inside = [line for line in lines if start <= int(line.split()[0], 16) < start + MIB * 2**20]
    return {int(node) for line in inside for node in re.findall(r" N(\d+)=", line)}


def killed_at(name: str, number: int, one: Writer) -> bool:
    """Remaps in a process that is killed at a point; returns whether it came so far. The guest notices neither.

    Without a name it is left to come to its end.
    """
    pid = os.fork()
    if not pid:
        _remap(name, number, one)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert status in (0, -signal.SIGKILL)
    wait_for(partial(runs_freely, one), 5.0, f"guest that runs freely after a kill at {name} {number}")
    say("killed" if status else "not killed", name, number, unharmed(one))
    return status != 0


def _remap(name: str, number: int, one: Writer) -> None:
    try:
        # What comes before merging stops nobody.
        remap_once.main(one.pid, "both", partial(_kill_at, name, number) if name else lambda: None)
    except BaseException:  # whatever the error was, this process must not go on as its parent
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def _kill_at(name: str, number: int) -> None:
    """Kills this process right before that call. Only such calls are counted: a look at all takes most of the time."""
    place = ptrace if name == "_request" else socket.socket
    call, left = getattr(place, name), number

    def counted(*words: object) -> object:
        nonlocal left
        left -= 1
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)
        return call(*words)

    setattr(place, name, counted)


if __name__ == "__main__":
    assert Path("/without-ksm").is_dir()
    main()
