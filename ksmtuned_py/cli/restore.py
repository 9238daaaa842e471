"""`ksmtuned-py restore`: put the knobs back as they were before a daemon that was killed."""

from argparse import Namespace
from typing import TYPE_CHECKING

from ksmtuned_py.cli.options import add_root, add_runtime_dir, add_verb

if TYPE_CHECKING:
    from ksmtuned_py.cli.options import Subparsers
    from ksmtuned_py.runtime import Runtime


def add(subparsers: "Subparsers") -> None:
    """Adds the verb."""
    parser = add_verb(
        subparsers,
        "restore",
        run,
        "put the knobs back as they were before a daemon that was killed",
        "Does nothing when nothing is owed. The unit runs it after every stop.",
    )
    add_root(parser)
    add_runtime_dir(parser)


def run(args: Namespace) -> int:
    """Restores; raises AlreadyRunning while a daemon is at work, NotRestored when a knob does not take."""
    from ksmtuned_py.runtime import Runtime

    runtime = Runtime(args.runtime_dir)
    if not runtime.directory.exists():
        print("nothing to put back")
    else:
        with runtime.locked():
            _put_back(runtime, str(args.root))
    return 0


def _put_back(runtime: "Runtime", root: str) -> None:
    from ksmtuned_py.cli.terminal import err
    from ksmtuned_py.config import Config
    from ksmtuned_py.door import Door
    from ksmtuned_py.machine import open_machine
    from ksmtuned_py.model import KSM_DIRECTORY
    from ksmtuned_py.restore import put_back

    door, owed = Door(root), runtime.originals()
    if owed is None or not door.exists(KSM_DIRECTORY):  # our own scanner's knobs ended with it
        runtime.forget_originals()
        print("nothing to put back")
        return
    with open_machine(door, Config()) as machine:
        put_back(machine.host, runtime, "restore", err().print)
    print(f"put back: {', '.join(f'{name}={value}' for name, value in owed.items())}")
