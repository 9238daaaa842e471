"""Guests in odd states, all beside each other: each is merged with every byte right, or refused by name."""

import json
import os
import stat
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

import pytest

from ksmtuned_py.door import Door
from tests.scan.conftest import Load, turn, wait_passes, wait_true
from tests.scan.crowd import MIB, Crowd, Start, crowd, goes_on, program
from tests.scan.narrow import MIB as MEBIBYTE
from tests.scan.narrow import Narrow
from tests.scan.stiffly import Stiff
from tests.scan.test_zero import Holder
from tests.scan.writers import Writer, runs_freely, stores
from tests.support.need import need
from tests.support.process import wait_for

STEERING = "\\x1b[31m\\udcff\\nno guest: \\u202e open, which may write"
REFUSED = {
    "named": STEERING,
    "32-bit-calls": "one of its threads makes 32-bit system calls",
    "restartable": "one of its threads is in a restartable sequence",
    "stepped": "one of its threads has itself stopped",
    "no-memory": "mmap in it failed: Cannot allocate memory",
    "no-descriptors": "socketpair in it failed: Too many open files",
    "two-descriptors": "takes no two more descriptors",
    "locked-now": "memory that it maps is locked (mlockall)",
    "locked-on-fault": "memory that it maps is locked (mlockall)",
    "rooted": "it has capabilities of root's",
    "root": "it runs as root",
    "watched": "its missing pages are handled by userfaultfd",
    "watched-elsewhere": "a mapping of it has the flag um, which we cannot restore",
    "migrated": "it is being migrated, or a snapshot of it is taken",
    "files": "it has more than 1000 files open",
    "areas": "it has more than 200 areas",
    "xdp": "a socket of XDP",
    "device": "/null open",
    "nesting": "it may have guests of its own",
    "dispatching": "syscall user dispatch",
    "32-bit": "it runs 32-bit code",
    "stiff": "too little of its vdso is unused for the first calls",
}
quiet = partial(program, idle_seconds=0.2)
"""Starts guests that write at a quarter of the usual rate: each change has to be merged anew, and here are dozens."""
NAMESPACES = ("pid", "mount", "ipc", "net")
MERGED = (*NAMESPACES, "jailed", "x32", "no-locks", "hugetlbfs", "careful", "not-nesting")


def refused(directory: Path) -> dict[str, Start]:
    """Returns the guests that are not merged. The first is among those of which the admin is told."""
    node = directory / "null"
    os.mknod(node, stat.S_IFCHR | 0o666, Path("/dev/loop-control").stat().st_rdev)
    return {
        "named": quiet("odd", "named", f"{directory}/"),
        "32-bit-calls": quiet("lively", "narrow"),
        "restartable": quiet("lively", "restartable"),
        "stepped": quiet("lively", "stepped"),
        "no-memory": quiet("lively"),
        "no-descriptors": quiet("lively"),
        "two-descriptors": quiet("odd", "few"),
        "locked-now": quiet("lively", "locked=now"),
        "locked-on-fault": quiet("lively", "locked=on-fault"),
        "rooted": quiet("lively", "rooted"),
        "root": lambda name: Holder(name, MIB),
        "watched": quiet("lively", "watched=open"),
        "watched-elsewhere": quiet("lively", "watched=elsewhere"),
        "migrated": quiet("lively", "named=multifdsend_0"),
        "files": quiet("odd", "files"),
        "areas": quiet("odd", "areas"),
        "xdp": quiet("odd", "xdp"),
        # A device is known by its number and not by its name.
        "device": quiet("odd", "device", str(node)),
        "nesting": quiet("odd", "kvm", "-cpu", "host"),
        "dispatching": quiet("odd", "dispatching"),
        "32-bit": lambda name: Narrow(name, directory, MIB * MEBIBYTE),
        "stiff": lambda name: Stiff(name, MIB),
    }


def merged(directory: Path) -> dict[str, Start]:
    """Returns the guests that are merged, be it for a while or in part."""
    inside = ("--fork", "--kill-child")
    return {
        **{kind: quiet("lively", before=("unshare", f"--{kind}", *inside)) for kind in NAMESPACES},
        "jailed": quiet("lively", f"jailed={directory}"),
        "x32": program("lively", "x32"),
        "no-locks": quiet("lively"),
        "hugetlbfs": quiet("lively", "huge"),
        "careful": quiet("odd", "mdwe"),
        "not-nesting": quiet("odd", "kvm", "-cpu", "host,vmx=off"),
        "locking": quiet("lively", "locked=later"),
    }


LIMITED = ("no-memory", "no-descriptors", "locked-now", "locked-on-fault")
left: dict[str, tuple[int, bool]] = {}
"""What those had open and mapped before anybody looked at them."""


def prepare(guests: Mapping[str, Load]) -> None:
    """Sets limits that a guest cannot be started with."""
    for name, words in {"no-memory": "AS=0", "no-descriptors": "NOFILE=0", "no-locks": "MEMLOCK=0"}.items():
        one = guests[name]
        assert isinstance(one, Writer)
        one.ask(words)
    left.update({name: left_behind(guests[name]) for name in LIMITED})


def left_behind(one: Load) -> tuple[int, bool]:
    """Returns how many descriptors the guest has, and whether it maps anything of ours."""
    maps = Path(f"/proc/{one.pid}/maps").read_text()
    return len(list(Path(f"/proc/{one.pid}/fd").iterdir())), "ksmtuned-py" in maps


@pytest.fixture(scope="module")
def pool() -> Iterator[None]:
    """Has some pages of hugetlbfs."""
    pages = Path("/proc/sys/vm/nr_hugepages")
    before = pages.read_text()
    pages.write_text(str(int(before) + 8))
    yield
    pages.write_text(before)


@pytest.fixture(scope="module")
def guests(machine: Door, pool: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crowd]:
    """All of them, on a machine whose virtual machines may have virtual machines."""
    need(os.uname().machine == "x86_64", "x86-64, for the machine code of some guests")
    nested = Path(machine.root) / "sys/module/kvm_intel/parameters/nested"
    nested.parent.mkdir(parents=True)
    nested.write_text("Y\n")
    directory = tmp_path_factory.mktemp("guests")
    with crowd(machine, refused(directory) | merged(directory), prepare) as found:
        yield found


@pytest.mark.parametrize(("name", "reason"), REFUSED.items())
def test_it_is_refused_by_name(guests: Crowd, name: str, reason: str) -> None:
    guests.wait_reason(name, reason)
    one = guests.guests[name]
    assert not stores(one)
    if isinstance(one, Writer) and not isinstance(one, Stiff):
        assert one.check()["wrong"] == 0


@pytest.mark.parametrize("name", LIMITED)
def test_nothing_of_ours_is_left_in_one_whose_limits_leave_no_room(guests: Crowd, name: str) -> None:
    wait_for(lambda: left_behind(guests[name]) == left[name], 5.0, "guest without anything of ours")


def test_nor_is_a_descriptor_in_one_that_takes_no_more(guests: Crowd) -> None:
    found = sorted(path.name for path in Path(f"/proc/{guests['two-descriptors'].pid}/fd").iterdir())
    assert found == ["0", "1", "2"]  # nothing more, and nothing less


def test_32_bit_calls_go_on(guests: Crowd) -> None:
    """Begun again after a kill of ours, such a call would be another one: their numbers are not the same."""
    goes_on(guests["32-bit-calls"], ["narrow"])


def test_a_guest_whose_vdso_cannot_be_executed_lives(guests: Crowd) -> None:
    one = guests["stiff"]
    assert isinstance(one, Stiff)
    assert runs_freely(one)
    assert one.bytes() == one.content


def test_the_name_of_a_file_is_told_without_characters_that_steer(guests: Crowd) -> None:
    wait_true(lambda: any(STEERING in problem for problem in guests.backend.problems), "the reason")
    assert all(problem.isprintable() for problem in guests.backend.problems)
    json.dumps(guests.backend.problems, ensure_ascii=False).encode()


@pytest.mark.parametrize("name", MERGED)
def test_it_is_merged(guests: Crowd, name: str) -> None:
    guests.wait_merged(name)
    assert guests[name].check()["wrong"] == 0


def test_the_jailed_one_really_is(guests: Crowd) -> None:
    assert Path(f"/proc/{guests['jailed'].pid}/root").readlink().name.startswith("guests")


def test_calls_by_the_numbers_of_x32_go_on(guests: Crowd) -> None:
    goes_on(guests["x32"], ["x32"])


def test_pages_of_hugetlbfs_are_left_alone(guests: Crowd) -> None:
    goes_on(guests["hugetlbfs"], ["huge"])


def test_the_others_go_on(guests: Crowd) -> None:
    guests.are_well()


@pytest.fixture(scope="module")
def locked_before(guests: Crowd) -> int:
    """Has a merged guest lock what it will map, and lets some passes go by; returns the KiB that it had locked."""
    guests.wait_merged("locking")
    guests["locking"].ask("lock")
    guests.wait_reason("locking", "memory that it maps is locked (mlockall)")
    locked = locked_kib(guests["locking"])
    wait_passes(guests.backend, 3)
    return locked


def locked_kib(one: Writer) -> int:
    return int(Path(f"/proc/{one.pid}/status").read_text().split("VmLck:")[1].split()[0])


def test_one_that_locks_what_it_will_map_is_left_alone_from_then_on(guests: Crowd, locked_before: int) -> None:
    assert locked_kib(guests["locking"]) == locked_before
    assert guests["locking"].check()["wrong"] == 0


@pytest.fixture(scope="module")
def given_back(guests: Crowd, locked_before: int) -> None:
    """Has all pages been given back, after all else was seen."""
    turn(guests.backend, "run", 2)


@pytest.mark.parametrize("name", MERGED)
def test_it_gets_its_pages_back(guests: Crowd, given_back: None, name: str) -> None:
    wait_true(lambda: not stores(guests[name]), "pages given back")
    assert guests[name].check()["wrong"] == 0
