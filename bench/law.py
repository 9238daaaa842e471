"""`python -m bench.law` (root): what the batch law predicts of the real ksmd, beside what it then does.

At each budget the law and its measurements run as in the daemon, a look each second, until they have settled; then the
knobs stay for the time in which ksmd is measured.
"""

import argparse
import time
from collections.abc import Iterator
from dataclasses import dataclass

from bench.managers import START_SECONDS
from bench.runs import clean
from ksmtuned_py.backends.ksmd import find_ksmd
from ksmtuned_py.cli.workload import Mix, workloads
from ksmtuned_py.config import Config
from ksmtuned_py.daemon.machine import open_machine
from ksmtuned_py.door import Door
from ksmtuned_py.host import Host
from ksmtuned_py.model import Knobs, Run, Snapshot
from ksmtuned_py.plan import plan
from ksmtuned_py.policy.batch import batch_for
from ksmtuned_py.policy.scanner import ScannerSpeed
from ksmtuned_py.units import MIB
from tests.support.ksmlock import RealKsm, locked_ksm
from tests.support.process import wait_for

BUDGETS = (0.95, 0.6, 0.2, 0.05, 0.01, 0.002)
"""What the profiles give, from the eager boost to cruise."""
SETTLE_TICKS = 8
BATCHES = 12
"""The least batches that are measured: over fewer, a long sleep more or less would say much."""
GUEST = Mix(unique_bytes=512 * MIB)
"""Without smart_scan every page costs about the same; where they do not, the law is as late as its last look."""


@dataclass(frozen=True, slots=True)
class Row:
    """What was predicted and measured at one budget."""

    budget: float
    pages_to_scan: int
    sleep_millisecs: int
    predicted: float
    """Pages each second, as predicted."""
    measured: float
    share: float
    """Measured share of one core."""
    waiting: float
    """Share of the time in which ksmd was ready and others had its core."""

    @property
    def error(self) -> float:
        """Error of the prediction, for the time in which ksmd was not kept waiting."""
        return self.predicted * (1 - self.waiting) / self.measured - 1


def measure(
    host: Host, ksmd_pid: int, scanner: ScannerSpeed, budget: float, seconds: float
) -> tuple[Row, ScannerSpeed]:
    """Settles at the budget with what is known of the scanner so far, and then measures for so long."""
    before = host.observe()
    for _ in range(SETTLE_TICKS):
        batch = batch_for(budget, scanner.cost_seconds, scanner.oversleep_seconds)
        wanted = Knobs(
            run=Run.MERGE, smart_scan=0, pages_to_scan=batch.pages_to_scan, sleep_millisecs=batch.sleep_millisecs
        )
        host.apply(plan(before.knobs, wanted))
        time.sleep(1)
        now = host.observe()
        scanner, before = scanner.after(before, now), now
    knobs = before.knobs
    assert knobs.pages_to_scan
    assert knobs.sleep_millisecs
    busy = knobs.pages_to_scan * scanner.cost_seconds
    before, waited = at_batch_end(host), waiting_ns(ksmd_pid)
    time.sleep(max(seconds, BATCHES * knobs.sleep_millisecs / 1000))
    now, waited = at_batch_end(host), waiting_ns(ksmd_pid) - waited
    wall = now.clock.monotonic_seconds - before.clock.monotonic_seconds
    row = Row(
        budget,
        knobs.pages_to_scan,
        knobs.sleep_millisecs,
        knobs.pages_to_scan / (busy + knobs.sleep_millisecs / 1000 + scanner.oversleep_seconds),
        ((now.counters.pages_scanned or 0) - (before.counters.pages_scanned or 0)) / wall,
        ((now.scanner_cpu_seconds or 0) - (before.scanner_cpu_seconds or 0)) / wall,
        waited / 1e9 / wall,
    )
    return row, scanner


def at_batch_end(host: Host) -> Snapshot:
    """Waits for a batch's end: between long sleeps, one batch more or less would be an error of several percent."""
    before = host.observe().counters.pages_scanned
    while (now := host.observe()).counters.pages_scanned == before:
        time.sleep(0.001)
    return now


def waiting_ns(pid: int) -> int:
    """Returns how long ksmd was ready and did not run since boot, in ns: the second field of schedstat."""
    return int(Door().read(f"proc/{pid}/schedstat").split()[1])


def measured(ksm: RealKsm, turns: int, seconds: float) -> Iterator[list[Row]]:
    """Measures for each budget one row a turn; the guests' memory is merged before."""
    rows: dict[float, list[Row]] = {budget: [] for budget in BUDGETS}
    clean(ksm)
    config = Config.model_validate({"guests": {"libvirt_uri": ""}})
    with workloads([GUEST]), open_machine(Door(), config) as machine:
        for name, value in {"smart_scan": 0, "pages_to_scan": 50_000, "sleep_millisecs": 1, "run": 1}.items():
            ksm.write(name, value)
        wait_for(lambda: ksm.number("full_scans") >= 3, START_SECONDS, "three passes")
        ksmd_pid, scanner = find_ksmd(Door()), ScannerSpeed()
        assert ksmd_pid
        for turn in range(turns):
            for budget in BUDGETS[turn:] + BUDGETS[:turn]:
                row, scanner = measure(machine.host, ksmd_pid, scanner, budget, seconds)
                rows[budget].append(row)
    clean(ksm)
    yield from rows.values()


def main() -> None:
    """Prints a Markdown table of medians."""
    parser = argparse.ArgumentParser("python -m bench.law", description=measure.__doc__)
    parser.add_argument("--turns", type=int, default=3, metavar="N", help="(%(default)s)")
    parser.add_argument("--seconds", type=float, default=8, metavar="S", help="of each measurement (%(default)s)")
    args = parser.parse_args()
    heads = (
        "budget, %",
        "pages",
        "sleep, ms",
        "predicted, pages/s",
        "measured",
        "error (all turns)",
        "ksmd, %",
        "waiting, %",
    )
    print(f"| {' | '.join(heads)} |\n{'|---:' * len(heads)}|")
    with locked_ksm() as ksm:
        for rows in measured(ksm, args.turns, args.seconds):
            print(_line(rows))


def _line(rows: list[Row]) -> str:
    by_error = sorted(rows, key=lambda row: row.error)
    middle = by_error[len(rows) // 2]
    cells = (
        f"{middle.budget * 100:g}",
        f"{middle.pages_to_scan}",
        f"{middle.sleep_millisecs}",
        f"{middle.predicted:.0f}",
        f"{middle.measured:.0f}",
        f"{middle.error:+.1%} ({by_error[0].error:+.1%} to {by_error[-1].error:+.1%})",
        f"{100 * middle.share:.2f}",
        f"{100 * middle.waiting:.1f}",
    )
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
