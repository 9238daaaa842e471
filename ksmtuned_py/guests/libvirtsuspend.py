"""Suspending a libvirt domain for a moment, as `virsh suspend` does, and letting it run on; see qmp for the others."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from xml.etree import ElementTree

from ksmtuned_py.guests.libvirtlink import connected, library, told
from ksmtuned_py.guests.qmp import MonitorRefused

_DIRECTORY = re.compile(r"/domain-(\d+)-[^/]*/")


def domain_number(command_line: str) -> int | None:
    """The ID of the libvirt domain that a QEMU was started for: its command line names the domain's directory."""
    found = _DIRECTORY.search(command_line)
    return int(found[1]) if found else None


class DomainMonitor:
    """A running domain."""

    def __init__(self, domain: Any) -> None:
        self._domain = domain

    def obstacle(self) -> str:
        """Why it must not be suspended now; ''."""
        libvirt = library()
        with told("asking for its state"):
            if self._domain.state()[0] != libvirt.VIR_DOMAIN_RUNNING:
                return "it does not run, says libvirt"
            if self._domain.jobInfo()[0] != libvirt.VIR_DOMAIN_JOB_NONE:
                return "libvirt is at work on it: a migration, a dump or a backup"
            if any(self._domain.blockJobInfo(disk) for disk in _disks(self._domain.XMLDesc())):
                return "its disks are being copied, which goes on while it is suspended"
        return ""

    def stop(self) -> None:
        """Suspends it, which drains its disks and stops vhost; waits for that, for ever if need be."""
        with told("suspending it"):
            self._domain.suspend()

    def undisturbed(self) -> bool:
        """Whether it is still suspended, and for no other reason than that somebody asked for it."""
        libvirt = library()
        with told("asking for its state"):
            state, reason = self._domain.state()
        # Unknown: libvirtd was restarted while the domain was suspended, before it had noted that.
        asked_for = reason in (libvirt.VIR_DOMAIN_PAUSED_USER, libvirt.VIR_DOMAIN_PAUSED_UNKNOWN)
        return bool(state == libvirt.VIR_DOMAIN_PAUSED and asked_for)

    def resume(self) -> None:
        """Lets it run on, if it is still suspended, and for no other reason."""
        if self.undisturbed():
            with told("resuming it"):
                self._domain.resume()


@contextmanager
def domain_monitor(uri: str, uuid: str, number: int) -> Iterator[DomainMonitor]:
    """The domain, in a with block, if it is the one with this ID, too; raises LibvirtRefused and MonitorRefused."""
    with connected(uri) as connection:
        with told("looking for its domain"):
            domain = connection.lookupByUUIDString(uuid)
            if domain.ID() != number:
                raise MonitorRefused(f"libvirt knows it as domain {domain.ID()}, its command line as {number}")
        yield DomainMonitor(domain)


def _disks(xml: str) -> list[str]:
    return [target.get("dev", "") for target in ElementTree.fromstring(xml).iterfind("devices/disk/target")]  # noqa: S314 - libvirt's own
