"""On a processor with protection keys, memory that has one is never remapped, so that it keeps its key."""

import pytest

from tests.emulated.machines import KEYS, TEST_SECONDS, seen

pytestmark = [pytest.mark.emulated, pytest.mark.timeout(TEST_SECONDS)]


def test_memory_with_a_protection_key_is_left_alone_also_when_the_key_comes_after_merging() -> None:
    found = seen("6.12", KEYS)
    assert found["refused"] == "a mapping of it has the flag protection key 1, which we cannot restore"
    assert found["keys"] == [found["key"]]
    assert (found["wrong_bytes"], found["restarts"]) == (0, 0)
