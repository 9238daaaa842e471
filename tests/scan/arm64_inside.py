"""The program of an emulated aarch64 machine: what test_remap.py and test_kill_points.py try, in short.

Without pytest, whose import alone takes an emulated processor a while. The last line it prints is OK.
"""

import os
import signal
import sys
import time
import traceback
from contextlib import closing
from functools import partial
from pathlib import Path
from types import FrameType

from ksmtuned_py.backends.scan.client import ScanBackend
from ksmtuned_py.config import Scan
from ksmtuned_py.door import Door
from ksmtuned_py.model import Guest, KnobName, Write
from tests.scan import remap_once
from tests.scan.writers import Writer, runs_freely, writers
from tests.support.process import wait_for

MIB = 8
REST_SECONDS = "0.05"
POINTS = [
    *(("_request", number) for number in (*range(1, 241, 24), 300, 900)),
    *(("send", number) for number in (1, 3)),
    *(("recv", number) for number in (1, 3)),
]
"""Functions of the worker, and at which call of them it is killed; `_request` is a system call of ptrace."""


def main() -> None:
    """Raises AssertionError when a guest was harmed."""
    os.environ["WRITER_REST_SECONDS"] = REST_SECONDS
    with writers(2, MIB) as guests:
        share_and_give_back(guests)
        killed = sum(killed_at(name, number, guests[0]) for name, number in POINTS)
        assert killed >= len(POINTS) * 3 // 4, killed
        assert not killed_at("never", 1, guests[0])
        for one in guests:
            unharmed(one)
    print("OK", flush=True)


def share_and_give_back(guests: list[Writer]) -> None:
    """With a worker process, as the daemon has it."""
    settings = Scan(reclaim="remap", remap_guests=("*",), remap_least_mib=MIB)
    with closing(ScanBackend(settings, Door("/without-ksm"))) as backend:
        backend.watch([Guest(pid=one.pid, start_ticks=0, name=one.name, kind="") for one in guests])
        knobs: dict[KnobName, int] = {"pages_to_scan": 100_000, "sleep_millisecs": 1, "smart_scan": 0, "run": 1}
        for name, value in knobs.items():
            backend.write(Write(knob=name, old=0, new=value))
        wait_for(partial(_shares, backend), 120.0, "shared pages", every_seconds=1.0)
        print("stops, in ms:", backend.window_milliseconds, flush=True)
        for one in guests:
            unharmed(one)
        backend.write(Write(knob="run", old=1, new=2))
        wait_for(lambda: backend.counters().pages_sharing == 0, 60.0, "pages given back")
        assert backend.restarts == 0, backend.problems


def _shares(backend: ScanBackend) -> bool:
    pages = backend.counters().pages_sharing
    print(f"{time.monotonic():.1f} s: {pages} pages shared", *backend.problems, sep="; ", flush=True)
    return pages > 1000


def killed_at(name: str, number: int, one: Writer) -> bool:
    """Whether a remapping in a process of its own came so far that it was killed; the guest does not notice either."""
    pid = os.fork()
    if not pid:
        _remap(name, number, one)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert status in (0, -signal.SIGKILL)
    wait_for(partial(runs_freely, one), 5.0, f"guest that runs freely after a kill at {name} {number}")
    print("killed" if status else "not killed", name, number, unharmed(one), flush=True)
    return status != 0


def unharmed(one: Writer) -> dict[str, int]:
    """What it says; it still writes, and has all its bytes."""
    before, after = one.check(), one.check()
    wait_for(lambda: one.check()["writes"] > before["writes"], 30.0, "more writes")
    assert before["wrong"] == after["wrong"] == 0, (before, after)
    return after


def _remap(name: str, number: int, one: Writer) -> None:
    left = number

    def count(frame: FrameType, event: str, called: object) -> None:
        nonlocal left
        function = frame.f_code.co_name if event == "call" else getattr(called, "__name__", "")
        left -= event in ("call", "c_call") and function == name
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)

    try:
        sys.setprofile(count)
        remap_once.main(one.pid)
    except BaseException:  # whatever it was, this process must not go on as its parent
        sys.setprofile(None)
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


if __name__ == "__main__":
    assert Path("/without-ksm").is_dir()
    main()
