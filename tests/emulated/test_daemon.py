"""The whole daemon works on the kernels of Debian 12 and 13, with real memory to merge."""

from typing import Any

import pytest

from tests.emulated.daemon_inside import BOOST_PERCENT, CRUISE_PERCENT
from tests.emulated.machines import BUDGET, MERGING, TEST_SECONDS, seen

pytestmark = [pytest.mark.emulated, pytest.mark.timeout(TEST_SECONDS)]


def test_guests_are_merged_and_ksmd_keeps_its_budget_on_linux_6_1_which_counts_no_pages() -> None:
    found = seen("6.1", BUDGET)
    assert not found["counts_pages"]
    assert found["boost"] == pytest.approx(BOOST_PERCENT / 100, rel=0.2)
    assert 0 < found["rest"] <= 1.2 * CRUISE_PERCENT / 100
    assert_well(found)


def test_guests_are_merged_on_linux_6_12() -> None:
    found = seen("6.12", MERGING)
    assert found["counts_pages"]
    assert_well(found)


def assert_well(found: dict[str, Any]) -> None:
    """Check that all was merged, and that the daemon ended and put the knobs back."""
    assert found["merged"] >= 0.99
    assert found["exit_code"] == 0
    assert found["as_found"]
