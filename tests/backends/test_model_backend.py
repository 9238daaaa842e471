"""The model as a backend has the kernel's knobs, and carries a whole host on the model alone."""

import pytest

from ksmtuned_py.backends.model import ModelBackend
from ksmtuned_py.host import Host
from ksmtuned_py.ksmdmodel.guestmemory import equal, unique, zero
from ksmtuned_py.ksmdmodel.modelhost import ModelHost
from ksmtuned_py.ksmdmodel.settings import LINUX_6_1
from ksmtuned_py.model import COUNTER_NAMES, Counters, KnobName, Knobs, KnobValue, Run, Write, WriteStatus
from tests.support.model import (
    ONE_BATCH,
    PERIOD_SECONDS,
    refused,
    running,
    saved,
    scan,
    tell,
)

# Knobs.


def test_run_2_gives_every_page_back_and_counts_passes_from_0() -> None:
    host = running([equal("os", 100), zero(50)], [equal("os", 100)], pages_to_scan=ONE_BATCH, use_zero_pages=1)
    scan(host, 4)
    assert saved(host) == 150
    scanned = host.counters().pages_scanned
    tell(host, run=2)
    zeroes = dict.fromkeys(COUNTER_NAMES, 0)
    assert host.counters() == Counters(**{**zeroes, "pages_scanned": scanned or 0})
    assert host.vmstat().cow_ksm == 200, "unmerging is counted as breaking copies, other than of the zero page"
    host.advance(60)
    assert host.counters().candidate_pages == 0
    tell(host, run=1)
    scan(host, 2)
    assert saved(host) == 150


def test_run_2_without_room_fails_and_stops() -> None:
    host = ModelHost(total_bytes=2500 * 4096, used_bytes=0)
    tell(host, run=1, pages_to_scan=ONE_BATCH)
    host.add_guest("a", [equal("os", 1200)])
    host.add_guest("b", [equal("os", 1200)])
    scan(host, 2)
    host.add_guest("c", [unique(900)])
    assert refused(host, "run", 2).startswith("ENOMEM")
    assert (host.knobs().run, saved(host)) == (0, 1200)


@pytest.mark.parametrize(
    ("knob", "value"),
    [
        ("run", 3),
        ("run", -1),
        ("smart_scan", 2),
        ("use_zero_pages", 5),
        ("merge_across_nodes", 2),
        ("max_page_sharing", 1),
        ("pages_to_scan", 2**32),
        ("sleep_millisecs", -1),
        ("advisor_mode", "fast"),
        ("advisor_target_scan_time", 0),
    ],
)
def test_a_value_out_of_range_is_einval(knob: KnobName, value: KnobValue) -> None:
    host = ModelHost()
    before = host.knobs()
    assert refused(host, knob, value).startswith("EINVAL")
    assert host.knobs() == before


@pytest.mark.parametrize(("knob", "value"), [("merge_across_nodes", 0), ("max_page_sharing", 32)])
def test_what_shapes_the_trees_is_ebusy_while_anything_is_merged(knob: KnobName, value: int) -> None:
    host = running([equal("os", 10)], [equal("os", 10)], pages_to_scan=ONE_BATCH)
    scan(host, 2)
    assert refused(host, knob, value).startswith("EBUSY")
    assert not refused(host, knob, host.knobs().get(knob) or 0), "the present value always succeeds"
    tell(host, run=2)
    tell(host, **{knob: value})
    assert host.knobs().get(knob) == value


def test_pages_to_scan_belongs_to_the_advisor_while_it_is_on() -> None:
    host = ModelHost()
    tell(host, pages_to_scan=1234, advisor_mode="scan-time")
    assert host.knobs().pages_to_scan == 500, "advisor_min_pages_to_scan"
    assert refused(host, "pages_to_scan", 1000).startswith("EINVAL")
    tell(host, advisor_mode="none")
    assert host.knobs().pages_to_scan == 100


def test_an_older_kernel_has_fewer_files() -> None:
    host = ModelHost(features=LINUX_6_1)
    host.add_guest("a", [unique(100)])
    tell(host, run=1, pages_to_scan=ONE_BATCH)
    scan(host, 30)
    assert host.counters().pages_unshared == 100, "no smart_scan, nothing is skipped"
    assert refused(host, "smart_scan", 0).startswith("ENOENT")
    assert [name for name, _ in host.knobs().items()] == list(LINUX_6_1.knobs)
    counters = host.counters()
    assert (
        counters.pages_scanned is counters.pages_skipped is counters.ksm_zero_pages is counters.general_profit is None
    )


def test_the_kernels_defaults() -> None:
    assert ModelHost().knobs() == Knobs(
        run=Run.STOP,
        pages_to_scan=100,
        sleep_millisecs=20,
        smart_scan=1,
        use_zero_pages=0,
        merge_across_nodes=1,
        max_page_sharing=256,
        stable_node_chains_prune_millisecs=2000,
        advisor_mode="none",
        advisor_max_cpu=70,
        advisor_min_pages_to_scan=500,
        advisor_max_pages_to_scan=30000,
        advisor_target_scan_time=200,
    )


# The backend.


class Hands:
    """A clock that a test turns."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


def test_the_backend_catches_up_with_its_clock() -> None:
    model, clock = ModelHost(), Hands()
    model.add_guest("a", [equal("os", 1000)])
    model.add_guest("b", [equal("os", 1000)])
    backend = ModelBackend(model, clock)
    assert backend.write(Write(knob="run", old=0, new=1)).status is WriteStatus.OK
    assert backend.counters().pages_scanned == 0
    clock.seconds += 2
    assert backend.counters().pages_scanned == pytest.approx(2 / PERIOD_SECONDS * 100, rel=0.1)
    assert backend.scanner_cpu_seconds() == pytest.approx(model.scanner_cpu_seconds())
    clock.seconds -= 1
    assert backend.knobs().run == 1, "a clock that goes back stops the model, no more"
    clock.seconds += 10
    assert backend.counters().pages_sharing == 1000
    backend.close()


def test_a_host_stands_on_the_model_alone() -> None:
    model = ModelHost()
    model.add_guest("web", [equal("os", 1000)])
    model.add_guest("db", [equal("os", 1000)])
    backend = ModelBackend(model, lambda: model.now_seconds)
    host = Host(backend, backend)
    host.apply((Write(knob="run", old=0, new=1), Write(knob="pages_to_scan", old=100, new=ONE_BATCH)))
    model.advance(1)
    snapshot = host.observe()
    assert (snapshot.backend, snapshot.counters.pages_sharing) == ("model", 1000)
    assert [guest.name for guest in snapshot.guests] == ["web", "db"]
    assert snapshot.memory == model.memory()
    assert not snapshot.problems
