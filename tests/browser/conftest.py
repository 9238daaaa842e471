"""Gives the tests of the page one daemon with 500 guests, and one Chromium."""

import threading
from collections.abc import Iterator

import pytest

from tests.support.chromium import CHROMIUM, Tab, chromium, tab
from tests.support.daemon import Daemon
from tests.support.need import need
from tests.support.pagestage import Stage
from tests.support.process import children, leftovers


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


@pytest.fixture(scope="module")
def desktop(stage: Stage, daemon: Daemon) -> Iterator[Tab]:
    """The page, as an admin leaves it open all day."""
    with tab(stage.browser, stage.address, viewport={"width": 1280, "height": 900}) as found:
        found.page.wait_for_selector("#guests tbody tr", state="attached")
        yield found


@pytest.fixture
def opened(desktop: Tab) -> Tab:
    """The page that is open, with all its guests."""
    desktop.page.fill("#filter", "")
    return desktop
