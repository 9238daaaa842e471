"""Fake trees: a small /sys and /proc below a directory, for tests that change one thing and look what follows.

They have the files of the captured trees (tests/data/captured), which a test compares.
"""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from ksmtuned_py.units import GIB, KIB, MIB

KernelVersion = Literal["6.1", "6.12", "6.18"]
KERNELS: tuple[KernelVersion, ...] = get_args(KernelVersion)
CAPTURED = Path(__file__).parent.parent / "data" / "captured"
PAGE_BYTES = 4096
KSM = "sys/kernel/mm/ksm"
KSMD_PID = 42
KERNEL_THREAD = 2097216
"""The flags of a kernel thread (PF_KTHREAD)."""
BOOTED_UNIX_SECONDS = 1_700_000_000

OLD_KSM_FILES: Mapping[str, object] = {
    "run": 0,
    "pages_to_scan": 100,
    "sleep_millisecs": 20,
    "merge_across_nodes": 1,
    "max_page_sharing": 256,
    "stable_node_chains_prune_millisecs": 2000,
    "use_zero_pages": 0,
    "pages_shared": 0,
    "pages_sharing": 0,
    "pages_unshared": 0,
    "pages_volatile": 0,
    "full_scans": 0,
    "stable_node_chains": 0,
    "stable_node_dups": 0,
}
NEW_KSM_FILES: Mapping[str, object] = {
    **OLD_KSM_FILES,
    "smart_scan": 1,
    "advisor_mode": "[none] scan-time",
    "advisor_max_cpu": 70,
    "advisor_min_pages_to_scan": 500,
    "advisor_max_pages_to_scan": 30000,
    "advisor_target_scan_time": 200,
    "pages_scanned": 0,
    "pages_skipped": 0,
    "ksm_zero_pages": 0,
    "general_profit": 0,
}
KSM_FILES: Mapping[KernelVersion, Mapping[str, object]] = {
    "6.1": OLD_KSM_FILES,
    "6.12": NEW_KSM_FILES,
    "6.18": NEW_KSM_FILES,
}
PRESSURE = """\
some avg10=0.00 avg60=0.00 avg300=0.00 total=0
full avg10=0.00 avg60=0.00 avg300=0.00 total=0
"""


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """What a machine's pages are like."""

    page_bytes: int = PAGE_BYTES
    huge_page_bytes: int = 2 * MIB


X86_64 = Architecture()
ARM64_16K = Architecture(page_bytes=16 * KIB, huge_page_bytes=32 * MIB)
ARM64_64K = Architecture(page_bytes=64 * KIB, huge_page_bytes=512 * MIB)
S390X = Architecture(huge_page_bytes=MIB)


@dataclass(frozen=True, kw_only=True)
class FakeGuest:
    """One process of a fake tree; as it stands, a QEMU guest of 1 GiB that has merged nothing."""

    pid: int
    name: str
    comm: str = "qemu-system-x86"
    command: tuple[str, ...] = ()
    """The command line; empty stands for one as QEMU has it."""
    uuid: str = ""
    start_ticks: int = 5000
    rss_pages: int = GIB // PAGE_BYTES
    rmap_items: int = 0
    merging_pages: int = 0
    zero_pages: int = 0
    mergeable: bool = True

    @property
    def arguments(self) -> tuple[str, ...]:
        """Returns its command line."""
        uuid = ("-uuid", self.uuid) if self.uuid else ()
        return self.command or ("/usr/bin/qemu-system-x86_64", "-name", f"guest={self.name}", *uuid, "-m", "1024")


GUESTS = (FakeGuest(pid=1001, name="web"), FakeGuest(pid=1002, name="db"), FakeGuest(pid=1003, name="mail"))


def make_fake_tree(
    root: Path,
    *,
    kernel: KernelVersion = "6.18",
    architecture: Architecture = X86_64,
    guests: Sequence[FakeGuest] = GUESTS,
    files: Mapping[str, str | None] | None = None,
    **ksm: object,
) -> Path:
    """Builds the tree and returns its root: `run=1` sets a KSM file, `files` any other by its path; None removes it."""
    unknown = ksm.keys() - KSM_FILES[kernel].keys()
    assert not unknown, f"Linux {kernel} has no {unknown}"
    for name, value in {**KSM_FILES[kernel], **ksm}.items():
        put(root, f"{KSM}/{name}", None if value is None else f"{value}\n")
    for path, text in {**_host_files(kernel, architecture), **(files or {})}.items():
        put(root, path, text)
    for guest in guests:
        add_guest(root, guest, kernel, architecture.page_bytes)
    return root


def captured_tree(kernel: KernelVersion, directory: Path) -> Path:
    """Returns a copy of what a kernel said while two processes of 6 MiB merged (`tests.support.capture`)."""
    return Path(shutil.copytree(CAPTURED / kernel, directory / kernel))


def put(root: Path, path: str, text: str | None) -> None:
    """Writes one file below the root; None removes it."""
    file = root / path
    if text is None:
        file.unlink(missing_ok=True)
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def add_guest(root: Path, guest: FakeGuest, kernel: KernelVersion = "6.18", page_bytes: int = PAGE_BYTES) -> None:
    """Adds one process, or brings it up to date."""
    directory = f"proc/{guest.pid}"
    put(root, f"{directory}/cmdline", "".join(f"{argument}\0" for argument in guest.arguments))
    put(root, f"{directory}/comm", f"{guest.comm}\n")
    put(root, f"{directory}/stat", _stat(guest.pid, guest.comm, guest.start_ticks, guest.rss_pages, page_bytes))
    put(root, f"{directory}/statm", f"{guest.rss_pages * 2} {guest.rss_pages} 5000 1500 0 {guest.rss_pages} 0\n")
    put(root, f"{directory}/status", _status(guest.pid, guest.comm, guest.rss_pages, page_bytes))
    put(root, f"{directory}/ksm_merging_pages", f"{guest.merging_pages}\n")
    put(root, f"{directory}/ksm_stat", _ksm_stat(guest, kernel, page_bytes))


def mapping(*flags: str, mode: str = "rw-p", path: str = "", size_bytes: int = GIB, **sizes_bytes: int) -> str:
    """Returns one mapping of /proc/PID/smaps: its VmFlags, and sizes by the names of its lines (`Swap=6 * GIB`)."""
    lines = [f"7f0000000000-{0x7F0000000000 + size_bytes:x} {mode} 00000000 00:01 7 {path}"]
    lines += [f"{name + ':':<16}{size // KIB:>8} kB" for name, size in {"Size": size_bytes, **sizes_bytes}.items()]
    return "\n".join([*lines, f"VmFlags: {' '.join(('rd', 'wr', *flags))} \n"])


def meminfo(*, total_bytes: int = 16 * GIB, available_bytes: int = 8 * GIB, **kib: int) -> str:
    """Returns a /proc/meminfo; further lines are given by name, in KiB: `SwapTotal=1024`."""
    lines = {
        "MemTotal": total_bytes // KIB,
        "MemFree": available_bytes // 2 // KIB,
        "MemAvailable": available_bytes // KIB,
        "Buffers": 100 * MIB // KIB,
        "Cached": available_bytes // 2 // KIB,
        "Active": 0,
        "Inactive": 0,
        "SwapTotal": 0,
        "SwapFree": 0,
        "AnonPages": (total_bytes - available_bytes) // KIB,
        "Shmem": 0,
        "Hugetlb": 0,
        **kib,
    }
    return "".join(f"{name + ':':<16}{value:>8} kB\n" for name, value in lines.items()) + "HugePages_Total:       0\n"


def _host_files(kernel: KernelVersion, architecture: Architecture) -> dict[str, str]:
    vmstat = ["pswpin", "pswpout", "oom_kill", "thp_collapse_alloc", "ksm_swpin_copy", "cow_ksm"]
    if kernel != "6.1":
        vmstat += ["swpin_zero", "swpout_zero"]
    return {
        "proc/meminfo": meminfo(Hugepagesize=architecture.huge_page_bytes // KIB),
        "proc/vmstat": "".join(f"{name} 0\n" for name in vmstat),
        "proc/pressure/memory": PRESSURE,
        "proc/pressure/cpu": PRESSURE,
        "proc/stat": f"btime {BOOTED_UNIX_SECONDS}\n",  # CPUs whose idle time stands still would be busy ones
        "proc/loadavg": "0.00 0.00 0.00 1/100 1003\n",
        "proc/version": f"Linux version {kernel}.0\n",
        f"proc/{KSMD_PID}/comm": "ksmd\n",
        f"proc/{KSMD_PID}/cmdline": "",
        f"proc/{KSMD_PID}/stat": _stat(KSMD_PID, "ksmd", 50, 0, flags=KERNEL_THREAD),
        f"proc/{KSMD_PID}/status": _status(KSMD_PID, "ksmd", 0),
        f"proc/{KSMD_PID}/schedstat": "0 0 0\n",
    }


def _stat(
    pid: int, comm: str, start_ticks: int, rss_pages: int, page_bytes: int = PAGE_BYTES, flags: int = 4194560
) -> str:
    """Returns proc(5)'s 52 fields: 9 are the flags, 22 the start, 23 the size in bytes, 24 the resident pages."""
    before = f"{pid} ({comm}) S 1 {pid} {pid} 0 -1 {flags} 100 0 0 0 10 5 0 0 20 0 4 0"
    return f"{before} {start_ticks} {rss_pages * 2 * page_bytes} {rss_pages} 18446744073709551615{' 0' * 27}\n"


def _status(pid: int, comm: str, rss_pages: int, page_bytes: int = PAGE_BYTES) -> str:
    rss_kib = rss_pages * page_bytes // KIB
    memory = f"VmSize:\t{rss_kib * 2} kB\nVmRSS:\t{rss_kib} kB\n" if rss_pages else ""
    who = f"Name:\t{comm}\nState:\tS (sleeping)\nTgid:\t{pid}\nPid:\t{pid}\nPPid:\t1\nUid:\t0\t0\t0\t0\n"
    return f"{who}{memory}Threads:\t4\n"


def _ksm_stat(guest: FakeGuest, kernel: KernelVersion, page_bytes: int) -> str:
    old = f"ksm_rmap_items {guest.rmap_items}\n"
    if kernel == "6.1":
        return old
    profit = (guest.merging_pages + guest.zero_pages) * page_bytes - guest.rmap_items * 64
    more = f"ksm_zero_pages {guest.zero_pages}\nksm_merging_pages {guest.merging_pages}\nksm_process_profit {profit}\n"
    if kernel == "6.12":
        return old + more
    return f"{old}{more}ksm_merge_any: no\nksm_mergeable: {'yes' if guest.mergeable else 'no'}\n"
