"""A guest is switched through the libvirt in its pod: a real one, with a mount namespace of its own as a pod has."""

import os
from pathlib import Path

import pytest

from ksmtuned_py.door import Door
from ksmtuned_py.guests.process import ProcessFiles
from ksmtuned_py.hypervisor.link import LibvirtRefused
from ksmtuned_py.hypervisor.switch import switch
from ksmtuned_py.model import Guest
from tests.support.libvirtd import Domain, Libvirtd

pytest.importorskip("libvirt")
NOWHERE = "test:///no-such-file"
"""Stands for the host's libvirt, which does not know the guests in pods."""


def guest_of(domain: Domain, start_ticks: int | None = None) -> Guest:
    """The domain as a guest of a pod."""
    identity = ProcessFiles(Door(), domain.pid).identity()
    assert identity is not None
    ticks = identity.start_ticks if start_ticks is None else start_ticks
    return Guest(pid=domain.pid, start_ticks=ticks, name="a/web", kind="qemu", uuid=domain.uuid, namespace="a")


def test_it_is_switched_through_its_own_libvirt(libvirtd: Libvirtd) -> None:
    domain = libvirtd.create("a_web")
    sockets = Path(f"/proc/{domain.pid}/root/run/libvirt")
    os.link(sockets / "libvirt-sock", sockets / "virtqemud-sock")  # as KubeVirt's daemon calls it
    guest = guest_of(domain)
    for merge in (False, True):
        assert "says smaps" in switch(Door(), NOWHERE, guest, merge)
        assert domain.ram()[1] is merge
    with pytest.raises(LibvirtRefused, match="has ended"):
        switch(Door(), NOWHERE, guest_of(domain, start_ticks=1), False)
    (sockets / "virtqemud-sock").unlink()
    with pytest.raises(LibvirtRefused, match="virtqemud-sock: No such file"):
        switch(Door(), NOWHERE, guest, False)
    assert domain.ram()[1] is True
