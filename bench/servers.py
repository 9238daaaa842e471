"""How near giving back huge pages comes to the best possible, on three Debian servers: `python -m bench.servers`.

Two servers have the same release of Debian, one has another. ksmd merges all that it can, and the product's own verb
gives huge pages back at ever lower levels of comfort. How many ranges are huge pages then, while so much of the gain is
left, is held against what the contents of all pages would have allowed.
"""

import argparse
import json
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

import numpy as np

from bench.arena import machine
from bench.frontier import Contents, Numbers, curves, huge_share
from bench.guests import ROOT
from bench.runs import set_defaults
from bench.serverguests import Server, full_servers, image
from bench.stage import FULL_SPEED
from ksmtuned_py.cli.workload import PAGE_BYTES
from ksmtuned_py.door import Door
from ksmtuned_py.sensors.memory import read_memory
from ksmtuned_py.units import MIB
from tests.support.khugepaged import khugepaged_at_rest
from tests.support.ksmlock import RealKsm, locked_ksm
from tests.support.process import adopt_orphans, wait_for

SUITES = ("bookworm", "bookworm", "trixie")
LEVELS = (75, 50, 25)
"""The levels of comfort, in percent of the gain."""
PASSES, STILL_PASSES, PASSES_MOST = 4, 3, 40
STILL_SHARE, VOLATILE_SHARE = 0.001, 0.02
"""Growth, and pages that ksmd did not place yet, that count as nothing: shares of the pages that it saves."""
PASS_SECONDS, SETTLE_SECONDS, REST_SECONDS = 120.0, 20.0, 10.0
TITLES = (
    "comfort, % of the gain", "gain left %", "huge ranges %", "best %", "points from it", "densest first %",
    "by counts %", "given back", "failed", "changed", "CPU-s", "s", "longest silence s",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """Where the host and its servers are."""

    available_bytes: int
    saved_pages: int
    """The pages of the servers that share a frame with another one. Available memory also lacks ksmd's records."""
    huge_ranges: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """What the verb did at one level of comfort."""

    level: float
    """The comfort, in percent of the gain; 100 stands for what was there before the verb."""
    state: State
    seconds: float
    cpu_seconds: float
    silence_seconds: float
    """The longest time between two signs of life of a server meanwhile."""
    said: dict[str, Any]
    errors: str

    def ranges(self, key: str) -> int:
        """Returns how many ranges the verb counted so, over all servers."""
        return sum(guest.get(f"{key}_ranges", 0) for guest in self.said.get("guests", []))


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """All that one run came to."""

    ranges: int
    """The ranges with any page, of all servers."""
    before: State
    passes: int
    given: list[Given]
    """Begins with what was there before the verb."""
    intact: bool
    """Whether the files in the servers' memory are as before."""

    @property
    def gain_bytes(self) -> int:
        """What merging all brought to available memory."""
        return self.left_bytes(self.given[0])

    def left_bytes(self, given: Given) -> int:
        """Returns what is left of the gain."""
        return given.state.available_bytes - self.before.available_bytes


def measure(ksm: RealKsm, servers: Sequence[Server]) -> tuple[Measured, list[Contents]]:
    """Merges all and gives back at each level; returns what came of it, and the contents as they were before."""
    time.sleep(SETTLE_SECONDS)
    checksums = [server.checksum() for server in servers]
    contents = [each for server in servers for each in server.contents()]
    before = state(servers)
    passes = merge_all(ksm)
    given = [_rest(servers)]
    gain_bytes = given[0].state.available_bytes - before.available_bytes
    for level in LEVELS:
        comfort_bytes = before.available_bytes + gain_bytes * level // 100
        given.append(give_back(servers, level, comfort_bytes))
    intact = checksums == [server.checksum() for server in servers]
    measured = Measured(
        ranges=len(contents),
        before=before,
        passes=passes,
        given=given,
        intact=intact,
    )
    return measured, contents


def state(servers: Sequence[Server]) -> State:
    """Returns where the host and the servers are now."""
    frames = np.concatenate([server.frames() for server in servers])
    return State(
        available_bytes=read_memory(Door()).headroom_bytes,
        saved_pages=len(frames) - len(np.unique(frames)),
        huge_ranges=sum(server.huge_ranges() for server in servers),
    )


def merge_all(ksm: RealKsm) -> int:
    """Has ksmd merge until passes bring nothing more, and rest then; returns the number of passes."""
    set_defaults(ksm)
    for name, value in ({"smart_scan": 0} | FULL_SPEED).items():
        ksm.write(name, value)
    saved = [0]
    while not is_merged(saved, ksm.number("pages_volatile")):
        assert len(saved) <= PASSES_MOST, f"ksmd is at no end after {PASSES_MOST} passes: {saved}"
        _wait_pass(ksm)
        saved.append(ksm.saved_pages())
    ksm.write("run", 0)
    return len(saved) - 1


def is_merged(saved: Sequence[int], volatile: int) -> bool:
    """Whether the last passes brought nothing more, by what was saved before the first pass and after each.

    Passes without gain say little while ksmd does not place pages of servers at rest: its unstable tree may be stuck.
    """
    if len(saved) <= PASSES or volatile > VOLATILE_SHARE * saved[-1]:
        return False
    return saved[-1] - saved[-1 - STILL_PASSES] <= STILL_SHARE * saved[-1]


def _wait_pass(ksm: RealKsm) -> None:
    before = ksm.number("full_scans")
    wait_for(lambda: ksm.number("full_scans") > before, PASS_SECONDS, "end of a pass")


def give_back(servers: Sequence[Server], level: float, comfort_bytes: int) -> Given:
    """Has the product's verb give back huge pages as long as so much memory stays available."""
    percent = 100 * comfort_bytes / read_memory(Door()).base_bytes
    with TemporaryDirectory(prefix="servers-") as scratch, Silence(servers) as silence:
        config = Path(scratch, "config.toml")
        config.write_text("".join(f"adaptive.need.wary_{edge}_percent = {percent}\n" for edge in ("enter", "leave")))
        verb = [sys.executable, "-m", "ksmtuned_py", "huge", "--json", "--config", str(config)]
        began, used = time.monotonic(), _cpu_seconds()
        done = subprocess.run([*verb, "--runtime-dir", scratch], cwd=ROOT, capture_output=True, text=True, check=False)
        seconds, cpu_seconds = time.monotonic() - began, _cpu_seconds() - used
    assert done.stdout, f"the verb exited with {done.returncode}: {done.stderr}"
    return Given(
        level=level,
        state=state(servers),
        seconds=seconds,
        cpu_seconds=cpu_seconds,
        silence_seconds=silence.seconds,
        said=json.loads(done.stdout),
        errors=done.stderr,
    )


def _rest(servers: Sequence[Server]) -> Given:
    """Returns the state before the verb, and how long the servers are silent when nobody does anything."""
    with Silence(servers) as silence:
        time.sleep(REST_SECONDS)
    return Given(
        level=100,
        state=state(servers),
        seconds=0,
        cpu_seconds=0,
        silence_seconds=silence.seconds,
        said={},
        errors="",
    )


class Silence:
    """The longest silence of any server in a with block, up to its first sign of life behind it."""

    def __init__(self, servers: Sequence[Server]) -> None:
        self.seconds = 0.0
        self._servers = servers
        self._ticks: list[int] = []

    def __enter__(self) -> Self:
        self._ticks = [len(server.ticks()) for server in self._servers]
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            return  # Ctrl-C ends the servers, too: there is no sign to wait for
        for server in self._servers:
            server.wait_tick()
        told = zip(self._servers, self._ticks, strict=True)
        self.seconds = max(longest_gap(server.ticks()[ticks - 1 :]) for server, ticks in told)


def longest_gap(seconds: Sequence[float]) -> float:
    """Returns the longest time between two neighbours; 0 for one alone."""
    return max((later - sooner for sooner, later in pairwise(seconds)), default=0.0)


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def as_markdown(measured: Measured, ways: Mapping[str, Numbers]) -> str:
    """Returns the table, with a line for the state before the verb and one for each level of comfort."""
    rows = [TITLES, ["---:"] * len(TITLES), *(_row(measured, given, ways) for given in measured.given)]
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    saved, possible = (pages * PAGE_BYTES // MIB for pages in (measured.given[0].state.saved_pages, ways["best"][-1]))
    return (
        f"After {measured.passes} passes available memory was {measured.gain_bytes // MIB} MiB more than before; "
        f"{saved} of {possible} MiB were saved. Of {measured.ranges} ranges {measured.before.huge_ranges} had been "
        f"huge pages. Contents are {'' if measured.intact else 'NOT '}as before.\n\n{table}\n"
    )


def _row(measured: Measured, given: Given, ways: Mapping[str, Numbers]) -> list[str]:
    left_bytes = measured.left_bytes(given)
    saved = given.state.saved_pages
    huge = 100 * given.state.huge_ranges / measured.ranges
    best, densest, counts = (100 * huge_share(ways[name], saved) for name in ("best", "densest", "counts"))
    shares = (100 * left_bytes / measured.gain_bytes, huge, best, best - huge, densest, counts)
    ranges = [str(given.ranges(key)) for key in ("given", "failed", "changed")]
    spent = [f"{each:.2f}" for each in (given.cpu_seconds, given.seconds, given.silence_seconds)]
    return [f"{given.level:g}", *(f"{round(each, 1) + 0.0:.1f}" for each in shares), *ranges, *spent]


def write(directory: Path, about: Mapping[str, object], measured: Measured, ways: Mapping[str, Numbers]) -> None:
    """Writes the table and the data, with the curves."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "servers.md").write_text(as_markdown(measured, ways))
    data = {"about": about, **asdict(measured), "curves": {name: curve.tolist() for name, curve in ways.items()}}
    (directory / "servers.json").write_text(json.dumps(data, indent=1))


def main() -> None:
    """Boots the servers, measures, and writes what came of it; all is as before when it ends, also by Ctrl-C."""
    parser = argparse.ArgumentParser("python -m bench.servers", description="huge pages beside the best possible")
    parser.add_argument("--mib", type=int, default=1024, metavar="MIB", help="memory of each server (%(default)s)")
    parser.add_argument("--out", type=Path, default=Path("build/servers"), metavar="DIR", help="(%(default)s)")
    args = parser.parse_args()
    adopt_orphans()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # SIGTERM ends it as Ctrl-C does
    about = machine() | {"mib": args.mib}
    for suite in SUITES:
        image(suite)
    print("waiting for the KSM lock", flush=True)
    try:
        with locked_ksm() as ksm, khugepaged_at_rest(), full_servers(SUITES, args.mib) as servers:
            print("the servers are full", flush=True)
            measured, contents = measure(ksm, servers)
    except KeyboardInterrupt:
        sys.exit("stopped")
    ways = curves(contents)
    write(args.out, about, measured, ways)
    print(as_markdown(measured, ways))


if __name__ == "__main__":
    main()
