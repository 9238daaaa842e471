"""`python -m bench.own_cost` (root): what our daemon itself takes in cruise: resident memory, and its share of a core.

With guests that are real workloads, and with many processes that only look like guests. The real ksmd works meanwhile.
"""

import argparse
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from shutil import which
from subprocess import Popen

import psutil

from bench.guests import QEMU, Guest, under_qemus_name
from bench.managers import Ours
from bench.runs import clean
from ksmtuned_py.cli.workload import Mix
from ksmtuned_py.publish.statusfile import read
from ksmtuned_py.units import MIB
from tests.support.ksmlock import RealKsm, locked_ksm
from tests.support.process import adopt_orphans, wait_for

CRUISE_SECONDS = 120.0
"""How long the daemon's boost may take."""
MIX = Mix(equal_bytes=8 * MIB, zero_bytes=8 * MIB, unique_bytes=8 * MIB)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One row of the table."""

    real: int
    """How many guests are workloads."""
    cheap: int = 0
    """How many processes only look like guests."""
    tick_seconds: float = 10.0
    """Time between two looks at the host in cruise; the default is as shipped."""


CASES = (
    Case(real=10),
    Case(real=10, tick_seconds=1),
    Case(real=1, cheap=100, tick_seconds=1),
    Case(real=1, cheap=500),
    Case(real=1, cheap=500, tick_seconds=1),
)
TOML = """
metrics.address = "127.0.0.1:0"
daemon.idle_tick_seconds = {tick_seconds:.1f}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What was measured."""

    resident_bytes: int
    cpu_share: float
    """Share of one core."""


def measure(ksm: RealKsm, case: Case, seconds: float) -> Cost:
    """Measures the daemon in cruise for so many seconds."""
    clean(ksm)
    with tempfile.TemporaryDirectory(prefix="own-cost-") as name, ExitStack() as undo:
        scratch = Path(name)
        undo.enter_context(_guests(case))
        daemon = undo.enter_context(Ours(TOML.format(tick_seconds=case.tick_seconds)).at_work(ksm, scratch))
        wait_cruise(scratch)
        before = _cpu_seconds(daemon)
        time.sleep(seconds)
        return Cost(resident_bytes=daemon.memory_info().rss, cpu_share=(_cpu_seconds(daemon) - before) / seconds)


@contextmanager
def _guests(case: Case) -> Iterator[None]:
    sleep = under_qemus_name(Path(which("sleep") or "/bin/sleep").resolve())
    with ExitStack() as undo:
        for number in range(case.real):
            undo.enter_context(Guest(f"own-cost-{number}", MIX)).wait_ready()
        for _ in range(case.cheap):
            undo.callback(undo.enter_context(Popen([QEMU, "infinity"], executable=sleep)).kill)
        yield


def wait_cruise(scratch: Path) -> None:
    """Waits until the boost of the daemon that works there is over."""
    wait_for(lambda: _cruises(scratch), CRUISE_SECONDS, "cruise", every_seconds=0.5)


def _cruises(scratch: Path) -> bool:
    status = read(scratch / "run" / "status.json")
    return status is not None and status.decision.mode not in ("boost", "off")


def _cpu_seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system


def as_markdown(costs: Sequence[tuple[Case, Cost]]) -> str:
    """Returns a table with one row for each case."""
    lines = [
        "| guests | of them only processes | s between looks | RSS MiB | CPU % of a core |",
        "| ---: " * 5 + "|",
    ]
    for case, cost in costs:
        figures = f"{cost.resident_bytes / MIB:.1f} | {cost.cpu_share * 100:.2f}"
        lines.append(f"| {case.real + case.cheap} | {case.cheap} | {case.tick_seconds:g} | {figures} |")
    return "\n".join(lines)


def main() -> None:
    """Measures all cases and prints their table."""
    parser = argparse.ArgumentParser("python -m bench.own_cost", description="what our daemon itself takes")
    parser.add_argument("--seconds", type=float, default=60, metavar="S", help="of each case (%(default)s)")
    seconds = parser.parse_args().seconds
    adopt_orphans()
    with locked_ksm() as ksm:
        print(as_markdown([(case, measure(ksm, case, seconds)) for case in CASES]))


if __name__ == "__main__":
    main()
