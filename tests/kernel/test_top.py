"""The verbs `top` and `demo` follow real merging on a real terminal. The documentation's pictures are made here."""

import os
import re
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import pytest

from ksmtuned_py.cli.workload import Mix, Workload
from ksmtuned_py.units import MIB
from tests.kernel.conftest import Start
from tests.support.daemon import KSMTUNED, MEMORY_FIRST, QUIET, Daemon, merged
from tests.support.ksmlock import RealKsm, knobs
from tests.support.need import need
from tests.support.process import wait_for
from tests.support.terminal import Terminal

pytestmark = pytest.mark.kernel

PICTURES = "KSMTUNED_PICTURES"
"""The directory for the pictures, as in KSMTUNED_PICTURES=docs/pictures pytest tests/kernel/test_top.py."""
TEN_A_SECOND = merged(QUIET, MEMORY_FIRST, {"daemon": {"tick_seconds": 0.1, "idle_tick_seconds": 0.2}})
NAMES = ("web-1", "web-2", "web-3", "db-1", "db-2", "mail", "build-1", "build-2")
MERGED_MIB = 100
"""A third of what can be merged: the picture is of merging that goes on."""
SAVED = re.compile(r"^saved +([\d.]+) MiB", re.MULTILINE)


def mix(number: int) -> Mix:
    """The memory of one guest; some have more than others."""
    size = (24 + 8 * (number % 4)) * MIB
    return Mix(
        equal_bytes=size, zero_bytes=size // 4, unique_bytes=size // 2, changing_bytes=size // 8, changes_per_second=100
    )


@pytest.fixture
def daemon(start: Start) -> Daemon:
    """A daemon that merges, and ticks often."""
    return start(TEN_A_SECOND)


@pytest.fixture
def screens(daemon: Daemon) -> Iterator[tuple[Terminal, Terminal]]:
    """Two terminals with `top` beside it, a small one and a large one."""
    command = [*KSMTUNED, "top", "--interval", "0.2", "--runtime-dir", str(daemon.runtime)]
    with Terminal(command, (80, 24)) as small, Terminal(command, (160, 50)) as large:
        for terminal in (small, large):
            terminal.wait("q quit")
        yield small, large
        for terminal in (small, large):
            terminal.press("q")
            assert terminal.end() == 0
            assert terminal.is_restored()


def test_top_shows_what_merges_as_guests_come(
    real_ksm: RealKsm, daemon: Daemon, screens: tuple[Terminal, Terminal], tmp_path: Path
) -> None:
    need(find_spec("matplotlib") is not None, "matplotlib, whose letters are in the pictures")
    directory = Path(os.environ.get(PICTURES, tmp_path))
    with ExitStack() as guests:
        for number, name in enumerate(NAMES):
            guests.enter_context(Workload(name, mix(number))).wait_ready()
            real_ksm.wait_saved(1 + number * 6 * 256, 30)
        real_ksm.wait_saved(MERGED_MIB * 256, 60)
        for terminal, name in zip(screens, ("top-80x24", "top-160x50"), strict=True):
            wait_for(partial(_shows_it, terminal), 30, "what merges", said=terminal.text)
            _draw(terminal, directory / f"{name}.png")


def _shows_it(terminal: Terminal) -> bool:
    """Whether a terminal shows all guests, and a curve of what is saved."""
    text = terminal.text()
    saved = SAVED.search(text)
    return saved is not None and float(saved[1]) >= MERGED_MIB and "▇" in text and all(name in text for name in NAMES)


def _draw(terminal: Terminal, path: Path) -> None:
    from tests.support.terminalpicture import draw

    draw(terminal.screen, path)
    assert path.read_bytes().startswith(b"\x89PNG")


def test_demo_is_one_live_screen_in_a_terminal(real_ksm: RealKsm) -> None:
    before = knobs()
    command = [*KSMTUNED, "demo", "--guests", "2", "--size", "32", "--seconds", "60"]
    with Terminal(command) as terminal:
        assert "demo        " in terminal.wait("demo-1")
        terminal.press("w")
        terminal.wait("The rules (the winner is ")
        terminal.press("q")
        assert terminal.end(seconds=30) == 0
        assert terminal.is_restored()
        assert "CPU-s" in terminal.text()
    assert knobs() == before
