"""`ksmtuned-py replay`: shows another policy's decisions over a recorded trace."""

from argparse import Namespace
from typing import TYPE_CHECKING

from ksmtuned_py.cli.options import add_config_dir, add_file, add_verb, load_config
from ksmtuned_py.cli.policies import CHOICES, with_policy
from ksmtuned_py.cli.terminal import out, print_json

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ksmtuned_py.cli.options import Subparsers
    from ksmtuned_py.config import Config
    from ksmtuned_py.model import Decision, Knobs
    from ksmtuned_py.trace.replay import Comparison, Side, Stretch

STRETCHES_SHOWN = 40


def add(subparsers: "Subparsers") -> None:
    """Adds the verb."""
    parser = add_verb(
        subparsers,
        "replay",
        run,
        "what another policy would have decided, where it differs from what was recorded",
        "Without --policy and --config it decides anew with the recorded configuration: after an update, for instance.",
    )
    add_file(parser, "file", "a trace, from ksmtuned-py record")
    parser.add_argument("--policy", choices=CHOICES, metavar="NAME", help=f"one of {', '.join(CHOICES)}")
    add_file(parser, "--config", "a configuration to decide with, in place of the recorded one")
    add_config_dir(parser)
    parser.add_argument("--all", action="store_true", help=f"show more than {STRETCHES_SHOWN} differences")
    parser.add_argument("--json", action="store_true", help="print the comparison as JSON")


def run(args: Namespace) -> int:
    """Prints the differences; raises BadTrace, NoZstd, ConfigErrors."""
    from ksmtuned_py.trace.reader import open_trace
    from ksmtuned_py.trace.replay import compare, replay

    with open_trace(args.file) as trace:
        recorded = trace.header.config
        config = _config(args, recorded)
        comparison = compare(replay(trace.ticks, config))
    names = recorded.policy.name, args.policy or config.policy.name
    if args.json:
        _print_json(comparison, *names)
    else:
        _print(comparison, *names, shown=None if args.all else STRETCHES_SHOWN)
    return 0


def _config(args: Namespace, recorded: "Config") -> "Config":
    config = load_config(args).config if args.config or args.config_dir else recorded
    return with_policy(config, args.policy) if args.policy else config


def _print_json(comparison: "Comparison", recorded: str, replayed: str) -> None:
    print_json({"recorded_policy": recorded, "replayed_policy": replayed, "comparison": comparison})


def _print(comparison: "Comparison", recorded: str, replayed: str, shown: int | None) -> None:
    from ksmtuned_py.units import human_seconds

    same = comparison.ticks - comparison.differing
    length = human_seconds(comparison.seconds)
    out().print(f"{comparison.ticks} ticks in {length}: {same} decided alike, {comparison.differing} not", style="bold")
    for name, side in ((f"recorded, {recorded}", comparison.recorded), (f"replayed, {replayed}", comparison.replayed)):
        out().print(f"  {name:<20} {_summary(side)}")
    for stretch in comparison.stretches[:shown]:
        for line in _lines(stretch):
            out().print(line)
    hidden = len(comparison.stretches[shown:]) if shown else 0
    if hidden:
        out().print(f"... and {hidden} more differences (--all)")


def _summary(side: "Side") -> str:
    from ksmtuned_py.units import human_seconds

    modes = ", ".join(f"{mode} {human_seconds(seconds)}" for mode, seconds in side.seconds_in.items())
    return f"{modes or 'one tick'}; other knobs wanted {side.changes} times"


def _lines(stretch: "Stretch") -> "Iterator[str]":
    from ksmtuned_py.units import human_seconds

    first = stretch.first
    lasts = human_seconds(stretch.until_seconds - first.seconds)
    yield f"\nafter {human_seconds(first.seconds)}, {stretch.ticks} tick{'s' if stretch.ticks > 1 else ''} in {lasts}:"
    recorded, replayed = first.recorded, first.replayed
    yield f"  recorded  {_decision(recorded, replayed.knobs)}"
    yield f"  replayed  {_decision(replayed, recorded.knobs)}"


def _decision(decision: "Decision", other: "Knobs") -> str:
    """A decision in one line, with the knobs that the other side wants otherwise.

    A trace may come from anywhere, so what it says is escaped.
    """
    from ksmtuned_py.door.text import printable

    knobs = ", ".join(f"{name}={value}" for name, value in decision.knobs.items() if other.get(name) != value)
    return printable(f"{decision.mode:<7} {knobs or 'no other knobs'}; {decision.reason}")
