"""Plans keep their laws: no order is refused, they may be cut anywhere, and without a difference they are empty."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from ksmtuned_py.model import ASIDE, KSMD_NICE, Knobs, Run, Write
from ksmtuned_py.plan import ADVISOR_RESET_PAGES, STRUCTURAL, plan

RUNS = st.sampled_from([0, 1, 2])
PAGES = st.integers(1, 100_000)
SLEEPS = st.integers(1, 5000)
MODES = st.sampled_from(["none", "scan-time"])
CPUS = st.sampled_from(["0", "0-3", "2,4"])
FLAG = st.sampled_from([0, 1])

SEEN = st.builds(
    Knobs,
    run=RUNS,
    pages_to_scan=PAGES,
    sleep_millisecs=SLEEPS,
    smart_scan=st.none() | FLAG,
    use_zero_pages=FLAG,
    max_page_sharing=st.integers(2, 300),
    merge_across_nodes=st.none() | FLAG,
    advisor_mode=st.none() | MODES,
    advisor_max_cpu=st.none() | st.integers(1, 100),
    ksmd_nice=st.none() | st.integers(-20, 19),
    ksmd_cpus=st.none() | CPUS,
    khugepaged_max_ptes_shared=st.none() | st.integers(0, 511),
    khugepaged_max_ptes_none=st.none() | st.integers(0, 511),
)
WANTED = st.builds(
    Knobs,
    run=st.none() | RUNS,
    pages_to_scan=st.none() | PAGES,
    sleep_millisecs=st.none() | SLEEPS,
    smart_scan=st.none() | FLAG,
    use_zero_pages=st.none() | FLAG,
    max_page_sharing=st.none() | st.integers(2, 300),
    advisor_mode=st.none() | MODES,
    advisor_max_cpu=st.none() | st.integers(1, 100),
    ksmd_nice=st.none() | st.integers(-20, 19),
    ksmd_cpus=st.none() | CPUS,
    khugepaged_max_ptes_shared=st.none() | st.integers(0, 511),
    khugepaged_max_ptes_none=st.none() | st.integers(0, 511),
)


def written(knobs: Knobs, write: Write) -> Knobs:
    """The knobs after one write. The advisor's mode resets pages_to_scan, and owns it while it is on."""
    if write.knob == "pages_to_scan":
        assert knobs.advisor_mode != "scan-time", "EINVAL"
    after = replace(knobs, **{write.knob: write.new})  # type: ignore[arg-type] # str only for the mode
    if write.knob == "advisor_mode":
        return replace(after, pages_to_scan=ADVISOR_RESET_PAGES if write.new == "none" else 500)
    return after


def pages_per_second(knobs: Knobs) -> float:
    assert knobs.pages_to_scan is not None
    assert knobs.sleep_millisecs is not None
    return knobs.pages_to_scan / knobs.sleep_millisecs


@given(SEEN, WANTED)
def test_a_plan_is_never_refused_and_reaches_what_is_wanted(now: Knobs, wanted: Knobs) -> None:
    end = now
    for write in plan(now, wanted):
        end = written(end, write)
    for name, value in wanted.items():
        if name in STRUCTURAL or now.get(name) is None:
            assert end.get(name) == now.get(name)
        elif name == "pages_to_scan" and end.advisor_mode == "scan-time":
            continue  # the advisor's own from now on
        else:
            assert end.get(name) == value


@given(SEEN, WANTED, st.integers(0, 15))
def test_a_plan_cut_anywhere_is_mended_by_the_next(now: Knobs, wanted: Knobs, cut: int) -> None:
    whole = half = now
    for write in plan(now, wanted):
        whole = written(whole, write)
    for write in plan(now, wanted)[:cut]:
        half = written(half, write)
    for write in plan(half, wanted):
        half = written(half, write)
    if wanted.pages_to_scan is None:  # left alone, so it is whatever the advisor's coming and going made of it
        whole = replace(whole, pages_to_scan=half.pages_to_scan)
    assert half == whole


@given(SEEN, WANTED)
def test_no_part_of_a_plan_scans_faster_than_both_its_ends(now: Knobs, wanted: Knobs) -> None:
    now = replace(now, advisor_mode=None)
    step, rates = now, [pages_per_second(now)]
    for write in plan(now, replace(wanted, advisor_mode=None)):
        step = written(step, write)
        rates.append(pages_per_second(step))
    assert max(rates) <= max(rates[0], rates[-1])


@given(SEEN, WANTED)
def test_scanning_stops_first_and_starts_last(now: Knobs, wanted: Knobs) -> None:
    names = [write.knob for write in plan(now, wanted) if write.knob not in ASIDE]
    if "run" in names:
        assert names.index("run") == (len(names) - 1 if wanted.run == 1 else 0)


@given(SEEN)
def test_at_rest_a_plan_is_empty(now: Knobs) -> None:
    assert plan(now, now) == ()
    assert plan(now, Knobs()) == ()


def test_the_advisor_goes_before_pages_to_scan_which_it_resets() -> None:
    now = Knobs(run=Run.MERGE, pages_to_scan=500, sleep_millisecs=20, advisor_mode="scan-time")
    names = [write.knob for write in plan(now, Knobs(pages_to_scan=500, advisor_mode="none"))]
    assert names == ["advisor_mode", "pages_to_scan"]


def test_pages_to_scan_is_left_out_where_the_advisor_is_on() -> None:
    now = Knobs(run=Run.MERGE, pages_to_scan=100, sleep_millisecs=20, advisor_mode="none")
    assert [write.knob for write in plan(now, Knobs(pages_to_scan=900, advisor_mode="scan-time"))] == ["advisor_mode"]


@given(SEEN, WANTED)
def test_ksmd_is_put_before_guests_first_and_behind_them_last(now: Knobs, wanted: Knobs) -> None:
    """Whoever writes `run` waits for a ksmd that waits for a CPU."""
    writes = plan(now, wanted)
    places = [place for place, write in enumerate(writes) if write.knob == KSMD_NICE]
    if places:
        assert now.ksmd_nice is not None
        assert wanted.ksmd_nice is not None
        assert places == [0 if wanted.ksmd_nice < now.ksmd_nice else len(writes) - 1]
