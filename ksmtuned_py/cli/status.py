"""`ksmtuned-py status` and `ksmtuned-py why`: show what the daemon does, and for what reasons."""

from argparse import Namespace
from typing import TYPE_CHECKING

from ksmtuned_py.cli.options import add_config, add_root, add_runtime_dir, add_verb
from ksmtuned_py.cli.seen import seen
from ksmtuned_py.cli.tell import first_line, status_rows, why_lines
from ksmtuned_py.cli.terminal import out, print_json

if TYPE_CHECKING:
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
    if args.json:
        return _print_json(found, alive)
    _print_daemon(found, alive)
    for name, value in status_rows(found):
        out().print(f"  {name:<16} {value}")
    return 0


def why(args: Namespace) -> int:
    """Prints the decision, each rule with its numbers, and what would change it."""
    found, alive = seen(args)
    if args.json:
        return _print_json(found, alive)
    _print_daemon(found, alive)
    for line, style in why_lines(found):
        out().print(line, style=style)
    return 0


def _print_daemon(found: "Status", alive: bool) -> None:
    line, style = first_line(found, alive)
    out().print(line, style=style)


def _print_json(found: "Status", alive: bool) -> int:
    import json

    from ksmtuned_py.publish.statusfile import document, status_json

    print_json(json.loads(document(status_json(found), running=alive)))
    return 0
