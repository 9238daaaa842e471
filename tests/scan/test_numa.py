"""Merged memory has the NUMA policy that it had before, and so has memory that is given back."""

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from ksmtuned_py.backends.scan import ScanBackend
from ksmtuned_py.door import Door
from ksmtuned_py.scanner.remap.refuse.eligibility import eligible, of_one_policy
from ksmtuned_py.scanner.remap.refuse.numa import NumaPolicy, parse_policy, policies
from ksmtuned_py.units import MIB
from tests.scan.conftest import scanning, turn, wait_passes, wait_true
from tests.scan.crowd import IDLE_SECONDS, PAUSE_MILLISECS
from tests.scan.test_remap import REMAP
from tests.scan.writers import MIB as GUEST_MIB
from tests.scan.writers import Writer, stores
from tests.support.need import need

PREFER, BIND, INTERLEAVE, PREFER_MANY, WEIGHTED, STATIC, RELATIVE = 1, 2, 3, 5, 6, 0x8000, 0x4000
NUMA_MAPS = """\
55d0a0000000 default file=/usr/bin/qemu mapped=5 N0=5 kernelpagesize_kB=4
7f0000000000 bind:0-1 anon=5 dirty=5 N0=5 kernelpagesize_kB=4
7f0008000000 prefer (many)=static:0,2 anon=5 dirty=5 N0=5 kernelpagesize_kB=4
7f0010000000 local anon=5 dirty=5 N0=5 kernelpagesize_kB=4
7ffccd17e000 default stack anon=15 dirty=15 active=1 N0=15 kernelpagesize_kB=4
"""


@pytest.mark.parametrize(
    ("text", "mode", "nodes"),
    [
        ("bind:0-1", BIND, 0b11),
        ("interleave:0,2-3", INTERLEAVE, 0b1101),
        ("prefer:1", PREFER, 0b10),
        ("prefer (many):0-1", PREFER_MANY, 0b11),
        ("weighted interleave:0-1", WEIGHTED, 0b11),
        ("bind=static:1", BIND | STATIC, 0b10),
        ("local", 4, 0),
    ],
)
def test_a_policy_is_read(text: str, mode: int, nodes: int) -> None:
    assert parse_policy(text) == NumaPolicy(text, mode, nodes)


@pytest.mark.parametrize("text", ["bind=relative:0", "striped:0", "bind:0;1", "bind=static|relative:0", "bind:1024"])
def test_a_policy_that_cannot_be_set_again_is_none(text: str) -> None:
    assert parse_policy(text) is None


def test_a_policy_that_is_the_processs_own_need_not_be_restored() -> None:
    found = policies(NUMA_MAPS)
    assert found[0x7F0000000000] == "bind:0-1"
    assert found[0x7F0008000000] == "prefer (many)=static:0,2"
    assert found[0x7F0010000000] == found[0x55D0A0000000] == ""
    bound = policies(NUMA_MAPS.replace("default", "bind:0-1"))
    assert bound[0x7F0000000000] == ""
    assert bound[0x7F0010000000] == "local"


def test_memory_with_another_policy_than_most_is_left_out_by_name() -> None:
    line = "{:x}-{:x} rw-p 00000000 00:00 0\nVmFlags: rd wr mr mw me ac\n"
    sizes = {0x7F0000000000: 128 * MIB, 0x7F0010000000: 256 * MIB, 0x7F0030000000: 64 * MIB}
    smaps = "".join(line.format(start, start + size) for start, size in sizes.items())
    texts = dict(zip(sizes, ("bind:0", "bind:1", "bind=relative:0"), strict=True))
    found, reason = eligible(smaps, texts, MIB)
    assert reason == "a mapping of it has the NUMA policy bind=relative:0, which we cannot restore"
    kept, policy, other = of_one_policy(found)
    assert [one.mapping.start for one in kept] == [0x7F0010000000]
    assert policy == NumaPolicy("bind:1", BIND, 2)
    assert other == "only its memory with the NUMA policy bind:1 is merged, not bind:0"
    assert of_one_policy([]) == ([], None, None)


@contextmanager
def guests(*arguments: tuple[str, ...]) -> Iterator[list[Writer]]:
    """Starts guests that always write, each with such a policy."""
    need(Path("/proc/self/numa_maps").exists(), "a kernel with NUMA")
    with ExitStack() as stack:
        found = []
        for number, words in enumerate(arguments):
            command = (sys.executable, "-m", "tests.scan.bound", str(GUEST_MIB), *words)
            found.append(stack.enter_context(Writer(f"bound-{number}", command=command, idle_seconds=IDLE_SECONDS)))
        yield found


def shown(one: Writer) -> set[str]:
    """Returns the policies in numa_maps of the guest's memory."""
    start = int(one.ask("where"))
    lines = [line.split(" ", 1) for line in Path(f"/proc/{one.pid}/numa_maps").read_text().splitlines()]
    inside = [text for at, text in lines if start <= int(at, 16) < start + GUEST_MIB * MIB]
    return {text.split(" anon=")[0].split(" file=")[0].strip() for text in inside}


def test_a_policy_that_cannot_be_set_again_is_refused_by_name(root: None, no_ksm: Door) -> None:
    with guests((str(BIND | RELATIVE), "1")) as (one,), scanning(no_ksm, REMAP, [one]) as backend:
        wanted = "bound-0: a mapping of it has the NUMA policy bind=relative:0, which we cannot restore"
        wait_true(lambda: wanted in backend.problems, "reason")
        wait_passes(backend, 4)
        assert not stores(one)


KINDS = {"bind:0": BIND, "interleave:0": INTERLEAVE, "bind=static:0": BIND | STATIC}


class Pair(NamedTuple):
    """Guests with one policy: one has it on its memory, the other one's whole process has it."""

    bound: Writer
    whole: Writer


Merged = tuple[ScanBackend, dict[str, Pair]]


@pytest.fixture(scope="module")
def merged(machine: Door) -> Iterator[Merged]:
    """Guests with all these policies, which one worker has merged."""
    words = [(str(mode), "1", *more) for mode in KINDS.values() for more in ((), ("process",))]
    with guests(*words) as found, scanning(machine, REMAP, found, sleep_millisecs=PAUSE_MILLISECS) as backend:
        wait_true(lambda: all(map(stores, found)), "shared pages")
        wait_passes(backend, 2)
        yield backend, dict(zip(KINDS, map(Pair, found[::2], found[1::2]), strict=True))


@pytest.fixture(scope="module")
def given_back(merged: Merged) -> dict[str, Pair]:
    """The same guests after all was given back to them."""
    backend, pairs = merged
    turn(backend, "run", 2)
    wait_true(lambda: not any(stores(one) for pair in pairs.values() for one in pair), "pages given back")
    return pairs


@pytest.mark.parametrize("text", KINDS)
def test_a_policy_is_there_again_in_merged_memory(merged: Merged, text: str) -> None:
    pair = merged[1][text]
    assert stores(pair.bound).isdisjoint(stores(pair.whole))
    for one in pair:
        assert shown(one) == {text}
        assert one.check()["wrong"] == 0


def test_memory_of_different_policies_is_not_merged_with_each_other(merged: Merged) -> None:
    bound = [stores(pair.bound) for pair in merged[1].values()]
    assert len(set.union(*bound)) == sum(map(len, bound))


@pytest.mark.parametrize("text", KINDS)
def test_so_it_is_in_what_is_given_back(given_back: dict[str, Pair], text: str) -> None:
    for one in given_back[text]:
        assert shown(one) == {text}
        assert one.check()["wrong"] == 0
