"""`ksmtuned-py status` and `ksmtuned-py why`: show what the daemon does, and for what reasons."""

from argparse import Namespace
from typing import TYPE_CHECKING

from ksmtuned_py.cli.options import add_config, add_root, add_runtime_dir, add_verb
from ksmtuned_py.cli.seen import lateness, seen
from ksmtuned_py.cli.terminal import out

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ksmtuned_py.cli.options import Subparsers
    from ksmtuned_py.publish.statusfile import Status


def add(subparsers: "Subparsers") -> None:
    """Adds both verbs."""
    status_parser = add_verb(subparsers, "status", status, "what KSM saves and costs now, and what the daemon does")
    why_parser = add_verb(subparsers, "why", why, "why KSM is on, off, boosting or resting, and what would change it")
    for parser in (status_parser, why_parser):
        add_config(parser)
        add_root(parser)
        add_runtime_dir(parser)
        parser.add_argument("--json", action="store_true", help="for programs; its schema is that of the status file")


def status(args: Namespace) -> int:
    """Prints the status of the daemon, or of the host where none runs."""
    found, alive = seen(args)
    if not args.json:
        _print_daemon(found, alive)
        for name, value in _rows(found):
            out().print(f"  {name:<16} {value}")
        return 0
    return _print_json(found, alive)


def why(args: Namespace) -> int:
    """Prints the decision, each rule with its numbers, and what would change it."""
    found, alive = seen(args)
    if args.json:
        return _print_json(found, alive)
    _print_daemon(found, alive)
    decision = found.decision
    out().print(f"\n{decision.reason}", style="bold")
    if found.totals.huge_cost.split:
        out().print(f"huge pages: {_huge_pages(found)}")
    out().print(f"\nThe rules (the winner is {decision.rule}):")
    for verdict in decision.verdicts:
        out().print(f"  {'*' if verdict.fired else '-'} {verdict.rule:<15} {verdict.sentence}")
    out().print("\nWhat would change it:")
    for sentence in decision.would_change:
        out().print(f"  {sentence}")
    return 0


def _print_daemon(found: "Status", alive: bool) -> None:
    from ksmtuned_py.units import human_seconds

    if not alive:
        out().print("no daemon runs; this is what one would see and do now", style="yellow")
    elif late := lateness(found):
        out().print(late, style="red")
    else:
        out().print(f"daemon {found.pid}, {human_seconds(found.age_seconds)} ago: {found.line}", style="green")


def _print_json(found: "Status", alive: bool) -> int:
    import json

    from ksmtuned_py.publish.statusfile import document, status_json

    print(json.dumps(json.loads(document(status_json(found), running=alive)), indent=2))
    return 0


def _rows(found: "Status") -> "Iterator[tuple[str, str]]":
    from ksmtuned_py.cli.pause import pause_sentence
    from ksmtuned_py.publish.words import scanner_name
    from ksmtuned_py.units import human_bytes, human_percent

    now, decision = found.snapshot, found.decision
    knobs, memory = now.knobs, now.memory
    yield decision.mode, decision.reason
    if now.pause is not None:
        yield "paused", pause_sentence(now.pause)
    yield "saved", f"{human_bytes(now.saved_bytes)}, net of bookkeeping {human_bytes(now.profit_bytes)}"
    if found.totals.scanner_share is not None:
        yield scanner_name(now), f"{human_percent(found.totals.scanner_share)} of a core lately"
    yield (
        "memory",
        (
            f"{human_bytes(memory.headroom_bytes)} of {human_bytes(memory.base_bytes)} available, "
            f"{human_bytes(memory.swap_free_bytes)} of {human_bytes(memory.swap_total_bytes)} swap free"
        ),
    )
    if memory.anon_huge_bytes or found.totals.huge_cost.split:
        yield "huge pages", _huge_pages(found)
    if now.pressure:
        stalls = now.pressure.some.avg10_percent, now.pressure.full.avg10_percent
        yield "stalled", f"some tasks {stalls[0]:g} %, all tasks {stalls[1]:g} % of the last 10 s"
    if now.cpu_pressure:
        yield "CPUs taken", f"some tasks waited for one {now.cpu_pressure.some.avg10_percent:g} % of the last 10 s"
    yield "guests", f"{len(now.guests)}"
    yield "knobs", ", ".join(f"{name}={value}" for name, value in knobs.items()) or "none"
    for problem in now.problems:
        yield "problem", problem


def _huge_pages(found: "Status") -> str:
    """The host's huge pages, and what they were split for. `why` has the same figures."""
    from ksmtuned_py.units import human_bytes

    cost, kept = found.totals.huge_cost, f"{human_bytes(found.snapshot.memory.anon_huge_bytes)} in use"
    each = "" if cost.split_per_gib is None else f", {cost.split_per_gib:.0f} for each GiB gained"
    back = found.totals.huge_back
    given = f"; {back.given} given back for {human_bytes(back.paid_bytes)} of merged memory" if back.given else ""
    problem = f"; {back.problem}" if back.problem else ""
    made = f", {cost.collapsed} made by khugepaged meanwhile" if cost.collapsed else ""
    return f"{kept}; {cost.split} split while ksmd ran{each}{made}{given}{problem}"
