"""Zero pages that come back at once are left alone for a while, however long a pass takes."""

import pytest

from ksmtuned_py.scanner.backoff import LONGEST_ALONE_SECONDS, PERIOD_SECONDS, Account

PAGES = 10_000


def lived(account: Account, begin: float, end: float, *, pass_seconds: float, back_each_second: float) -> float:
    """Makes passes over a guest that touches so many pages again each second; returns the seconds it was worked on."""
    worked, now = 0.0, begin
    while now < end:
        worked += pass_seconds * account.may_go(now)
        account.back_pages += round(back_each_second * pass_seconds) if account.may_go(now) else 0
        account.out_pages = PAGES
        now += pass_seconds
        account.end_pass(now)
    return worked


@pytest.mark.parametrize("pass_seconds", [0.1, 1.0, 10.0])
def test_a_few_that_come_back_do_not_matter_however_long_a_pass_takes(pass_seconds: float) -> None:
    account = Account()
    assert lived(account, 0, 1000, pass_seconds=pass_seconds, back_each_second=80) == pytest.approx(1000)
    assert (account.times_alone, account.reason) == (0, None)


@pytest.mark.parametrize("pass_seconds", [0.1, 1.0, 10.0])
def test_too_many_bring_ever_longer_rests_however_long_a_pass_takes(pass_seconds: float) -> None:
    account = Account()
    worked = lived(account, 0, 3000, pass_seconds=pass_seconds, back_each_second=300)
    assert 9 <= account.times_alone <= 11  # 7 of 1270 s together, then one every 640 s
    assert worked <= 12 * PERIOD_SECONDS
    assert "zero pages came back, or did not go, within 10 s" in str(account.reason)


def test_a_guest_that_has_calmed_down_begins_anew() -> None:
    account = Account()
    lived(account, 0, 1000, pass_seconds=1, back_each_second=300)
    assert lived(account, 1000, 4000, pass_seconds=1, back_each_second=0) >= 3000 - LONGEST_ALONE_SECONDS
    assert not account.reason
    begun = account.times_alone
    lived(account, 4000, 4015, pass_seconds=1, back_each_second=300)
    assert account.times_alone == begun + 1
    assert str(account.reason).startswith("left alone for 10 s")


def test_a_guest_that_reports_its_free_pages_is_never_worked_on() -> None:
    account = Account(reporting=True, reason="free page reporting")
    assert lived(account, 0, 100, pass_seconds=1, back_each_second=0) == 0
    assert account.reason == "free page reporting"
