"""`python -m bench.arena` (root): managers of KSM side by side, on the same loads, on the real ksmd, in turns.

It takes the one KSM lock for as long as it runs, and leaves KSM as it found it: also at Ctrl-C and SIGTERM.
"""

import argparse
import os
import platform
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from bench import tables
from bench.ballast import touch_all
from bench.contents import Layout
from bench.loads import LOADS, takes_memory
from bench.managers import MANAGERS, manager
from bench.runs import Run, perform
from bench.samples import Sample
from bench.stage import ROUNDS, Size
from ksmtuned_py.door import Door
from ksmtuned_py.sensors.memory import read_memory
from ksmtuned_py.units import GIB, MIB, human_bytes, human_seconds
from tests.support.ksmlock import RealKsm, locked_ksm
from tests.support.process import adopt_orphans

FILL_SECONDS_PER_GIB = 1.0
"""How long guests need to fill their memory, for the estimate."""
BETWEEN_SECONDS = 4.0
"""How long it takes between two runs to unmerge and until memory is quiet again."""
DENSITY_CAP = 16 / 52
"""The classic claim: 52 guests of 1 GiB on a host of 16 GiB."""
DENSITY_GUESTS = 3
"""The least guests of density: with fewer under the cap, merging could never make space for one more."""


@dataclass(frozen=True, slots=True)
class Planned:
    """One run to come."""

    turn: int
    load: str
    manager: str


def planned(loads: list[str], managers: list[str], turns: int) -> Iterator[Planned]:
    """Returns every manager on every load, once per turn; each turn begins with another manager."""
    for turn in range(turns):
        shift = turn % len(managers)
        for load in loads:
            yield from (Planned(turn + 1, load, name) for name in managers[shift:] + managers[:shift])


def estimated_seconds(runs: list[Planned], size: Size) -> float:
    """Returns about how many seconds the runs will take in all."""
    around = BETWEEN_SECONDS + FILL_SECONDS_PER_GIB * size.all_bytes / GIB
    return sum(size.seconds + around + LOADS[run.load.partition("@")[0]].quiet_seconds for run in runs)


def parse_arguments(words: list[str] | None = None) -> argparse.Namespace:
    """Parses the command line."""
    parser = argparse.ArgumentParser("python -m bench.arena", description="managers of KSM side by side")
    parser.add_argument(
        "--loads",
        type=_loads,
        default=["storm"],
        metavar="A,B",
        help=f"of {', '.join(LOADS)}, or all; NAME@PERCENT leaves no more of the host's memory available (storm)",
    )
    parser.add_argument(
        "--managers",
        type=_managers,
        default=list(MANAGERS),
        metavar="A,B",
        help=f"of {', '.join(MANAGERS)}, or a FILE.toml for our daemon with that configuration (all but files)",
    )
    parser.add_argument("--guests", type=int, default=4, metavar="N", help="(%(default)s)")
    parser.add_argument("--guest-mib", type=int, default=256, metavar="MIB", help="(%(default)s)")
    parser.add_argument(
        "--cap-mib", type=int, default=0, metavar="MIB", help="of density (16/52 of all guests, but room for three)"
    )
    parser.add_argument(
        "--contents", choices=get_args(Layout), default="dense", help="long runs of a kind, or runs of 4"
    )
    parser.add_argument("--small-pages", action="store_true", help="guests without huge pages, who tell no harm")
    parser.add_argument("--seconds", type=float, default=40, metavar="S", help="of each run (%(default)s)")
    parser.add_argument(
        "--rounds", type=int, default=ROUNDS, metavar="N", help="of what a guest measures at the end (%(default)s)"
    )
    parser.add_argument("--turns", type=int, default=1, metavar="N", help="(%(default)s)")
    parser.add_argument("--out", type=Path, default=Path("build/arena"), metavar="DIR", help="(%(default)s)")
    args = parser.parse_args(words)
    if args.small_pages and any(LOADS[load.partition("@")[0]].wants_work for load in args.loads):
        parser.error("--small-pages: harm and busy measure guests with huge pages")
    return args


def _loads(text: str) -> list[str]:
    names = list(LOADS) if text == "all" else text.split(",")
    for name in names:
        if name.partition("@")[0] not in LOADS:
            raise argparse.ArgumentTypeError(f"no load {name!r}")
    return names


def _managers(text: str) -> list[str]:
    names = text.split(",")
    for name in names:
        try:
            manager(name)
        except (KeyError, OSError):
            raise argparse.ArgumentTypeError(f"no manager {name!r}") from None
    return names


def size_of(args: argparse.Namespace) -> Size:
    """Returns the size of the loads."""
    all_bytes = args.guests * args.guest_mib * MIB
    return Size(
        guests=args.guests,
        guest_bytes=args.guest_mib * MIB,
        seconds=args.seconds,
        small_pages=args.small_pages,
        layout=args.contents,
        rounds=args.rounds,
        cap_bytes=args.cap_mib * MIB or max(round(all_bytes * DENSITY_CAP), DENSITY_GUESTS * args.guest_mib * MIB),
    )


def machine() -> dict[str, object]:
    """Returns where this was measured, and how busy the machine was before."""
    lines = Door().read("proc/cpuinfo").splitlines()
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")
    return {
        "cpu": f"{os.cpu_count()} x {model}",
        "memory": human_bytes(read_memory(Door()).total_bytes),
        "kernel": platform.release(),
        "load_average": os.getloadavg(),
        "date": time.strftime("%Y-%m-%d %H:%M"),
    }


def main() -> None:
    """Plans, estimates, runs in turns, and writes what is there after each run."""
    args = parse_arguments()
    size, about = size_of(args), machine()
    plan = list(planned(args.loads, args.managers, args.turns))
    print(
        f"{len(plan)} runs, about {human_seconds(estimated_seconds(plan, size))}; waiting for the KSM lock", flush=True
    )
    adopt_orphans()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # SIGTERM ends it as Ctrl-C does
    runs: list[Run] = []
    try:
        with locked_ksm() as ksm:
            if any(takes_memory(load) for load in args.loads):
                touch_all()
            for run in _performed(ksm, plan, size):
                runs.append(run)
                write(args.out, about | {"arguments": vars(args) | {"out": str(args.out)}}, runs)
    except KeyboardInterrupt:
        print(f"stopped after {len(runs)} of {len(plan)} runs")
    print(tables.as_markdown(runs))
    if runs:
        draw_all(args.out, runs)


def _performed(ksm: RealKsm, plan: list[Planned], size: Size) -> Iterator[Run]:
    columns = TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TextColumn("{task.fields[now]}")
    with Progress(*columns) as progress:
        task = progress.add_task("arena", total=len(plan) * size.seconds, now="")
        for number, one in enumerate(plan):
            progress.update(task, description=f"turn {one.turn}, {one.load}, {one.manager}")

            def tell(sample: Sample, before: float = number * size.seconds) -> None:
                progress.update(task, completed=before + sample.seconds, now=_now(sample))

            run = perform(ksm, one.load, one.manager, one.turn, size, tell)
            progress.console.print(f"turn {run.turn}, {run.load}, {run.manager}: {_now(run.samples[-1])}")
            if run.strangers:
                progress.console.print(f"not alone: {', '.join(run.strangers)} may merge as well")
            yield run


def _now(sample: Sample) -> str:
    saved = f"{human_bytes(sample.saved_bytes)} of {human_bytes(sample.possible_bytes)}"
    return f"{saved} saved, ksmd {sample.ksmd_cpu_seconds:.2f} CPU-s"


def write(directory: Path, about: dict[str, object], runs: list[Run]) -> None:
    """Writes the table and the data."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "arena.json").write_text(tables.as_json(about, runs))
    (directory / "arena.md").write_text(tables.as_markdown(runs))


def draw_all(directory: Path, runs: list[Run]) -> None:
    """Draws a picture for each load, where matplotlib is installed."""
    try:
        from bench.plot import draw, draw_cost
    except ModuleNotFoundError:
        print("no pictures: matplotlib is not installed (the extra `bench`)")
        return
    for load in dict.fromkeys(run.load for run in runs):
        for suffix in ("svg", "png"):
            draw(load, [run for run in runs if run.load == load], directory / f"{load.replace('@', '-')}.{suffix}")
    if any(run.figures.harm and run.figures.harm.speed for run in runs):
        for suffix in ("svg", "png"):
            draw_cost(runs, directory / f"cost.{suffix}")


if __name__ == "__main__":
    main()
