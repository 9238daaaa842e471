"""A process that shares a guest's memory, and is not stopped with it, keeps the guest from being remapped."""

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from ksmtuned_py.door import Door
from ksmtuned_py.scanner.process import Process
from ksmtuned_py.scanner.refusal import Refused
from ksmtuned_py.scanner.remap.refuse.sharers import Sharers
from ksmtuned_py.scanner.target import Target
from tests.scan.conftest import scanning, told, wait_passes, wait_true
from tests.scan.test_remap import REMAP
from tests.scan.writers import MIB, Writer


class Sharing(Writer):
    """A guest that can begin a process with its very memory."""

    def __init__(self) -> None:
        super().__init__("sharing", command=(sys.executable, "-m", "tests.scan.sharing", str(MIB)))
        self.sharer = 0

    def begin(self, what: str) -> None:
        self.sharer = int(self.ask("begin files" if what == "open files" else "begin"))

    def end(self) -> None:
        os.kill(self.sharer, signal.SIGKILL)
        self.sharer = 0


@contextmanager
def sharing_guest() -> Iterator[tuple[Sharing, Sharers]]:
    guest = Sharing()
    try:
        with Process(Target(pid=guest.pid, start_ticks=0), Door()) as process:
            yield guest, Sharers(Door(), process)
    finally:
        if guest.sharer:
            guest.end()
        guest.process.kill()
        guest.process.communicate()


@pytest.mark.parametrize("what", ["memory", "open files"])
def test_a_process_with_the_same_memory_or_files_is_found_and_named(root: None, what: str) -> None:
    with sharing_guest() as (guest, sharers):
        sharers.stand()
        sharers.check_all()
        sharers.check_new()
        guest.begin(what)
        with pytest.raises(Refused, match=f"process {guest.sharer} shares its {what}"):
            sharers.check_new()
        with pytest.raises(Refused, match=f"process {guest.sharer} shares its {what}"):
            sharers.check_all()


def test_threads_and_children_of_others_are_no_reason(root: None) -> None:
    with sharing_guest() as (_, sharers):
        sharers.stand()
        sharers.check_all()
        for _ in range(20):
            thread = threading.Thread(target=time.sleep, args=(0.01,))
            thread.start()
            if not os.fork():
                os._exit(0)
            sharers.check_new()
            thread.join()
            os.wait()


def test_so_many_new_processes_are_not_looked_at_in_a_stop(root: None) -> None:
    with sharing_guest() as (_, sharers), pytest.raises(Refused, match="too many processes"):
        sharers.check_new()


@pytest.mark.parametrize("what", ["memory", "open files"])
def test_a_guest_is_remapped_until_another_process_shares_what_it_has(root: None, no_ksm: Door, what: str) -> None:
    with sharing_guest() as (guest, _), scanning(no_ksm, REMAP, [guest]) as backend:
        wait_true(lambda: backend.counters().pages_sharing > 250, "shared pages")
        guest.begin(what)
        wait_true(lambda: told(backend, f"sharing: process {guest.sharer} shares its {what}"), "reason")
        windows = backend.window_milliseconds
        wait_passes(backend, 2)
        assert backend.window_milliseconds == windows  # that process is not stopped any more
        guest.end()
        wait_true(lambda: not told(backend, "shares its"), "merging again")
        assert guest.check()["wrong"] == 0
