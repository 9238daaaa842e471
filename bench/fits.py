"""`python -m bench.fits` (root): whether what `capacity` promises holds on the real KSM, and how much it leaves unused.

Some guests are below a limit that knows no overcommitment. A day takes seconds there. On each day all guests write to
what they share, at the same moment, and give it up again. Once some days were recorded, as many guests are added as
are said to fit. The days go on: does any guest end for want of memory, and how many would have fitted in hindsight?
"""

import argparse
import signal
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

from bench.waking import WakingGuest
from ksmtuned_py.door import Door
from ksmtuned_py.model import Clock, Counters, Guest, GuestKsm, Knobs, Memory, Slice, Snapshot
from ksmtuned_py.policy.capacity import Outlook, outlook
from ksmtuned_py.policy.demand import DemandRecord, moment, own_bytes
from ksmtuned_py.units import GIB, KIB, MIB, human_percent
from tests.support.ksmlock import RealKsm, locked_ksm
from tests.support.memcgroup import MemoryCgroup, memory_cgroup
from tests.support.process import adopt_orphans

PAGE = 4096
STEP_SECONDS = 0.25
AWAKE_SECONDS = 2.5
LEAST_SHARE, MOST_SHARE = 0.2, 0.4
"""The share of what they share that all write to on a day is between these."""
CGROUP = "ksmtuned-py-fits"
FULL_SPEED = {"pages_to_scan": 100_000, "sleep_millisecs": 1, "smart_scan": 0, "run": 1}
SETTLE_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Load:
    """What is asked of the machine."""

    cap_bytes: int
    guests: int
    day_seconds: float
    days: int
    days_after: int
    risk: float


class Bench:
    """Guests below one limit, and the days that they live through."""

    def __init__(self, load: Load, cgroup: MemoryCgroup, ksm: RealKsm, undo: ExitStack) -> None:
        self._load, self._cgroup, self._ksm, self._undo = load, cgroup, ksm, undo
        self._chance = Random(1)
        self.guests: list[WakingGuest] = []

    def add(self) -> None:
        """Starts one more guest, and returns when what it shares is merged."""
        guest = self._undo.enter_context(WakingGuest(self._cgroup.starting()))
        guest.wait_ready()
        self.guests.append(guest)
        passes, until = self._ksm.number("full_scans"), time.monotonic() + SETTLE_SECONDS
        while self._ksm.number("full_scans") < passes + 2 and time.monotonic() < until:
            time.sleep(0.05)

    def day(self, see: Callable[[Snapshot], None]) -> None:
        """Lives through one day; `see` looks at it now and then."""
        begin = time.monotonic()
        awake = self._chance.uniform(0.1, 0.9) * (self._load.day_seconds - AWAKE_SECONDS)
        share = self._chance.uniform(LEAST_SHARE, MOST_SHARE)
        doing = [(awake, share), (awake + AWAKE_SECONDS, 0.0)]
        while (now := time.monotonic() - begin) < self._load.day_seconds:
            if doing and now >= doing[0][0]:
                for guest in self.guests:
                    guest.write_to(doing[0][1] * self._chance.uniform(0.8, 1.2) if doing[0][1] else 0)
                del doing[0]
            see(self.look())
            time.sleep(max(0.0, STEP_SECONDS - (time.monotonic() - begin - now)))

    def look(self) -> Snapshot:
        """Returns how things stand, on a host that has more memory than anybody wants."""
        place = Slice(CGROUP, self._load.cap_bytes, max(0, self._load.cap_bytes - self._cgroup.used_bytes()))
        guests = [replace(guest, slice=place) for one in self.guests if one.runs for guest in [_seen(one.pid)]]
        return Snapshot(
            clock=Clock(monotonic_seconds=time.monotonic(), unix_seconds=time.time()),
            backend="kernel",
            page_bytes=PAGE,
            cpus=2,
            knobs=Knobs(),
            counters=Counters(pages_sharing=self._ksm.saved_pages()),
            memory=Memory(total_bytes=1024 * GIB, available_bytes=1000 * GIB),
            guests=tuple(guests),
        )


def _seen(pid: int) -> Guest:
    door = Door()
    status = dict(line.partition(":")[::2] for line in door.read(f"proc/{pid}/status").splitlines())
    account = dict(line.split()[:2] for line in door.read(f"proc/{pid}/ksm_stat").splitlines())
    ksm = GuestKsm(merging_pages=int(account["ksm_merging_pages"]), mergeable=True)
    anonymous = int(status["RssAnon"].split()[0]) * KIB
    return Guest(pid=pid, start_ticks=1, name=f"guest-{pid}", kind="qemu", rss_bytes=anonymous, ksm=ksm)


@dataclass(slots=True)
class Seen:
    """What the days after came to."""

    most_bytes: int = 0
    hindsight: int = 10**9
    """So many guests in all would have fitted on all of these days."""

    def look(self, now: Snapshot, cap_bytes: int) -> None:
        """Takes in one look."""
        used = cap_bytes - min(one.slice.available_bytes for one in now.guests if one.slice)
        own = sum(own_bytes(now).values())
        each, others = own / len(now.guests), max(0, used - own)
        self.most_bytes = max(self.most_bytes, used)
        self.hindsight = min(self.hindsight, int((cap_bytes - others) / each))


def perform(load: Load) -> str:
    """Records, asks, adds guests, and lives on; returns what came of it."""
    with locked_ksm() as ksm, memory_cgroup(CGROUP) as cgroup, ExitStack() as undo:
        cgroup.limit(load.cap_bytes)
        for name, value in FULL_SPEED.items():
            ksm.write(name, value)
        bench, record, seen = Bench(load, cgroup, ksm, undo), DemandRecord(step_seconds=STEP_SECONDS), Seen()
        for _ in range(load.guests):
            bench.add()
        for _ in range(load.days):
            bench.day(lambda now: record.add(moment(now)))
        now = bench.look()
        found = outlook(record, now, now.guests[len(now.guests) // 2], load.risk, load.day_seconds)
        print(f"{found.guests} more are said to fit: {found}", flush=True)
        for _ in range(found.guests):
            bench.add()
        for _ in range(load.days_after):
            bench.day(lambda now: seen.look(now, load.cap_bytes))
        ended = sum(not guest.runs for guest in bench.guests)
        return _told(load, found, seen, ended, _refusals(cgroup))


def _refusals(cgroup: MemoryCgroup) -> int:
    """Returns how often the limit was met."""
    events = cgroup.directory / "memory.events"
    if events.exists():
        return int(dict(line.split() for line in events.read_text().splitlines())["max"])
    return int((cgroup.directory / "memory.failcnt").read_text())


def _told(load: Load, found: Outlook, seen: Seen, ended: int, refusals: int) -> str:
    there = load.guests + found.guests
    return (
        f"limit {load.cap_bytes / MIB:.0f} MiB, a chance of {human_percent(load.risk)}: {load.guests} guests and "
        f"{found.guests} more; on {load.days_after} days after that {ended} ended for want of memory, the limit was "
        f"met {refusals} times, and most was {seen.most_bytes / MIB:.0f} MiB; in hindsight {seen.hindsight} would have "
        f"fitted, so {human_percent(there / seen.hindsight)} of them were there"
    )


def main() -> None:
    """Takes the KSM lock, and tells what came of it."""
    parser = argparse.ArgumentParser("python -m bench.fits", description="whether what is said to fit does")
    parser.add_argument("--cap-mib", type=int, default=1000, metavar="MIB", help="(%(default)s)")
    parser.add_argument("--guests", type=int, default=6, metavar="N", help="at first (%(default)s)")
    parser.add_argument("--day-seconds", type=float, default=6, metavar="S", help="(%(default)s)")
    parser.add_argument("--days", type=int, default=30, metavar="N", help="of record (%(default)s)")
    parser.add_argument("--days-after", type=int, default=12, metavar="N", help="(%(default)s)")
    parser.add_argument("--risk", type=float, default=0.01, metavar="SHARE", help="(%(default)s)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="for what came of it, as well")
    args = parser.parse_args()
    adopt_orphans()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # SIGTERM puts KSM back as Ctrl-C does
    told = perform(Load(args.cap_mib * MIB, args.guests, args.day_seconds, args.days, args.days_after, args.risk))
    print(told)
    if args.out:
        args.out.write_text(told + "\n")


if __name__ == "__main__":
    main()
