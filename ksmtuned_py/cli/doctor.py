"""`ksmtuned-py doctor`: what keeps memory from merging, with the evidence and the mend."""

from argparse import Namespace
from typing import TYPE_CHECKING

from ksmtuned_py.cli.guests import find_guest
from ksmtuned_py.cli.options import add_config, add_root, add_runtime_dir, add_verb, load_config
from ksmtuned_py.cli.terminal import out
from ksmtuned_py.errors import FAILED

if TYPE_CHECKING:
    from ksmtuned_py.cli.options import Subparsers
    from ksmtuned_py.doctor.finding import Finding


def add(subparsers: "Subparsers") -> None:
    """Adds the verb."""
    parser = add_verb(
        subparsers,
        "doctor",
        run,
        "what keeps memory from merging, and what to do about it",
        "Looks at the host and at each guest, and changes nothing. Exits with 0 when it finds nothing but notes, "
        "with 1 when it finds something, with 2 when it could not look.",
    )
    parser.add_argument("guest", nargs="?", metavar="GUEST", help="this guest only: its name, UUID or PID")
    add_config(parser)
    add_root(parser)
    add_runtime_dir(parser)
    parser.add_argument("--json", action="store_true", help="an array, one object for each finding")


def run(args: Namespace) -> int:
    """Prints what it finds; raises UnknownGuest."""
    from ksmtuned_py.doctor.examine import examine
    from ksmtuned_py.doctor.reader import read_facts, with_guests
    from ksmtuned_py.door import Door
    from ksmtuned_py.publish.statusfile import read
    from ksmtuned_py.runtime import Runtime

    door = Door(str(args.root))
    facts = read_facts(door, load_config(args).config, read(Runtime(args.runtime_dir).status_path))
    only = find_guest(facts.guests, args.guest) if args.guest else None
    known = with_guests(facts, door, [only] if only else facts.guests)
    findings = sorted(examine(known, only), key=lambda finding: finding.note)
    if args.json:
        _print_json(findings)
    else:
        _print(findings)
    return 0 if all(finding.note for finding in findings) else FAILED


def _print(findings: "list[Finding]") -> None:
    if all(finding.note for finding in findings):
        out().print("nothing found that keeps memory from merging", style="green")
    for finding in findings:
        note = "note: " if finding.note else ""
        out().print(f"{note}{finding.subject}: {finding.sentence} [{finding.code}]", style="bold")
        out().print(f"  seen: {finding.evidence}")
        out().print(f"  mend: {finding.mend}")


def _print_json(findings: "list[Finding]") -> None:
    import json
    from dataclasses import asdict

    print(json.dumps([asdict(finding) for finding in findings], indent=2))
