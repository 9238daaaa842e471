"""Expected errors. Each is a class with fields, one message template, and a hint for a person.

They are caught once, in the command line. Anything else that gets there is a bug and keeps its traceback.
"""

from dataclasses import dataclass
from typing import ClassVar

BAD_INPUT = 2
"""Exit code for input that we cannot use, so that the caller has to change something."""
FAILED = 1
"""Exit code for a run that was asked for correctly and could not be done."""


@dataclass(eq=False)
class KsmtunedError(Exception):
    """Base of all expected errors. Subclasses add fields and fill the templates with them."""

    template: ClassVar[str] = "unexpected"
    hint_template: ClassVar[str] = ""
    exit_code: ClassVar[int] = BAD_INPUT

    def __str__(self) -> str:
        return self.template.format(**vars(self))

    @property
    def hint(self) -> str:
        """A person's way out of the error; '' when there is nothing to add."""
        return self.hint_template.format(**vars(self))


@dataclass(eq=False)
class NoKsm(KsmtunedError):
    """The kernel has no KSM directory."""

    path: str
    template = "{path}: no such directory: this kernel was built without CONFIG_KSM"
    hint_template = (
        "--backend scan merges without it; --backend model is a model; "
        'daemon.mode = "observe" watches what else there is'
    )


@dataclass(eq=False)
class HiddenKsm(NoKsm):
    """Nobody can tell whether the kernel has KSM, because its files are out of sight."""

    missing: str
    template = "{path}: out of sight here, for there is no {missing}"
    hint_template = (
        "in a container: mount the host's {path} there, writable; or run it on the host; "
        'daemon.mode = "observe" watches what else there is'
    )


@dataclass(eq=False)
class NoScanner(KsmtunedError):
    """The libraries of the scan backend are missing."""

    libraries: str
    template = "the scan backend needs {libraries}"
    hint_template = "apt-get install python3-numpy python3-xxhash, or pip install 'ksmtuned-py[scan]'"


@dataclass(eq=False)
class NoMerger(NoScanner):
    """The kernel has no KSM, and the libraries of the scan backend are missing."""

    path: str
    template = (
        "{path}: no such directory: this kernel was built without CONFIG_KSM; "
        "the scan backend, which merges without it, needs {libraries}"
    )
    hint_template = NoScanner.hint_template + '; daemon.mode = "observe" watches what else there is'


@dataclass(eq=False)
class NotPermitted(KsmtunedError):
    """We may not do what was asked."""

    path: str
    action: str
    template = "{path}: not permitted to {action}"
    hint_template = (
        "run it as root, or with --dry-run to only watch and explain; "
        "a service with unprivileged.conf needs its rules for tmpfiles, too"
    )


@dataclass(eq=False)
class RootNotPermitted(NotPermitted):
    """Root may not do what was asked."""

    template = "{path}: not permitted to {action}, not even as root"
    hint_template = (
        "a container's root may not where only the host's may; on a host look for what AppArmor or SELinux denied; "
        "--dry-run only watches and explains"
    )


@dataclass(eq=False)
class ReadOnly(KsmtunedError):
    """A file of the kernel is on a file system that is mounted read-only."""

    path: str
    template = "{path}: cannot be written, its file system is mounted read-only here"
    hint_template = (
        "in a container: mount the host's /sys/kernel/mm/ksm there, writable, or run it on the host; "
        'daemon.mode = "observe" and --dry-run only watch and explain'
    )


@dataclass(eq=False)
class Garbage(KsmtunedError):
    """A kernel file holds something else than was expected."""

    path: str
    text: str
    wanted: str
    template = "{path}: wanted {wanted}, found {text!r}"


@dataclass(eq=False)
class Unreadable(KsmtunedError):
    """A file that has to be there cannot be read."""

    path: str
    reason: str
    template = "{path}: cannot be read: {reason}"


@dataclass(eq=False)
class AlreadyRunning(KsmtunedError):
    """Another daemon holds the lock."""

    path: str
    holder: str
    exit_code = FAILED
    template = "{path}: locked by another ksmtuned-py ({holder}); only one may steer KSM"
    hint_template = "stop it first: systemctl stop ksmtuned-py"


@dataclass(eq=False)
class NoRoom(KsmtunedError):
    """The host, or a guest's cgroup, has not the memory that giving merged pages back would need."""

    reason: str
    exit_code = FAILED
    template = "no room to unmerge: {reason}"
    hint_template = "stop or move guests, or raise the limit, then ask again"


@dataclass(eq=False)
class NotUnmerged(KsmtunedError):
    """Unmerging began and was cut short. The kernel then has run=0, and a part is still merged."""

    reason: str
    exit_code = FAILED
    template = "not all is unmerged: {reason}"


@dataclass(eq=False)
class AddressInUse(KsmtunedError):
    """The metrics address cannot be bound."""

    address: str
    reason: str
    template = "metrics.address {address}: cannot listen: {reason}"
    hint_template = 'choose another address, or "" for none'


@dataclass(eq=False)
class UnfitWebConfig(KsmtunedError):
    """The file with the certificate, the users and the tokens cannot be used."""

    file: str
    reason: str
    template = "metrics.web_config_file {file}: {reason}"
    hint_template = "docs/web.md has an example; the file and the key are for the daemon's user and group alone"


@dataclass(eq=False)
class UnfitSocket(KsmtunedError):
    """The service manager passes something else than the one socket for /metrics."""

    reason: str
    template = "the socket that systemd passes for /metrics: {reason}"
    hint_template = "ksmtuned-py.socket wants one ListenStream= with an address and a port, or a port alone"


@dataclass(eq=False)
class OtherAddress(KsmtunedError):
    """The configured address is not that of the socket that the service manager passes."""

    address: str
    passed: str
    template = "metrics.address {address!r}: systemd passes a socket at {passed}, and only that is served"
    hint_template = (
        "leave metrics.address out, and set the address by systemctl edit ksmtuned-py.socket; "
        "or do without that socket: systemctl mask --now ksmtuned-py.socket"
    )


@dataclass(eq=False)
class NoRuntimeDirectory(KsmtunedError):
    """The runtime directory cannot be used."""

    path: str
    reason: str
    template = "{path}: cannot be used as the runtime directory: {reason}"
    hint_template = "run it as root, or name another directory with --runtime-dir"


@dataclass(eq=False)
class TicksFailed(KsmtunedError):
    """The daemon gave up, and put the knobs back. A later start may go better, so this is not BAD_INPUT."""

    reason: str
    exit_code = FAILED
    template = "no tick can be completed: {reason}"


@dataclass(eq=False)
class NotRestored(KsmtunedError):
    """Some knobs could not be put back."""

    knobs: str
    exit_code = FAILED
    template = "not put back: {knobs}"
    hint_template = "the saved values are kept; try again: ksmtuned-py restore"


@dataclass(eq=False)
class NotOurs(KsmtunedError):
    """The saved knobs are of another kernel, or of another backend, so they are not written here."""

    path: str
    saved: str
    here: str
    root: str
    template = "{path}: holds the knobs of {saved}, and here is {here}"
    hint_template = "put them back first: ksmtuned-py restore --root {root}; or name another --runtime-dir"


@dataclass(eq=False)
class NotReloaded(KsmtunedError):
    """The new configuration cannot be put in force."""

    reasons: list[str]

    def __str__(self) -> str:
        return "; ".join(self.reasons)


@dataclass(eq=False)
class NoThread(KsmtunedError):
    """No more threads may be started."""

    exit_code = FAILED
    template = "no thread can be begun for it"
