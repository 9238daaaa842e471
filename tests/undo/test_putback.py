"""The host is left as it was found, on made-up trees and on the model."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest

from ksmtuned_py.backends.kernel import PATHS
from ksmtuned_py.backends.model import ModelBackend
from ksmtuned_py.config import Config, Kernel
from ksmtuned_py.config.types import OnExit
from ksmtuned_py.daemon.machine import open_machine
from ksmtuned_py.door import Door
from ksmtuned_py.door.boot import BOOT_ID
from ksmtuned_py.door.runtime import Origin, Runtime
from ksmtuned_py.errors import NotOurs, NotRestored, NotUnmerged
from ksmtuned_py.host import Host
from ksmtuned_py.ksmdmodel.guestmemory import equal
from ksmtuned_py.ksmdmodel.modelhost import ModelHost
from ksmtuned_py.model import Knobs, Run, Write, WriteStatus
from ksmtuned_py.undo.giveback import Ways, give_back
from ksmtuned_py.undo.knobs import set_knobs, structural_writes
from ksmtuned_py.undo.originals import origin_of, owed, save
from ksmtuned_py.undo.putback import not_restored, put_back, take, wanted_of
from ksmtuned_py.units import GIB, KIB, MIB
from tests.support.trees import KSM, make_fake_tree, put

OURS = Knobs(run=Run.MERGE, pages_to_scan=20_000, sleep_millisecs=10, smart_scan=0, advisor_mode="none")
HERE = Origin("kernel", "/", "boot")
ASKED = Kernel(max_page_sharing=20, use_zero_pages=1)
Said = list[str]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A fake tree whose KSM was in use."""
    return make_fake_tree(tmp_path / "tree", run=1, pages_to_scan=500)


@contextmanager
def ways_on(root: Path) -> Iterator[Ways]:
    with open_machine(Door(str(root)), Config()) as machine:
        yield Ways(machine.host, pytest.fail, lambda _: None)


@pytest.fixture
def tree(root: Path) -> Iterator[Ways]:
    """The ways to give memory back on the fake tree."""
    with ways_on(root) as ways:
        yield ways


@pytest.fixture
def runtime(tmp_path: Path) -> Runtime:
    """The daemon's runtime directory."""
    runtime = Runtime(tmp_path / "runtime")
    runtime.make()
    return runtime


class Model:
    """A model of a host in which time passes whenever its clock is read."""

    def __init__(self, *, total_bytes: int = 8 * GIB, guest_bytes: int = 64 * MIB) -> None:
        self.now_seconds = 0.0
        self.said = Said()
        model = ModelHost(total_bytes=total_bytes, used_bytes=0)
        for name in ("web", "db"):
            model.add_guest(name, [equal("system", guest_bytes // (4 * KIB))])
        self.backend = ModelBackend(model, self._clock_seconds)
        self.ways = Ways(Host(self.backend, self.backend), self.said.append, self.said.append)

    def merge_all(self) -> None:
        set_knobs(self.ways.host, Knobs(run=Run.MERGE, pages_to_scan=100_000, sleep_millisecs=1, smart_scan=0))
        self.now_seconds += 60
        assert self.backend.counters().pages_shared

    def _clock_seconds(self) -> float:
        self.now_seconds += 0.01
        return self.now_seconds


def crowded() -> Model:
    """A model without the room for what it merges."""
    return Model(total_bytes=GIB, guest_bytes=700 * MIB)


def steered(ways: Ways, runtime: Runtime, kernel: Kernel | None = None) -> Knobs:
    """Do what a daemon does: save the knobs that were found, and write its own; returns those found."""
    found = ways.host.backend.knobs()
    save(runtime, HERE, ways.host, kernel or Kernel())
    assert take(ways, kernel or Kernel()) == []
    assert set_knobs(ways.host, OURS) == []
    assert ways.host.backend.knobs() != found
    return found


def test_restore_puts_everything_back_and_forgets_it(tree: Ways, runtime: Runtime) -> None:
    found = steered(tree, runtime)
    put_back(tree, runtime, HERE, "restore")
    assert tree.host.backend.knobs() == found
    assert runtime.originals() is None
    assert put_back(tree, runtime, HERE, "stop") is None  # nothing is owed any more
    assert tree.host.backend.knobs() == found


@pytest.mark.parametrize(("on_exit", "run"), [("restore", 1), ("stop", 0), ("keep", 1), ("unmerge", 0)])
def test_how_run_ends(runtime: Runtime, on_exit: OnExit, run: int) -> None:
    model = Model()
    set_knobs(model.ways.host, Knobs(run=Run.MERGE))
    found = steered(model.ways, runtime)
    model.merge_all()
    put_back(model.ways, runtime, HERE, on_exit)
    knobs = model.backend.knobs()
    assert knobs.run == run
    assert (knobs.pages_to_scan == found.pages_to_scan) == (on_exit != "keep")
    assert bool(model.backend.counters().pages_shared) == (on_exit != "unmerge")
    assert runtime.originals() is None


def test_the_advisor_comes_back_on(runtime: Runtime) -> None:
    model = Model()
    set_knobs(model.ways.host, Knobs(advisor_mode="scan-time"))
    found = steered(model.ways, runtime)
    assert model.backend.knobs().advisor_mode == "none"
    put_back(model.ways, runtime, HERE, "restore")
    assert model.backend.knobs() == found


def test_without_room_nothing_is_unmerged_and_the_rest_is_put_back(runtime: Runtime) -> None:
    model = crowded()
    found = steered(model.ways, runtime)
    model.merge_all()
    put_back(model.ways, runtime, HERE, "unmerge")
    assert model.said[0].startswith(
        "memory stays merged, and ksmd is stopped (run=0): no room to unmerge: it needs 700 MiB "
    )
    assert model.backend.counters().pages_shared
    assert model.backend.knobs() == found


def test_run_2_as_it_was_found_gives_memory_back_and_is_put_back(runtime: Runtime) -> None:
    model = Model()
    set_knobs(model.ways.host, Knobs(run=Run.UNMERGE))
    steered(model.ways, runtime)
    model.merge_all()
    put_back(model.ways, runtime, HERE, "restore")
    assert (model.backend.knobs().run, model.backend.counters().pages_shared) == (2, 0)
    assert runtime.originals() is None


def test_run_2_as_it_was_found_is_never_written_without_room_and_not_owed_for_ever(runtime: Runtime) -> None:
    model = crowded()
    set_knobs(model.ways.host, Knobs(run=Run.UNMERGE))
    steered(model.ways, runtime)
    model.merge_all()
    put_back(model.ways, runtime, HERE, "restore")
    assert model.said[0].startswith("memory stays merged, and ksmd is stopped (run=0): no room ")
    assert model.backend.knobs().run == 0
    assert model.backend.counters().pages_shared
    assert runtime.originals() is None


def test_who_has_to_be_quick_gives_no_memory_back(runtime: Runtime) -> None:
    model = Model()
    set_knobs(model.ways.host, Knobs(run=Run.UNMERGE))
    steered(model.ways, runtime)
    model.merge_all()
    put_back(model.ways, runtime, HERE, "restore", quickly=True)
    assert "ksmtuned-py unmerge --all does it" in model.said[0]
    assert model.backend.knobs().run == 0
    assert model.backend.counters().pages_shared


def test_what_is_refused_is_named_and_still_owed_and_the_rest_is_put_back(
    tree: Ways, runtime: Runtime, root: Path
) -> None:
    found = steered(tree, runtime)
    put(root, f"{KSM}/sleep_millisecs", None)
    (root / KSM / "sleep_millisecs").symlink_to("/proc/self/timerslack_ns")  # reads 50000, and takes no 0
    runtime.forget_originals()
    runtime.save_originals(HERE, Knobs(run=Run.MERGE, sleep_millisecs=0, smart_scan=1))
    with pytest.raises(NotRestored, match=r"^not put back: sleep_millisecs=0 \(reads back as \d+\)$"):
        put_back(tree, runtime, HERE, "stop", quickly=True)
    knobs = tree.host.backend.knobs()
    assert (knobs.run, knobs.smart_scan) == (0, found.smart_scan)
    assert runtime.originals() is not None


def test_what_is_not_as_it_was_found_is_counted_but_for_what_the_admin_asks_for(tree: Ways, runtime: Runtime) -> None:
    now = tree.host.backend.knobs()
    assert not_restored(now, runtime, HERE, Kernel()) == 0
    runtime.save_originals(HERE, replace(now, sleep_millisecs=1, use_zero_pages=1))
    assert not_restored(now, runtime, HERE, Kernel()) == 2
    assert not_restored(now, runtime, HERE, Kernel(use_zero_pages=0)) == 1
    assert not_restored(now, runtime, replace(HERE, boot_id="another"), Kernel()) == 0
    runtime.originals_path.write_text("?")
    assert not_restored(now, Runtime(runtime.directory), HERE, Kernel()) is None


def test_who_only_watches_puts_nothing_back(tree: Ways) -> None:
    found = tree.host.backend.knobs()
    tree.host.watch()
    assert set_knobs(tree.host, OURS) == []
    give_back(tree)
    assert tree.host.backend.knobs() == found


def test_what_the_admin_asked_for() -> None:
    assert wanted_of(Kernel()) == Knobs()
    assert wanted_of(Kernel(use_zero_pages=1, max_page_sharing=20)) == Knobs(use_zero_pages=1, max_page_sharing=20)


def test_only_what_is_asked_for_is_put_back(tree: Ways, runtime: Runtime, root: Path) -> None:
    steered(tree, runtime, Kernel(use_zero_pages=1))
    put(root, f"{KSM}/max_page_sharing", "99\n")  # the admin, by hand
    put_back(tree, runtime, HERE, "restore")
    knobs = tree.host.backend.knobs()
    assert (knobs.max_page_sharing, knobs.use_zero_pages) == (99, 0)


def test_structural_knobs_are_written_only_where_they_differ_and_exist() -> None:
    wanted = Knobs(merge_across_nodes=0, max_page_sharing=20)
    assert structural_writes(wanted, wanted) == ()
    assert structural_writes(Knobs(max_page_sharing=256), Knobs()) == ()
    writes = structural_writes(Knobs(max_page_sharing=256), wanted)  # without NUMA
    assert [(write.knob, write.old, write.new) for write in writes] == [("max_page_sharing", 256, 20)]


def test_structural_knobs_change_behind_unmerging() -> None:
    model = Model()
    model.merge_all()
    assert take(model.ways, Kernel(merge_across_nodes=0, max_page_sharing=20, use_zero_pages=1)) == []
    knobs = model.backend.knobs()
    assert (knobs.merge_across_nodes, knobs.max_page_sharing, knobs.use_zero_pages) == (0, 20, 1)
    assert model.backend.counters().pages_shared == 0


def test_structural_knobs_stay_where_there_is_no_room_to_unmerge() -> None:
    model = crowded()
    model.merge_all()
    left = take(model.ways, ASKED)
    assert [sentence.partition(" and the ")[0] for sentence in left] == [
        "max_page_sharing=20 (no room to unmerge: it needs 700 MiB"
    ]
    knobs = model.backend.knobs()
    assert (knobs.max_page_sharing, knobs.use_zero_pages) == (256, 1)


def test_a_restart_that_wants_the_same_again_unmerges_nothing(runtime: Runtime) -> None:
    model = Model()
    found = steered(model.ways, runtime, ASKED)
    model.merge_all()
    merged = model.backend.counters().pages_sharing
    for end in ("exit", "the verb behind it", "the next start"):
        put_back(model.ways, runtime, HERE, "restore")
        assert model.backend.counters().pages_sharing == merged, end
        assert model.backend.knobs() == replace(found, max_page_sharing=20), end
    assert model.said == [  # once
        "left as they are while pages are merged: max_page_sharing=20 (256 was found); "
        "ksmtuned-py unmerge --all puts them back, a reboot too"
    ]
    save(runtime, HERE, model.ways.host, ASKED)
    assert take(model.ways, ASKED) == []
    assert model.backend.counters().pages_sharing == merged
    originals = runtime.originals()
    assert originals is not None
    assert originals.knobs.max_page_sharing == 256  # what was there before the first start


def test_structural_knobs_that_stayed_are_put_back_when_nothing_is_merged(runtime: Runtime) -> None:
    model = Model()
    found = steered(model.ways, runtime, ASKED)
    model.merge_all()
    put_back(model.ways, runtime, HERE, "restore")
    give_back(model.ways)
    assert put_back(model.ways, runtime, HERE, "stop") == Knobs(run=Run.STOP, max_page_sharing=256)
    assert model.backend.knobs() == found
    assert runtime.originals() is None


def test_an_end_that_unmerges_puts_structural_knobs_back(runtime: Runtime) -> None:
    model = Model()
    found = steered(model.ways, runtime, ASKED)
    model.merge_all()
    put_back(model.ways, runtime, HERE, "unmerge")
    assert model.backend.knobs() == replace(found, run=Run.STOP)


@pytest.mark.parametrize(
    "saved", [Origin("kernel", "/captured", "boot"), Origin("kernel", "/captured", "another boot")], ids=str
)
def test_knobs_of_another_tree_are_refused_and_stay_owed(tree: Ways, runtime: Runtime, saved: Origin) -> None:
    found = tree.host.backend.knobs()
    runtime.save_originals(saved, Knobs(run=Run.STOP, pages_to_scan=777, max_page_sharing=64))
    ends: tuple[OnExit, ...] = ("restore", "unmerge", "keep")
    for on_exit in ends:
        with pytest.raises(NotOurs, match=r"originals\.json: holds the knobs of kernel below /captured, boot "):
            put_back(tree, runtime, HERE, on_exit)
    assert tree.host.backend.knobs() == found
    assert runtime.originals() is not None


def test_a_kernels_knobs_are_not_put_into_a_model(runtime: Runtime) -> None:
    runtime.save_originals(HERE, Knobs(run=Run.STOP, pages_to_scan=777))
    with pytest.raises(NotOurs):
        owed(runtime, replace(HERE, backend="model"))


def test_knobs_from_before_the_last_boot_are_forgotten_with_a_sentence(tree: Ways, runtime: Runtime) -> None:
    found, said = tree.host.backend.knobs(), Said()
    runtime.save_originals(replace(HERE, boot_id="an earlier one"), Knobs(run=Run.STOP, pages_to_scan=777))
    assert put_back(replace(tree, say=said.append), runtime, HERE, "restore") is None
    assert said == [f"{runtime.originals_path}: saved before the last boot, so forgotten"]
    assert (tree.host.backend.knobs(), runtime.originals()) == (found, None)


@pytest.mark.parametrize("backend", ["memory", "model", "scan"])
def test_knobs_that_ended_with_our_own_process_are_forgotten(tree: Ways, runtime: Runtime, backend: str) -> None:
    found = tree.host.backend.knobs()
    runtime.save_originals(Origin(backend, "/elsewhere", "boot"), Knobs(run=Run.STOP, pages_to_scan=777))
    assert put_back(tree, runtime, HERE, "restore") is None
    assert (tree.host.backend.knobs(), runtime.originals()) == (found, None)


def test_where_knobs_are_of(root: Path, tmp_path: Path) -> None:
    put(root, BOOT_ID, "4c4c-4544\n")
    assert origin_of(Door(str(root)), "kernel") == Origin("kernel", str(root), "4c4c-4544")
    (tmp_path / "link").symlink_to(root)
    assert origin_of(Door(str(tmp_path / "link")), "kernel").root == str(root)
    assert origin_of(Door(), "scan").boot_id


def test_unmerging_that_fails_is_told(root: Path, tree: Ways) -> None:
    put(root, f"{KSM}/run", None)
    (root / KSM / "run").symlink_to("/proc/self/oom_score_adj")  # each process has its own: tee's is not ours
    with pytest.raises(NotUnmerged, match="not all is unmerged: reads back as "):
        give_back(tree)


def test_who_took_over_is_not_switched_off(tmp_path: Path, runtime: Runtime) -> None:
    """KubeVirt's virt-handler, for instance, which was given the node back while we ran."""
    root = make_fake_tree(tmp_path / "tree", run=0, pages_to_scan=100, sleep_millisecs=20)
    said: list[str] = []
    with open_machine(Door(str(root)), Config()) as machine:
        ways = Ways(machine.host, said.append, said.append)
        save(runtime, HERE, ways.host, Kernel())
        set_knobs(ways.host, OURS)
        put(root, f"{KSM}/pages_to_scan", "300\n")
        ways.host.observe()
        put(root, f"{KSM}/sleep_millisecs", "33\n")  # after the last tick
        put_back(ways, runtime, HERE, "restore")
    now = {name: int((root / KSM / name).read_text()) for name in ("run", "pages_to_scan", "sleep_millisecs")}
    assert now == {"run": 0, "pages_to_scan": 300, "sleep_millisecs": 33}
    assert said == ["left as somebody else has set them: pages_to_scan, sleep_millisecs"]
    assert runtime.originals() is None


def test_what_lies_outside_ksm_is_theirs_who_set_it_though_we_never_wrote_it(tmp_path: Path, runtime: Runtime) -> None:
    """As TuneD does, when it starts after us and memory is plenty."""
    root = make_fake_tree(tmp_path / "tree", run=0)
    shared = PATHS["khugepaged_max_ptes_shared"]
    put(root, shared, "256\n")
    said: list[str] = []
    with open_machine(Door(str(root)), Config()) as machine:
        ways = Ways(machine.host, said.append, said.append)
        save(runtime, HERE, ways.host, Kernel(khugepaged="need"))
        assert ways.host.observe().foreign == ()
        put(root, shared, "64\n")
        assert [write.knob for write in ways.host.observe().foreign] == ["khugepaged_max_ptes_shared"]
        put_back(ways, runtime, HERE, "restore")
    assert (root / shared).read_text() == "64\n"
    assert said == ["left as somebody else has set them: khugepaged_max_ptes_shared"]


def test_what_was_refused_outside_ksm_can_still_be_somebody_elses(tmp_path: Path, runtime: Runtime) -> None:
    root = make_fake_tree(tmp_path / "tree")
    shared = PATHS["khugepaged_max_ptes_shared"]
    (root / shared).parent.mkdir(parents=True)
    (root / shared).symlink_to("/proc/sys/kernel/ngroups_max")  # to be read only
    with ways_on(root) as ways:
        save(runtime, HERE, ways.host, Kernel(khugepaged="need"))
        old = ways.host.observe().knobs.khugepaged_max_ptes_shared
        assert old is not None
        write = Write(knob="khugepaged_max_ptes_shared", old=old, new=0)
        assert ways.host.write(write).status is WriteStatus.REFUSED
        put(root, shared, None)
        put(root, shared, "64\n")
        assert [(each.ours, each.seen) for each in ways.host.observe().foreign] == [(old, 64)]


@pytest.mark.parametrize("on_exit", get_args(OnExit))
def test_what_lies_outside_ksm_is_put_back_at_any_end_but_what_is_theirs_stays(
    tmp_path: Path, runtime: Runtime, on_exit: OnExit
) -> None:
    """Or the next start would take ours for what was found, and leave it so for ever."""
    root = make_fake_tree(tmp_path / "tree", run=0)
    shared, none = PATHS["khugepaged_max_ptes_shared"], PATHS["khugepaged_max_ptes_none"]
    put(root, shared, "256\n")
    put(root, none, "511\n")
    with open_machine(Door(str(root)), Config()) as machine:
        ways = Ways(machine.host, lambda _: None, lambda _: None)
        save(runtime, HERE, ways.host, Kernel(khugepaged="need"))
        ours = Knobs(khugepaged_max_ptes_shared=0, khugepaged_max_ptes_none=0, pages_to_scan=900)
        assert set_knobs(ways.host, ours) == []
        put(root, none, "64\n")
        put_back(ways, runtime, HERE, on_exit)
        assert (ways.host.backend.knobs().pages_to_scan == 900) == (on_exit == "keep")
    assert ((root / shared).read_text().strip(), (root / none).read_text().strip()) == ("256", "64")
    assert runtime.originals() is None
