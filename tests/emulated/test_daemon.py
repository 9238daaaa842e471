"""The whole daemon works on the kernels of Debian 12 and 13, with real memory to merge."""

import json
from typing import Any

import pytest

from tests.emulated.daemon_inside import BOOST_PERCENT, CRUISE_PERCENT
from tests.support.emulated import run_inside

pytestmark = pytest.mark.emulated

SECONDS = 600.0
"""The most that a machine may take. It takes about a minute where nothing else runs."""


def seen(release: str, unique_mib: int, rest_seconds: float) -> dict[str, Any]:
    """Run the daemon in an emulated machine, and return what was seen."""
    found: dict[str, Any] = json.loads(
        run_inside(release, "tests.emulated.daemon_inside", str(unique_mib), str(rest_seconds), seconds=SECONDS)
    )
    print(found)
    return found


def test_guests_are_merged_and_ksmd_keeps_its_budget_on_linux_6_1_which_counts_no_pages() -> None:
    found = seen("6.1", unique_mib=140, rest_seconds=20)
    assert not found["counts_pages"]
    assert found["boost"] == pytest.approx(BOOST_PERCENT / 100, rel=0.2)
    assert 0 < found["rest"] <= 1.2 * CRUISE_PERCENT / 100
    assert_well(found)


def test_guests_are_merged_on_linux_6_12() -> None:
    found = seen("6.12", unique_mib=4, rest_seconds=0)
    assert found["counts_pages"]
    assert_well(found)


def assert_well(found: dict[str, Any]) -> None:
    """Check that all was merged, and that the daemon ended and put the knobs back."""
    assert found["merged"] >= 0.99
    assert found["exit_code"] == 0
    assert found["as_found"]
