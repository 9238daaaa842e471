"""Serves what the daemon tells on the metrics address, and replaces the server when a reload changes that."""

import os
import socket
from contextlib import ExitStack
from pathlib import Path

from ksmtuned_py.config import Config, Metrics
from ksmtuned_py.daemon.front import read_front
from ksmtuned_py.daemon.trial import why_not
from ksmtuned_py.errors import OtherAddress
from ksmtuned_py.publish.findings import Findings
from ksmtuned_py.publish.gate import Gate, own_names
from ksmtuned_py.publish.historyfile import HistoryFile
from ksmtuned_py.publish.listening import address_of
from ksmtuned_py.publish.publisher import Publisher
from ksmtuned_py.publish.site import Sources
from ksmtuned_py.publish.web import Web

HOSTS = Path("/etc/hosts")
STATE = "STATE_DIRECTORY"
"""Where systemd says which directory is for what outlives a reboot (systemd.exec(5))."""


class Serving:
    """The web server of one daemon, if there is one, with the history's file and the doctor, whom it shows."""

    def __init__(self, publisher: Publisher, findings: Findings) -> None:
        self._findings = findings
        self._tell = publisher.warn
        self._sources = Sources(
            registry=publisher.metrics.registry,
            shown=lambda: publisher.metrics.told,
            trouble=publisher.trouble,
            unreadiness=publisher.unreadiness,
            status=lambda: publisher.status,
            history=publisher.history,
            findings=findings.told,
        )
        self._given: socket.socket | None = None
        self._web: Web | None = None
        directory = os.environ.get(STATE, "").partition(":")[0]
        self._file = HistoryFile(Path(directory), publisher.history, publisher.warn) if directory else None

    def open(self, metrics: Metrics, given: socket.socket | None) -> None:
        """Listen on the socket that systemd passes, or at the address.

        Raises OtherAddress, AddressInUse or UnfitWebConfig.
        """
        self._given = given
        self._put(self._made(metrics))
        if self._file is not None:
            self._file.start()

    def swap(self, old: Metrics, new: Metrics, undo: ExitStack) -> None:
        """Replace the server, also where its files may have changed, as a certificate that was renewed.

        The old one goes first, because the new address may overlap, and returns on failure.
        """
        if new == old and not new.web_config_file and self._serves(new):
            return
        made, before = self._made(new), self._web
        self.close()
        undo.callback(self._return, before)
        self._put(made)

    def close(self) -> None:
        """Close the server."""
        if self._web is not None:
            self._web.stop()
            self._web = None

    def end(self) -> None:
        """Save the rest of the history, and end the doctor's look."""
        self._findings.close()
        if self._file is not None:
            self._file.stop()

    def _put(self, web: Web | None) -> None:
        """Have this server serve, in place of the one that does."""
        self.close()
        if web is not None:
            web.start()
        self._web = web

    def _return(self, web: Web | None) -> None:
        """Have the old server serve again, or tell why it does not: that is no reason to end."""
        if reason := why_not(lambda: self._put(web)):
            self._tell(f"nothing is served until another reload: {reason}")

    def _serves(self, metrics: Metrics) -> bool:
        """Whether somebody serves, where that is wanted, and can be reached."""
        if self._web is None:
            return self._given is None and not metrics.address
        return self._web.is_there

    def _made(self, metrics: Metrics) -> Web | None:
        address, given = metrics.address, self._given
        if given is None and not address:
            return None
        if given is not None and address not in (Config().metrics.address, address_of(given)):
            raise OtherAddress(address, address_of(given))
        front = read_front(metrics.web_config_file)
        gate = Gate(_names(metrics))
        guards = [gate.refusal, *([front.keys.refusal] if front.keys is not None else [])]
        return Web(address, self._sources, guards, front.context, given)


def _names(metrics: Metrics) -> frozenset[str]:
    try:
        hosts = HOSTS.read_text(encoding="utf-8", errors="replace")
    except OSError:
        hosts = ""
    return own_names(socket.gethostname(), hosts, metrics.names)
