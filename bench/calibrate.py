"""`python -m bench.calibrate` (root): the real ksmd beside the model: what each page costs, then one load."""

import argparse
import math
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

from bench.realksmd import PASSES, RealKsmd
from ksmtuned_py.backends.model.costs import Costs
from ksmtuned_py.backends.model.guestmemory import equal, unique, zero
from ksmtuned_py.backends.model.modelhost import ModelHost
from ksmtuned_py.backends.model.pages import Found
from ksmtuned_py.model import KnobName, Write
from ksmtuned_py.units import MIB
from ksmtuned_py.workload import PAGE_BYTES, Mix, Workload, achievable_pages, workloads
from tests.support.ksmlock import held_ksm

SAMPLE_SECONDS = 0.1
SEED = os.getpid()
"""No other process of this machine has such content."""


# The price of each kind of page.


def measured_costs(ksmd: RealKsmd) -> Iterator[tuple[str, float]]:
    """Nanoseconds by the names of Costs; what several kinds share is taken off the dearer one."""
    checksum = checksum_ns(ksmd)
    yield "checksum_ns", checksum
    yield from unique_costs(ksmd)
    yield from merged_costs(ksmd, checksum)
    yield from zero_costs(ksmd)
    yield "stable_level_ns", stable_level_ns(ksmd)
    yield "wake_ns", wake_ns(ksmd)


def checksum_ns(ksmd: RealKsmd) -> float:
    """Pages that were all rewritten between two passes cost a checksum and no more."""
    with Workload("changing", Mix(equal_bytes=256 * MIB, seed=SEED)) as load:
        load.wait_ready()
        ksmd.lead()
        seen = []
        for _ in range(PASSES):
            load.spoil(256 * MIB // PAGE_BYTES)
            seen.append(ksmd.next_pass().page_ns)
    return median(seen)


def unique_costs(ksmd: RealKsmd) -> Iterator[tuple[str, float]]:
    """The unstable tree's price by level comes from two trees of which one is eight times the other."""
    small, large = 64 * MIB, 512 * MIB
    with workloads([Mix(unique_bytes=small)]):
        ksmd.lead()
        low = ksmd.usual_pass().page_ns
    with workloads([Mix(unique_bytes=large)]):
        yield "first_ns", median([ksmd.lead(smart_scan=1).page_ns for _ in range(PASSES)])
        high = median([ksmd.next_pass().page_ns for _ in range(3)])
        yield "skipped_ns", ksmd.next_pass().page_ns  # smart_scan skips all that found nobody in three
    yield "unstable_level_ns", (high - low) / math.log2(large / small)


def merged_costs(ksmd: RealKsmd, checksum: float) -> Iterator[tuple[str, float]]:
    """Zero pages are all one content: no tree to descend."""
    with workloads([Mix(zero_bytes=128 * MIB)] * 2):
        ksmd.lead()
        yield "merge_ns", ksmd.next_pass().page_ns - checksum
        yield "merged_ns", ksmd.usual_pass().page_ns


def zero_costs(ksmd: RealKsmd) -> Iterator[tuple[str, float]]:
    """Pages that are mapped to the zero page are walked over, and counted nowhere."""
    with workloads([Mix(zero_bytes=256 * MIB)]):
        ksmd.lead(use_zero_pages=1)
        ksmd.next_pass()
        ksmd.next_pass()  # frees what it kept for them
        yield "absent_ns", ksmd.next_pass().cpu_ns / (256 * MIB // PAGE_BYTES)


def stable_level_ns(ksmd: RealKsmd) -> float:
    """What 64 MiB of unique pages cost more beside 2 x 256 MiB that are merged."""
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
    """Batches of one page, a jiffy apart."""
    with workloads([Mix(equal_bytes=16 * MIB, seed=SEED)] * 2):
        ksmd.lead()
        merged = ksmd.usual_pass().page_ns
        ksmd.ksm.write("pages_to_scan", 1)
        ksmd.ksm.write("sleep_millisecs", 4)
        time.sleep(0.1)
        pages, cpu = ksmd.ksm.number("pages_scanned"), ksmd.cpu_ns()
        time.sleep(2)
        return (ksmd.cpu_ns() - cpu) / (ksmd.ksm.number("pages_scanned") - pages) - merged


# One load on both.


@dataclass(frozen=True, slots=True)
class Sample:
    """One look at a ksmd at work."""

    seconds: float
    saved_share: float
    """Of what can be saved."""
    cpu_seconds: float


Rate = dict[KnobName, int]


def mixes(guests: int, guest_bytes: int) -> list[Mix]:
    """Half equal, 15 % zero, 25 % unique, 10 % rewritten each second."""
    tenth = guest_bytes // 10
    mix = Mix(
        equal_bytes=tenth * 5,
        zero_bytes=tenth * 3 // 2,
        unique_bytes=tenth * 5 // 2,
        changing_bytes=tenth,
        changes_per_second=tenth / PAGE_BYTES,
        seed=SEED,
    )
    return [mix] * guests


def model_of(load: Sequence[Mix]) -> ModelHost:
    """The same load in the model; later mappings lie at lower addresses, and ksmd begins with those."""
    host = ModelHost()
    for number, mix in enumerate(load):
        changing = mix.changing_bytes // PAGE_BYTES
        groups = (
            unique(changing, rewrites_per_second=mix.changes_per_second / max(1, changing)),
            unique(mix.unique_bytes // PAGE_BYTES),
            zero(mix.zero_bytes // PAGE_BYTES),
            equal("seed", mix.equal_bytes // PAGE_BYTES),
        )
        host.add_guest(str(number), groups)
    return host


def model_samples(load: Sequence[Mix], rate: Rate, seconds: float) -> list[Sample]:
    """The model's way, sampled."""
    host = model_of(load)
    achievable = host.mergeable_pages()
    for knob, value in {**rate, "run": 1}.items():
        host.write(Write(knob=knob, old=0, new=value))
    samples = []
    while host.now_seconds < seconds:
        host.advance(SAMPLE_SECONDS)
        share = host.counters().saved_pages / achievable
        samples.append(Sample(host.now_seconds, share, host.scanner_cpu_seconds()))
    return samples


@contextmanager
def at_rate(ksmd: RealKsmd, rate: Rate) -> Iterator[None]:
    """The real ksmd from nothing known, for the length of a with block."""
    ksmd.ksm.unmerge()
    ksmd.ksm.write("use_zero_pages", 0)
    for knob, value in rate.items():
        ksmd.ksm.write(knob, value)
    ksmd.ksm.write("run", 1)
    yield
    ksmd.ksm.unmerge()


def real_samples(ksmd: RealKsmd, load: Sequence[Mix], rate: Rate, seconds: float) -> list[Sample]:
    """The real ksmd's way, sampled."""
    achievable, samples = achievable_pages(load), []
    with workloads(load), at_rate(ksmd, rate):
        begun, cpu = time.monotonic(), ksmd.cpu_ns()
        while (now := time.monotonic() - begun) < seconds:
            samples.append(Sample(now, ksmd.ksm.saved_pages() / achievable, (ksmd.cpu_ns() - cpu) / 1e9))
            time.sleep(SAMPLE_SECONDS)
    return samples


def reached(samples: Sequence[Sample], share: float) -> Sample | None:
    """The first sample with so much saved."""
    return next((sample for sample in samples if sample.saved_share >= share), None)


def area(samples: Sequence[Sample]) -> float:
    """Mean share saved over the time."""
    steps = [(two.seconds - one.seconds) * (one.saved_share + two.saved_share) / 2 for one, two in pairwise(samples)]
    return sum(steps) / (samples[-1].seconds - samples[0].seconds)


# What is printed.


def say_costs(found: dict[str, float]) -> None:
    """The prices, measured and in the model."""
    model = Costs()
    print(f"{'ns of CPU':<22}{'ksmd':>8}{'model':>8}{'error':>8}")
    for name, value in found.items():
        constant = getattr(model, name)
        print(f"{name.removesuffix('_ns'):<22}{value:8.0f}{constant:8}{(constant - value) / value:8.0%}")


def say_prices() -> None:
    """What the model makes of them on hosts of several sizes."""
    print(f"\n{'pages in the trees':<22}{'unshared':>10}{'join':>10}   (model, ns)")
    for power in (14, 18, 22, 26, 28):
        prices = Costs().prices(power + 1, power + 1)
        print(f"2^{power:<20}{prices[Found.UNSHARED]:10}{prices[Found.JOIN]:10}")


def say_load(title: str, real: Sequence[Sample], model: Sequence[Sample]) -> None:
    """The two ways beside each other."""
    print(f"\n{title}\n{'':<22}{'ksmd':>10}{'model':>10}{'error':>8}")
    for share in (0.5, 0.9, 0.95, 0.99):
        one, other = reached(real, share), reached(model, share)
        _say(f"seconds to {share:.0%}", one.seconds if one else None, other.seconds if other else None)
        _say(f"CPU-s to {share:.0%}", one.cpu_seconds if one else None, other.cpu_seconds if other else None)
    _say("mean share saved", area(real), area(model))
    _say("CPU-s in all", real[-1].cpu_seconds, model[-1].cpu_seconds)
    sys.stdout.flush()


def _say(what: str, real: float | None, model: float | None) -> None:
    numbers = "".join(f"{'never':>10}" if number is None else f"{number:10.2f}" for number in (real, model))
    print(f"{what:<22}{numbers}{(model - real) / real:8.0%}" if real and model else f"{what:<22}{numbers}")


RATES: dict[str, Rate] = {
    "full speed, 100000 pages and 1 ms": {"pages_to_scan": 100_000, "sleep_millisecs": 1, "smart_scan": 1},
    "half a core, 4000 pages and 10 ms": {"pages_to_scan": 4_000, "sleep_millisecs": 10, "smart_scan": 0},
}


def main() -> None:
    """Measures and prints; leaves KSM as it was."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--guests", type=int, default=4)
    parser.add_argument("--guest-mib", type=int, default=256)
    parser.add_argument("--seconds", type=float, default=12, help="of each load; default %(default)s")
    parser.add_argument("--loads-only", action="store_true", help="leave out the prices")
    args = parser.parse_args()
    if os.geteuid() != 0:
        parser.error("needs root, to write to /sys/kernel/mm/ksm")
    load = mixes(args.guests, args.guest_mib * MIB)
    print(f"Linux {os.uname().release}, {os.cpu_count()} CPUs; load: {args.guests} x {args.guest_mib} MiB")
    with held_ksm() as ksm:
        ksmd = RealKsmd(ksm)
        if others := ksmd.lead().pages:
            print(f"{others} mergeable pages are other processes': they blur all that follows")
        if not args.loads_only:
            say_costs(dict(measured_costs(ksmd)))
            say_prices()
        for title, rate in RATES.items():
            real = real_samples(ksmd, load, rate, args.seconds)
            say_load(title, real, model_samples(load, rate, args.seconds))


if __name__ == "__main__":
    main()
