"""Serves /metrics with a fixed number of threads and connections, whatever the clients do."""

import logging
import socket
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

from prometheus_client import CollectorRegistry, make_wsgi_app
from waitress.channel import HTTPChannel
from waitress.server import create_server
from waitress.wasyncore import close_all

from ksmtuned_py.publish.listening import listen

CLIENTS_MAX = 20
"""The most connections. Prometheus needs one, and more would take descriptors that guests need."""
LIMITS = {
    "threads": 2,
    "connection_limit": 2 * CLIENTS_MAX,  # never reached, because the longest silent connection is closed before
    "log_socket_errors": False,  # so that no client can fill the log
    "channel_timeout": 10,  # seconds for which a silent connection is kept
    "cleanup_interval": 5,
    "max_request_header_size": 16384,
    "max_request_body_size": 1024,  # nobody has anything to send us, and the default keeps up to 1 GiB in a file
    "asyncore_use_poll": True,  # select() ends at descriptor 1024
}
IDLE_TIMES = 4
"""The wait after a page of metrics, in times its CPU time (12 ms with 100 guests)."""
PAGE = b"<!doctype html><title>ksmtuned-py</title><h1>ksmtuned-py</h1><p><a href=/metrics>Metrics</a></p>\n"

Environ = dict[str, Any]
Application = Callable[[Environ, Callable[..., Any]], Iterable[bytes]]


class Web:
    """Serves a registry on HOST:PORT, or on a given socket, on threads of its own, from start() to stop()."""

    def __init__(
        self,
        address: str,
        registry: CollectorRegistry,
        trouble: Callable[[], str | None],
        given: socket.socket | None = None,
    ) -> None:
        """Do nothing yet. `trouble` tells what is wrong with the daemon, for /healthz; None when nothing is."""
        self.address = address
        self._given = given
        self._application = application(registry, trouble)

    def start(self) -> None:
        """Listen; raises AddressInUse when the address cannot be bound."""
        logging.getLogger("waitress.queue").setLevel(logging.ERROR)  # or each burst of clients is a burst of lines
        listener = listen(self.address, self._given)
        self.port: int = listener.getsockname()[1]
        self._sockets: dict[int, Any] = {}
        self._server = create_server(
            self._application, map=self._sockets, sockets=[listener], ident="ksmtuned-py", **LIMITS
        )
        self._server.channel_class = _Client
        self._thread = threading.Thread(target=self._server.run, name="metrics", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Close the listener and all connections. The workers end first, because they write to the trigger."""
        self._server.task_dispatcher.shutdown()
        self._server.trigger.pull_trigger(lambda: close_all(self._sockets))
        self._thread.join()


class _Client(HTTPChannel):  # type: ignore[misc]  # waitress has no types
    """A connection. When it is one too many, it closes the one that has been silent for longest."""

    def __init__(self, server: Any, *arguments: Any, **keywords: Any) -> None:
        super().__init__(server, *arguments, **keywords)
        if len(server.active_channels) > CLIENTS_MAX:
            min(server.active_channels.values(), key=lambda client: client.last_activity).handle_close()


class Paced:
    """Serves one request at a time, then waits, so that no flood takes more than a fifth of a core."""

    def __init__(self, application: Application) -> None:
        self._application = application
        self._lock = threading.Lock()
        self._free_seconds = 0.0

    def __call__(self, environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        with self._lock:
            time.sleep(max(0.0, self._free_seconds - time.monotonic()))
            began = time.thread_time()
            try:
                return list(self._application(environ, start_response))
            finally:
                self._free_seconds = time.monotonic() + IDLE_TIMES * (time.thread_time() - began)


def application(registry: CollectorRegistry, trouble: Callable[[], str | None]) -> Application:
    """The pages /metrics and /healthz, and a first page with a link."""
    metrics = Paced(make_wsgi_app(registry))

    def route(environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        match environ["PATH_INFO"]:
            case "/metrics":
                return metrics(environ, start_response)
            case "/healthz":
                sentence = trouble()
                status = "503 Service Unavailable" if sentence else "200 OK"
                return _answer(start_response, status, "text/plain; charset=utf-8", (sentence or "ok").encode() + b"\n")
            case "/":
                return _answer(start_response, "200 OK", "text/html; charset=utf-8", PAGE)
            case _:
                return _answer(start_response, "404 Not Found", "text/plain; charset=utf-8", b"see /metrics\n")

    return route


def _answer(start_response: Callable[..., Any], status: str, kind: str, body: bytes) -> Iterable[bytes]:
    start_response(status, [("Content-Type", kind), ("Content-Length", str(len(body)))])
    return [body]
