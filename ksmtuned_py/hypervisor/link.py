"""Follows libvirt's domains on a thread, and asks QEMU's monitor. No other file touches libvirt.

The tick reads the thread's latest view and never asks libvirt itself. So a libvirtd that hangs, restarts or is absent
costs nothing but freshness. The thread makes only calls that need no QEMU monitor (list, XML, events). A call that
needs the monitor hangs for as long as that QEMU does.
"""

import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from ksmtuned_py.door.text import printable
from ksmtuned_py.errors import FAILED, Garbage, KsmtunedError
from ksmtuned_py.guests.domains import NOTHING_SEEN, Domain, View, parse_domain
from ksmtuned_py.guests.monitor import MemoryBackend, parse_answer, parse_backends

SYSTEM_URI = "qemu:///system"
SYSTEM_SOCKETS = ("/run/libvirt/libvirt-sock-ro", "/run/libvirt/virtqemud-sock-ro")
ABSENT_SECONDS = 5.0
"""The time between two looks for libvirt's socket. Without a socket the library, 14 MiB, is not even loaded."""
REFRESH_SECONDS = 10.0
"""The time between two lists without an event. A list is one call, and makes up for lost events."""
KEEPALIVE_SECONDS = 2
"""A libvirtd that is silent for three times this long counts as gone."""
FIRST_PAUSE_SECONDS = 0.2
LONGEST_PAUSE_SECONDS = 30.0


@dataclass(eq=False)
class LibvirtRefused(KsmtunedError):
    """libvirt, or QEMU through it, did not do what was asked."""

    what: str
    reason: str
    exit_code = FAILED
    template = "{what}: {reason}"


class LibvirtLink:
    """Follows the domains behind a URI."""

    def __init__(self, uri: str = SYSTEM_URI) -> None:
        self._uri = uri
        self.view: View = replace(NOTHING_SEEN, expected=not self._absent())
        self._changed = threading.Event()
        self._again: SimpleQueue[str] = SimpleQueue()
        self._lost = False
        self._closing = False
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._thread = threading.Thread(target=self._run, name="libvirt", daemon=True)
        self._thread.start()

    def fileno(self) -> int:
        """A descriptor, readable when a domain has started, or libvirt has told its domains for the first time."""
        return self._wake_read

    def drain(self) -> bool:
        """Empty the descriptor, and return whether it was readable."""
        try:
            return bool(os.read(self._wake_read, 4096))
        except BlockingIOError:
            return False

    def wait_first(self, seconds: float) -> None:
        """Wait at most this long for libvirt's first list. This is for whoever looks only once."""
        deadline = time.monotonic() + seconds
        while self.view == NOTHING_SEEN and time.monotonic() < deadline:
            time.sleep(0.01)

    def close(self) -> None:
        """Stop following. A thread that waits for a libvirtd which does not answer is left to itself."""
        self._closing = True
        self._changed.set()
        self._thread.join(1.0)
        if not self._thread.is_alive():  # a living thread may still write to the pipe
            os.close(self._wake_read)
            os.close(self._wake_write)

    def _run(self) -> None:
        pause = FIRST_PAUSE_SECONDS
        while not self._closing:
            absent = self._absent()
            self.view = replace(self.view, expected=not absent)
            if absent:
                self._sleep(ABSENT_SECONDS)
                continue
            connected_at = time.monotonic()
            self._lost = False
            try:
                self._follow()
                problem = "the connection was lost"
            except Exception as error:  # whatever it is, the thread must go on following
                problem = str(error) if isinstance(error, KsmtunedError) else f"{type(error).__name__}: {error}"
            self.view = replace(self.view, problem=problem)
            lasted = time.monotonic() - connected_at > LONGEST_PAUSE_SECONDS
            pause = FIRST_PAUSE_SECONDS if lasted else min(pause * 2, LONGEST_PAUSE_SECONDS)
            self._sleep(pause)

    def _absent(self) -> bool:
        return self._uri == SYSTEM_URI and not any(Path(path).exists() for path in SYSTEM_SOCKETS)

    def _sleep(self, seconds: float) -> None:
        self._changed.clear()
        if not self._closing:  # asked after the clearing, so that close() cannot slip past
            self._changed.wait(seconds)

    def _follow(self) -> None:
        """List the domains at once, and again at every event, until the connection is lost or we are closed."""
        with (
            _events(),
            connected(self._uri, read_only=True) as connection,
            told("following the domains"),
            self._subscribed(connection),
        ):
            known: dict[tuple[str, int], Domain] = {}
            while True:
                self._changed.clear()
                if self._lost or self._closing:
                    return
                known, unread = self._list(connection, known)
                self._show({domain.uuid: domain for domain in known.values()}, unread)
                self._changed.wait(REFRESH_SECONDS)

    def _show(self, domains: dict[str, Domain], unread: frozenset[str]) -> None:
        started = self.view.at_seconds is None or domains.keys() - self.view.domains.keys()
        self.view = View(domains=domains, at_seconds=time.monotonic(), unread=unread)
        if started:
            self._wake()

    def _wake(self) -> None:
        with suppress(BlockingIOError):  # a full pipe wakes as well
            os.write(self._wake_write, b"d")

    @contextmanager
    def _subscribed(self, connection: Any) -> Iterator[None]:
        """Receive events for the length of a with block.

        They are deregistered at its end, or the connection would keep its socket open for good.
        """
        libvirt = library()
        connection.registerCloseCallback(self._on_close, None)
        with suppress(libvirt.libvirtError):  # test:///default has none
            connection.setKeepAlive(KEEPALIVE_SECONDS, 2)
        subscriptions = []
        for event in ("LIFECYCLE", "METADATA_CHANGE", "DEVICE_ADDED", "DEVICE_REMOVED"):
            number = getattr(libvirt, f"VIR_DOMAIN_EVENT_ID_{event}")
            with suppress(libvirt.libvirtError):  # a driver may lack some; the lists every REFRESH_SECONDS remain
                subscriptions.append(connection.domainEventRegisterAny(None, number, self._on_event, None))
        try:
            yield
        finally:
            for subscription in subscriptions:
                with suppress(libvirt.libvirtError):
                    connection.domainEventDeregisterAny(subscription)
            with suppress(libvirt.libvirtError):
                connection.unregisterCloseCallback()

    def _on_close(self, *_: object) -> None:
        self._lost = True
        self._changed.set()

    def _on_event(self, _connection: object, domain: Any, *_: object) -> None:
        self._again.put(domain.UUIDString())
        self._changed.set()

    def _list(
        self, connection: Any, known: dict[tuple[str, int], Domain]
    ) -> tuple[dict[tuple[str, int], Domain], frozenset[str]]:
        """The running domains by UUID and ID, and the UUIDs of domains whose XML could not be read.

        A domain's ID is new at each start. Only the XML of new and changed domains is asked for.
        """
        again = {self._again.get_nowait() for _ in range(self._again.qsize())}
        listed, unread = {}, set()
        for domain in connection.listAllDomains(library().VIR_CONNECT_LIST_DOMAINS_ACTIVE):
            key = (domain.UUIDString(), domain.ID())
            found = known.get(key) if key[0] not in again else None
            try:
                listed[key] = found or parse_domain(domain.XMLDesc())
            except (library().libvirtError, Garbage):  # it stopped since it was listed, or the next list asks again
                unread.add(key[0])
        return listed, frozenset(unread)


def memory_backends(uri: str, uuid: str) -> tuple[MemoryBackend, ...]:
    """A domain's memory as QEMU has it now; raises LibvirtRefused or Garbage.

    It waits for QEMU's monitor, for ever if need be.
    """
    with connected(uri) as connection, told(f"asking the monitor of domain {uuid}"):
        return parse_backends(_ask(connection.lookupByUUIDString(uuid), "query-memdev"))


def set_merging(uri: str, uuid: str, merge: bool) -> tuple[MemoryBackend, ...]:
    """Take a domain's memory out of merging, or back in, and return the memory as it is then.

    QEMU calls madvise on its memory, and the guest stands still until that is done. Each merged GiB that is taken out
    takes 0.4 s (Linux 6.18). It waits for QEMU's monitor, for ever if need be. Raises LibvirtRefused or Garbage.
    """
    with connected(uri) as connection, told(f"switching domain {uuid}"):
        domain = connection.lookupByUUIDString(uuid)
        for backend in parse_backends(_ask(domain, "query-memdev")):
            if backend.merge != merge:
                _ask(domain, "qom-set", path=f"/objects/{backend.name}", property="merge", value=merge)
        return parse_backends(_ask(domain, "query-memdev"))


def _ask(domain: Any, command: str, **arguments: Any) -> Any:
    import libvirt_qemu

    question = {"execute": command, **({"arguments": arguments} if arguments else {})}
    answer, error = parse_answer(command, libvirt_qemu.qemuMonitorCommand(domain, json.dumps(question), 0))
    if error:
        raise LibvirtRefused(f"QEMU's {command}", error)
    return answer


@cache
def library() -> Any:
    """The library of libvirt, quiet and ready for events; raises LibvirtRefused where it is not installed."""
    try:
        import libvirt
    except ImportError as error:
        raise LibvirtRefused("libvirt", f"the Python module is not installed ({error})") from error
    libvirt.registerErrorHandler(lambda *_: None, None)  # else it prints each error to stderr
    libvirt.virEventRegisterDefaultImpl()  # once in a process, before the first connection
    return libvirt


@contextmanager
def told(what: str) -> Iterator[None]:
    """Turn libvirt's errors into LibvirtRefused in a with block."""
    libvirt = library()
    try:
        yield
    except libvirt.libvirtError as error:
        raise LibvirtRefused(what, printable(str(error))) from error


@contextmanager
def connected(uri: str, *, read_only: bool = False) -> Iterator[Any]:
    libvirt = library()
    with told(f"connecting to {uri}"):
        connection = libvirt.openReadOnly(uri) if read_only else libvirt.open(uri)
    try:
        yield connection
    finally:
        with suppress(libvirt.libvirtError):
            connection.close()


@contextmanager
def _events() -> Iterator[None]:
    """Run libvirt's event loop on a thread for the length of a with block.

    Without the loop there are no events, and calls to a libvirtd that hangs never end.
    """
    libvirt = library()
    over = threading.Event()

    def loop() -> None:
        while not over.is_set():
            libvirt.virEventRunDefaultImpl()

    thread = threading.Thread(target=loop, name="libvirt-events", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        libvirt.virEventAddTimeout(0, lambda timer, _: libvirt.virEventRemoveTimeout(timer), None)  # ends its wait
        thread.join()
