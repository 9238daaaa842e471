"""Sizes are right where pages are not 4 KiB, and one place alone says how large a page is."""

import ast
import json
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from ksmtuned_py.cli.main import main
from ksmtuned_py.config import Config
from ksmtuned_py.daemon.machine import look
from ksmtuned_py.door import Door
from ksmtuned_py.sensors.memory import read_memory
from ksmtuned_py.sensors.pages import OWN_PAGE_BYTES, page_bytes
from ksmtuned_py.units import GIB, KIB, MIB, human_bytes
from tests.support.trees import (
    ARM64_16K,
    ARM64_64K,
    KERNELS,
    S390X,
    X86_64,
    Architecture,
    FakeGuest,
    KernelVersion,
    captured_tree,
    make_fake_tree,
    meminfo,
    put,
)

PACKAGE = Path(__file__).parent.parent.parent / "ksmtuned_py"
ARCHITECTURES = {"x86-64": X86_64, "arm64-16k": ARM64_16K, "arm64-64k": ARM64_64K, "s390x": S390X}
each_architecture = pytest.mark.parametrize("name", ARCHITECTURES)


def tree(root: Path, of: Architecture, kernel: KernelVersion = "6.18") -> Path:
    """Make a tree with a guest of 20,000 pages, 3000 merged and 100 zero pages."""
    web = FakeGuest(pid=1001, name="web", rss_pages=20_000, rmap_items=20_000, merging_pages=3000, zero_pages=100)
    profit: dict[str, Any] = {} if kernel == "6.1" else {"general_profit": 2000 * of.page_bytes - 20_000 * 64}
    return make_fake_tree(
        root, kernel=kernel, architecture=of, guests=[web], run=1, pages_sharing=2000, pages_unshared=18_000, **profit
    )


def printed(*arguments: str) -> str:
    """The text that a verb prints."""
    output = StringIO()
    with redirect_stdout(output):
        main(list(arguments))
    return output.getvalue()


@each_architecture
@pytest.mark.parametrize("kernel", KERNELS)
def test_sizes_of_another_machines_tree_are_in_its_pages(name: str, kernel: KernelVersion, tmp_path: Path) -> None:
    size = ARCHITECTURES[name].page_bytes
    seen = look(Door(str(tree(tmp_path, ARCHITECTURES[name], kernel))), Config())
    (web,) = seen.guests
    assert (seen.page_bytes, seen.saved_bytes, web.rss_bytes) == (size, 2000 * size, 20_000 * size)
    assert web.ksm is not None
    zero = 0 if kernel == "6.1" else 100
    assert web.ksm.profit_bytes == (3000 + zero) * size - 20_000 * 64


@each_architecture
def test_verbs_say_so(name: str, tmp_path: Path) -> None:
    size = ARCHITECTURES[name].page_bytes
    where = ("--root", str(tree(tmp_path, ARCHITECTURES[name])), "--runtime-dir", str(tmp_path / "none"))
    (web,) = json.loads(printed("guests", "--json", *where))
    assert (web["merged_bytes"], web["zero_bytes"], web["resident_bytes"]) == (3000 * size, 100 * size, 20_000 * size)
    assert f"the host saves {human_bytes(2000 * size)}," in printed("guests", *where)


@each_architecture
def test_what_a_process_says_tells_the_size(name: str, tmp_path: Path) -> None:
    root = tree(tmp_path, ARCHITECTURES[name])
    put(root, "proc/7/statm", "garbage")
    put(root, "proc/7/status", "VmSize:\tmany kB\n")
    put(root, "proc/8/statm", "100 1 1\n")  # it grew between the two reads
    put(root, "proc/8/status", "VmSize:\t411 kB\n")
    assert page_bytes(Door(str(root))) == ARCHITECTURES[name].page_bytes


def test_this_machine_knows_it_by_itself(tmp_path: Path) -> None:
    assert page_bytes(Door("/")) == page_bytes(Door(str(tmp_path))) == OWN_PAGE_BYTES


@pytest.mark.parametrize("kernel", KERNELS)
def test_real_captures_were_made_with_4_kib(kernel: KernelVersion, tmp_path: Path) -> None:
    assert page_bytes(Door(str(captured_tree(kernel, tmp_path)))) == 4 * KIB


def without_sum(text: str) -> str:
    """The meminfo of a kernel that does not sum up its hugetlb pools."""
    return "".join(line for line in text.splitlines(keepends=True) if not line.startswith(("Hugetlb:", "HugePages_T")))


@pytest.mark.parametrize(
    ("page_kib", "total", "pools", "hugetlb"),
    [
        (GIB // KIB, 240, {}, 240 * GIB),
        (2048, 512, {}, GIB),
        (MIB // KIB, 100, {}, 100 * MIB),  # s390x
        (512 * MIB // KIB, 4, {}, 2 * GIB),  # arm64 with 64 KiB
        (2048, 512, {"hugepages-2048kB": 512, "hugepages-1048576kB": 7}, 8 * GIB),
        (2048, 0, {"hugepages-1048576kB": 7}, 7 * GIB),
        (2048, 0, {}, 0),
    ],
)
def test_hugetlb_pools_are_summed_up_where_the_kernel_does_not(
    page_kib: int, total: int, pools: dict[str, int], hugetlb: int, tmp_path: Path
) -> None:
    text = without_sum(meminfo(total_bytes=256 * GIB, available_bytes=10 * GIB, Hugepagesize=page_kib))
    root = make_fake_tree(tmp_path, files={"proc/meminfo": f"{text}HugePages_Total:     {total}\n"})
    for pool, count in pools.items():
        put(root, f"sys/kernel/mm/hugepages/{pool}/nr_hugepages", f"{count}\n")
    memory = read_memory(Door(str(root)))
    assert (memory.hugetlb_bytes, memory.base_bytes) == (hugetlb, 256 * GIB - hugetlb)


def test_where_the_kernel_sums_them_up_it_is_believed(tmp_path: Path) -> None:
    root = make_fake_tree(tmp_path, files={"proc/meminfo": meminfo(Hugetlb=GIB // KIB, Hugepagesize=2048)})
    put(root, "sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages", "1\n")
    assert read_memory(Door(str(root))).hugetlb_bytes == GIB


def test_nobody_else_says_how_large_a_page_is() -> None:
    found = [
        f"{file.relative_to(PACKAGE)}: {ast.unparse(node)}"
        for file in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if _tells_a_page_size(node)
    ]
    assert [place for place in found if not place.startswith(ALLOWED)] == []


ALLOWED = ("sensors/pages.py", "ksmdmodel/", "scanner/worker.py", "scanner/remap/")
"""Where page sizes may stand: the one place, a model with its own pages, and code proven for 4 KiB alone."""


def _tells_a_page_size(node: ast.AST) -> bool:
    match node:
        case ast.Attribute(attr="PAGESIZE" | "getpagesize") | ast.Constant(value="SC_PAGESIZE" | "SC_PAGE_SIZE"):
            return True
        case ast.BinOp(op=ast.Mult() | ast.Div() | ast.FloorDiv(), left=left, right=right):
            return any(isinstance(side, ast.Constant) and side.value == 4096 for side in (left, right))
    return False
