"""Real guests boot, answer, and keep their content while ksmd merges their memory."""

from pathlib import Path

import pytest

from ksmtuned_py.units import MIB
from tests.support.ksmlock import RealKsm
from tests.support.qemu import filled_guests, need_qemu

FULL_SPEED = {"smart_scan": 0, "pages_to_scan": 20000, "sleep_millisecs": 4, "run": 1}


@pytest.mark.kernel
@pytest.mark.qemu
def test_three_guests_answer_and_their_merged_content_stays_right(real_ksm: RealKsm, tmp_path: Path) -> None:
    need_qemu()
    with filled_guests(["web", "db", "mail"], tmp_path) as guests:
        assert "Linux" in guests[0].command("uname -a")
        with pytest.raises(AssertionError, match="web: 'false' exited with 1"):
            guests[0].command("false")
        for name, value in FULL_SPEED.items():
            real_ksm.write(name, value)
        equal_pages = 32 * MIB // 4096
        real_ksm.wait_saved(2 * equal_pages, 60)  # three copies become one
        for guest in guests:
            assert guest.checksums_inside() == guest.checksums
            guest.command("echo changed >> /own")
            assert guest.checksums_inside()["/equal"] == guest.checksums["/equal"]
            assert guest.checksums_inside()["/own"] != guest.checksums["/own"]
