"""A process's own account is read as every kernel writes it."""

import random
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ksmtuned_py.door.text import printable
from ksmtuned_py.errors import Garbage
from ksmtuned_py.guests.accounts import has_asked
from ksmtuned_py.guests.parse import parse_ksm_stat, parse_statm
from ksmtuned_py.model import GuestKsm
from ksmtuned_py.sensors.stat import parse_stat
from tests.support.procs import KSM_STAT_6_1, KSM_STAT_6_4, ksm_stat

pages = st.integers(min_value=0, max_value=2**50)
accounts = st.builds(
    GuestKsm,
    rmap_items=pages,
    merging_pages=pages,
    zero_pages=pages,
    profit_bytes=st.integers(min_value=-(2**62), max_value=2**62),
    mergeable=st.none() | st.booleans(),
)


def written(account: GuestKsm) -> list[str]:
    """The lines of an account. With `mergeable` None the kernel does not know the last one."""
    lines = [
        f"ksm_rmap_items {account.rmap_items}",
        f"ksm_zero_pages {account.zero_pages}",
        f"ksm_merging_pages {account.merging_pages}",
        f"ksm_process_profit {account.profit_bytes}",
    ]
    return lines if account.mergeable is None else [*lines, f"ksm_mergeable: {'yes' if account.mergeable else 'no'}"]


@given(accounts, st.lists(st.text("abcz_: -59", max_size=12), max_size=3), st.randoms(use_true_random=False))
def test_what_a_kernel_writes_is_what_is_read(account: GuestKsm, unknown: list[str], rng: random.Random) -> None:
    lines = written(account) + [f"x{line}" for line in unknown]
    rng.shuffle(lines)
    assert parse_ksm_stat("\n".join(lines) + "\n") == account


def test_linux_6_1_keeps_the_merging_pages_beside_and_gives_no_profit() -> None:
    account = parse_ksm_stat(ksm_stat(KSM_STAT_6_1, rmap=100), merging_pages=10, page_bytes=4096)
    assert account == GuestKsm(rmap_items=100, merging_pages=10, profit_bytes=10 * 4096 - 100 * 64)


def test_linux_6_4_says_nothing_of_zero_pages_and_switches() -> None:
    account = parse_ksm_stat(ksm_stat(KSM_STAT_6_4, rmap=100, merging=1, profit=-2304))
    assert account == GuestKsm(rmap_items=100, merging_pages=1, profit_bytes=-2304, mergeable=None)


def test_linux_6_18_says_it_all() -> None:
    account = parse_ksm_stat(ksm_stat(rmap=7, zero=3, merging=4, profit=28224, mergeable="yes"))
    assert account == GuestKsm(rmap_items=7, zero_pages=3, merging_pages=4, profit_bytes=28224, mergeable=True)


def test_enrolled_as_a_whole_counts_as_mergeable() -> None:
    assert parse_ksm_stat(ksm_stat(merge_any="yes")).mergeable is True


def test_zero_pages_below_zero_are_none() -> None:
    assert parse_ksm_stat(ksm_stat(zero=-4)).zero_pages == 0


@pytest.mark.parametrize("text", ["", "nonsense\n", "ksm_rmap_items\n", "ksm_rmap_items many\n", "\0\0\0", "12\n"])
def test_garbage_names_the_file(text: str) -> None:
    with pytest.raises(Garbage, match=r"^/proc/77/ksm_stat: wanted "):
        parse_ksm_stat(text, "/proc/77/ksm_stat")


@given(st.text(max_size=80))
def test_no_text_breaks_the_reader(text: str) -> None:
    with suppress(Garbage):
        parse_ksm_stat(text)


@pytest.mark.parametrize(
    ("account", "may"),
    [
        (None, False),
        (GuestKsm(mergeable=True), True),
        (GuestKsm(rmap_items=5, mergeable=False), False),
        (GuestKsm(rmap_items=5), True),
        (GuestKsm(), False),
    ],
)
def test_where_the_kernel_does_not_say_its_interest_in_the_pages_tells(account: GuestKsm | None, may: bool) -> None:
    assert has_asked(account) is may


@given(st.text(st.characters(exclude_characters="\0"), max_size=15), st.integers(0, 2**60))
def test_a_name_may_hold_anything(comm: str, start_ticks: int) -> None:
    text = f"12 ({comm}) S 1" + " 0" * 17 + f" {start_ticks} 0 0\n"
    assert parse_stat(text) == (printable(comm), start_ticks)
    assert printable(comm).isprintable()


@pytest.mark.parametrize("text", ["", "12 (x) S 1\n", "12 x S" + " 0" * 30, "12 (x) S" + " z" * 30])
def test_a_stat_without_its_fields_is_garbage(text: str) -> None:
    with pytest.raises(Garbage, match="here: wanted"):
        parse_stat(text, "here")


@pytest.mark.parametrize("text", ["", "5\n", "a b c\n"])
def test_a_statm_without_its_fields_is_garbage(text: str) -> None:
    with pytest.raises(Garbage, match="here: wanted"):
        parse_statm(text, "here")


def test_the_running_kernel_writes_what_is_read() -> None:
    own = Path("/proc/self")
    assert parse_statm((own / "statm").read_text())[1] > 0
    assert parse_stat((own / "stat").read_text()).comm == (own / "comm").read_text().rstrip("\n")
