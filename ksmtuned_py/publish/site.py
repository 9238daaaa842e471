"""Answers requests: the page, its data, the metrics, and two sentences for probes."""

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from urllib.parse import parse_qs

from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.exposition import choose_encoder
from pydantic_core import to_json

from ksmtuned_py.publish.answers import JSON, Answer, Application, Environ, StartResponse, error, kept, send, text
from ksmtuned_py.publish.findings import LastLook
from ksmtuned_py.publish.history import COLUMNS, HOUR_SECONDS, MOST_POINTS, STEPS, History
from ksmtuned_py.publish.pages import pages
from ksmtuned_py.publish.statusfile import document

IDLE_TIMES = 4
"""The wait after a request, in times its CPU time."""
MOST_FORMS = 4
"""The forms of the metrics that are kept until the next tick. Prometheus asks for one, and 500 guests take 0.4 MiB."""
METHODS = ("GET", "HEAD")
MOST_SECONDS = STEPS[-1].span_seconds
USUAL_POINTS = 360

Guard = Callable[[Environ], Answer | None]
"""Says with which answer a request is refused; None where it is not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """Where the answers come from. Each is asked on a thread of the server."""

    registry: CollectorRegistry
    shown: Callable[[], object] = lambda: None
    """Tells what the metrics show: while that is the same object, so are they. None = they may change at any time."""
    trouble: Callable[[], str | None] = lambda: None
    """Tells what is wrong with the daemon; None when nothing is."""
    unreadiness: Callable[[], str | None] = lambda: None
    """Tells what is still missing; None when nothing is."""
    status: Callable[[], bytes | None] = lambda: None
    """The text of the status file; None before the first tick."""
    history: History = field(default_factory=History)
    findings: Callable[[], LastLook] = LastLook
    """Tells what the doctor found last, and never waits for it."""


class BadRequest(ValueError):
    """A request that asks for what there is not."""


class Site:
    """Serves one request at a time, then waits, so that no flood takes more than a fifth of a core.

    What counts is the CPU time of the server's threads, so that of reading requests and sending answers, too.
    """

    def __init__(self, sources: Sources, guards: Sequence[Guard]) -> None:
        self._sources = sources
        self._guards = guards
        self._pages = pages()
        self._metrics = make_wsgi_app(sources.registry, disable_compression=True)
        self._shown: object = None
        self._forms: dict[str, Answer] = {}
        self._spent = threading.local()
        self._status: tuple[bytes, Answer] | None = None
        self._lock = threading.Lock()
        self._free_seconds = 0.0

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Answer a request (PEP 3333)."""
        answer = self._refusal(environ)
        if answer is None and environ["REQUEST_METHOD"] not in METHODS:
            answer = error("only GET and HEAD", "405 Method Not Allowed", ("Allow", ", ".join(METHODS)))
        if answer is None:
            answer = self._paced(environ)
        return send(answer, environ, start_response)

    def _refusal(self, environ: Environ) -> Answer | None:
        """The answer of the first guard that refuses. A guess has a rest of its own, so nobody else waits for it."""
        began = time.thread_time()
        try:
            return next((refusal for guard in self._guards if (refusal := guard(environ)) is not None), None)
        finally:
            self._spent.seconds = getattr(self._spent, "seconds", 0.0) + time.thread_time() - began

    def _paced(self, environ: Environ) -> Answer:
        with self._lock:
            time.sleep(max(0.0, self._free_seconds - time.monotonic()))
            try:
                return self._route(environ)
            except BadRequest as problem:
                return error(str(problem), "400 Bad Request")
            finally:
                self._free_seconds = time.monotonic() + IDLE_TIMES * self._spent_seconds()

    def _spent_seconds(self) -> float:
        """The CPU time of this thread since it answered last, which has also sent that answer."""
        before = getattr(self._spent, "seconds", 0.0)
        self._spent.seconds = time.thread_time()
        return float(self._spent.seconds - before)

    def _route(self, environ: Environ) -> Answer:
        path = environ["PATH_INFO"]
        if path in self._pages:
            return self._pages[path]
        match path:
            case "/metrics":
                return self._metrics_answer(environ)
            case "/healthz":
                return _probed(self._sources.trouble())
            case "/readyz":
                return _probed(self._sources.unreadiness())
            case "/api/v1/status":
                return self._status_answer()
            case "/api/v1/doctor":
                return kept(to_json(self._sources.findings()), JSON, level=1)
            case "/api/v1/history":
                return self._history_answer(environ.get("QUERY_STRING", ""))
        if path.startswith("/api/"):
            return error("there is no such address; see /api/v1/openapi.json", "404 Not Found")
        return text("see / or /metrics", "404 Not Found")

    def _metrics_answer(self, environ: Environ) -> Answer:
        """The metrics, which are made once for all who scrape between two ticks. A part of them is made anew."""
        shown = self._sources.shown()
        if shown is None or environ.get("QUERY_STRING"):
            return captured(self._metrics, environ)
        _, form = choose_encoder(environ.get("HTTP_ACCEPT", ""))
        if shown is not self._shown or len(self._forms) == MOST_FORMS:
            self._shown, self._forms = shown, {}
        if form not in self._forms:
            whole = captured(self._metrics, environ)
            self._forms[form] = replace(kept(whole.body, whole.kind, level=1), tag="")
        return self._forms[form]

    def _status_answer(self) -> Answer:
        """The status, which is packed once for all who ask between two ticks."""
        found = self._sources.status()
        if found is None:
            return error("no tick yet", "503 Service Unavailable")
        if self._status is None or self._status[0] is not found:
            self._status = found, kept(document(found, running=True), JSON, level=1)
        return self._status[1]

    def _history_answer(self, query: str) -> Answer:
        seconds = _number(query, "seconds", HOUR_SECONDS, MOST_SECONDS)
        points = _number(query, "points", USUAL_POINTS, MOST_POINTS)
        rows = self._sources.history.since(time.time(), seconds, points)
        whole = kept(to_json({"columns": list(COLUMNS), "rows": rows}), JSON, level=1)
        return replace(whole, tag="")  # it is another one at each tick


def captured(application: Application, environ: Environ) -> Answer:
    """The answer of another application to a GET."""
    told: list[tuple[str, list[tuple[str, str]]]] = []
    whole = {**environ, "REQUEST_METHOD": "GET"}
    body = b"".join(application(whole, lambda status, headers, *_: told.append((status, headers))))
    [(status, headers)] = told
    kind = next(value for name, value in headers if name.lower() == "content-type")
    others = tuple(pair for pair in headers if pair[0].lower() not in ("content-type", "content-length"))
    return Answer(body=body, kind=kind, status=status, headers=others)


def _probed(sentence: str | None) -> Answer:
    return text("ok") if sentence is None else text(sentence, "503 Service Unavailable")


def _number(query: str, name: str, usual: int, most: int) -> int:
    """A whole number from 1 to `most` in a query; raises BadRequest."""
    try:
        values = parse_qs(query, keep_blank_values=True, max_num_fields=20).get(name, [str(usual)])
        found = int(values[-1]) if values[-1].isascii() and values[-1].isdigit() and len(values[-1]) < 10 else 0
    except ValueError as problem:  # too many fields
        raise BadRequest(str(problem)) from problem
    if not 1 <= found <= most:
        raise BadRequest(f"{name}: wanted a whole number from 1 to {most}")
    return found
