"""Adds verbs to the command line, and the options that several verbs take."""

from argparse import Action, ArgumentParser, Namespace
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from argparse import _SubParsersAction

    from ksmtuned_py.configfile.load import Loaded
    from ksmtuned_py.door.runtime import Runtime

    Subparsers = _SubParsersAction[ArgumentParser]

RUNTIME_DIR = Path("/run/ksmtuned-py")
TREES = RUNTIME_DIR / "trees"
HOST = Path("/")
CONFIG_HELP = "the configuration (default: /etc/ksmtuned-py/config.toml, if there is one)"

# The values of shtab.FILE and shtab.DIRECTORY, written out, because only one verb loads shtab.
FILE = {"bash": "_shtab_compgen_files", "zsh": "_files"}
DIRECTORY = {"bash": "_shtab_compgen_dirs", "zsh": "_files -/"}


def add_verb(
    subparsers: "Subparsers", name: str, run: Callable[[Namespace], int], summary: str, description: str = ""
) -> ArgumentParser:
    """Add a verb's parser. The summary is its line in --help, and the description begins its own --help."""
    parser = subparsers.add_parser(name, help=summary, description=description, allow_abbrev=False)
    parser.set_defaults(run=run)
    return parser


def add_file(parser: ArgumentParser, name: str, text: str, **settings: Any) -> None:
    """Add an argument that is a file, which a shell can complete."""
    _complete(parser.add_argument(name, type=Path, metavar="FILE", help=text, **settings), FILE)


def add_directory(parser: ArgumentParser, name: str, text: str, **settings: Any) -> None:
    """Add an argument that is a directory, which a shell can complete."""
    _complete(parser.add_argument(name, type=Path, metavar="DIR", help=text, **settings), DIRECTORY)


def _complete(action: Action, words: dict[str, str]) -> None:
    action.complete = words  # type: ignore[attr-defined]  # argparse knows it not: this is how shtab is told


def add_config(parser: ArgumentParser) -> None:
    """Add --config and --config-dir, for load_config."""
    add_file(parser, "--config", CONFIG_HELP)
    add_config_dir(parser)


def add_config_dir(parser: ArgumentParser) -> None:
    """Add --config-dir, for verbs that name the file in another way."""
    text = "its drop-ins, DIR/*.toml (default: config.d beside the configuration, if there is one)"
    add_directory(parser, "--config-dir", text)


def add_root(parser: ArgumentParser) -> None:
    """Add --root, the root of the tree with /sys and /proc."""
    text = "where to find sys and proc: a captured tree, for instance (default: %(default)s)"
    add_directory(parser, "--root", text, default=HOST)


def add_runtime_dir(parser: ArgumentParser) -> None:
    """Add --runtime-dir."""
    text = f"where the daemon keeps its status and the original knobs (default: {RUNTIME_DIR}; with --root, {TREES})"
    add_directory(parser, "--runtime-dir", text)


def backend(name: str) -> str:
    """The name of a backend. An old one is taken, and said to be old."""
    from ksmtuned_py.config.types import OLD_BACKENDS

    if name in OLD_BACKENDS:
        from ksmtuned_py.cli.terminal import err

        err().print(f"--backend {name} is an old name, say --backend {OLD_BACKENDS[name]}", style="yellow")
    return OLD_BACKENDS.get(name, name)


def runtime_of(args: Namespace) -> "Runtime":
    """The runtime directory that was named, or the usual one of this host, which is not for captured trees."""
    from ksmtuned_py.door.runtime import Runtime

    usual = RUNTIME_DIR if getattr(args, "root", HOST) == HOST else TREES
    return Runtime(args.runtime_dir or usual)


def load_config(args: Namespace) -> "Loaded":
    """Load the configuration that --config and --config-dir name; raises ConfigErrors."""
    from ksmtuned_py.configfile.load import load

    return load(args.config, args.config_dir)
