"""Under the daemon the host gets memory back, and each real guest answers, and still reads what it had."""

from pathlib import Path

import psutil
import pytest

from ksmtuned_py.cli.workload import PAGE_BYTES
from ksmtuned_py.units import MIB
from tests.kernel.conftest import Start
from tests.kernel.test_merging import FAST
from tests.support.ksmlock import RealKsm
from tests.support.qemu import FilledGuest, filled_guests, need_qemu

pytestmark = [pytest.mark.kernel, pytest.mark.qemu]

NAMES = ("web", "db", "mail")
EQUAL_BYTES, OWN_BYTES = 32 * MIB, 16 * MIB
EXPECTED_BYTES = round(0.95 * (len(NAMES) - 1) * EQUAL_BYTES)
"""Most of all copies but one of the equal content. Zero pages and the guests' kernel come on top."""


def proportional_bytes(guests: list[FilledGuest]) -> int:
    """The host's memory behind the guests, in which each shared page counts once (PSS)."""
    return sum(psutil.Process(guest.pid).memory_full_info().pss for guest in guests)


def read_well(guests: list[FilledGuest]) -> bool:
    """Whether each guest reads its content as it was made."""
    return all(guest.checksums_inside() == guest.checksums for guest in guests)


def test_three_guests(real_ksm: RealKsm, start: Start, tmp_path: Path) -> None:
    need_qemu()
    with filled_guests(NAMES, tmp_path, equal_bytes=EQUAL_BYTES, own_bytes=OWN_BYTES) as guests:
        assert "Linux" in guests[0].command("uname -a")
        with pytest.raises(AssertionError, match="web: 'false' exited with 1"):
            guests[0].command("false")
        assert read_well(guests)
        before_bytes = proportional_bytes(guests)
        daemon = start(FAST)
        real_ksm.wait_saved(EXPECTED_BYTES // PAGE_BYTES, 120)
        status = daemon.wait_status(lambda status: status["decision"]["mode"] != "boost", "the end of the boost", 120)
        found = {guest["name"]: guest["kind"] for guest in status["snapshot"]["guests"]}
        assert {name: found.get(name) for name in NAMES} == dict.fromkeys(NAMES, "qemu")
        assert before_bytes - proportional_bytes(guests) >= EXPECTED_BYTES
        assert read_well(guests)
        guests[0].command("cp /own /equal")  # written to its own copies, so the others must not see it
        assert read_well(guests[1:])
        assert guests[0].checksums_inside() == dict.fromkeys(("/equal", "/own"), guests[0].checksums["/own"])
        assert daemon.end() == 0
        assert read_well(guests[1:])
