"""The pure parts of the scan backend: what is parsed, refused, remembered and encoded."""

import stat
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ksmtuned_py.cli.workload import Mix, workloads
from ksmtuned_py.config import Scan
from ksmtuned_py.door import Door
from ksmtuned_py.errors import Garbage
from ksmtuned_py.guests.mappings import candidates, parse_maps
from ksmtuned_py.model import Guest
from ksmtuned_py.scanner import pagemap
from ksmtuned_py.scanner.channel import Channel, Closed, Message, pair
from ksmtuned_py.scanner.choice import NoSuchGuest, targets
from ksmtuned_py.scanner.process import Gone, Process
from ksmtuned_py.scanner.remap.processors.amd64 import NR, SLOT_DATA, Amd64Context
from ksmtuned_py.scanner.remap.refuse import eligibility, opened
from ksmtuned_py.scanner.remap.stop import system
from ksmtuned_py.scanner.sentences import MOST_SENTENCES, guest_sentences
from ksmtuned_py.scanner.swapplace import NO_SWAP, parse_swaps, refusal
from ksmtuned_py.scanner.table import SLAB_BYTES, chunks, windows
from ksmtuned_py.scanner.target import Target
from ksmtuned_py.sensors.status import parse_status
from ksmtuned_py.units import MIB

MAPS = """\
00400000-00500000 r-xp 00000000 fe:00 123                                /usr/bin/qemu
7f0000000000-7f0000100000 rw-p 00000000 00:00 0
7f0000100000-7f0000200000 rw-p 00005000 00:01 99                    /memfd:ksmtuned-py-pages-e3b0c442-1a2b (deleted)
7f0000300000-7f0000400000 rw-s 00000000 00:01 77                         /memfd:pc.ram (deleted)
7f0000500000-7f0000600000 rw-p 00000000 00:00 0                          [stack]
7f0000600000-7f0000700000 rw-p 00000000 00:00 0                          [anon:x y]
"""
SMAPS = """\
7f0000000000-7f0008000000 rw-p 00000000 00:00 0
Size:             131072 kB
VmFlags: rd wr mr mw me ac{flags}
"""


def test_only_private_memory_without_a_file_is_scanned() -> None:
    assert candidates(parse_maps(MAPS)) == [(0x7F0000000000, 0x7F0000200000), (0x7F0000600000, 0x7F0000700000)]


def test_a_line_that_is_no_mapping_is_garbage() -> None:
    with pytest.raises(Garbage, match="START-END"):
        parse_maps("hello\n")


REGULAR, DISK, DEVICE = stat.S_IFREG, stat.S_IFBLK, stat.S_IFCHR


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("/dev/vfio/12", "VFIO"),
        ("/srv/jail/guest/root/dev/vfio/12", "VFIO"),
        ("/dev/vhost-net", "vhost"),
        ("/dev/sg0", "/dev/sg0"),
        ("/dev/infiniband/uverbs0", "RDMA"),
        ("/srv/jail/dev/null", "/srv/jail/dev/null"),
    ],
)
def test_a_device_that_may_write_behind_a_guests_back_is_refused_by_name(name: str, word: str) -> None:
    assert not opened.is_harmless_file(name, system.File(DEVICE, (240, 3), (1, 2)), set())
    assert word in opened.reason(name)


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("anon_inode:[io_uring]", "io_uring"),
        ("anon_inode:[userfaultfd]", "userfaultfd"),
        ("anon_inode:[something new]", "something new"),
        ("something:[4]", "something:[4]"),
        ("a socket of XDP", "XDP"),
    ],
)
def test_an_object_of_the_kernel_that_may_do_so_is_refused_by_name(name: str, word: str) -> None:
    assert not opened.is_harmless_object(name)
    assert word in opened.reason(name)


def test_native_aio_looks_like_a_file_and_is_none() -> None:
    assert not opened.is_harmless_file("/[aio] (deleted)", system.File(REGULAR, (0, 0), (1, 2)), set())
    assert "native AIO" in opened.reason("/[aio] (deleted)")


@pytest.mark.parametrize(
    ("mode", "device"),
    [(DEVICE, (10, 232)), (DEVICE, (10, 200)), (DEVICE, (1, 3)), (DEVICE, (136, 1)), (DEVICE, (251, 0)),
     (DISK, (253, 3)), (REGULAR, (0, 0)), (stat.S_IFIFO, (0, 0))],
)  # fmt: skip
def test_what_every_guest_has_open_is_no_reason(mode: int, device: tuple[int, int]) -> None:
    assert opened.is_harmless_file("/whatever", system.File(mode, device, (1, 2)), {251})
    for name in ("anon_inode:kvm-vm", "anon_inode:kvm-vcpu:3", "anon_inode:[eventpoll]", "pipe:[7]"):
        assert opened.is_harmless_object(name)


@pytest.mark.parametrize(
    ("status", "word"),
    [
        ("State:\tS (sleeping)\nTracerPid:\t0\nSeccomp:\t0\n", ""),
        ("State:\tS (sleeping)\nTracerPid:\t0\nSeccomp:\t1\n", "strict seccomp"),
        ("State:\tS (sleeping)\nTracerPid:\t0\nSeccomp:\t2\n", ""),
        ("State:\tS (sleeping)\nTracerPid:\t7\nSeccomp:\t0\n", "debugger"),
        ("State:\tT (stopped)\nTracerPid:\t0\nSeccomp:\t0\n", "stopped"),
        ("State:\tZ (zombie)\nTracerPid:\t0\nSeccomp:\t0\n", "ended"),
        ("Name:\tmig/src/main\nState:\tS (sleeping)\n", "migrated"),
        ("State:\tS (sleeping)\nUid:\t64055\t64055\t64055\t64055\n", ""),
        ("State:\tS (sleeping)\nUid:\t64055\t64055\t0\t64055\n", "as root"),
        ("State:\tS (sleeping)\nUid:\t7\t7\t7\t7\nCapPrm:\t0000000000003400\n", ""),
        ("State:\tS (sleeping)\nUid:\t7\t7\t7\t7\nCapPrm:\t0000000000000002\n", "capabilities"),
    ],
)
def test_a_process_is_refused_for_its_status(status: str, word: str) -> None:
    found = eligibility.status_refusal(parse_status(status))
    assert word in str(found)
    assert bool(found) == bool(word)


def test_more_refusals_are_named() -> None:
    assert "vhost-user" in str(eligibility.mappings_refusal(parse_maps(MAPS), MIB))
    assert eligibility.mappings_refusal(parse_maps(MAPS), 2 * MIB) is None
    reporting = ["qemu", "-device", "virtio-balloon,free-page-reporting=on"]
    assert "free page reporting" in str(eligibility.command_refusal(reporting))
    assert eligibility.command_refusal(["qemu", "-device", "virtio-balloon"]) is None
    assert "-incoming" in str(eligibility.command_refusal(["qemu", "-incoming", "defer"]))


@pytest.mark.parametrize(
    ("line", "refused"),
    [
        ("qemu -cpu host", True),
        ("qemu -cpu max,vmx=on", True),
        ("qemu", True),
        ("firecracker --id a", True),
        ("qemu -cpu Skylake-Server,vmx=on", True),
        ("qemu -cpu Skylake-Server,+vmx", True),
        ("qemu -cpu Skylake-Server,ssbd=on", False),
        ("qemu -cpu host,vmx=off", False),
        ("qemu -cpu host,-vmx", False),
    ],
)
def test_a_guest_that_may_have_guests_is_refused(line: str, refused: bool) -> None:
    assert bool(eligibility.nested_refusal(line.split(), "vmx")) is refused


def test_flags_of_a_mapping_are_restored_or_it_is_refused() -> None:
    found, reason = eligibility.eligible(SMAPS.format(flags=" dd hg mg"), None, MIB)
    assert [one.advice for one in found] == [(12, 14, 16)]
    assert found[0].reserve
    assert reason is None
    assert eligibility.eligible(SMAPS.format(flags=" nr"), None, MIB)[0][0].reserve is False
    found, reason = eligibility.eligible(SMAPS.format(flags=" lo"), None, MIB)
    assert found == []
    assert "flag lo" in str(reason)
    assert eligibility.eligible(SMAPS.format(flags=""), None, 256 * MIB)[0] == []
    keyed = SMAPS.format(flags="").replace("VmFlags:", "ProtectionKey:         3\nVmFlags:")
    assert "protection key 3" in str(eligibility.eligible(keyed, None, MIB)[1])


def test_zero_pages_go_only_where_no_disk_is_written() -> None:
    head = "Filename Type Size Used Priority\n"
    disk, zram = "/dev/sda2 partition 1000000 0 -2\n", "/dev/zram0 partition 1000000 0 100\n"
    full = "/dev/zram0 partition 1000000 990000 100\n"
    assert refusal(parse_swaps(head), zeromap=True, zswap=True) == NO_SWAP
    assert refusal(parse_swaps(head + full), zeromap=True, zswap=False) == NO_SWAP
    assert "/dev/sda2" in str(refusal(parse_swaps(head + disk), zeromap=False, zswap=False))
    assert "/dev/sda2" in str(refusal(parse_swaps(head + disk + full), zeromap=False, zswap=False))
    assert refusal(parse_swaps(head + disk), zeromap=True, zswap=False) is None
    assert refusal(parse_swaps(head + disk), zeromap=False, zswap=True) is None
    assert refusal(parse_swaps(head + disk + zram), zeromap=False, zswap=False) is None


@given(st.lists(st.tuples(st.integers(0, 5000), st.integers(1, 300)), max_size=6), st.integers(1, 300))
def test_chunks_have_all_pages_in_order_and_never_too_many(pieces: list[tuple[int, int]], most: int) -> None:
    edges, at = [], 0
    for gap, length in pieces:
        edges.append(((at + gap) * 4096, (at + gap + length) * 4096))
        at += gap + length
    runs = np.array(edges, np.uint64).reshape(-1, 2)
    cut = list(chunks(runs, most))
    assert all(0 < pagemap.page_count(one) <= most for one in cut)
    numbers = np.array([page for one in cut for page in pagemap.page_numbers(one, 0).tolist()], np.uint32)
    assert numbers.tolist() == pagemap.page_numbers(runs, 0).tolist()
    assert pagemap.page_count(pagemap.joined(numbers, 0)) == len(numbers)


def test_windows_cut_at_their_borders() -> None:
    cut = windows([(SLAB_BYTES - 4096, SLAB_BYTES + 4096)])
    assert cut == {0: [(SLAB_BYTES - 4096, SLAB_BYTES)], SLAB_BYTES: [(SLAB_BYTES, SLAB_BYTES + 4096)]}


def test_the_words_of_pagemap_say_the_same_as_its_scan(root: None) -> None:
    with (
        workloads([Mix(equal_bytes=4 * MIB, zero_bytes=MIB)], mergeable=False) as loads,
        Process(Target(pid=loads[0].pid, start_ticks=0), Door()) as process,
    ):
        for start, end in process.ranges():
            scanned = process.runs(start, end, pagemap.PRIVATE)
            words = pagemap.from_words(process.pagemap, start, end, pagemap.PRIVATE)
            assert pagemap.page_numbers(scanned, start).tolist() == pagemap.page_numbers(words, start).tolist()


def test_a_process_that_is_another_one_now_is_gone(root: None) -> None:
    with workloads([Mix()], mergeable=False) as loads:
        with pytest.raises(Gone):
            Process(Target(pid=loads[0].pid, start_ticks=1, name="old"), Door())
        process = Process(Target(pid=loads[0].pid, start_ticks=0), Door())
    with process:
        assert process.read([memoryview(bytearray(8))], 0x400000) == 0
        with pytest.raises(Gone):
            process.ranges()


def test_guests_are_named_or_given_by_number() -> None:
    guests = [
        Guest(pid=7, start_ticks=1, name="web-1", kind="qemu"),
        Guest(pid=8, start_ticks=1, name="db", kind="qemu"),
    ]
    settings = Scan(groups=("web-*",), remap_guests=("db",))
    found = targets(["web-1", "8"], guests, settings, Door())
    assert [(one.pid, one.group, one.remap) for one in found] == [(7, "web-*", False), (8, "", True)]
    with pytest.raises(NoSuchGuest, match="nobody"):
        targets(["nobody"], guests, settings, Door())
    fleet = [replace(guests[0], aliases=("102",), uuid="0c5f")]
    assert all([one.pid for one in targets([word], fleet, settings, Door())] == [7] for word in ("102", "0C5F"))


def test_the_channel_keeps_messages_apart_and_tells_the_end() -> None:
    left, right = (Channel(end) for end in pair())
    left.send({"a": 1})
    left.send({"b": 2})
    assert right.receive(1) == [{"a": 1}, {"b": 2}]
    left.close()
    with pytest.raises(Closed):
        right.receive(1)
    with pytest.raises(Closed):
        right.send({})
    right.close()


def test_what_the_other_side_does_not_read_yet_is_sent_later() -> None:
    left, right = (Channel(end) for end in pair())
    messages = [{"number": number, "text": "x" * 300_000} for number in range(5)]
    for message in messages:
        left.send(message)
    assert left.is_full
    found: list[Message] = []
    while len(found) < len(messages):
        found += right.receive(0)
        left.receive(0)
    assert found == messages
    assert not left.is_full
    left.close()
    right.close()


def test_guests_with_the_same_trouble_are_one_sentence_and_all_are_few() -> None:
    same = [{"name": f"web-{number}", "rest": "", "refusal": "its memory is locked"} for number in range(5)]
    assert guest_sentences(same) == ["web-0, web-1, web-2 and 2 more: its memory is locked"]
    many = [{"name": f"db-{number}", "rest": f"left alone for {number} s", "refusal": ""} for number in range(5000)]
    found = guest_sentences(many)
    assert len(found) == MOST_SENTENCES
    assert found[-1].startswith(f"{5000 - MOST_SENTENCES + 1} more guests")


@pytest.mark.parametrize(
    ("rax", "expected_rip", "expected_rax", "alt_rip", "alt_rax"),
    [
        (-512, 998, 35, 1000, -4),
        (-513, 998, 35, 998, 35),
        (-514, 998, 35, 1000, -4),
        (-516, 998, NR["restart_syscall"], 1000, -4),
        (-11, 1000, -11, 1000, -11),
        (5, 1000, 5, 1000, 5),
    ],
)
def test_an_interrupted_system_call_is_begun_again(
    rax: int, expected_rip: int, expected_rax: int, alt_rip: int, alt_rax: int
) -> None:
    values = list(Amd64Context(tuple([0] * 27)).elsewhere(1000, rax).values)
    values[15], values[19] = 35, 77  # orig_rax: it was in a system call; rsp
    slot = SLOT_DATA.unpack(Amd64Context(tuple(values)).slot_data(mask=3))
    assert (slot[14], slot[17]) == (expected_rax % 2**64, expected_rip)
    assert (slot[20], slot[21]) == (alt_rax % 2**64, alt_rip)
    assert (slot[15], slot[18]) == (77, 3)
