"""Reaches the libvirt in the pod of a KubeVirt guest, in which each virtual machine has one of its own.

Its socket is found through the guest's own view of the files. So a guest leads nowhere but to what is in its own pod.
"""

import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from ksmtuned_py.door import Door
from ksmtuned_py.guests.process import ProcessFiles
from ksmtuned_py.hypervisor.link import LibvirtRefused
from ksmtuned_py.model import Guest

SOCKET = ("root", "run", "libvirt", "virtqemud-sock")
"""Below /proc/PID. KubeVirt's own virt-handler goes there when a guest migrates."""


@contextmanager
def uri_of(door: Door, guest: Guest, usual: str) -> Iterator[str]:
    """The URI of the libvirt that has the guest, for a with block; raises LibvirtRefused.

    `usual` is the host's, for a guest that it knows or that is in no pod.
    """
    if guest.libvirt_age_seconds is not None or not guest.namespace:
        yield usual
        return
    with ExitStack() as undo:
        try:
            socket = _socket(door, guest, undo)
        except OSError as error:
            where = door.path(f"proc/{guest.pid}/{'/'.join(SOCKET)}")
            raise LibvirtRefused(f"the libvirt in the pod of {guest.name}", f"{where}: {error.strerror}") from error
        # A virt-launcher that is not root has a session's, and knows no other name for it.
        driver = "system" if os.fstat(socket).st_uid == 0 else "session"
        yield f"qemu+unix:///{driver}?socket=/proc/self/fd/{socket}"


def _socket(door: Door, guest: Guest, undo: ExitStack) -> int:
    """A descriptor on the socket. No link on the way is followed, for it would lead out of the pod; raises OSError."""
    process = ProcessFiles(door, guest.pid)
    process.hold()
    undo.callback(process.close)
    identity = process.identity()
    if identity is None or identity.start_ticks != guest.start_ticks or process.descriptor is None:
        raise ProcessLookupError(0, "the guest has ended")
    place = process.descriptor
    for name in SOCKET:
        # /proc/PID/root is the one link that is meant: the kernel's own, to the guest's root.
        follow = 0 if name == "root" else os.O_NOFOLLOW
        place = os.open(name, os.O_PATH | os.O_CLOEXEC | follow, dir_fd=place)
        undo.callback(os.close, place)
    if not stat.S_ISSOCK(os.fstat(place).st_mode):
        raise FileNotFoundError(0, "no socket")
    return place
