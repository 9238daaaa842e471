"""What programs of emulated machines do with guests of the scan backend; they run without pytest."""

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from functools import partial

from ksmtuned_py.backends.scan import ScanBackend
from ksmtuned_py.config import Config, InForce, Scan
from ksmtuned_py.door import Door
from ksmtuned_py.model import Guest, KnobName, Write
from tests.scan import remap_once
from tests.scan.writers import Writer
from tests.support.process import wait_for

MIB = 4
"""The least memory that is merged, and that of most guests."""
IDLE_SECONDS = "0.05"
"""A guest rests so long after every second write, because everything is slow in there."""
os.environ["WRITER_IDLE_SECONDS"] = IDLE_SECONDS
PAUSE_MILLISECS = 50
"""The worker's pause after each batch: to wait takes no time in there."""
SETTINGS = Scan(
    reclaim="remap",
    remap_guests=("*",),
    remap_least_mib=MIB,
    stop_window_ms=remap_once.WINDOW_MS,
    split_huge_below_percent=100,  # kernels since 6.7 give such a guest huge pages
)


def guest(one: Writer) -> Guest:
    """Returns the guest that a process is."""
    return Guest(pid=one.pid, start_ticks=0, name=one.name, kind="")


def say(*words: object) -> None:
    """Prints what was done, and when."""
    print(f"{time.monotonic():.1f} s:", *words, flush=True)


@contextmanager
def sharing(guests: Sequence[Writer], least_pages: int = 1000) -> Iterator[ScanBackend]:
    """Yields a backend at work that has shared so many pages of the guests at least."""
    with closing(ScanBackend(InForce(Config(scan=SETTINGS)), Door("/without-ksm"))) as backend:
        backend.watch([guest(one) for one in guests])
        knobs: dict[KnobName, int] = {
            "pages_to_scan": 100_000,
            "sleep_millisecs": PAUSE_MILLISECS,
            "smart_scan": 0,
            "run": 1,
        }
        for name, value in knobs.items():
            backend.write(Write(knob=name, old=0, new=value))
        wait_for(partial(_shares, backend, least_pages), 120.0, "shared pages", every_seconds=0.5)
        yield backend


def give_back(backend: ScanBackend) -> None:
    """Has the backend give all pages back."""
    backend.write(Write(knob="run", old=1, new=2))
    wait_for(lambda: backend.counters().pages_sharing == 0, 60.0, "pages given back")


def _shares(backend: ScanBackend, least: int) -> bool:
    pages = backend.counters().pages_sharing
    say(f"{pages} pages shared", *backend.problems)
    return pages > least


def unharmed(one: Writer) -> dict[str, int]:
    """Returns what the guest says, and checks that it still writes and has all its bytes."""
    before, after = one.check(), one.check()
    wait_for(lambda: one.check()["writes"] > before["writes"], 30.0, "more writes")
    assert before["wrong"] == after["wrong"] == 0, (before, after)
    return after
