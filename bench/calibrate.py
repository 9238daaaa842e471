"""`python -m bench.calibrate` (root): the real ksmd beside the model: what each page costs."""

import argparse
import math
import os
import time
from collections.abc import Iterator
from statistics import median

from bench.realksmd import PASSES, RealKsmd
from ksmtuned_py.cli.workload import PAGE_BYTES, Mix, Workload, workloads
from ksmtuned_py.ksmdmodel.costs import Costs
from ksmtuned_py.ksmdmodel.pages import Found
from ksmtuned_py.units import MIB
from tests.support.ksmlock import locked_ksm

SEED = os.getpid()
"""A seed that no other process of this machine uses for its content."""


# The price of each kind of page.


def measured_costs(ksmd: RealKsmd) -> Iterator[tuple[str, float]]:
    """Returns nanoseconds by the names of Costs; what several kinds share is taken off the dearer one."""
    checksum = checksum_ns(ksmd)
    yield "checksum_ns", checksum
    yield from unique_costs(ksmd)
    yield from merged_costs(ksmd, checksum)
    yield from zero_costs(ksmd)
    yield "stable_level_ns", stable_level_ns(ksmd)
    yield "wake_ns", wake_ns(ksmd)


def checksum_ns(ksmd: RealKsmd) -> float:
    """Measures a checksum: pages that were all rewritten between two passes cost nothing more."""
    with Workload("changing", Mix(equal_bytes=256 * MIB, seed=SEED)) as load:
        load.wait_ready()
        ksmd.lead()
        seen = []
        for _ in range(PASSES):
            load.spoil(256 * MIB // PAGE_BYTES)
            seen.append(ksmd.next_pass().page_ns)
    return median(seen)


def unique_costs(ksmd: RealKsmd) -> Iterator[tuple[str, float]]:
    """Measures unique pages; a level of the unstable tree is priced by two trees, one eight times the other."""
    small, large = 64 * MIB, 512 * MIB
    with workloads([Mix(unique_bytes=small)]):
        ksmd.lead()
        low = ksmd.usual_pass().page_ns
    with workloads([Mix(unique_bytes=large)]):
        yield "first_ns", median([ksmd.lead(smart_scan=1).page_ns for _ in range(PASSES)])
        high = median([ksmd.next_pass().page_ns for _ in range(3)])
        yield "skipped_ns", ksmd.next_pass().page_ns  # smart_scan skips all pages that found no partner in three passes
    yield "unstable_level_ns", (high - low) / math.log2(large / small)


def merged_costs(ksmd: RealKsmd, checksum: float) -> Iterator[tuple[str, float]]:
    """Measures merged pages; zero pages are all one content, so there is no tree to descend."""
    with workloads([Mix(zero_bytes=128 * MIB)] * 2):
        ksmd.lead()
        yield "merge_ns", ksmd.next_pass().page_ns - checksum
        yield "merged_ns", ksmd.usual_pass().page_ns


def zero_costs(ksmd: RealKsmd) -> Iterator[tuple[str, float]]:
    """Measures pages that are mapped to the zero page, which ksmd walks over and counts nowhere."""
    with workloads([Mix(zero_bytes=256 * MIB)]):
        ksmd.lead(use_zero_pages=1)
        ksmd.next_pass()
        ksmd.next_pass()  # ksmd frees what it kept for them
        yield "absent_ns", ksmd.next_pass().cpu_ns / (256 * MIB // PAGE_BYTES)


def stable_level_ns(ksmd: RealKsmd) -> float:
    """Measures how much more 64 MiB of unique pages cost beside 2 x 256 MiB that are merged."""
    lone, beside = Mix(unique_bytes=64 * MIB), Mix(equal_bytes=256 * MIB, seed=SEED)
    with workloads([lone]):
        ksmd.lead()
        alone = ksmd.usual_pass().cpu_ns
    with workloads([beside, beside, lone]):
        ksmd.lead()
        ksmd.next_pass()
        together = ksmd.usual_pass().cpu_ns
    with workloads([beside, beside]):
        ksmd.lead()
        ksmd.next_pass()
        merged = ksmd.usual_pass().cpu_ns
    levels = (256 * MIB // PAGE_BYTES).bit_length()
    return (together - merged - alone) / (64 * MIB // PAGE_BYTES) / levels


def wake_ns(ksmd: RealKsmd) -> float:
    """Measures a wake-up: batches of one page, a jiffy apart."""
    with workloads([Mix(equal_bytes=16 * MIB, seed=SEED)] * 2):
        ksmd.lead()
        merged = ksmd.usual_pass().page_ns
        ksmd.ksm.write("pages_to_scan", 1)
        ksmd.ksm.write("sleep_millisecs", 4)
        time.sleep(0.1)
        pages, cpu = ksmd.ksm.number("pages_scanned"), ksmd.cpu_ns()
        time.sleep(2)
        return (ksmd.cpu_ns() - cpu) / (ksmd.ksm.number("pages_scanned") - pages) - merged


# The output:


def say_costs(found: dict[str, float]) -> None:
    """Says the prices, measured and in the model."""
    model = Costs()
    print(f"{'ns of CPU':<22}{'ksmd':>8}{'model':>8}{'error':>8}")
    for name, value in found.items():
        constant = getattr(model, name)
        print(f"{name.removesuffix('_ns'):<22}{value:8.0f}{constant:8}{(constant - value) / value:8.0%}")


def say_prices() -> None:
    """Says what the model makes of the prices on hosts of several sizes."""
    print(f"\n{'pages in the trees':<22}{'unshared':>10}{'join':>10}   (model, ns)")
    for power in (14, 18, 22, 26, 28):
        prices = Costs().prices(power + 1, power + 1)
        print(f"2^{power:<20}{prices[Found.UNSHARED]:10}{prices[Found.JOIN]:10}")


def main() -> None:
    """Measures and prints; leaves KSM as it was."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.parse_args()
    if os.geteuid() != 0:
        parser.error("needs root, to write to /sys/kernel/mm/ksm")
    print(f"Linux {os.uname().release}, {os.cpu_count()} CPUs")
    with locked_ksm() as ksm:
        ksmd = RealKsmd(ksm)
        if others := ksmd.lead().pages:
            print(f"{others} mergeable pages are other processes': they blur all that follows")
        say_costs(dict(measured_costs(ksmd)))
        say_prices()


if __name__ == "__main__":
    main()
