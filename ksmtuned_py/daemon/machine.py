"""Opens the machine as the configuration wants it, with a backend, senses, and what tells of new guests."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from ksmtuned_py.backends.absent import AbsentBackend
from ksmtuned_py.backends.base import Backend
from ksmtuned_py.backends.kernel import KernelBackend
from ksmtuned_py.config import Config, InForce
from ksmtuned_py.daemon.merger import check_rights, merger_of
from ksmtuned_py.daemon.senses import KernelSenses, ScanSenses
from ksmtuned_py.daemon.wait import EventSource, Signals, Waiter
from ksmtuned_py.door import Door
from ksmtuned_py.door.runtime import Runtime
from ksmtuned_py.guests.arrivals import open_arrivals
from ksmtuned_py.guests.discovery import GuestFinder
from ksmtuned_py.guests.ledger import Ledger
from ksmtuned_py.guests.places import rooms
from ksmtuned_py.guests.roster import Roster, Switches
from ksmtuned_py.host import Host, PauseAt, no_pause
from ksmtuned_py.hypervisor.link import LibvirtLink
from ksmtuned_py.hypervisor.switch import empty
from ksmtuned_py.model import Guest, Snapshot
from ksmtuned_py.sensors.pages import page_bytes
from ksmtuned_py.sensors.pressure import open_trigger
from ksmtuned_py.undo.background import GivingBack
from ksmtuned_py.undo.giveback import Say, Ways
from ksmtuned_py.undo.unsharing import Unsharing
from ksmtuned_py.units import MIB

if TYPE_CHECKING:  # most hosts need neither a model nor a scanner of our own, and a start without them is shorter
    from ksmtuned_py.ksmdmodel.modelhost import ModelHost


@dataclass(frozen=True, kw_only=True)
class Partners:
    """Those who the parts of a machine ask."""

    pause: PauseAt = no_pause
    switches: Switches | None = None
    """Takes guests' memory out of merging; None where nobody does."""
    say: Say = lambda _: None
    """Hears what stays merged when memory is given back beside the ticks."""


NOBODY = Partners()


@dataclass(frozen=True)
class Machine:
    """The host, and what tells of new guests on it."""

    door: Door
    host: Host
    in_force: InForce
    """The configuration in force, shared by everybody who works on this machine."""
    heed: Callable[[set[int]], bool]
    """Whether programs that started are worth a tick."""
    is_this_host: bool
    """It is neither a captured tree nor a model, so programs that start here start on the machine we watch."""
    roster: Roster | None = None
    """The list of guests with the rules for them; None with a model."""
    link: LibvirtLink | None = None
    """The link to libvirt; None where libvirt is not asked."""

    @contextmanager
    def waiter(
        self, signals: Signals, warn: Callable[[str], None], switches: EventSource | None = None
    ) -> Iterator[Waiter]:
        """Make the one wait for this machine, in a with block, with whatever this kernel lets us wait for."""
        stall_ms = self.in_force.config.daemon.pressure_trigger_ms
        with ExitStack() as undo:
            pressure = open_trigger(self.door, stall_ms) if stall_ms and self.is_this_host else None
            if pressure is not None:
                undo.callback(os.close, pressure)
            arrivals = open_arrivals(warn) if self.is_this_host else None
            if arrivals is not None:
                undo.enter_context(closing(arrivals))
            yield Waiter(
                signals, pressure=pressure, arrivals=arrivals, domains=self.link, switches=switches, heed=self.heed
            )

    def hear_libvirt(self) -> None:
        """Give libvirt some time for its first answer, for whoever looks only once."""
        if self.link is not None:
            self.link.wait_first(LIBVIRT_SECONDS)

    def let_go(self) -> None:
        """Close the descriptors on the guests. Guests can still be looked at, at a higher cost."""
        if self.roster is not None:
            self.roster.let_go()


LIBVIRT_SECONDS = 2.0
"""The time libvirt has for its first answer when there is only one look."""


@contextmanager
def looking(door: Door, config: Config, partners: Partners = NOBODY) -> Iterator[Machine]:
    """Open the machine for one look without a write, in a with block; raises NoScanner."""
    with open_machine(door, config.watching, partners) as machine:
        machine.hear_libvirt()
        yield machine


def look(door: Door, config: Config, partners: Partners = NOBODY) -> Snapshot:
    """Take one snapshot without a write, with what libvirt says, and all suspects; raises NoScanner."""
    with looking(door, config, partners) as machine:
        snapshot = machine.host.observe()
        return replace(snapshot, suspects=machine.roster.suspects) if machine.roster is not None else snapshot


@contextmanager
def open_machine(door: Door, config: Config, partners: Partners = NOBODY) -> Iterator[Machine]:
    """Open the machine for a with block; raises as merger_of does when it cannot be driven.

    Where nothing merges, whoever only watches gets it without a merger.
    """
    dry = config.daemon.mode == "observe"
    match merger_of(door, config):
        case "model":
            yield model_machine(small_model(), config, partners, dry=dry)
        case "scan":
            with scan_machine(door, config, partners, dry=dry) as machine:
                yield machine
        case "kernel":
            with kernel_machine(door, config, partners, dry=dry) as machine:
                yield machine
        case "none":
            backend = AbsentBackend(page_bytes(door))
            with _around(door, InForce(config), backend, KernelSenses, partners, dry=True) as machine:
                yield machine


def model_machine(model: "ModelHost", config: Config, partners: Partners = NOBODY, *, dry: bool) -> Machine:
    """Make a machine of a model that runs in real time."""
    from ksmtuned_py.backends.model import ModelBackend

    backend = ModelBackend(model, time.monotonic)
    host = Host(backend, backend, pause=partners.pause, dry=dry)
    return Machine(Door(), host, InForce(config), heed=bool, is_this_host=False)


@contextmanager
def kernel_machine(door: Door, config: Config, partners: Partners = NOBODY, *, dry: bool) -> Iterator[Machine]:
    """Open this host with ksmd as the backend, in a with block; raises NoKsm, NotPermitted or ReadOnly."""
    backend = KernelBackend(door)
    if not dry:
        check_rights(door, "kernel")
    with _around(door, InForce(config), backend, KernelSenses, partners, dry=dry) as machine:
        yield machine


@contextmanager
def scan_machine(door: Door, config: Config, partners: Partners = NOBODY, *, dry: bool) -> Iterator[Machine]:
    """Open this host with our own scanner, in a with block."""
    from ksmtuned_py.backends.scan import ScanBackend

    in_force = InForce(config)
    backend = ScanBackend(in_force, door)
    with _around(door, in_force, backend, partial(ScanSenses, backend), partners, dry=dry) as machine:
        yield machine


@contextmanager
def _around(
    door: Door,
    in_force: InForce,
    backend: Backend,
    senses_of: Callable[[Door, Roster, int], KernelSenses],
    partners: Partners,
    *,
    dry: bool,
) -> Iterator[Machine]:
    """Open the host around a backend that merges the memory of real processes, in a with block."""
    with _watched(door, in_force, partners) as (roster, link):
        senses = senses_of(door, roster, os.cpu_count() or 1)
        giving_back = None
        if _is_kernels(backend, door.root == "/"):
            giving_back = GivingBack(backend, senses, lambda host, tell: _ways(door, host, partners.say, tell))
        host = Host(backend, senses, pause=partners.pause, giving_back=giving_back, dry=dry)
        with closing(host), _aborting(host):
            yield Machine(door, host, in_force, roster.heed, door.root == "/", roster, link)


@contextmanager
def _aborting(host: Host) -> Iterator[None]:
    """End the giving back of memory at the end of a with block."""
    try:
        yield
    finally:
        host.abort()


@contextmanager
def _watched(door: Door, in_force: InForce, partners: Partners = NOBODY) -> Iterator[tuple[Roster, LibvirtLink | None]]:
    """Open the list of guests, and the link to libvirt on this host, in a with block."""
    guests = in_force.config.guests
    finder = GuestFinder(
        door, guests.name_patterns, guests.mergeable, guests.mergeable_rescan_seconds, guests.cgroup_patterns
    )
    link = LibvirtLink(guests.libvirt_uri) if door.root == "/" and guests.libvirt_uri else None
    try:
        yield Roster(door, finder, in_force, link, partners.switches), link
    finally:
        if link is not None:
            link.close()
        finder.close()


def ways_of(machine: Machine, uri: str, say: Say, progress: Say) -> Ways:
    """The ways that there are on this machine."""
    if not _is_kernels(machine.host.backend, machine.is_this_host):
        return Ways(machine.host, say, progress)
    ways = _ways(machine.door, machine.host, say, progress)
    return replace(ways, empty=partial(empty, machine.door, uri) if machine.link is not None else None)


def _ways(door: Door, host: Host, say: Say, progress: Say) -> Ways:
    """The ways that can be cut short at any moment, which QEMU cannot."""
    return Ways(host, say, progress, unshare=partial(Unsharing, progress=progress), limit_bytes=rooms(door))


def _is_kernels(backend: Backend, is_this_host: bool) -> bool:
    """Whether this machine's kernel merges the memory of processes that we can reach."""
    return backend.name == "kernel" and is_this_host


def ledger_of(runtime: Runtime, door: Door, config: Config) -> Ledger | None:
    """The ledger of guests that are switched off; None for a model or a captured tree, where nobody switches."""
    if config.daemon.backend == "model" or door.root != "/":
        return None
    return Ledger(runtime.switched_path, door)


def known_guests(door: Door, config: Config) -> tuple[Guest, ...]:
    """The guests at one look, whichever backend merges their memory, and even if none does."""
    with _watched(door, InForce(config)) as (roster, link):
        if link is not None:
            link.wait_first(LIBVIRT_SECONDS)
        return roster.find(time.monotonic())


def small_model(guests: int = 4, guest_bytes: int = 256 * MIB) -> "ModelHost":
    """A model of a small host. Its guests are half equal, 15 % zero, 25 % unique and 10 % changing all the time."""
    from ksmtuned_py.ksmdmodel.guestmemory import equal, unique, zero
    from ksmtuned_py.ksmdmodel.modelhost import ModelHost

    model = ModelHost()
    pages = guest_bytes // model.page_bytes
    for number in range(1, guests + 1):
        groups = (
            equal("system", pages * 50 // 100),
            zero(pages * 15 // 100),
            unique(pages * 25 // 100),
            unique(pages * 10 // 100, rewrites_per_second=1),
        )
        model.add_guest(f"model-{number}", groups)
    return model
