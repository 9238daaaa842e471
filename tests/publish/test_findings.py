"""The doctor looks for the page in a child, and nobody waits for it, whatever befalls it."""

import os
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from ksmtuned_py.publish.findings import MOST_MEMORY_BYTES, Findings, LastLook
from tests.support.process import wait_for
from tests.support.trees import FakeGuest, make_fake_tree


def words(place: Path) -> list[str]:
    """The command line of the doctor on a host whose guests never asked for merging."""
    guests = [FakeGuest(pid=1001 + number, name=f"web-{number}", mergeable=False) for number in range(3)]
    root = make_fake_tree(place / "root", guests=guests, run=1)
    return ["doctor", "--json", "--root", str(root), "--runtime-dir", str(place / "runtime")]


@contextmanager
def findings(*words: str, patience_seconds: float = 30.0) -> Iterator[Findings]:
    with closing(Findings(words, patience_seconds)) as found:
        yield found


def first(found: Findings) -> LastLook:
    """What is known once the first look is over."""
    assert found.told() == LastLook(looking=True)
    wait_for(lambda: not found.told().looking, 30, "end of the look")
    return found.told()


def keep_waiting(root: Path) -> None:
    """Has the doctor wait for ever for a file that nobody else reads."""
    (root / "etc").mkdir(exist_ok=True)
    os.mkfifo(root / "etc/os-release")


def child() -> psutil.Process | None:
    """The doctor that is a child of these tests. Others of theirs may have ended, or end meanwhile."""
    for each in psutil.Process().children():
        with suppress(psutil.NoSuchProcess):  # also what a process is that has ended, and waits for its parent
            if "ksmtuned_py" in each.cmdline():
                return each
    return None


def test_what_it_finds_is_told_once_for_all_guests_and_what_is_wrong_first(tmp_path: Path) -> None:
    with findings(*words(tmp_path)) as found:
        now = first(found)
        assert now.problem is None
        assert now.looked_unix_seconds is not None
        assert [(one.severity, one.guests) for one in now.findings if one.code == "not_mergeable"] == [
            ("finding", ("web-0", "web-1", "web-2"))
        ]
        wrong = [one.severity == "finding" for one in now.findings]
        assert wrong == sorted(wrong, reverse=True)
        assert found.told() == now  # and nobody looks again for a while


def test_one_that_hangs_is_ended_and_what_was_found_stays(tmp_path: Path) -> None:
    command = words(tmp_path)
    keep_waiting(tmp_path / "root")
    with findings(*command, patience_seconds=3.0) as found:
        now = first(found)
        assert (now.looked_unix_seconds, now.findings) == (None, ())
        assert now.problem is not None
        assert "took longer than 3 s" in now.problem
        assert child() is None


def test_it_has_a_bound_of_memory_and_ends_with_the_daemon(tmp_path: Path) -> None:
    command = words(tmp_path)
    keep_waiting(tmp_path / "root")
    with findings(*command) as found:
        assert found.told().looking
        hung = wait_for(child, 10, "child")
        assert hung is not None
        wait_for(lambda: hung.rlimit(psutil.RLIMIT_DATA)[0] == MOST_MEMORY_BYTES, 10, "limit")
    assert not hung.is_running()
    assert not found.told().looking


@pytest.mark.parametrize("command", [["doctor", "--no-such"], ["completion", "bash"], ["fleet", "--help"]])
def test_one_that_fails_or_prints_no_findings_is_told_of(command: list[str]) -> None:
    with findings(*command) as found:
        now = first(found)
        assert (now.looked_unix_seconds, now.findings) == (None, ())
        assert now.problem == "the doctor could not look; try `ksmtuned-py doctor`"


def test_a_model_has_no_doctor() -> None:
    with findings() as found:
        assert not found.told().looking
        assert found.told().problem == "this is a model: there is no host to look at"
