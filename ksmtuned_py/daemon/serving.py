"""Serves what the daemon tells on the metrics address, and replaces the server when a reload changes that."""

import socket
from contextlib import ExitStack
from pathlib import Path

from ksmtuned_py.config import Config, Metrics
from ksmtuned_py.errors import OtherAddress
from ksmtuned_py.publish.gate import Gate, own_names
from ksmtuned_py.publish.listening import address_of
from ksmtuned_py.publish.publisher import Publisher
from ksmtuned_py.publish.site import Sources
from ksmtuned_py.publish.web import Web

HOSTS = Path("/etc/hosts")


class Serving:
    """The web server of one daemon, if there is one."""

    def __init__(self, publisher: Publisher) -> None:
        self._sources = Sources(
            registry=publisher.metrics.registry,
            trouble=publisher.trouble,
            unreadiness=publisher.unreadiness,
            status=lambda: publisher.status,
            history=publisher.history,
        )
        self._given: socket.socket | None = None
        self._web: Web | None = None

    def open(self, metrics: Metrics, given: socket.socket | None) -> None:
        """Listen on the socket that systemd passes, or at the address; raises OtherAddress or AddressInUse."""
        self._given = given
        self._start(metrics)

    def swap(self, old: Metrics, new: Metrics, undo: ExitStack) -> None:
        """Replace the server.

        The old one goes first, because the new address may overlap, and returns on failure.
        """
        if new == old:
            return
        self.close()
        undo.callback(self._back_to, old)
        self._start(new)

    def close(self) -> None:
        """Close the server."""
        if self._web is not None:
            self._web.stop()
            self._web = None

    def _back_to(self, old: Metrics) -> None:
        self.close()
        self._start(old)

    def _start(self, metrics: Metrics) -> None:
        address, given = metrics.address, self._given
        if given is None and not address:
            return
        if given is not None and address not in (Config().metrics.address, address_of(given)):
            raise OtherAddress(address, address_of(given))
        web = Web(address, self._sources, Gate(_names(metrics)), given)
        web.start()
        self._web = web


def _names(metrics: Metrics) -> frozenset[str]:
    try:
        hosts = HOSTS.read_text(encoding="utf-8", errors="replace")
    except OSError:
        hosts = ""
    return own_names(socket.gethostname(), hosts, metrics.names)
