"""The kernels of Debian 12 and 13 unshare pages from outside, and a guest without room stays as it is."""

import pytest

from tests.emulated.machines import TEST_SECONDS, UNDO, seen
from tests.emulated.undo_inside import EQUAL_BYTES

pytestmark = [pytest.mark.emulated, pytest.mark.timeout(TEST_SECONDS)]


@pytest.mark.parametrize("release", ["6.1", "6.12"])
def test_memory_is_given_back_from_outside_and_not_beyond_a_limit(release: str) -> None:
    found = seen(release, UNDO)

    def grown(step: str) -> list[bool]:
        grown_bytes = [now - before for before, now in zip(found["merged"], found[step], strict=True)]
        return [size > EQUAL_BYTES * 9 // 10 for size in grown_bytes]

    assert grown("one") == [True, False, False]
    assert grown("all_but_one")[::2] == [True, True]
    assert "load-2 stays merged: it needs " in " ".join(found["said"])
    assert "guest load-2: it needs 12 MiB and its cgroup's limit leaves " in found["refused"]
    assert found["stopped"] == 0
    assert grown("all") == [True, True, True]
    assert (found["still_merged"], found["wrong_pages"]) == (0, 0)
