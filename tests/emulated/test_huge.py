"""The kernels of Debian 12 and 13 make huge pages again of what ksmd has split, also where a page is there twice."""

import json

import pytest

from ksmtuned_py.units import MIB
from tests.emulated.huge_inside import GUEST_MIB
from tests.support.emulated import run_inside

pytestmark = pytest.mark.emulated

SECONDS = 900.0
"""The most that a machine may take. It takes about a minute where nothing else runs."""


@pytest.mark.parametrize("release", ["6.1", "6.12"])
def test_huge_pages_are_given_back_and_contents_stay(release: str) -> None:
    shown = run_inside(release, "tests.emulated.huge_inside", seconds=SECONDS)
    print(shown)
    found = json.loads(shown)
    assert min(found["whole"]) >= 0.8 * GUEST_MIB * MIB
    assert max(found["split"]) <= 0.1 * GUEST_MIB * MIB
    assert found["given"] == found["planned"]
    assert found["problems"] == [None, None]
    assert min(found["back"]) >= 0.95 * min(found["whole"])
    assert found["unchanged"]


def test_the_daemon_gives_them_back_while_memory_is_plenty() -> None:
    shown = run_inside("6.12", "tests.emulated.returns_inside", seconds=SECONDS)
    print(shown)
    found = json.loads(shown)
    assert max(found["split"]) <= 0.1 * GUEST_MIB * MIB
    assert min(found["back"]) >= 0.95 * min(found["whole"])
    assert found["told"]["problem"] is None
    assert (found["run"], found["exit_code"], found["unchanged"]) == (0, 0, True)
