"""SIGHUP puts the whole new configuration in force, or keeps the whole old one, and the daemon says which."""

import socket
from pathlib import Path
from urllib.error import URLError

import pytest

from tests.process.conftest import Start
from tests.support.daemon import EVENTS_ONLY, QUICK, Daemon, Sections, free_port, merged, scrape
from tests.support.process import wait_for
from tests.support.smaps import is_mergeable
from tests.support.trees import KSM, NEW_KSM_FILES, OLD_KSM_FILES, make_fake_tree, put

FIXED: Sections = {"policy": {"name": "fixed"}, "fixed": {"pages_to_scan": 777}}


def knob(root: Path, name: str) -> str:
    """The text of one knob."""
    return (root / KSM / name).read_text().strip()


def address(port: int) -> dict[str, dict[str, object]]:
    """The configuration with metrics on that port."""
    return {"metrics": {"address": f"127.0.0.1:{port}"}}


def test_what_changed_is_said_and_in_force(root: Path, start: Start) -> None:
    daemon = start(EVENTS_ONLY)
    daemon.reload("reloaded: ", merged(EVENTS_ONLY, FIXED, {"daemon": {"on_exit": "stop"}}))
    status = daemon.wait_status(lambda status: status["decision"]["mode"] == "pinned", "the new policy")
    assert status["snapshot"]["woken_by"] == ["reload"]
    assert knob(root, "pages_to_scan") == "777"
    line = next(line for line in daemon.output().splitlines() if "reloaded: " in line)
    changes = set(line.partition("reloaded: ")[2].split(", "))
    assert changes == {
        "daemon.on_exit 'restore' -> 'stop'",
        "policy.name 'adaptive' -> 'fixed'",
        "fixed.pages_to_scan 1000 -> 777",
    }
    assert daemon.end() == 0
    assert knob(root, "run") == "0"  # on_exit, too, is the new one


def test_nothing_new_is_said_to_be_nothing_new(start: Start) -> None:
    start(EVENTS_ONLY).reload("reloaded: nothing changed")


def test_keys_that_wait_for_the_next_start_are_told(start: Start) -> None:
    daemon = start(EVENTS_ONLY)
    daemon.reload(
        "kernel.max_page_sharing 'keep' -> 20 (at the next start)",
        merged(EVENTS_ONLY, {"kernel": {"max_page_sharing": 20}}),
    )


@pytest.mark.parametrize(
    "bad", [{"fixed": {"pages_to_scan": "many"}}, {"fixed": {"pages": 1}}, {"daemon": {"tick_seconds": 999}}]
)
def test_one_bad_key_and_nothing_is_taken(root: Path, start: Start, bad: dict[str, dict[str, object]]) -> None:
    daemon = start(QUICK)
    before = knob(root, "pages_to_scan")
    daemon.reload("reload refused, the old configuration stays: 1 mistake", merged(QUICK, FIXED, bad))
    daemon.wait_ticks(3)
    assert knob(root, "pages_to_scan") == before
    assert daemon.status()["decision"]["mode"] == "boost"
    daemon.reload("reloaded: ", merged(QUICK, FIXED))  # and a mended one is taken
    daemon.wait_status(lambda status: status["decision"]["mode"] == "pinned", "the new policy")


def test_no_configuration_any_more(start: Start) -> None:
    daemon = start(EVENTS_ONLY)
    daemon.config.unlink()
    daemon.reload("reload refused, the old configuration stays: ")
    assert daemon.end() == 0


def test_another_metrics_address(start: Start) -> None:
    old, new = free_port(), free_port()
    daemon = start(merged(EVENTS_ONLY, address(old)))
    assert scrape(old)["ksmtuned_tick_duration_seconds_count"] == 1
    daemon.reload("reloaded: metrics.address ", merged(EVENTS_ONLY, address(new)))
    assert scrape(new)["ksmtuned_tick_duration_seconds_count"] >= 1
    with pytest.raises(URLError, match="refused"):
        scrape(old)
    daemon.reload(
        f"'127.0.0.1:{new}' -> '0.0.0.0:{new}'", merged(EVENTS_ONLY, {"metrics": {"address": f"0.0.0.0:{new}"}})
    )
    assert scrape(new)
    daemon.reload("-> ''", EVENTS_ONLY)
    with pytest.raises(URLError, match="refused"):
        scrape(new)


def test_a_metrics_address_in_use(start: Start) -> None:
    old = free_port()
    daemon = start(merged(EVENTS_ONLY, address(old)))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        daemon.reload(f"metrics.address 127.0.0.1:{port}: cannot listen", merged(EVENTS_ONLY, FIXED, address(port)))
    assert "reload refused, the old configuration stays" in daemon.output()
    assert scrape(old)
    assert daemon.status()["decision"]["mode"] == "boost"


def test_from_steering_to_watching_and_back(root: Path, start: Start) -> None:
    daemon = start(QUICK)
    assert knob(root, "pages_to_scan") != "123"
    daemon.reload("daemon.mode 'manage' -> 'observe'", merged(QUICK, {"daemon": {"mode": "observe"}}))
    daemon.wait_ticks(3)
    assert (knob(root, "pages_to_scan"), knob(root, "sleep_millisecs")) == ("123", "45")
    assert not (daemon.runtime / "originals.json").exists()
    daemon.reload("daemon.mode 'observe' -> 'manage'", QUICK)
    daemon.wait_status(lambda _: knob(root, "pages_to_scan") != "123", "steering")
    assert (daemon.runtime / "originals.json").exists()
    assert daemon.end() == 0
    assert (knob(root, "pages_to_scan"), knob(root, "sleep_millisecs")) == ("123", "45")


def test_who_only_watches_keeps_no_pages_for_ksmd(root: Path, start: Start) -> None:
    daemon = start(QUICK)
    daemon.wait_status(lambda _: knob(root, "run") == "1", "merging")
    daemon.wait_ticks(3)
    put(root, f"{KSM}/full_scans", "99999\n")
    wait_for(lambda: is_mergeable(daemon.pid), 10, "pages of zeros")
    daemon.reload("daemon.mode 'manage' -> 'observe'", merged(QUICK, {"daemon": {"mode": "observe"}}))
    wait_for(lambda: not is_mergeable(daemon.pid), 10, "their end")


def test_no_reload_gives_memory_back_on_the_thread_that_answers_the_watchdog(root: Path, start: Start) -> None:
    put(root, f"{KSM}/run", "2\n")
    daemon = start(QUICK)
    assert knob(root, "run") == "1"
    daemon.reload(
        "(run=0): not all is unmerged: it would take too long now", merged(QUICK, {"daemon": {"mode": "observe"}})
    )
    daemon.wait_ticks()
    assert knob(root, "run") == "0"


def test_a_policy_that_this_kernel_cannot_have(tmp_path: Path, start: Start, root: Path) -> None:
    make_fake_tree(root, kernel="6.1", guests=[])
    for name in NEW_KSM_FILES.keys() - OLD_KSM_FILES.keys():
        (root / KSM / name).unlink()
    daemon = start(QUICK)
    daemon.reload("this kernel's KSM has no advisor", merged(QUICK, {"policy": {"name": "advisor"}}))
    assert "reload refused, the old configuration stays" in daemon.output()
    daemon.wait_ticks(10)
    assert "tick failed" not in daemon.output()
    assert daemon.end() == 0


def test_all_that_is_wrong_is_told_and_nothing_is_taken(root: Path, start: Start) -> None:
    old, watching = free_port(), merged(QUICK, {"daemon": {"mode": "observe"}})
    daemon = start(merged(watching, address(old)))
    put(root, f"{KSM}/advisor_mode", None)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        daemon.reload("reload refused", merged(QUICK, {"policy": {"name": "advisor"}}, address(port)))
    line = next(line for line in daemon.output().splitlines() if "reload refused" in line)
    assert "has no advisor; metrics.address 127.0.0.1:" in line
    daemon.wait_ticks(3)
    assert scrape(old)
    assert daemon.status()["decision"]["mode"] == "boost"
    assert knob(root, "pages_to_scan") == "123"


def test_knobs_that_cannot_be_saved_are_not_steered(root: Path, start: Start, tmp_path: Path) -> None:
    daemon = start(merged(QUICK, {"daemon": {"mode": "observe"}}))
    daemon.runtime.rename(tmp_path / "elsewhere")
    daemon.reload("cannot be used as the runtime directory", QUICK)
    (tmp_path / "elsewhere").rename(daemon.runtime)
    daemon.wait_ticks(3)
    assert knob(root, "pages_to_scan") == "123"
    assert daemon.end() == 0


def test_what_is_owed_to_another_kernel_is_not_taken_for_what_was_found(
    root: Path, start: Start, tmp_path: Path
) -> None:
    with Daemon(tmp_path / "other", QUICK, root=make_fake_tree(tmp_path / "elsewhere")) as killed:
        killed.wait_ticks(1)
    daemon = start(merged(QUICK, {"daemon": {"mode": "observe"}}))
    (killed.runtime / "originals.json").rename(daemon.runtime / "originals.json")
    daemon.reload("reload refused, the old configuration stays: ", QUICK)
    daemon.wait_ticks(3)
    assert knob(root, "pages_to_scan") == "123"
    assert daemon.end() == 0
    assert (daemon.runtime / "originals.json").exists()


def test_the_scan_backends_own_settings_wait_and_who_may_be_remapped_does_not(start: Start) -> None:
    daemon = start(EVENTS_ONLY)
    scan: Sections = {"scan": {"reclaim": "report", "remap_least_mib": 66, "remap_guests": ["test-*"]}}
    said = ["reclaim 'zero' -> 'report' (at the next start)", "remap_least_mib 65 -> 66 (at the next start)"]
    for each in [*said, "remap_guests () -> ('test-*',)"]:
        daemon.reload(f"scan.{each}", merged(EVENTS_ONLY, scan))
    assert "('test-*',) (at" not in daemon.output()
    daemon.reload("reloaded: scan.reclaim", merged(EVENTS_ONLY, scan))  # told again as long as it has to wait


def test_who_watches_only_has_nothing_that_others_could_change(root: Path, start: Start) -> None:
    daemon = start(QUICK)
    put(root, f"{KSM}/pages_to_scan", "1250\n")
    daemon.wait_status(lambda status: status["decision"]["mode"] == "held", "hands off")
    watching = merged(QUICK, {"daemon": {"mode": "observe"}})
    daemon.reload("daemon.mode 'manage' -> 'observe'", watching)
    daemon.wait_status(lambda status: status["decision"]["mode"] == "boost", "what would be done")
    told = daemon.output().count("somebody else")
    put(root, f"{KSM}/pages_to_scan", "77\n")
    put(root, f"{KSM}/run", "0\n")
    daemon.wait_ticks(5)
    assert daemon.output().count("somebody else") == told
    assert daemon.status()["decision"]["mode"] == "boost"


def test_a_reload_does_not_swallow_what_somebody_else_wrote(root: Path, start: Start) -> None:
    daemon = start(EVENTS_ONLY)
    put(root, f"{KSM}/pages_to_scan", "1250\n")
    daemon.reload("somebody else changed pages_to_scan from our ")
