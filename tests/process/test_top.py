"""The verb `top` in a real terminal, beside a daemon that comes and goes, and without a terminal."""

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.daemon import EVENTS_ONLY, KSMTUNED, Daemon, one_clear_error, verb
from tests.support.terminal import Terminal
from tests.support.trees import KSM, FakeGuest, make_fake_tree, put

GUESTS = [FakeGuest(pid=1001, name="web"), FakeGuest(pid=1002, name="[red]"), FakeGuest(pid=1003, name="db")]
PAGES = 262_144
"""The pages of a GiB."""


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A host with three guests, where a GiB is saved."""
    root = make_fake_tree(tmp_path_factory.mktemp("host") / "root", guests=GUESTS)
    put(root, f"{KSM}/pages_sharing", f"{PAGES}\n")
    return root


def top(root: Path, runtime: Path, *options: str) -> list[str]:
    """The command."""
    return [*KSMTUNED, "top", "--interval", "0.2", "--root", str(root), "--runtime-dir", str(runtime), *options]


@pytest.fixture(scope="module")
def alone(tree: Path) -> Iterator[Terminal]:
    """A terminal in which it runs, without a daemon. A test leaves it as it was."""
    with Terminal(top(tree, tree / "none")) as terminal:
        terminal.wait("q quit")
        yield terminal
        terminal.press("q")
        assert terminal.end() == 0
        assert terminal.is_restored()


def order(text: str) -> list[str]:
    """The names of the guests in the table, from above."""
    return [line.split()[0] for line in text.splitlines() if line.split()[:1] and line.split()[0] in NAMES]


NAMES = {guest.name for guest in GUESTS}


def test_it_shows_the_host_at_one_glance(alone: Terminal) -> None:
    text = alone.wait("GUEST")
    assert text.startswith("no daemon runs; this is what one would see and do now")
    assert "BOOST" in text
    assert "saved       1 GiB" in text
    assert "debt        1 GiB, and the host could find" in text
    assert set(order(text)) == NAMES


def test_keys_sort(alone: Terminal) -> None:
    alone.press("\x1b[C" * 3)
    assert order(alone.wait("GUEST▲")) == ["[red]", "db", "web"]
    alone.press("r")
    assert order(alone.wait("GUEST▼")) == ["web", "db", "[red]"]
    alone.press("r<<<")
    alone.wait("PROFIT▼")


def test_keys_filter(alone: Terminal) -> None:
    alone.press("/db")
    alone.wait("filter: db_")
    alone.press("\r")
    assert order(alone.wait('"db": 1 of 3 guests')) == ["db"]
    alone.press("\x1b")
    assert set(order(alone.wait(": 3 guests"))) == NAMES


def test_keys_open_pages(alone: Terminal) -> None:
    alone.press("/red\r\r")
    text = alone.wait("looks closer")
    assert "Guest [red]" in text
    assert "ksmd has not scanned it yet" in text
    alone.press("\x1b\x1b")
    alone.wait("q quit  s sort")
    alone.press("w")
    assert "What would change it:" in alone.wait("Esc back")  # the last line, and rules are below the guests, too
    alone.press("?")
    assert "show only guests with this text" in alone.wait("Columns")
    alone.press("?")
    alone.wait("GUEST")


def test_it_follows_the_size_of_its_window(alone: Terminal) -> None:
    alone.resize(160, 50)
    alone.wait("RECORDS")
    alone.resize(40, 10)
    assert "RECORDS" not in alone.wait_gone("RECORDS")
    alone.resize(20, 5)
    assert alone.wait("boost: 1 GiB saved").count("\n") == 4
    alone.resize(80, 24)
    alone.wait("q quit  s sort")


def test_a_daemon_comes_and_goes(tree: Path, alone: Terminal, tmp_path: Path) -> None:
    with Terminal(top(tree, tmp_path / "runtime")) as terminal:
        terminal.wait("no daemon runs")
        for _ in range(2):
            with Daemon(tmp_path, EVENTS_ONLY, root=tree) as daemon:
                daemon.wait_ticks()
                terminal.wait(f"daemon {daemon.pid}, ")
                assert daemon.end() == 0
            terminal.wait("no daemon runs")
        (tmp_path / "runtime").mkdir(exist_ok=True)
        (tmp_path / "runtime/status.json").write_text("{")
        terminal.wait("as it was: ")
        assert set(order(terminal.text())) == NAMES
        (tmp_path / "runtime/status.json").unlink()
        terminal.wait("no daemon runs")
        terminal.press("q")
        assert terminal.end() == 0
        assert terminal.is_restored()


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, -signal.SIGTERM), (signal.SIGHUP, -signal.SIGHUP), (signal.SIGINT, 130)]
)
def test_a_signal_ends_it_and_the_terminal_is_as_before(
    tree: Path, number: signal.Signals, code: int, tmp_path: Path
) -> None:
    with Terminal(top(tree, tmp_path)) as terminal:
        terminal.wait("q quit")
        assert not terminal.is_restored()
        assert terminal.end(number) == code
        assert terminal.is_restored()
        assert "Traceback" not in terminal.text()


def test_ctrl_c_ends_it(tree: Path, tmp_path: Path) -> None:
    with Terminal(top(tree, tmp_path)) as terminal:
        terminal.wait("q quit")
        terminal.press("\x03")
        assert terminal.end() == 130
        assert terminal.is_restored()


def test_it_ends_when_its_window_is_closed(tree: Path, tmp_path: Path) -> None:
    with Terminal(top(tree, tmp_path)) as terminal:
        terminal.wait("q quit")
        terminal.hang_up()
        assert terminal.process.wait(10) == -signal.SIGHUP


def test_ctrl_z_gives_the_terminal_back_until_fg(tree: Path, tmp_path: Path) -> None:
    script = f"set -m; {' '.join(top(tree, tmp_path))}; echo stopped; read -r _; fg; echo ended"
    with Terminal(["bash", "-c", script]) as terminal:
        terminal.wait("q quit")
        terminal.press("\x1a")
        terminal.wait("stopped")
        assert terminal.is_restored()
        terminal.press("\n")
        terminal.wait("q quit")
        terminal.press("q")
        terminal.wait("ended")
        terminal.end()
        assert terminal.is_restored()


def test_a_terminal_that_takes_nothing_holds_nothing_up(tree: Path, tmp_path: Path) -> None:
    with Terminal(top(tree, tmp_path), (400, 200)) as terminal:
        terminal.wait("q quit")
        seen = len(terminal.sent)
        for _ in range(40):  # pictures of some 10 KiB each, which nobody reads: more than a terminal keeps
            terminal.press("s\x0c")
            terminal.pause()
        terminal.process.send_signal(signal.SIGTERM)
        assert terminal.process.wait(10) == -signal.SIGTERM
        assert len(terminal.sent) == seen
        assert terminal.is_restored()


def test_standard_input_may_be_closed(tree: Path, tmp_path: Path) -> None:
    command = " ".join(top(tree, tmp_path))
    with Terminal(["bash", "-c", f"exec {command} <&-"]) as terminal:
        terminal.wait("q quit")
        terminal.press("q")
        assert terminal.end() == 0
        assert terminal.is_restored()


def test_a_terminal_without_curves_has_ascii_and_without_colours_none(tree: Path, tmp_path: Path) -> None:
    with Terminal(top(tree, tmp_path), environment={"LC_ALL": "C", "TERM": "linux", "NO_COLOR": "1"}) as terminal:
        terminal.wait("q quit")
        terminal.wait("==---")
        terminal.press("q")
        assert terminal.end() == 0
        assert terminal.sent.isascii()
        assert b"[32m" not in terminal.sent


def test_without_a_terminal_one_screen_is_printed(tree: Path, tmp_path: Path) -> None:
    for options in ((), ("--once",)):
        done = subprocess.run(
            top(tree, tmp_path, *options),
            env={**os.environ, "LC_ALL": "C.UTF-8", "COLUMNS": "80", "LINES": "24"},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert 12 < len(done.stdout.splitlines()) <= 24
        assert "\x1b" not in done.stdout
        assert set(order(done.stdout)) == NAMES


def test_what_it_cannot_do_is_said_as_by_other_verbs(tree: Path, tmp_path: Path) -> None:
    done = verb("top", "--json")
    assert done.returncode == 2
    assert "ksmtuned-py status --json is for programs" in done.stderr
    assert "wanted seconds, from 0.2 to 3600" in verb("top", "--interval", "0").stderr
    (tmp_path / "status.json").write_text("{")
    said = one_clear_error(verb("top", "--root", tree, "--runtime-dir", tmp_path))
    assert "status.json: cannot be read: no JSON" in said
