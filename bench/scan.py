"""`python -m bench.scan` (root): the scan backend beside ksmd, on the same memory, one after the other.

Pages for each CPU-second of a first and of later passes, with and without smart scanning; then remapping: how long a
guest is stopped at a time, and what the tables take.
"""

import argparse
import json
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from rich.console import Console
from rich.table import Table as Printed

from ksmtuned_py.backends.kernel import find_ksmd
from ksmtuned_py.backends.scan.client import ScanBackend
from ksmtuned_py.backends.scan.process import start_ticks
from ksmtuned_py.backends.scan.scanner import Scanner
from ksmtuned_py.backends.scan.target import Target
from ksmtuned_py.config import Config, InForce, Scan
from ksmtuned_py.door import Door
from ksmtuned_py.model import Guest, KnobName, Write
from ksmtuned_py.units import MIB
from ksmtuned_py.workload import Mix, Workload, workloads
from tests.support.ksmlock import RealKsm, held_ksm

PASSES = 6
PASS_SECONDS = 120.0
Rates = list[float]
"""Millions of pages covered for each CPU-second, one for each pass."""


def ksmd_rates(ksm: RealKsm, *, smart: bool) -> Rates:
    """Of ksmd's first passes over the children's memory."""
    for name, value in {"smart_scan": int(smart), "pages_to_scan": 5000, "sleep_millisecs": 4, "run": 1}.items():
        ksm.write(name, value)
    rates, pages, cpu = [], _covered(ksm), ksmd_cpu_seconds()
    for _ in range(PASSES):
        begun = ksm.number("full_scans")
        deadline = time.monotonic() + PASS_SECONDS
        while ksm.number("full_scans") == begun and time.monotonic() < deadline:
            time.sleep(0.001)
        now, spent = _covered(ksm), ksmd_cpu_seconds()
        rates.append((now - pages) / max(1e-9, spent - cpu) / 1e6)
        pages, cpu = now, spent
    ksm.unmerge()
    return rates


def _covered(ksm: RealKsm) -> int:
    return ksm.number("pages_scanned") + ksm.number("pages_skipped")


def ksmd_cpu_seconds() -> float:
    pid = find_ksmd(Door())
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


def scan_rates(loads: list[Workload], *, smart: bool) -> tuple[Rates, float]:
    """Of the scan backend's, and the bytes that its tables take for each page."""
    scanner = Scanner(Door(), Scan(reclaim="report"))
    scanner.smart = smart
    scanner.watch([Target(pid=load.pid, start_ticks=0) for load in loads])
    steps, rates = scanner.steps(), []
    for number in range(1, PASSES + 1):
        before, cpu = scanner.progress(), time.process_time()
        while (now := scanner.progress()).full_scans < number:
            next(steps)
        pages = [(each.pages_scanned or 0) + (each.pages_skipped or 0) for each in (before, now)]
        rates.append((pages[1] - pages[0]) / (time.process_time() - cpu) / 1e6)
    return rates, scanner.table_bytes / now.candidate_pages


def remap(loads: list[Workload], pages: int) -> dict[str, float]:
    """Shares all equal pages: how long guests were stopped, and what it took in all."""
    settings = Scan(reclaim="remap", remap_guests=("*",), remap_least_mib=8)
    with closing(ScanBackend(InForce(Config(scan=settings)))) as backend:
        backend.watch([_guest(load) for load in loads])
        knobs: dict[KnobName, int] = {"pages_to_scan": 100_000, "sleep_millisecs": 1, "smart_scan": 0, "run": 1}
        for name, value in knobs.items():
            backend.write(Write(knob=name, old=0, new=value))
        begun = time.monotonic()
        while backend.counters().pages_sharing < 0.9 * pages and time.monotonic() - begun < PASS_SECONDS:
            time.sleep(0.05)
        shared = backend.counters().pages_sharing
        return {
            "shared_pages": shared,
            "of_pages": pages,
            "seconds": time.monotonic() - begun,
            "cpu_seconds": backend.scanner_cpu_seconds() or 0.0,
            **{f"stop_ms_{name}": value for name, value in backend.window_milliseconds.items()},
        }


def _guest(load: Workload) -> Guest:
    stat = Path(f"/proc/{load.pid}/stat").read_text()
    return Guest(pid=load.pid, start_ticks=start_ticks(stat), name=load.name, kind="pattern")


def measure(mib: int, tell: Callable[[str], None]) -> dict[str, object]:
    """Everything, on two children with so much unique memory each; and remapping on as much equal memory."""
    found: dict[str, object] = {}
    for smart in (False, True):
        with held_ksm() as ksm, workloads([Mix(unique_bytes=mib * MIB)] * 2) as loads:
            tell(f"smart scanning {'on' if smart else 'off'}")
            found[f"scan smart={int(smart)}"], found["table_bytes_per_page"] = scan_rates(loads, smart=smart)
            found[f"ksmd smart={int(smart)}"] = ksmd_rates(ksm, smart=smart)
    with workloads([Mix(equal_bytes=mib * MIB)] * 2) as loads:
        tell("remapping")
        found["remap"] = remap(loads, mib * 256)
    return found


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--mib", type=int, default=256, help="of each of the two children (default: %(default)s)")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    console = Console(stderr=True)
    found = measure(args.mib, console.print)
    if args.json:
        print(json.dumps(found))
        return
    printed = Printed("M pages per CPU-second", *(f"pass {number}" for number in range(1, PASSES + 1)))
    for name, rates in found.items():
        if isinstance(rates, list):
            printed.add_row(name, *(f"{rate:.2f}" for rate in rates))
    Console().print(printed)
    print({name: value for name, value in found.items() if not isinstance(value, list)})


if __name__ == "__main__":
    main()
