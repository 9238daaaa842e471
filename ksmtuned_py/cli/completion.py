"""`ksmtuned-py completion`: the shells' tab completion."""

from argparse import Namespace
from typing import TYPE_CHECKING

from ksmtuned_py.cli.options import add_verb

if TYPE_CHECKING:
    from ksmtuned_py.cli.options import Subparsers


def add(subparsers: "Subparsers") -> None:
    """Adds the verb."""
    parser = add_verb(
        subparsers,
        "completion",
        run,
        "print the tab completion for a shell",
        'For bash: eval "$(ksmtuned-py completion bash)". For zsh, put it into a file _ksmtuned-py on $fpath.',
    )
    parser.set_defaults(subparsers=subparsers)
    parser.add_argument("shell", choices=("bash", "zsh"), help="the shell")


def run(args: Namespace) -> int:
    """Prints a script that is made from the whole parser, which main passes in `args`."""
    import shtab

    for verb in args.subparsers._choices_actions:
        # A shell's menu shows the summary. shtab before 1.11 takes it from the description alone.
        args.subparsers.choices[verb.dest].description = verb.help
    print(shtab.complete(args.command_line, args.shell))
    return 0
