"""`python -m bench.scan` (root): the scan backend beside ksmd, on the same memory, one after the other.

A first pass, and what later passes cost when some pages have changed since the one before; then how long the steps of
zero mode take, how long remapped guests are stopped at a time, and what the tables take.
"""

import argparse
import json
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table as Printed

from ksmtuned_py.backends.ksmd import find_ksmd
from ksmtuned_py.backends.scan import ScanBackend
from ksmtuned_py.backends.scanlink import for_scanner
from ksmtuned_py.cli.workload import Mix, Workload, workloads
from ksmtuned_py.config import Config, InForce, Scan
from ksmtuned_py.door import Door
from ksmtuned_py.model import Guest, KnobName, Write
from ksmtuned_py.scanner.scanner import Scanner
from ksmtuned_py.scanner.target import Target
from ksmtuned_py.sensors.stat import parse_stat
from ksmtuned_py.units import MIB
from tests.scan.changing import Changer, changer
from tests.scan.conftest import zram
from tests.support.ksmlock import RealKsm, locked_ksm

CHANGED = (0, 2, 64, 1024)
"""Pages written between two passes."""
WARM_PASSES, PASSES = 18, 18
"""A page that does not change is looked at in every ninth pass in the end."""
PASS_SECONDS = 120.0
Figures = dict[str, float]


class OfScan:
    """The scan backend's passes over one process."""

    def __init__(self, load: Changer, *, smart: bool) -> None:
        self._scanner = Scanner(Door(), for_scanner(Scan(reclaim="report")))
        self._scanner.smart = smart
        self._scanner.watch([Target(pid=load.pid, start_ticks=0)])
        self._steps = self._scanner.steps()

    def one_pass(self) -> tuple[int, int, float]:
        """Makes one pass; returns pages read and left out, and CPU-seconds."""
        before, cpu = self._scanner.progress(), time.process_time()
        while (now := self._scanner.progress()).full_scans == before.full_scans:
            next(self._steps)
        read, left = (now.pages_scanned or 0) - (before.pages_scanned or 0), now.pages_skipped or 0
        return read, left - (before.pages_skipped or 0), time.process_time() - cpu

    def table_bytes_per_page(self) -> float:
        """Bytes of the tables for each page that was found."""
        return self._scanner.table_bytes / self._scanner.progress().candidate_pages


class OfKsmd:
    """ksmd's passes over the same process."""

    def __init__(self, ksm: RealKsm, *, smart: bool) -> None:
        self._ksm = ksm
        for name, value in {"smart_scan": int(smart), "pages_to_scan": 500, "sleep_millisecs": 1}.items():
            ksm.write(name, value)

    def one_pass(self) -> tuple[int, int, float]:
        """Makes one pass, as near to one as it can be stopped; returns pages read and left out, and CPU-seconds."""
        begun, cpu, passes = self._pages(), ksmd_cpu_seconds(), self._ksm.number("full_scans")
        self._ksm.write("run", 1)
        deadline = time.monotonic() + PASS_SECONDS
        while self._ksm.number("full_scans") == passes and time.monotonic() < deadline:
            time.sleep(0.001)
        self._ksm.write("run", 0)
        read, left = (now - then for now, then in zip(self._pages(), begun, strict=True))
        return read, left, ksmd_cpu_seconds() - cpu

    def _pages(self) -> tuple[int, int]:
        return self._ksm.number("pages_scanned"), self._ksm.number("pages_skipped")


def ksmd_cpu_seconds() -> float:
    pid = find_ksmd(Door())
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


def first_pass(scanner: OfScan | OfKsmd) -> Figures:
    """Returns the millions of pages that a first pass takes for each CPU-second."""
    read, _, cpu = scanner.one_pass()
    return {"M pages/s": read / cpu / 1e6}


def later_passes(scanner: OfScan | OfKsmd, load: Changer, changed: int) -> Figures:
    """Measures a pass when so many pages have changed since the one before: its cost, and the pages it reads."""
    found = []
    for _ in range(WARM_PASSES + PASSES):
        load.change(changed)
        found.append(scanner.one_pass())
    read, left, cpu = (float(np.mean(column)) for column in zip(*found[WARM_PASSES:], strict=True))
    return {"read %": 100 * read / (read + left), "ms/pass": 1000 * cpu}


def percentiles(seconds: list[float]) -> Figures:
    """Returns percentiles in milliseconds."""
    p50, p99, longest = np.percentile(seconds or [0.0], (50, 99, 100)) * 1000
    return {"p50 ms": float(p50), "p99 ms": float(p99), "longest ms": float(longest)}


def zero_steps(mib: int) -> Figures:
    """Measures the steps that give pages of zeros back: nothing else is heard meanwhile."""
    with zram(), workloads([Mix(zero_bytes=mib * MIB)], mergeable=False) as loads:
        scanner = Scanner(Door(), for_scanner(Scan()))
        scanner.watch([Target(pid=loads[0].pid, start_ticks=0)])
        steps, seconds, out = scanner.steps(), list[float](), 0
        while scanner.progress().full_scans < 3:
            begun = time.monotonic()
            next(steps)
            took, before = time.monotonic() - begun, out
            out = sum(len(slab.paged_out) for one in scanner.watched.values() for slab in one.table.slabs.values())
            seconds += [took] if out > before else []
        failed = sum(one.zeros.times_alone for one in scanner.watched.values())
        return {"pages": out, **percentiles(seconds), "failed": failed}


def remap(mib: int) -> Figures:
    """Shares all equal pages of two guests; measures how long they were stopped, and what it took in all."""
    settings, pages = Scan(reclaim="remap", remap_guests=("*",), remap_least_mib=8), mib * 256
    with (
        workloads([Mix(equal_bytes=mib * MIB)] * 2) as loads,
        closing(ScanBackend(InForce(Config(scan=settings)))) as backend,
    ):
        backend.watch([_guest(load) for load in loads])
        knobs: dict[KnobName, int] = {"pages_to_scan": 100_000, "sleep_millisecs": 1, "smart_scan": 0, "run": 1}
        for name, value in knobs.items():
            backend.write(Write(knob=name, old=0, new=value))
        begun = time.monotonic()
        while backend.counters().pages_sharing < 0.9 * pages and time.monotonic() - begun < PASS_SECONDS:
            time.sleep(0.05)
        seconds, shared = time.monotonic() - begun, backend.counters().pages_sharing
        cpu = {"seconds": seconds, "CPU seconds": backend.scanner_cpu_seconds() or 0.0}
        return {"pages": shared, **cpu, **backend.window_milliseconds}


def _guest(load: Workload) -> Guest:
    stat = Path(f"/proc/{load.pid}/stat").read_text()
    return Guest(pid=load.pid, start_ticks=parse_stat(stat).start_ticks, name=load.name, kind="pattern")


def measure(mib: int, tell: Callable[[str], None]) -> dict[str, Figures]:
    """Measures everything, with so much memory each time."""
    found: dict[str, Figures] = {}
    for changed in CHANGED:
        tell(f"{changed} changed pages")
        with locked_ksm() as ksm, changer(mib) as load:
            scan, ksmd = OfScan(load, smart=True), OfKsmd(ksm, smart=True)
            found["scan, first pass"], found["ksmd, first pass"] = first_pass(scan), first_pass(ksmd)
            found[f"scan, later, {changed} changed"] = later_passes(scan, load, changed)
            found[f"ksmd, later, {changed} changed"] = later_passes(ksmd, load, changed)
            found["tables"] = {"bytes/page": scan.table_bytes_per_page()}
            ksm.unmerge()
    tell("zero")
    found["zero, steps"] = zero_steps(mib)
    tell("remap")
    found["remap, stops"] = remap(mib)
    return found


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--mib", type=int, default=256, help="of memory each time (default: %(default)s)")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    found = measure(args.mib, Console(stderr=True).print)
    if args.json:
        print(json.dumps(found))
        return
    printed = Printed("", "", box=None)
    for name, figures in found.items():
        printed.add_row(name, ", ".join(f"{what} {value:.4g}" for what, value in figures.items()))
    Console().print(printed)


if __name__ == "__main__":
    main()
