"""The web server answers over real sockets, and no number of clients can hurt the daemon."""

import gzip
import resource
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from http.client import HTTPConnection, HTTPResponse
from importlib.metadata import version
from pathlib import Path

import psutil
import pytest
from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.core import GaugeMetricFamily

from ksmtuned_py.errors import AddressInUse
from ksmtuned_py.publish.site import IDLE_TIMES, Sources
from ksmtuned_py.publish.web import CLIENTS_MAX, LIMITS, Web
from tests.support.process import wait_for


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def registry() -> CollectorRegistry:
    found = CollectorRegistry()
    Gauge("answer", "The answer", registry=found).set(42)
    return found


@contextmanager
def serving(address: str = "127.0.0.1:0", sources: Sources | None = None) -> Iterator[Web]:
    web = Web(address, sources or Sources(registry=registry()))
    web.start()
    try:
        yield web
    finally:
        web.stop()


def get(
    web: Web, path: str, method: str = "GET", host: str = "127.0.0.1", **headers: str
) -> tuple[HTTPResponse, bytes]:
    client = HTTPConnection(host, web.port, timeout=10)
    try:
        client.request(method, path, headers=headers)
        response = client.getresponse()
        return response, response.read()
    finally:
        client.close()


def test_metrics_are_served() -> None:
    with serving() as web:
        response, body = get(web, "/metrics")
    assert (response.status, b"answer 42.0" in body) == (200, True)
    assert "text/plain" in response.headers["Content-Type"]


def test_openmetrics_is_served_to_those_who_want_it() -> None:
    with serving() as web:
        response, body = get(web, "/metrics", Accept="application/openmetrics-text; version=1.0.0")
    assert response.headers["Content-Type"].startswith("application/openmetrics-text")
    assert body.endswith(b"# EOF\n")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/", 200), ("GET", "/nothing", 404), ("GET", "/metrics/", 404), ("POST", "/metrics", 405)],
)
def test_other_pages(method: str, path: str, status: int) -> None:
    with serving() as web:
        assert get(web, path, method)[0].status == status


def test_health() -> None:
    with serving() as web:
        response, body = get(web, "/healthz")
        assert (response.status, body) == (200, b"ok\n")
    with serving(sources=Sources(registry=registry(), trouble=lambda: "the tick is 40 s late")) as web:
        response, body = get(web, "/healthz")
        assert (response.status, body) == (503, b"the tick is 40 s late\n")


class Dear:
    """A registry whose metrics take CPU time."""

    def __init__(self) -> None:
        self.collected = 0
        self.spent_seconds = 0.0

    def collect(self) -> Iterator[GaugeMetricFamily]:
        began = time.thread_time()
        while time.thread_time() < began + 0.02:
            pass
        self.collected += 1
        self.spent_seconds += time.thread_time() - began
        yield GaugeMetricFamily("dear", "So", value=self.collected)


def test_a_flood_of_scrapes_has_a_fifth_of_a_core() -> None:
    dear, registry = Dear(), CollectorRegistry()
    registry.register(dear)
    web = Web("127.0.0.1:0", Sources(registry=registry))
    web.start()
    try:
        began = time.monotonic()
        for _ in range(10):
            assert get(web, "/metrics")[0].status == 200
        assert dear.collected == 10
        assert (
            time.monotonic() - began > dear.spent_seconds * (1 + IDLE_TIMES) * 0.8
        )  # no wait comes after the last request
    finally:
        web.stop()


VERSIONED = tuple(map(int, version("prometheus-client").split(".")[:2])) >= (0, 22)
"""Whether the library of the metrics reads the version of a form that is asked for."""


class Counted:
    """Counts how often the metrics are made, and is what they show."""

    def __init__(self) -> None:
        self.collected = 0
        self.shown: object = object()
        registry = CollectorRegistry()
        registry.register(self)
        self.sources = Sources(registry=registry, shown=lambda: self.shown)

    def collect(self) -> Iterator[GaugeMetricFamily]:
        self.collected += 1
        yield GaugeMetricFamily("counted", "x" * 2**20, value=self.collected)


def test_the_metrics_are_made_once_between_two_ticks() -> None:
    counted = Counted()
    with serving(sources=counted.sources) as web:
        bodies = {get(web, "/metrics")[1] for _ in range(5)}
        assert (len(bodies), counted.collected) == (1, 1)
        packed, body = get(web, "/metrics", **{"Accept-Encoding": "gzip"})
        assert (packed.headers["Content-Encoding"], {gzip.decompress(body)}, counted.collected) == ("gzip", bodies, 1)
        counted.shown = object()
        assert b"counted 2.0" in get(web, "/metrics")[1]
        assert get(web, "/metrics?name[]=none")[1] == b""  # a part is made for whoever wants it
        for number in range(20):
            get(web, "/metrics", Accept=f"application/openmetrics-text; version=1.0.{number}")
        assert counted.collected > 20 or not VERSIONED  # forms that nobody needs are not all kept


def test_what_sending_takes_counts_too() -> None:
    counted = Counted()
    with serving(sources=counted.sources) as web:
        get(web, "/metrics")
        before, began = workers_seconds(), time.monotonic()
        for _ in range(100):
            get(web, "/metrics")
        spent, took = workers_seconds() - before, time.monotonic() - began
    assert counted.collected == 1
    assert took > spent * (1 + IDLE_TIMES) * 0.8


def test_nobody_waits_for_the_time_that_guards_have_taken() -> None:
    """A wrong password takes up to seconds, of which the guard itself keeps account."""

    def dear(_environ: object) -> None:
        began = time.thread_time()
        while time.thread_time() < began + 0.2:
            pass

    web = Web("127.0.0.1:0", Sources(registry=registry()), [dear])
    web.start()
    try:
        began = time.monotonic()
        for _ in range(4):
            assert get(web, "/healthz")[0].status == 200
        assert time.monotonic() - began < 4 * 0.2 + 2 * IDLE_TIMES * 0.2
    finally:
        web.stop()


def workers_seconds() -> float:
    """The CPU time of those who answer."""
    numbers = {thread.native_id for thread in threading.enumerate() if thread.name.startswith("waitress")}
    threads = psutil.Process().threads()
    return sum(one.user_time + one.system_time for one in threads if one.id in numbers)


def test_a_registry_that_raises_is_an_error_for_that_client_only() -> None:
    class Broken:
        def collect(self) -> Iterator[None]:
            raise RuntimeError("broken")
            yield

    broken = CollectorRegistry()
    broken.register(Broken())  # type: ignore[arg-type]  # wrong on purpose
    web = Web("127.0.0.1:0", Sources(registry=broken))
    web.start()
    try:
        response, body = get(web, "/metrics")
        assert response.status == 500
        assert b"broken" not in body  # no traceback for strangers
        assert get(web, "/healthz")[0].status == 200
    finally:
        web.stop()


@pytest.mark.skipif(not VERSIONED, reason="no request makes this version of prometheus-client raise")
def test_requests_that_raise_do_not_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """The library of the metrics raises at a version that is no number."""
    with serving() as web:
        for number in range(5):
            assert get(web, "/metrics", Accept=f"application/openmetrics-text; version=x{number}")[0].status == 500
        assert get(web, "/metrics")[0].status == 200
    assert len(caplog.records) == 1


def test_half_open_clients_grow_nothing_and_do_not_stop_a_scrape() -> None:
    with serving() as web, ExitStack() as clients:
        before, open_before = threading.active_count(), open_files()
        for number in range(300):
            client = clients.enter_context(socket.create_connection(("127.0.0.1", web.port), timeout=10))
            client.sendall([b"", b"GET /metrics HT", b"GET /metrics HTTP/1.1\r\nHost: x\r\n"][number % 3])
        assert get(web, "/metrics")[0].status == 200
        assert threading.active_count() == before
        assert open_files() - open_before <= 300 + CLIENTS_MAX + 1  # 300 ends of them are ours
    assert LIMITS["threads"] <= 2


def test_a_clock_that_is_put_back_keeps_nobody_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those who were there before it look younger than everybody who comes, by that clock."""
    with serving() as web, ExitStack() as clients:
        for _ in range(CLIENTS_MAX):
            client = clients.enter_context(socket.create_connection(("127.0.0.1", web.port), timeout=10))
            client.sendall(b"GET /metrics HT")
        wait_for(lambda: len(web._server.active_channels) == CLIENTS_MAX, 10.0, "silent clients")
        before = time.time
        monkeypatch.setattr(time, "time", lambda: before() - 3600)
        assert get(web, "/metrics")[0].status == 200


def test_a_clock_that_is_put_forward_sends_nobody_away(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving() as web, closing(HTTPConnection("127.0.0.1", web.port, timeout=10)) as client:
        before = time.time
        for _ in range(2):
            client.request("GET", "/metrics")
            with client.getresponse() as answer:
                assert (answer.status, answer.read() != b"") == (200, True)
            monkeypatch.setattr(time, "time", lambda: before() + 3600)
            get(web, "/metrics")  # the server looks around


def test_descriptors_that_ran_out_do_not_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    with serving() as web, ExitStack() as clients:
        resource.setrlimit(resource.RLIMIT_NOFILE, (open_files() + 20, limits[1]))
        try:
            with suppress(OSError):
                while True:
                    clients.enter_context(socket.create_connection(("127.0.0.1", web.port), timeout=10))
            time.sleep(0.2)  # the server tries to accept the last of them meanwhile
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        assert get(web, "/metrics")[0].status == 200
    assert caplog.records == []


def test_clients_that_never_read_their_answer_do_not_stop_a_scrape() -> None:
    with serving() as web, ExitStack() as clients:
        for _ in range(50):
            client = clients.enter_context(socket.create_connection(("127.0.0.1", web.port), timeout=10))
            client.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n" * 20)
        assert get(web, "/metrics")[0].status == 200


class Long:
    """A registry whose metrics are long: a MiB."""

    def __init__(self) -> None:
        self.collected = 0

    def collect(self) -> Iterator[GaugeMetricFamily]:
        self.collected += 1
        yield GaugeMetricFamily("long", "x" * 2**20, value=1)


def test_of_many_requests_at_once_one_is_answered() -> None:
    """Hundreds of long answers that nobody reads would keep both workers waiting, and fill memory meanwhile."""
    long, registry = Long(), CollectorRegistry()
    registry.register(long)
    with serving(sources=Sources(registry=registry)) as web, ExitStack() as clients:
        for _ in range(4):
            client = clients.enter_context(socket.create_connection(("127.0.0.1", web.port), timeout=10))
            client.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n" * 200)
        assert get(web, "/healthz")[0].status == 200
        received = b"".join(iter(lambda: client.recv(65536), b""))
    assert received.startswith(b"HTTP/1.1 200 OK\r\n")
    assert received.count(b"HTTP/1.1") == 1
    assert b"\r\nConnection: close\r\n" in received
    assert long.collected <= 4


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n",
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x00\xff\r\n\r\n",
    ],
    ids=["huge body", "huge header", "not HTTP"],
)
def test_requests_nobody_should_send(request_bytes: bytes) -> None:
    with serving() as web:
        with socket.create_connection(("127.0.0.1", web.port), timeout=10) as client:
            client.sendall(request_bytes)
            assert client.recv(12)[9:10] == b"4"  # HTTP/1.x 4xx
        assert get(web, "/metrics")[0].status == 200


def test_ipv6() -> None:
    if not socket.has_dualstack_ipv6():
        pytest.skip("no IPv6 here")
    with serving("[::1]:0") as web:
        assert get(web, "/metrics", host="::1")[0].status == 200


def test_a_name_for_an_address() -> None:
    with serving("localhost:0") as web:
        assert get(web, "/metrics", host="localhost")[0].status == 200


def test_the_address_is_in_use() -> None:
    with serving() as web:
        second = Web(f"127.0.0.1:{web.port}", Sources(registry=registry()))
        with pytest.raises(AddressInUse, match=rf"metrics\.address 127\.0\.0\.1:{web.port}: .*in use"):
            second.start()


@pytest.mark.parametrize("address", ["no-such-host.invalid:1", "192.0.2.1:1", "[::2]:1"])
def test_an_address_that_is_not_ours(address: str) -> None:
    with pytest.raises(AddressInUse, match="cannot listen"):
        Web(address, Sources(registry=registry())).start()


def test_the_address_is_free_again_after_stop() -> None:
    with serving() as web, socket.create_connection(("127.0.0.1", web.port), timeout=10):
        get(web, "/metrics")
        port = web.port
    with serving(f"127.0.0.1:{port}") as again:
        assert get(again, "/metrics")[0].status == 200


@pytest.fixture
def hasty() -> Iterator[None]:
    """Threads take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def test_a_stop_amid_requests_is_a_clean_one(hasty: None) -> None:
    web = Web("127.0.0.1:0", Sources(registry=registry()))
    for _ in range(40):
        web.start()
        with ExitStack() as clients:
            for _ in range(30):
                client = clients.enter_context(socket.create_connection(("127.0.0.1", web.port), timeout=10))
                client.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n" * 20)
            assert client.recv(5) == b"HTTP/"
        web.stop()


def test_one_server_can_be_started_again() -> None:
    web = Web("127.0.0.1:0", Sources(registry=registry()))
    for _ in range(3):
        web.start()
        assert get(web, "/metrics")[0].status == 200
        web.stop()


def test_stop_ends_connections_and_threads() -> None:
    before = threading.active_count()
    with serving() as web:
        client = socket.create_connection(("127.0.0.1", web.port), timeout=10)
        get(web, "/metrics")
    with client:
        assert client.recv(1) == b""
    assert threading.active_count() == before
