"""`ksmtuned-py run`: runs the daemon in the foreground."""

from argparse import Namespace
from dataclasses import replace
from typing import TYPE_CHECKING

from ksmtuned_py.cli.options import add_config, add_root, add_runtime_dir, add_verb, backend, load_config, runtime_of

if TYPE_CHECKING:
    from pathlib import Path

    from ksmtuned_py.cli.options import Subparsers
    from ksmtuned_py.configfile.load import Loaded


def add(subparsers: "Subparsers") -> None:
    """Adds the verb."""
    parser = add_verb(
        subparsers,
        "run",
        run,
        "steer KSM until told to stop",
        "SIGHUP reloads the configuration, SIGUSR1 ticks at once, SIGTERM and SIGINT put the knobs back and end it.",
    )
    add_config(parser)
    add_root(parser)
    add_runtime_dir(parser)
    choices = ("auto", "kernel", "model", "scan")
    parser.add_argument("--backend", type=backend, choices=choices, help="instead of the configured one")
    parser.add_argument(
        "--dry-run", action="store_true", help="decide and explain, but write nothing; beside a daemon, too"
    )
    parser.add_argument("--once", action="store_true", help="one tick, and out again")
    parser.add_argument("--debug", action="store_true", help="tell of every tick, not only of changes")


def run(args: Namespace) -> int:
    """Runs the daemon until a signal ends it."""
    from ksmtuned_py.daemon.service import serve
    from ksmtuned_py.door import Door

    door, runtime = Door(str(args.root)), runtime_of(args)
    doctor = _doctor(args, runtime.directory)
    serve(lambda: _load(args), door, runtime, doctor, debug=args.debug, looks=args.dry_run, once=args.once)
    return 0


def _doctor(args: Namespace, runtime: "Path") -> list[str]:
    """The words with which the doctor looks at the same host, by the same configuration."""
    words = ["doctor", "--json", "--root", str(args.root), "--runtime-dir", str(runtime)]
    words += ["--config", str(args.config)] if args.config else []
    return words + (["--config-dir", str(args.config_dir)] if args.config_dir else [])


def _load(args: Namespace) -> "Loaded":
    """The configuration, with what the command line sets in it."""
    loaded = load_config(args)
    config = loaded.config.watching if args.dry_run else loaded.config
    if args.backend:
        config = config.model_copy(update={"daemon": config.daemon.model_copy(update={"backend": args.backend})})
    return replace(loaded, config=config)
