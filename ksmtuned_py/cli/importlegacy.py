"""`ksmtuned-py import-legacy`: the old ksmtuned.conf as our configuration."""

from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from ksmtuned_py.cli.options import add_file, add_verb

if TYPE_CHECKING:
    from ksmtuned_py.cli.options import Subparsers

OLD_FILE = Path("/etc/ksmtuned.conf")
NO_COUNTERPART = """\
KSM_SLEEP_MSEC and KSM_NPAGES_* have no counterpart in it: the rate follows from a CPU budget, by how much memory is
needed ([adaptive] profile). Nor has KSM_MONITOR_INTERVAL: it looks every second while something happens, and at once
when a guest comes or tasks stall on memory."""


def add(subparsers: "Subparsers") -> None:
    """Adds the verb."""
    parser = add_verb(
        subparsers,
        "import-legacy",
        run,
        "print the configuration that does what an old ksmtuned.conf did",
        "Never runs the file: takes plain assignments, and refuses every other line. Says what was without effect, and "
        "how the adaptive policy would be set up for the same.",
    )
    add_file(parser, "file", "the old file (default: %(default)s)", nargs="?", default=OLD_FILE)
    parser.add_argument("--adaptive", action="store_true", help="print the one for the adaptive policy instead")


def run(args: Namespace) -> int:
    """Prints TOML; raises BadLegacyFile and ConfigError."""
    from ksmtuned_py.configfile.legacy import adaptive_policy, inert_lines, parse_legacy, same_policy

    legacy = parse_legacy(str(args.file), _read(args.file))
    lines = [f"# From {args.file}, by ksmtuned-py import-legacy.", ""]
    if args.adaptive:
        lines += [*_comment(NO_COUNTERPART.splitlines()), "", *adaptive_policy(legacy)]
    else:
        inert = inert_lines(legacy)
        lines += same_policy(legacy)
        lines += ["", "# Without effect on merging:", *_comment(inert, "#   ")] if inert else []
        lines += ["", "# The adaptive policy instead (import-legacy --adaptive):", *_comment(adaptive_policy(legacy))]
        lines += _comment(NO_COUNTERPART.splitlines())
    print("\n".join(lines))
    return 0


def _comment(lines: list[str], mark: str = "# ") -> list[str]:
    return [f"{mark}{line}".rstrip() for line in lines]


def _read(path: Path) -> str:
    from ksmtuned_py.configfile.source import ConfigError

    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(str(path), 0, "", "", f"a readable file ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise ConfigError(str(path), 0, "", "", "UTF-8 text") from error
