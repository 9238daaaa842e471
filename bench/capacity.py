"""`python -m bench.capacity`: how often what `ksmtuned-py capacity` says with some chance does happen.

Many hosts are made up, of several mixes. Each has a record and one day more. Of each the chance is asked that the day
is as bad as it was. That chance was below 5 % on 5 days of a hundred, if the word is good.
"""

import argparse
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench.hostdays import MIXES, NEW, host_days
from ksmtuned_py.policy.capacity import DAY_SECONDS, Demand

LEVELS = (0.01, 0.05, 0.2)
MORE = (0, 1, 3, NEW)
"""The numbers of guests more, in turn."""
SEED = 20_261


@dataclass(frozen=True, slots=True)
class Asked:
    """One host-day, and what was said of it beforehand."""

    mix: str
    more: int
    chance: float
    """The chance of a day at least as bad as it was."""


def ask(number: int, days: float, seed: int = SEED) -> Asked:
    """Makes the host of that number up, and asks for its last day."""
    name = list(MIXES)[number % len(MIXES)]
    more = MORE[number // len(MIXES) % len(MORE)]
    host = host_days(np.random.default_rng((seed, number)), MIXES[name], days)
    demand = Demand(host.record, host.now, host.like, "", DAY_SECONDS)
    demand.limit_bytes = round(host.worst[more])
    return Asked(name, more, demand.chance(more))


def happened(asked: list[Asked], level: float) -> float:
    """Returns the share of the days that were worse than what was said with that chance."""
    return sum(one.chance < level for one in asked) / len(asked)


def rows(asked: list[Asked]) -> Iterator[tuple[str, list[Asked]]]:
    """Yields all of them, those of each mix, and those with so many guests more."""
    yield "all", asked
    for name in MIXES:
        yield name, [one for one in asked if one.mix == name]
    for more in MORE:
        yield f"{more} guests more", [one for one in asked if one.more == more]


def table(asked: list[Asked]) -> str:
    """Returns how often it happened, in percent, as Markdown."""
    heads = ["hosts", "days", *(f"said {level:.0%}".replace("%", " %") for level in LEVELS)]
    lines = [heads, ["---", *["---:"] * (len(heads) - 1)]]
    for name, some in rows(asked):
        lines.append([name, str(len(some)), *(f"{100 * happened(some, level):.1f}" for level in LEVELS)])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def main() -> None:
    """Asks of all hosts, and writes the table."""
    parser = argparse.ArgumentParser("python -m bench.capacity", description="whether chances are as said")
    parser.add_argument("--hosts", type=int, default=1000, metavar="N", help="(%(default)s)")
    parser.add_argument("--days", type=float, default=28, metavar="D", help="of record (%(default)s)")
    parser.add_argument("--seed", type=int, default=SEED, metavar="N", help="(%(default)s)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="for the table as well")
    args = parser.parse_args()
    with ProcessPoolExecutor() as pool:
        count = args.hosts
        asked = list(pool.map(ask, range(count), [args.days] * count, [args.seed] * count, chunksize=8))
    text = f"### {args.days:g} days of record\n\n{table(asked)}"
    print(text)
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(text)


if __name__ == "__main__":
    main()
