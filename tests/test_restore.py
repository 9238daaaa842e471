"""Leaving the host as it was found, on made-up trees and on the model."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from ksmtuned_py.backends.memory import MemoryBackend
from ksmtuned_py.backends.model.guestmemory import equal
from ksmtuned_py.backends.model.modelhost import ModelHost
from ksmtuned_py.config import Config, Kernel
from ksmtuned_py.config.types import OnExit
from ksmtuned_py.door import Door
from ksmtuned_py.errors import NoRoom, NotRestored, NotUnmerged
from ksmtuned_py.host import Host
from ksmtuned_py.machine import open_machine
from ksmtuned_py.model import Knobs
from ksmtuned_py.restore import bring_to, put_back, structural_writes, unmerge, wanted_of
from ksmtuned_py.runtime import Runtime
from ksmtuned_py.units import GIB, KIB, MIB
from tests.support.trees import KSM, make_fake_tree, meminfo, put

OURS = Knobs(run=1, pages_to_scan=20_000, sleep_millisecs=10, smart_scan=0, advisor_mode="none")
Said = list[str]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A fake tree whose KSM was in use."""
    return make_fake_tree(tmp_path / "tree", run=1, pages_to_scan=500)


@pytest.fixture
def host(root: Path) -> Iterator[Host]:
    """The host on it."""
    with open_machine(Door(str(root)), Config()) as machine:
        yield machine.host


@pytest.fixture
def runtime(tmp_path: Path) -> Runtime:
    """The daemon's directory."""
    runtime = Runtime(tmp_path / "runtime")
    runtime.make()
    return runtime


class Model:
    """A model of a host in which time passes whenever somebody looks at its clock."""

    def __init__(self, *, total_bytes: int = 8 * GIB, guest_bytes: int = 64 * MIB) -> None:
        self.now_seconds = 0.0
        model = ModelHost(total_bytes=total_bytes, used_bytes=0)
        for name in ("web", "db"):
            model.add_guest(name, [equal("system", guest_bytes // (4 * KIB))])
        self.backend = MemoryBackend(model, self._clock_seconds)
        self.host = Host(self.backend, self.backend)

    def merge_all(self) -> None:
        bring_to(self.host, Knobs(run=1, pages_to_scan=100_000, sleep_millisecs=1, smart_scan=0))
        self.now_seconds += 60
        assert self.backend.counters().pages_shared

    def _clock_seconds(self) -> float:
        self.now_seconds += 0.01
        return self.now_seconds


def steered(host: Host, runtime: Runtime) -> Knobs:
    """A daemon has saved what it found, and written its own; returns what it found."""
    found = host.backend.knobs()
    runtime.save_originals(found)
    assert bring_to(host, OURS) == []
    assert host.backend.knobs() != found
    return found


def test_restore_puts_everything_back_and_forgets_it(host: Host, runtime: Runtime) -> None:
    found = steered(host, runtime)
    put_back(host, runtime, "restore", pytest.fail)
    assert host.backend.knobs() == found
    assert runtime.originals() is None
    put_back(host, runtime, "stop", pytest.fail)  # nothing is owed any more
    assert host.backend.knobs() == found


@pytest.mark.parametrize(("on_exit", "run"), [("restore", 1), ("stop", 0), ("keep", 1), ("unmerge", 0)])
def test_how_run_ends(runtime: Runtime, on_exit: OnExit, run: int) -> None:
    model = Model()
    bring_to(model.host, Knobs(run=1))
    found = steered(model.host, runtime)
    model.merge_all()
    put_back(model.host, runtime, on_exit, pytest.fail)
    knobs = model.backend.knobs()
    assert knobs.run == run
    assert (knobs.pages_to_scan == found.pages_to_scan) == (on_exit != "keep")
    assert bool(model.backend.counters().pages_shared) == (on_exit != "unmerge")
    assert runtime.originals() is None


def test_the_advisor_comes_back_on(runtime: Runtime) -> None:
    model = Model()
    bring_to(model.host, Knobs(advisor_mode="scan-time"))
    found = steered(model.host, runtime)
    assert model.backend.knobs().advisor_mode == "none"
    put_back(model.host, runtime, "restore", pytest.fail)
    assert model.backend.knobs() == found


def test_without_room_nothing_is_unmerged_and_the_rest_is_put_back(runtime: Runtime) -> None:
    model, said = Model(total_bytes=GIB, guest_bytes=700 * MIB), Said()
    found = steered(model.host, runtime)
    model.merge_all()
    put_back(model.host, runtime, "unmerge", said.append)
    assert said[0].startswith("unmerging needs 700 MiB and the host could find ")
    assert model.backend.counters().pages_shared
    assert model.backend.knobs() == found


def test_what_is_refused_is_named_and_still_owed_and_the_rest_is_put_back(
    host: Host, runtime: Runtime, root: Path
) -> None:
    found = steered(host, runtime)
    put(root, f"{KSM}/sleep_millisecs", None)
    (root / KSM / "sleep_millisecs").symlink_to("/proc/self/timerslack_ns")  # reads 50000, and takes no 0
    runtime.forget_originals()
    runtime.save_originals(Knobs(run=1, sleep_millisecs=0, smart_scan=1))
    with pytest.raises(NotRestored, match=r"^not put back: sleep_millisecs=0 \(reads back as \d+\)$"):
        put_back(host, runtime, "stop", pytest.fail)
    assert (host.backend.knobs().run, host.backend.knobs().smart_scan) == (0, found.smart_scan)
    assert runtime.originals() is not None


def test_who_only_watches_puts_nothing_back(host: Host) -> None:
    found = host.backend.knobs()
    host.watch()
    assert bring_to(host, OURS) == []
    unmerge(host)
    assert host.backend.knobs() == found


def test_what_the_admin_asked_for() -> None:
    assert wanted_of(Kernel()) == Knobs()
    assert wanted_of(Kernel(use_zero_pages=1, max_page_sharing=20)) == Knobs(use_zero_pages=1, max_page_sharing=20)


def test_structural_knobs_are_written_only_where_they_differ_and_exist() -> None:
    wanted = Knobs(merge_across_nodes=0, max_page_sharing=20)
    assert structural_writes(wanted, wanted) == ()
    assert structural_writes(Knobs(max_page_sharing=256), Knobs()) == ()
    writes = structural_writes(Knobs(max_page_sharing=256), wanted)  # without NUMA
    assert [(write.knob, write.old, write.new) for write in writes] == [("max_page_sharing", 256, 20)]


def test_structural_knobs_change_behind_unmerging() -> None:
    model = Model()
    model.merge_all()
    assert bring_to(model.host, Knobs(merge_across_nodes=0, max_page_sharing=20, use_zero_pages=1)) == []
    knobs = model.backend.knobs()
    assert (knobs.merge_across_nodes, knobs.max_page_sharing, knobs.use_zero_pages) == (0, 20, 1)
    assert model.backend.counters().pages_shared == 0


def test_structural_knobs_stay_where_there_is_no_room_to_unmerge() -> None:
    model = Model(total_bytes=GIB, guest_bytes=700 * MIB)
    model.merge_all()
    left = bring_to(model.host, Knobs(max_page_sharing=20, use_zero_pages=1))
    assert [sentence.partition(" and the ")[0] for sentence in left] == ["max_page_sharing=20 (unmerging needs 700 MiB"]
    knobs = model.backend.knobs()
    assert (knobs.max_page_sharing, knobs.use_zero_pages) == (256, 1)


def test_originals_without_room_are_kept_for_another_try(runtime: Runtime) -> None:
    model = Model(total_bytes=GIB, guest_bytes=700 * MIB)
    runtime.save_originals(Knobs(run=1, max_page_sharing=20))
    model.merge_all()
    with pytest.raises(NotRestored, match="max_page_sharing=20 "):
        put_back(model.host, runtime, "restore", pytest.fail)
    assert runtime.originals() is not None


def test_no_room_is_known_before_anything_is_written(root: Path, host: Host) -> None:
    put(root, f"{KSM}/pages_sharing", f"{2 * GIB // 4096}\n")
    put(root, "proc/meminfo", meminfo(available_bytes=GIB))
    with pytest.raises(NoRoom):
        unmerge(host)
    assert host.backend.knobs().run == 1


def test_unmerging_that_fails_is_told(root: Path, host: Host) -> None:
    put(root, f"{KSM}/run", None)
    (root / KSM / "run").symlink_to("/proc/self/oom_score_adj")  # each process has its own: tee's is not ours
    with pytest.raises(NotUnmerged, match="not all is unmerged: reads back as "):
        unmerge(host)
