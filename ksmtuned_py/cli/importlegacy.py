"""`ksmtuned-py import-legacy`: turns the old ksmtuned.conf into our configuration."""

from argparse import Namespace
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from ksmtuned_py.cli.options import add_file, add_root, add_verb
from ksmtuned_py.errors import KsmtunedError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ksmtuned_py.cli.options import Subparsers

OLD_FILE = Path("/etc/ksmtuned.conf")
MOST_BYTES = 65536
"""The most that is read of a file. Distributions ship files of 1000 bytes."""


def add(subparsers: "Subparsers") -> None:
    """Adds the verb."""
    parser = add_verb(
        subparsers,
        "import-legacy",
        run,
        "print the configuration that does what an old ksmtuned.conf did",
        "Never runs the file: takes plain assignments, and refuses every other line. Says what does not come along, "
        "with what comes nearest, and how the adaptive policy would be set up for the same. Takes Harvester's Ksmtuned "
        "(kubectl get ksmtuned NODE -o yaml), too.",
    )
    add_file(parser, "file", "the old file (default: %(default)s)", nargs="?", default=OLD_FILE)
    parser.add_argument("--adaptive", action="store_true", help="print the one for the adaptive policy instead")
    add_root(parser)


def run(args: Namespace) -> int:
    """Prints the configuration as TOML; raises BadLegacyFile or ConfigError."""
    from ksmtuned_py.configfile.legacy import adaptive_policy, parse_legacy, same_policy
    from ksmtuned_py.configfile.legacynotes import notes
    from ksmtuned_py.door.text import printable

    legacy, total_bytes = parse_legacy(str(args.file), _read(args.file)), _total_bytes(args.root)
    lines = [f"# From {printable(str(args.file))}, by ksmtuned-py import-legacy.", ""]
    lines += adaptive_policy(legacy, total_bytes) if args.adaptive else same_policy(legacy)
    lost = notes(legacy, total_bytes, adaptive=args.adaptive)
    lines += ["", "# Does not come along:", *_comment(map(printable, lost), "#   ")] if lost else []
    if not args.adaptive:
        lines += ["", "# The adaptive policy instead (import-legacy --adaptive):"]
        lines += _comment(adaptive_policy(legacy, total_bytes))
    print("\n".join(lines))
    return 0


def _comment(lines: "Iterable[str]", mark: str = "# ") -> list[str]:
    return [f"{mark}{line}".rstrip() for line in lines]


def _total_bytes(root: Path) -> int | None:
    """This host's memory, which decides which of two thresholds counts; None when unknown."""
    from ksmtuned_py.door import Door
    from ksmtuned_py.sensors.memory import read_memory

    with suppress(KsmtunedError, OSError):
        return read_memory(Door(str(root))).total_bytes
    return None


def _read(path: Path) -> str:
    """Read the file as a shell does: as bytes, of which only ASCII means something."""
    from ksmtuned_py.configfile.source import read_bytes

    return read_bytes(path, MOST_BYTES).decode("utf-8", "surrogateescape")
