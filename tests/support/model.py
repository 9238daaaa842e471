"""A model of a host and its ksmd, told what to do in few words."""

from hypothesis import strategies as st

from ksmtuned_py.ksmdmodel.guestmemory import PageGroup, equal, unique, zero
from ksmtuned_py.ksmdmodel.modelhost import ModelHost
from ksmtuned_py.model import KNOB_NAMES, KnobName, KnobValue, Write, WriteStatus

ONE_BATCH = 1_000_000
"""pages_to_scan at which a batch is a whole pass here."""
PERIOD_SECONDS = 0.024
"""The period of a batch at the kernel's default sleep of 20 ms: five jiffies of 4 ms, and the timer's own."""

group = st.one_of(
    st.builds(equal, st.sampled_from(["os", "app"]), st.integers(1, 90), rewrites_per_second=st.sampled_from([0, 2.5])),
    st.builds(zero, st.integers(1, 90)),
    st.builds(unique, st.integers(1, 90), rewrites_per_second=st.sampled_from([0, 0.3, 7])),
    st.builds(lambda pages, distinct: equal("self", pages, distinct=distinct), st.integers(1, 60), st.integers(1, 7)),
)
guests = st.lists(st.lists(group, min_size=1, max_size=4), min_size=1, max_size=4)
knobs = st.fixed_dictionaries(
    {
        "pages_to_scan": st.sampled_from([0, 1, 7, 100, 5000]),
        "sleep_millisecs": st.sampled_from([1, 4, 20, 300]),
        "smart_scan": st.integers(0, 1),
        "use_zero_pages": st.integers(0, 1),
    }
)
milliseconds = st.integers(0, 3000)


def refused(host: ModelHost, knob: KnobName, value: KnobValue) -> str:
    """Writes a knob; returns '' when it was taken, else how the kernel put it."""
    result = host.write(Write(knob=knob, old=0, new=value))
    assert (result.status is WriteStatus.OK) == (not result.detail)
    return result.detail


def tell(host: ModelHost, **knobs: KnobValue) -> None:
    """Writes knobs that have to be taken."""
    for name in KNOB_NAMES:
        if name in knobs:
            assert not refused(host, name, knobs[name])


def running(*guests: list[PageGroup], **knobs: KnobValue) -> ModelHost:
    """Returns a host whose ksmd runs, with guests named 0, 1, ..."""
    host = ModelHost()
    for number, groups in enumerate(guests):
        host.add_guest(str(number), groups)
    tell(host, **{"run": 1, **knobs})
    return host


def scan(host: ModelHost, passes: int = 1) -> None:
    """Lets time pass until so many passes are done."""
    goal = host.counters().full_scans + passes
    while host.counters().full_scans < goal:
        host.advance(0.004)


def saved(host: ModelHost) -> int:
    return host.counters().saved_pages
