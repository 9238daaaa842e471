"""Gives the tests of the page one daemon with 500 guests, and one Chromium."""

import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from ksmtuned_py.units import GIB, KIB
from tests.support.chromium import CHROMIUM, Tab, chromium, tab
from tests.support.daemon import Daemon, free_port
from tests.support.need import need
from tests.support.process import children, leftovers
from tests.support.trees import FakeGuest, make_fake_tree, meminfo, put

HOSTILE = ("<img src=x onerror=alert(1)>", "<script>alert(2)</script>", "=1+1 ${7*7} {{7*7}}", "&lt;b&gt;" + "x" * 200)
PAGES_PER_GIB = GIB // 4096
MEMORY = meminfo(
    total_bytes=64 * GIB,
    available_bytes=20 * GIB,
    AnonHugePages=6 * GIB // KIB,
    SwapTotal=8 * GIB // KIB,
    SwapFree=8 * GIB // KIB,
)


def fake_guests() -> list[FakeGuest]:
    """500 guests: four with names that would be more than text to a careless page, and guest-004 to guest-499."""
    names = [*HOSTILE, *(f"guest-{number:03d}" for number in range(len(HOSTILE), 500))]
    return [
        FakeGuest(
            pid=2000 + number,
            name=name,
            uuid=f"00000000-0000-4000-8000-{number:012d}",
            rmap_items=200_000,
            merging_pages=100 * number,
            zero_pages=number % 7 * 1000,
        )
        for number, name in enumerate(names)
    ]


class Stage:
    """A daemon on a host that is made up. It can be ended, and started again at the same address."""

    def __init__(self, directory: Path, browser: Browser) -> None:
        self.root = make_fake_tree(
            directory / "root",
            guests=fake_guests(),
            run=1,
            files={"proc/meminfo": MEMORY, "proc/pressure/memory": None},
        )
        self.save(8)
        port = free_port()
        self.address = f"http://127.0.0.1:{port}/"
        self.browser = browser
        self._directory = directory
        self._sections = {
            "daemon": {"tick_seconds": 0.5, "idle_tick_seconds": 0.5},
            "metrics": {"address": f"127.0.0.1:{port}"},
        }
        self._starts = 0

    def save(self, gib: float) -> None:
        """Changes what the host saves."""
        put(self.root, "sys/kernel/mm/ksm/pages_sharing", f"{round(gib * PAGES_PER_GIB)}\n")

    def start(self) -> Daemon:
        """Starts a daemon."""
        self._starts += 1
        daemon = Daemon(self._directory / f"daemon-{self._starts}", self._sections, root=self.root)
        daemon.wait_status(lambda status: status["pid"] == daemon.pid, "first tick")
        return daemon


@pytest.fixture(scope="module", autouse=True)
def nothing_left_behind() -> Iterator[None]:
    """Fails when a process is left at the end of all: in between, Chromium starts and ends its own as it likes."""
    processes, threads = children(), set(threading.enumerate())
    yield
    found = leftovers(processes, threads)
    assert not found, f"left running: {found}"


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """The stage, without a daemon."""
    need(CHROMIUM.exists(), "chromium")
    with chromium() as browser:
        yield Stage(tmp_path_factory.mktemp("stage"), browser)


@pytest.fixture(scope="module")
def daemon(stage: Stage) -> Iterator[Daemon]:
    """The daemon of all tests but those that end one."""
    with stage.start() as daemon:
        yield daemon


@pytest.fixture
def opened(stage: Stage, daemon: Daemon) -> Iterator[Tab]:
    """The page, once it shows guests."""
    with ExitStack() as stack:
        found = stack.enter_context(tab(stage.browser, stage.address, viewport={"width": 1280, "height": 900}))
        found.page.wait_for_selector("#guests tbody tr", state="attached")
        yield found
