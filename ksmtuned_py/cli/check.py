"""`ksmtuned-py check`: judges the configuration, and shows what is in force and what could be set."""

from argparse import Namespace
from typing import TYPE_CHECKING

from ksmtuned_py.cli.options import CONFIG_HELP, add_config_dir, add_file, add_verb, load_config
from ksmtuned_py.cli.terminal import err, out, print_json

if TYPE_CHECKING:
    from ksmtuned_py.cli.options import Subparsers
    from ksmtuned_py.configfile.load import Loaded


def add(subparsers: "Subparsers") -> None:
    """Adds the verb."""
    parser = add_verb(
        subparsers,
        "check",
        run,
        "check the configuration, or show it",
        "Prints every mistake with its file, line, key and value and with what was wanted, and exits with 2; or ok.",
    )
    add_file(parser, "config", CONFIG_HELP, nargs="?")
    add_config_dir(parser)
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument(
        "--show", action="store_true", help="print the effective configuration, and where each value comes from"
    )
    kind.add_argument("--sample", action="store_true", help="print the sample configuration: every key, explained")
    parser.add_argument("--json", action="store_true", help="like --show, as JSON with the keys config and origins")


def run(args: Namespace) -> int:
    """Loads the configuration and prints what was asked for; raises ConfigErrors."""
    if args.sample:
        from ksmtuned_py.configfile.text import render_sample

        print(render_sample(), end="")
        return 0
    loaded = load_config(args)
    for sentence in loaded.warnings:
        err().print(sentence, style="yellow")
    if args.json:
        _show_json(loaded)
    elif args.show:
        _show(loaded)
    else:
        print(f"ok: {', '.join(loaded.files) or 'no configuration file: every key has its default'}")
    return 0


def _show(loaded: "Loaded") -> None:
    from rich.text import Text

    from ksmtuned_py.configfile.text import render_effective

    text = Text(render_effective(loaded.config, loaded.place))
    text.highlight_regex(r"  # .*", "dim")
    out().print(text, end="")


def _show_json(loaded: "Loaded") -> None:
    origins = {key: loaded.place(key) for key in loaded.origins}
    print_json({"config": loaded.config, "origins": origins})
