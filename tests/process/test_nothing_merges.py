"""Where nothing can be merged, whoever only watches starts, says what it can do there, and tells all but KSM."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.process.conftest import Start
from tests.support.daemon import QUICK, Daemon, free_port, merged, one_clear_error, scrape, verb
from tests.support.need import need
from tests.support.trees import KSM

WATCHES = merged(QUICK, {"daemon": {"mode": "observe"}})
ALL_THE_SAME = "Nothing is merged here; memory, pressure and guests are watched all the same, also for /metrics"
PLACES = {
    "a kernel without KSM": (KSM, "no such directory: this kernel was built without CONFIG_KSM"),
    "no sysfs": ("sys/kernel/mm", "out of sight here, for there is no "),
    "a covered sysfs": (f"{KSM}/run", "out of sight here, for there is no "),
}


@pytest.fixture(params=PLACES)
def why(root: Path, request: pytest.FixtureRequest) -> str:
    """What the error says about a tree of which this is missing now."""
    missing, said = PLACES[request.param]
    (root / missing).rename(root / "elsewhere")
    return f"{root}/{KSM}: {said}"


def test_it_starts_watching_and_says_what_it_can_do(why: str, start: Start) -> None:
    port = free_port()
    daemon = start(merged(WATCHES, {"metrics": {"address": f"127.0.0.1:{port}"}}))
    assert f"warning: {why}" in daemon.output()
    assert ALL_THE_SAME in daemon.output()
    daemon.wait_ticks(3)
    status = daemon.status()
    assert (status["decision"]["mode"], status["decision"]["rule"]) == ("off", "no_merger")
    assert [guest["name"] for guest in status["snapshot"]["guests"]] == ["web"]
    series = scrape(port)
    assert series["ksmtuned_saved_bytes"] == 0
    assert any("memory" in name and value > 0 for name, value in series.items())
    assert "failed" not in daemon.output()
    assert daemon.end() == 0


def test_it_cannot_be_switched_on_there(why: str, start: Start) -> None:
    daemon = start(WATCHES)
    daemon.reload(f"reload refused, the old configuration stays: {why}", QUICK)
    daemon.wait_ticks(3)
    assert daemon.status()["decision"]["rule"] == "no_merger"
    assert daemon.end() == 0


@pytest.mark.parametrize("policy", ["adaptive", "advisor", "fixed", "ksmtuned", "mom", "kubevirt"])
def test_no_policy_is_asked(why: str, start: Start, policy: str) -> None:
    daemon = start(merged(WATCHES, {"policy": {"name": policy}}))
    daemon.wait_ticks(2)
    assert daemon.status()["decision"]["rule"] == "no_merger"


def test_who_is_to_steer_ends_with_the_reason_and_the_way_out(why: str, root: Path) -> None:
    done = verb("run", "--once", "--root", root, "--runtime-dir", root.parent / "runtime")
    assert one_clear_error(done).startswith(why)
    assert 'daemon.mode = "observe" watches what else there is' in done.stderr


@pytest.mark.parametrize("name", ["status", "why", "guests"])
def test_whoever_asks_is_told(why: str, root: Path, name: str) -> None:
    done = verb(name, "--root", root, "--runtime-dir", root.parent / "runtime")
    assert done.returncode == 0, done.stderr
    assert ("web" if name == "guests" else "off: nothing on this host merges memory") in done.stdout


def test_what_comes_into_sight_later_takes_a_restart(root: Path, start: Start) -> None:
    (root / KSM).rename(root / "elsewhere")
    daemon = start(WATCHES)
    (root / "elsewhere").rename(root / KSM)
    daemon.reload("came after the start; a restart of the service takes it up", QUICK)
    assert daemon.end() == 0
    assert (root / KSM / "pages_to_scan").read_text() == "123\n"


@pytest.fixture
def read_only(root: Path, tmp_path: Path) -> Iterator[Daemon]:
    """The daemon in a container whose /sys is read-only."""
    need(os.geteuid() == 0, "root, to mount")
    mounts = 'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && exec "$@"'
    before = ("unshare", "--mount", "sh", "-c", mounts, str(root / KSM))
    with Daemon(tmp_path / "daemon", WATCHES, root=root, before=before) as daemon:
        daemon.wait_ticks(1)
        yield daemon


def test_a_read_only_sys_is_watched_and_explained(read_only: Daemon) -> None:
    assert "/run: cannot be written, its file system is mounted read-only here. It decides" in read_only.output()
    assert read_only.status()["decision"]["mode"] == "boost"
    read_only.reload("reload refused, the old configuration stays: ", QUICK)
    read_only.wait_ticks(2)
    assert read_only.end() == 0
