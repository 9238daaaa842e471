"""The kernels of Debian 12 and 13 make huge pages again of what ksmd has split, also where a page is there twice."""

import pytest

from ksmtuned_py.units import MIB
from tests.emulated.huge_inside import GUEST_MIB
from tests.emulated.machines import HUGE, RETURNS, TEST_SECONDS, seen

pytestmark = [pytest.mark.emulated, pytest.mark.timeout(TEST_SECONDS)]


@pytest.mark.parametrize("release", ["6.1", "6.12"])
def test_huge_pages_are_given_back_and_contents_stay(release: str) -> None:
    found = seen(release, HUGE)
    assert min(found["whole"]) >= 0.8 * GUEST_MIB * MIB
    assert max(found["split"]) <= 0.1 * GUEST_MIB * MIB
    assert found["given"] == found["planned"]
    assert found["problems"] == [None, None]
    assert min(found["back"]) >= 0.95 * min(found["whole"])
    assert found["unchanged"]


def test_the_daemon_gives_them_back_while_memory_is_plenty() -> None:
    found = seen("6.12", RETURNS)
    assert max(found["split"]) <= 0.1 * GUEST_MIB * MIB
    assert min(found["back"]) >= 0.95 * min(found["whole"])
    assert found["told"]["problem"] is None
    assert (found["run"], found["exit_code"], found["unchanged"]) == (0, 0, True)
