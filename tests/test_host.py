"""The handle on the machine observes it, carries plans out, and notices when somebody else writes."""

import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from ksmtuned_py.backends.model import ModelBackend
from ksmtuned_py.config import Config
from ksmtuned_py.daemon.machine import open_machine, small_model
from ksmtuned_py.door import Door
from ksmtuned_py.errors import Garbage, Unreadable
from ksmtuned_py.host import Host, system_clock
from ksmtuned_py.model import ForeignWrite, KnobName, KnobValue, Run, Wake, Write, WriteStatus
from ksmtuned_py.units import GIB
from tests.support.procs import add_process
from tests.support.trees import KSM, PAGE_BYTES, FakeGuest, make_fake_tree, put

OK, DRY, PENDING, REFUSED = WriteStatus.OK, WriteStatus.DRY, WriteStatus.PENDING, WriteStatus.REFUSED


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A fake tree with one guest that has merged a little."""
    guest = FakeGuest(pid=7, name="web", merging_pages=10, rmap_items=20)
    return make_fake_tree(tmp_path, guests=[guest], pages_sharing=10)


@pytest.fixture
def host(root: Path) -> Iterator[Host]:
    """The host on the fake tree."""
    with open_machine(Door(str(root)), Config()) as machine:
        yield machine.host


@pytest.fixture
def zones(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """Sets time zones, and leaves that of the tests behind."""
    yield monkeypatch
    monkeypatch.undo()
    time.tzset()


def test_another_time_zone_of_the_host_counts_at_once(zones: pytest.MonkeyPatch) -> None:
    zones.setenv("TZ", "UTC0")
    before = system_clock()
    zones.setenv("TZ", "EAST-5")  # five hours ahead, as timedatectl might set it
    after = system_clock()
    assert (after.local_minute_of_day - before.local_minute_of_day) % 1440 in (300, 301)


def step(knob: KnobName, new: KnobValue, old: KnobValue = 0) -> Write:
    """One write of a plan."""
    return Write(knob=knob, old=old, new=new)


def test_all_that_is_known_in_one_snapshot(host: Host) -> None:
    seen = host.observe(frozenset({Wake.ASKED}))
    assert (seen.backend, seen.cpus, seen.page_bytes) == ("kernel", os.cpu_count(), PAGE_BYTES)
    assert (seen.knobs.run, seen.saved_bytes, seen.memory.total_bytes) == (0, 10 * PAGE_BYTES, 16 * GIB)
    assert seen.pressure is not None
    assert seen.pressure.some.avg10_percent == 0
    assert (seen.vmstat.cow_ksm, seen.scanner_cpu_seconds) == (0, 0.0)
    assert [(guest.name, guest.ksm and guest.ksm.merging_pages) for guest in seen.guests] == [("web", 10)]
    assert (seen.foreign, seen.suspects, seen.problems) == ((), (), ())
    assert seen.woken_by == {Wake.ASKED}
    assert 0 <= host.seconds_since(seen) < 60


@pytest.mark.parametrize(
    ("path", "field"), [("pressure/memory", "pressure"), ("vmstat", "vmstat"), ("42/schedstat", "scanner_cpu_seconds")]
)
def test_a_sensor_one_can_do_without(root: Path, host: Host, path: str, field: str) -> None:
    good = host.observe()
    put(root, f"proc/{path}", "some cow_ksm nonsense\ncow_ksm x\n")
    seen = host.observe()
    assert len(seen.problems) == 1
    assert f"proc/{path}: wanted" in seen.problems[0]
    assert getattr(seen, field) != getattr(good, field)
    put(root, f"proc/{path}", None)
    assert host.observe().problems == ()  # lacking it is no problem


def test_what_must_be_readable_is_an_error(root: Path, host: Host) -> None:
    put(root, f"{KSM}/pages_sharing", "many\n")
    with pytest.raises(Garbage):
        host.observe()
    put(root, f"{KSM}/pages_sharing", "1\n")
    put(root, "proc/meminfo", None)
    with pytest.raises(Unreadable):
        host.observe()


def test_writes_are_made_in_their_order(root: Path, host: Host) -> None:
    outcome = host.apply((step("sleep_millisecs", 50), step("pages_to_scan", 200), step("run", 1)))
    assert [(result.write.knob, result.status) for result in outcome.results] == [
        ("sleep_millisecs", OK),
        ("pages_to_scan", OK),
        ("run", OK),
    ]
    knobs = host.observe().knobs
    assert (knobs.sleep_millisecs, knobs.pages_to_scan, knobs.run) == (50, 200, 1)


def test_a_plan_ends_at_a_write_that_did_not_end_well(root: Path, host: Host) -> None:
    put(root, f"{KSM}/pages_to_scan", None)
    outcome = host.apply((step("sleep_millisecs", 50), step("pages_to_scan", 200), step("run", 1)))
    assert [result.status for result in outcome.results] == [OK, REFUSED]
    assert host.observe().knobs.run == 0


def test_without_the_right_to_what_lies_outside_ksm_it_is_still_steered(root: Path, host: Host) -> None:
    outside = (step("ksmd_nice", -5), step("ksmd_cpus", "0"), step("khugepaged_max_ptes_shared", 0))  # another host's
    outcome = host.apply((*outside, step("pages_to_scan", 200), step("run", 1)))
    assert [result.status for result in outcome.results] == [REFUSED, REFUSED, REFUSED, OK, OK]
    assert (host.observe().knobs.pages_to_scan, host.observe().knobs.run) == (200, 1)


@pytest.mark.parametrize("text", ["many\n", "-1 2\n", ""])
def test_what_makes_no_sense_outside_ksm_keeps_nobody_from_steering_it(root: Path, host: Host, text: str) -> None:
    put(root, "sys/kernel/mm/transparent_hugepage/khugepaged/max_ptes_none", text)
    put(root, "sys/kernel/mm/transparent_hugepage/khugepaged/max_ptes_shared/is", "a directory")
    seen = host.observe().knobs
    assert (seen.khugepaged_max_ptes_none, seen.khugepaged_max_ptes_shared, seen.pages_to_scan) == (None, None, 100)
    assert host.taken() == frozenset()


def test_who_only_watches_writes_nothing(root: Path, host: Host) -> None:
    host.watch()
    outcome = host.apply((step("pages_to_scan", 200), step("run", 2)))
    assert [result.status for result in outcome.results] == [DRY, DRY]
    assert (host.observe().knobs.pages_to_scan, host.observe().knobs.run) == (100, 0)


def test_a_foreign_write_is_told_once_and_names_who_may_be(root: Path, host: Host) -> None:
    add_process(root, 99, ["/bin/bash", "/usr/sbin/ksmtuned"], comm="ksmtuned")
    host.apply((step("pages_to_scan", 200), step("run", 1)))
    seen = host.observe()
    assert (seen.foreign, seen.suspects) == ((), ())
    put(root, f"{KSM}/pages_to_scan", "1250\n")
    put(root, f"{KSM}/sleep_millisecs", "10\n")  # never ours
    seen = host.observe()
    assert seen.foreign == (ForeignWrite(knob="pages_to_scan", ours=200, seen=1250),)
    assert seen.suspects == ("ksmtuned",)
    assert host.observe().foreign == ()
    put(root, f"{KSM}/run", "0\n")
    assert host.observe().foreign == (ForeignWrite(knob="run", ours=1, seen=0),)


def test_a_value_that_comes_back_is_nobodys(root: Path, host: Host) -> None:
    host.apply((step("pages_to_scan", 200),))
    put(root, f"{KSM}/pages_to_scan", None)
    assert host.observe().foreign == ()  # a knob that is gone was not changed
    put(root, f"{KSM}/pages_to_scan", "200\n")
    assert host.observe().foreign == ()


def test_a_refused_write_is_not_held_to_be_ours(root: Path, host: Host) -> None:
    host.apply((step("smart_scan", 0),))
    put(root, f"{KSM}/smart_scan", None)
    host.apply((step("smart_scan", 1),))
    put(root, f"{KSM}/smart_scan", "1\n")
    assert host.observe().foreign == ()


def test_the_model_is_a_host_like_any_other() -> None:
    now = 100.0
    backend = ModelBackend(small_model(guests=2), lambda: now)
    host = Host(backend, backend)
    host.apply((step("run", 1),))
    now += 5
    seen = host.observe()
    assert (seen.backend, len(seen.guests), seen.pressure, seen.problems) == ("model", 2, None, ())
    assert seen.counters.pages_scanned
    assert replace(seen.knobs, run=Run.STOP).run == 0
