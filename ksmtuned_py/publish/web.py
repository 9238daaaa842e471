"""Serves HTTP with a fixed number of threads and connections, whatever the clients do."""

import logging
import math
import socket
import threading
import time
from collections.abc import Sequence
from ssl import SSLContext
from traceback import walk_tb
from typing import Any

from waitress import wasyncore
from waitress.channel import HTTPChannel
from waitress.server import create_server

from ksmtuned_py.publish.answers import HEADERS
from ksmtuned_py.publish.gate import Gate
from ksmtuned_py.publish.listening import leave, listen, mark_of, port_of
from ksmtuned_py.publish.site import Guard, Site, Sources
from ksmtuned_py.publish.tls import Encrypted, accepting

CLIENTS_MAX = 20
"""The most connections. Prometheus needs one, a browser six, and more would take descriptors that guests need."""
LIMITS = {
    "threads": 2,
    "connection_limit": 2 * CLIENTS_MAX,  # never reached, because the longest silent connection is closed before
    "log_socket_errors": False,  # so that no client can fill the log
    "channel_timeout": 10,  # seconds for which a silent connection is kept
    "max_request_header_size": 16384,
    "max_request_body_size": 1024,  # nobody has anything to send us, and the default keeps up to 1 GiB in a file
    "asyncore_use_poll": True,  # select() ends at descriptor 1024
}
LOOP_IDLE_TIMES = 3
"""The rest after each look at all connections, in times its CPU time. No flood of them takes more of a core."""

ANYBODYS = (Gate().refusal,)
"""The guards of a host that has only the local names, where nobody needs a key."""


class Web:
    """Serves at an address, or on a given socket, on threads of its own, from start() to stop()."""

    def __init__(
        self,
        address: str,
        sources: Sources,
        guards: Sequence[Guard] = ANYBODYS,
        context: SSLContext | None = None,
        given: socket.socket | None = None,
    ) -> None:
        """Do nothing yet. With `context` all connections are encrypted."""
        self.address = address
        self._context = context
        self._given = given
        self._site = Site(sources, guards)
        self._once = _Once()

    def start(self) -> None:
        """Listen; raises AddressInUse when the address cannot be bound."""
        logging.getLogger("waitress.queue").setLevel(logging.ERROR)  # or each burst of clients is a burst of lines
        listener = listen(self.address, self._given)
        logging.getLogger("waitress").addFilter(self._once)
        self.port = port_of(listener)
        self._mark = mark_of(self.address) if self._given is None else None
        self._sockets: dict[int, Any] = {}
        self._ends = False
        self._server = create_server(self._site, map=self._sockets, sockets=[listener], ident="ksmtuned-py", **LIMITS)
        self._server.channel_class = _Client if self._context is None else _EncryptedClient
        self._server.next_channel_cleanup = math.inf  # by a clock that can be set; _run does it by ours
        if self._context is not None:
            self._server.accept = accepting(self._server.accept, self._context)
        self._thread = threading.Thread(target=self._run, name="metrics", daemon=True)
        self._thread.start()

    @property
    def is_there(self) -> bool:
        """Whether its address still leads to it. Somebody may have removed a socket in the file system."""
        return self._mark is None or mark_of(self.address) == self._mark

    def stop(self) -> None:
        """Close the listener and all connections.

        Everybody who writes to the trigger ends first: by then its number may be another file's.
        """
        self._server.task_dispatcher.shutdown()
        self._ends = True
        self._server.trigger.pull_trigger()
        self._thread.join()
        leave(self.address, self._mark)  # as long as it listens, nobody else takes its place
        wasyncore.close_all(self._sockets)
        logging.getLogger("waitress").removeFilter(self._once)

    def _run(self) -> None:
        while not self._ends:
            began = time.thread_time()
            wasyncore.loop(timeout=1, use_poll=True, map=self._sockets, count=1)
            self._server.maintenance(time.monotonic())
            time.sleep(LOOP_IDLE_TIMES * (time.thread_time() - began))


class _Once(logging.Filter):
    """Lets what is logged through once for each line of code, so that no request that raises can fill the log."""

    def __init__(self) -> None:
        super().__init__()
        self._told: set[tuple[object, int]] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether nothing was logged yet of the line that raised, or that logs."""
        raised = walk_tb(record.exc_info[2] if record.exc_info else None)
        *_, place = [(record.pathname, record.lineno), *((frame.f_code, line) for frame, line in raised)]
        is_new = place not in self._told
        self._told.add(place)
        return is_new


class _ErrorTask(HTTPChannel.error_task_class):  # type: ignore[misc]  # waitress has no types
    """Answers what is no request at all."""

    def execute(self) -> None:
        self.response_headers.extend(HEADERS)
        super().execute()


class _Client(HTTPChannel):  # type: ignore[misc]  # waitress has no types
    """A connection. When it is one too many, it closes the one that has been silent for longest."""

    error_task_class = _ErrorTask

    def __init__(self, server: Any, *arguments: Any, **keywords: Any) -> None:
        super().__init__(server, *arguments, **keywords)
        if len(server.active_channels) > CLIENTS_MAX:
            min(server.active_channels.values(), key=lambda client: client.last_activity).handle_close()

    @property
    def last_activity(self) -> float:
        """When it was active last (monotonic). By a clock that is put back, all who were there before would stay."""
        return self._active_seconds

    @last_activity.setter
    def last_activity(self, _: float) -> None:
        self._active_seconds = time.monotonic()

    def received(self, data: bytes) -> bool:
        """Take what has come. Of several requests at once only the first is answered, and is the last one.

        Hundreds fit into one read. Their answers would fill memory, and then keep a worker waiting for ever.
        """
        taken = bool(super().received(data))
        with self.requests_lock:
            if len(self.requests) > 1:
                del self.requests[1:]
                self.requests[0].headers["CONNECTION"] = "close"
        return taken


class _EncryptedClient(Encrypted, _Client):
    """An encrypted connection."""
