"""`ksmtuned-py restore`: puts the knobs back as they were before a daemon that was killed."""

from argparse import Namespace
from typing import TYPE_CHECKING

from ksmtuned_py.cli.options import add_root, add_runtime_dir, add_verb, runtime_of

if TYPE_CHECKING:
    from ksmtuned_py.cli.options import Subparsers
    from ksmtuned_py.door.runtime import Runtime


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
    """Puts the knobs back; raises AlreadyRunning while a daemon runs, and NotRestored when a knob does not take.

    Raises NotOurs when the saved knobs are another kernel's.
    """
    runtime = runtime_of(args)
    if not runtime.directory.exists():
        print("nothing to put back")
    else:
        runtime.act_as_owner()
        with runtime.locked():
            _put_back(runtime, str(args.root))
    return 0


def _put_back(runtime: "Runtime", root: str) -> None:
    from ksmtuned_py.cli.terminal import err
    from ksmtuned_py.config import Config
    from ksmtuned_py.daemon.machine import kernel_machine, ways_of
    from ksmtuned_py.door import Door
    from ksmtuned_py.publish.notify import Notifier
    from ksmtuned_py.undo.originals import origin_of, owed
    from ksmtuned_py.undo.putback import put_back

    door, config = Door(root), Config()
    origin = origin_of(door, "kernel")
    found, sentence = owed(runtime, origin)
    if sentence:
        err().print(sentence)
    if found is None:
        runtime.forget_originals()
        print("nothing to put back")
        return
    with kernel_machine(door, config, dry=False) as machine:
        ways = ways_of(machine, config.guests.libvirt_uri, err().print, Notifier().goes_on)
        done = put_back(ways, runtime, origin, "restore") or found
    print(f"put back: {', '.join(f'{name}={value}' for name, value in done.items()) or 'nothing yet'}")
