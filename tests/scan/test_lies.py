"""Guests that write whatever they like where we look for answers, or end while we look: only they bear it."""

import os
import signal
import struct
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from ksmtuned_py.backends.scanlink import for_scanner
from ksmtuned_py.door import Door
from ksmtuned_py.scanner.process import Gone, Process
from ksmtuned_py.scanner.refusal import Refused
from ksmtuned_py.scanner.remap.foothold.area import MOST_OPERATIONS, Area
from ksmtuned_py.scanner.remap.foothold.session import Session
from ksmtuned_py.scanner.remap.processors.layout import END, OPERATION
from ksmtuned_py.scanner.remap.share.references import references
from ksmtuned_py.scanner.remap.share.remapper import Remapper
from ksmtuned_py.scanner.remap.share.store import Store
from ksmtuned_py.scanner.remap.stop.stops import Stops
from ksmtuned_py.sensors.stat import parse_stat
from tests.scan import test_tricks
from tests.scan.conftest import result, wait_true
from tests.scan.killed import watch
from tests.scan.test_tricks import SHUT_AREA, SLOW, merge_once, shut_area, target
from tests.scan.writers import Writer, stores, writers
from tests.support.process import wait_for

RESULT_AT = 56
"""Where in an operation its result is, in bytes."""
LIES = [-(2**40), -(2**63)]


def lie(area: Area, value: int) -> None:
    """Writes the same result to all operations of the memory that a guest shares with us."""
    probe = Area()
    probe.table([(7, (0x1122334455667788,), END, END)])
    begin = probe._memory.find(struct.pack("=QQ", 7, 0x1122334455667788))
    probe.close()
    for operation in range(MOST_OPERATIONS):
        struct.pack_into("=q", area._memory, begin + operation * OPERATION.size + RESULT_AT, value)


@contextmanager
def at_each(name: str, do: Callable[[], None]) -> Iterator[None]:
    """Does something right before each call of a function of the remapping, or of one that it calls."""
    watch(lambda called: do() if called == name else None)
    try:
        yield
    finally:
        sys.setprofile(None)


@pytest.mark.parametrize("value", LIES)
def test_a_result_that_no_system_call_has_is_the_guests_trouble(value: int) -> None:
    with closing(Area()) as area:
        for told in (-4095, 0, 2**63 - 1):
            lie(area, told)
            assert area.result(5) == told
        lie(area, value)
        with pytest.raises(Refused, match="what none returns"):
            area.result(5)


@pytest.mark.parametrize("value", LIES)
def test_so_it_is_when_it_is_merged_and_when_it_is_given_back(root: None, value: int) -> None:
    remapper = Remapper(Door(), for_scanner(SLOW))

    def all_lie() -> None:
        for session in remapper._footholds.all():
            lie(session.area, value)

    with writers(1) as (one,):
        with at_each("result", all_lie):
            assert "what none returns" in str(merge_once(remapper, one))
        wait_true(lambda: merge_once(remapper, one) is None and bool(stores(one)), "merged pages")
        with Process(target(one), Door()) as process:
            with at_each("result", all_lie):
                wait_true(lambda: "what none returns" in str(result(remapper.give_back(process))), "the reason")
            wait_true(lambda: result(remapper.give_back(process)) is None, "pages given back")
        assert one.check()["wrong"] == 0


def end(one: Writer) -> None:
    """Ends a guest, and waits until it has no memory any more."""
    os.kill(one.pid, signal.SIGKILL)
    wait_true(lambda: not Path(f"/proc/{one.pid}/statm").read_text().split()[0].strip("0"), "end of its memory")


def test_who_ends_while_its_first_answers_are_read_is_gone(root: None) -> None:
    with (
        writers(1, 16) as (one,),
        closing(Store("ksmtuned-py-pages-test", 0)) as store,
        Process(target(one), Door()) as process,
        at_each("read", lambda: end(one)),
        pytest.raises(Gone),
    ):
        result(Session.begin(process, store.readable, Stops(0.5)))


NOTHING_BEHIND = "assert not ctypes.CDLL(None).munmap(ctypes.c_void_p(begin + code), ctypes.c_size_t(size - code))\n"


def test_who_takes_its_area_away_in_part_keeps_no_memory(root: None, monkeypatch: pytest.MonkeyPatch) -> None:
    began = parse_stat(Door().read("proc/self/stat")).start_ticks  # some may not be looked at, and were there before
    with closing(Store("ksmtuned-py-pages-test", 0)) as store:
        inode = store.key[1]
        monkeypatch.setattr(test_tricks, "SHUT_AREA", SHUT_AREA.replace("print(", f"{NOTHING_BEHIND}print("))
        with shut_area(inode, 0, store.readable):
            wait_for(lambda: result(references(Door(), {inode: 1}, began))[inode].certain, 5.0, "certain look")
