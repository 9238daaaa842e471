"""Under the daemon the host gets memory back, and each real guest answers, and still reads what it had.

What guests that come are said to share, by sketches, is merged.
"""

import random
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from ksmtuned_py.cli.workload import PAGE_BYTES
from ksmtuned_py.scanner.sketch import shared
from ksmtuned_py.units import KIB, MIB
from tests.kernel.conftest import Start
from tests.kernel.test_merging import FAST
from tests.kernel.test_sketches import FAST as AT_ONCE
from tests.kernel.test_sketches import merged, sketches
from tests.support.ksmlock import RealKsm, locked_ksm, need_real_ksm
from tests.support.qemu import FilledGuest, booted, filled_guests, need_qemu

pytestmark = [pytest.mark.kernel, pytest.mark.qemu]

NAMES = ("web", "db", "mail")
EQUAL_BYTES, OWN_BYTES = 32 * MIB, 16 * MIB
EXPECTED_BYTES = round(0.95 * (len(NAMES) - 1) * EQUAL_BYTES)
"""Most of all copies but one of the equal content. Zero pages and the guests' kernel come on top."""
COMING = {"cache": EQUAL_BYTES // 2, "queue": EQUAL_BYTES // 4}
"""How much of the equal content each guest has that comes."""


@pytest.fixture(scope="module")
def real_ksm() -> Iterator[RealKsm]:
    """The real KSM for all tests here, so that the guests boot only once."""
    need_real_ksm()
    with locked_ksm() as ksm:
        yield ksm


@pytest.fixture(scope="module")
def there(real_ksm: RealKsm, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[FilledGuest]]:
    """Three guests that are up."""
    need_qemu()
    directory = tmp_path_factory.mktemp("there")
    with filled_guests(NAMES, directory, equal_bytes=EQUAL_BYTES, own_bytes=OWN_BYTES) as guests:
        yield guests


@pytest.fixture
def guests(real_ksm: RealKsm, there: list[FilledGuest]) -> list[FilledGuest]:
    """The same guests, of which nothing is merged."""
    real_ksm.unmerge()
    return there


def proportional_bytes(guests: list[FilledGuest]) -> int:
    """The host's memory behind the guests, in which each shared page counts once (PSS)."""
    return sum(psutil.Process(guest.pid).memory_full_info().pss for guest in guests)


def read_well(guests: list[FilledGuest]) -> bool:
    """Whether each guest reads its content as it was made."""
    return all(guest.checksums_inside() == guest.checksums for guest in guests)


def test_three_guests(real_ksm: RealKsm, start: Start, guests: list[FilledGuest]) -> None:
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


def coming_contents() -> dict[str, dict[str, bytes]]:
    """Contents that are there in part, equal in all that come, the guest's own, twice in it, and zero."""
    equal = random.Random("equal").randbytes(EQUAL_BYTES)
    pair = random.Random("pair").randbytes(8 * MIB)
    contents = {}
    for name, equal_bytes in COMING.items():
        own = random.Random(name).randbytes(8 * MIB)
        files = {"/equal": equal[:equal_bytes], "/pair": pair, "/own": own, "/twice": own[: 4 * MIB]}
        contents[name] = files | {"/zeros": bytes(4 * MIB)}
    return contents


def anonymous_bytes(guests: list[FilledGuest]) -> int:
    """The host's memory behind the guests without that of QEMU's program, each shared page once."""
    texts = [Path(f"/proc/{guest.pid}/smaps_rollup").read_text() for guest in guests]
    return sum(int(text.split("Pss_Anon:")[1].split()[0]) * KIB for text in texts)


def nobody_else_merges(ksm: RealKsm, guests: list[FilledGuest]) -> bool:
    """Whether all merged pages are the guests': the kernel's counters are the whole machine's."""
    own = sum(int(Path(f"/proc/{guest.pid}/ksm_merging_pages").read_text()) for guest in guests)
    return own == ksm.number("pages_shared") + ksm.number("pages_sharing")


def test_what_guests_that_come_are_said_to_share_is_merged(
    real_ksm: RealKsm, guests: list[FilledGuest], tmp_path: Path
) -> None:
    """With those who are there, with those who came before, and as pages of zeros."""
    for name, setting in AT_ONCE.items():
        real_ksm.write(name, setting)
    merged(real_ksm)
    assert nobody_else_merges(real_ksm, guests)
    before, sharing = anonymous_bytes(guests), real_ksm.number("pages_sharing")
    of_there = sketches(guests)
    with booted(coming_contents(), tmp_path) as coming:
        before += anonymous_bytes(coming)
        found = sketches(coming)
        said = sum(shared(guest, [*of_there, *found[:number]]).pages for number, guest in enumerate(found))
        merged(real_ksm)
        assert nobody_else_merges(real_ksm, [*guests, *coming])
        came_true = (before - anonymous_bytes([*guests, *coming])) // PAGE_BYTES
        came_true_without_zeros = real_ksm.number("pages_sharing") - sharing
    said_without_zeros = said - sum(guest.zero_pages for guest in found)
    print(f"pages: {said=} {came_true=} {said_without_zeros=} {came_true_without_zeros=}")
    assert said == pytest.approx(came_true, rel=0.1)
    assert said_without_zeros == pytest.approx(came_true_without_zeros, rel=0.1)
