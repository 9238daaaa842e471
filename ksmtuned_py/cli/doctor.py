"""`ksmtuned-py doctor`: tells what keeps memory from merging, with the evidence and the mend."""

from argparse import Namespace
from typing import TYPE_CHECKING

from ksmtuned_py.cli.guests import find_guest
from ksmtuned_py.cli.options import add_config, add_root, add_runtime_dir, add_verb, load_config
from ksmtuned_py.cli.seen import daemons_word, seen_anew
from ksmtuned_py.cli.terminal import out, print_json
from ksmtuned_py.errors import FAILED
from ksmtuned_py.model import KSM_DIRECTORY

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ksmtuned_py.cli.options import Subparsers
    from ksmtuned_py.doctor.finding import Finding
    from ksmtuned_py.model import Guest


def add(subparsers: "Subparsers") -> None:
    """Adds the verb."""
    parser = add_verb(
        subparsers,
        "doctor",
        run,
        "what keeps memory from merging, and what to do about it",
        "Looks at the host and at each guest, and changes nothing. Exits with 0 when it finds nothing but notes "
        "and what [[doctor.accept]] accepts, with 1 when it finds something, with 2 when it could not look.",
    )
    parser.add_argument("guest", nargs="?", metavar="GUEST", help="this guest only: its name, UUID or PID")
    add_config(parser)
    add_root(parser)
    add_runtime_dir(parser)
    parser.add_argument("--all", action="store_true", help="what is accepted, too, with the reason")
    parser.add_argument("--json", action="store_true", help="an array, one object for each finding")


def run(args: Namespace) -> int:
    """Prints the findings; raises UnknownGuest."""
    from ksmtuned_py.doctor.causes import accepted
    from ksmtuned_py.doctor.examine import examine
    from ksmtuned_py.doctor.reader import read_facts, with_guests
    from ksmtuned_py.door import Door

    door, config = Door(str(args.root)), load_config(args).config
    now, word = seen_anew(args, door, config) if door.exists(KSM_DIRECTORY) else (None, daemons_word(args))
    facts = read_facts(door, config, now, word)
    only = find_guest(facts.guests, args.guest) if args.guest else None
    known = with_guests(facts, door, [only] if only else facts.guests)
    findings = accepted(examine(known, only), config.doctor.accept, known.guests)
    if args.json:
        _print_json([finding for finding in findings if args.all or finding.severity != "accepted"])
    else:
        _print(findings, [only] if only else known.guests, show_accepted=args.all)
    return FAILED if any(finding.severity == "finding" for finding in findings) else 0


def _print(findings: "Sequence[Finding]", guests: "Sequence[Guest]", *, show_accepted: bool) -> None:
    from ksmtuned_py.doctor.causes import blocks, found_by

    if not any(finding.severity == "finding" for finding in findings):
        out().print("nothing found that keeps memory from merging", style="green")
    hidden = 0
    for block in blocks(findings):
        first = block.first
        if first.severity == "accepted" and not show_accepted:
            hidden += 1
            continue
        word = "" if first.severity == "finding" else f"{first.severity}: "
        example = f" ({first.guest})" if len(block.guests) > 1 else ""
        out().print(f"{word}{block.subject}: {first.sentence} [{first.code}]", style="bold")
        out().print(f"  seen: {first.evidence}{example}")
        out().print(f"  wanted so: {first.reason}" if first.reason else f"  mend: {first.mend}")
    if guests:
        out().print(f"looked at {found_by(guests)}")
    if hidden:
        out().print(f"accepted: {hidden}, shown by --all")


def _print_json(findings: "Sequence[Finding]") -> None:
    print_json(findings)
