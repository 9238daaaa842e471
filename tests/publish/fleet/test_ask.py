"""Prometheus is asked within bounds, whatever answers in its place; and errors are one clear sentence."""

import json
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest

from ksmtuned_py.errors import Unreadable
from ksmtuned_py.publish.fleet.ask import MOST_BYTES, NoPrometheusUrl, NotAdmitted, NotAnswered, Prometheus, read_token
from tests.support.daemon import free_port, one_clear_error, verb


class Server(ThreadingHTTPServer):
    """Answers every request in one way, and remembers them."""

    daemon_threads = True

    def __init__(self, body: bytes | str, status: int, headers: dict[str, str]) -> None:
        self.body = body.encode() if isinstance(body, str) else body
        self.status, self.headers = status, headers
        self.heard: list[tuple[str, str | None]] = []
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.heard.append((self.path, self.headers["Authorization"]))
        self.send_response(self.server.status)
        for name, text in self.server.headers.items():
            self.send_header(name, text)
        self.end_headers()
        self.wfile.write(self.server.body)

    def log_message(self, *_: object) -> None:
        """Keep quiet."""


@contextmanager
def answering(body: bytes | str, status: int = 200, **headers: str) -> Iterator[Server]:
    with Server(body, status, headers) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def dripping(text: bytes) -> Iterator[str]:
    """A server that sends this to all, and then byte after byte of it again, for ever."""
    ended = threading.Event()

    def drip(taken: socket.socket) -> None:
        with taken, suppress(OSError):
            taken.sendall(text)
            for byte in cycle(text):
                if ended.wait(0.01):
                    return
                taken.sendall(bytes([byte]))

    def accept() -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=drip, args=(listener.accept()[0],), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        accepting = threading.Thread(target=accept)
        accepting.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            ended.set()
            listener.shutdown(socket.SHUT_RDWR)
            accepting.join()


def vector(*samples: tuple[dict[str, str], str], **more: Any) -> str:
    result = [{"metric": labels, "value": [1700000000.5, value]} for labels, value in samples]
    return json.dumps({"status": "success", "data": {"resultType": "vector", "result": result}, **more})


def refused(body: bytes | str, status: int = 200, **headers: str) -> NotAnswered:
    with answering(body, status, **headers) as server, pytest.raises(NotAnswered) as caught:
        Prometheus(server.url).query("up")
    return caught.value


def test_an_answer_becomes_series() -> None:
    text = vector(({"instance": "a"}, "1.5"), ({}, "+Inf"), warnings=["one store\x1b is missing"])
    with answering(text) as server:
        prometheus = Prometheus(server.url + "/")
        [first, second] = prometheus.query('up{job="a b"}')
        assert server.heard == [("/api/v1/query?query=up%7Bjob%3D%22a+b%22%7D", None)]
    assert (first.labels, first.value, second.value) == ({"instance": "a"}, 1.5, float("inf"))
    assert prometheus.warnings == {"one store\\x1b is missing"}


def test_the_token_is_sent_and_follows_no_redirect() -> None:
    with answering(vector()) as there, answering("", 302, Location=there.url) as here:
        with pytest.raises(NotAnswered, match=r"answers 302 Found, to http://127\.0\.0\.1:\d+: nobody else is told"):
            Prometheus(here.url, "secret").query("up")
        assert [token for _, token in here.heard] == ["Bearer secret"]
        assert there.heard == []


def test_no_proxy_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    with answering(vector()) as proxy, answering(vector()) as server:
        monkeypatch.setenv("http_proxy", proxy.url)
        monkeypatch.delenv("no_proxy", raising=False)
        Prometheus(server.url, "secret").query("up")
        assert (len(proxy.heard), len(server.heard)) == (0, 1)


def test_what_prometheus_says_of_an_error_is_told() -> None:
    said = json.dumps({"status": "error", "errorType": "bad_data", "error": "parse \x1berror"})
    assert str(refused(said, 400)).endswith(": answers 400 Bad Request: parse \\x1berror")
    assert str(refused("<html>", 502)).endswith(": answers 502 Bad Gateway")
    assert isinstance(refused("", 401), NotAdmitted)


@pytest.mark.parametrize(
    "body",
    ["", "<html>", "[]", "[" * 100_000, '{"data": {"result": [{"metric": {}, "values": []}]}}', b"\xff\xfe"],
    ids=["nothing", "html", "another shape", "nested", "a matrix", "no text"],
)
def test_what_is_no_answer_is_said_to_be_none(body: bytes | str) -> None:
    assert ": no answer of Prometheus: " in str(refused(body))


def test_an_answer_that_is_cut_is_none() -> None:
    assert ": no answer of Prometheus: " in str(refused(vector(({}, "1"))[:-3], 200, **{"Content-Length": "100000"}))


def test_a_number_that_is_none_is_none() -> None:
    assert "value.1" in str(refused(vector(({}, "many"))))


def test_the_place_of_a_mistake_steers_no_terminal() -> None:
    said = str(refused(json.dumps({"data": {"result": [{"metric": {"\x1b[2J" * 999: 1}, "value": [0, "1"]}]}})))
    assert said.isprintable()
    assert len(said) < 400


def test_an_endless_answer_ends() -> None:
    assert str(refused(b" " * (MOST_BYTES + 1))).endswith("its answers are longer than 16 MiB")


@pytest.mark.parametrize(
    "drip", [b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 200 OK\r\nX: ", b"HTTP/1.1 200 OK\r\n\r\n"]
)
def test_an_answer_that_drips_ends(drip: bytes) -> None:
    with dripping(drip) as url, pytest.raises(NotAnswered, match=r"its answer takes longer than 0\.2 s"):
        Prometheus(url, patience_seconds=0.2).answers({"a": "up", "b": "up"})


def test_answers_together_have_a_bound() -> None:
    with answering(vector() + " " * (MOST_BYTES // 2)) as server:
        prometheus = Prometheus(server.url)
        assert prometheus.query("up") == []
        with pytest.raises(NotAnswered, match="its answers are longer than 16 MiB"):
            prometheus.query("up")


def test_nobody_there() -> None:
    with pytest.raises(NotAnswered, match="Connection refused"):
        Prometheus(f"http://127.0.0.1:{free_port()}").query("up")


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("file:///etc/shadow", "wanted an address that begins with http:// or https://"),
        ("ftp://prometheus", "wanted an address that begins with http:// or https://"),
        ("prometheus:9090", "wanted an address that begins with http:// or https://"),
        ("http://", "wanted an address that begins with http:// or https://"),
        ("http://prometheus:many", "Port could not be cast"),
        ("http://[::1", "Invalid IPv6 URL"),
        ("http://me:secret@prometheus", r"http://\.\.\.@prometheus: wanted no user and no password"),
        ("http://prometheus/?query=up", "without [?] and #"),
        ("http://prome theus", "without [?] and #"),
    ],
)
def test_an_address_that_is_none_is_refused(url: str, said: str) -> None:
    with pytest.raises(NoPrometheusUrl, match=said) as caught:
        Prometheus(url)
    assert "secret" not in str(caught.value)


def test_a_token_is_one_word(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(" s3cret.=\n")
    (tmp_path / "link").symlink_to(file)  # as in a pod
    assert read_token(file) == read_token(tmp_path / "link") == "s3cret.="
    for text in ("", "\n", "two words", "a\r\nHost: other", "gehe\u00efm", "x" * 20_000):
        file.write_text(text)
        with pytest.raises(Unreadable):
            read_token(file)
    with pytest.raises(Unreadable, match="No such file"):
        read_token(tmp_path / "none")
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(Unreadable, match="no regular file"):
        read_token(tmp_path / "fifo")


def test_the_command_says_one_clear_error() -> None:
    with answering("", 401) as server:
        done = verb("fleet", "--prometheus", server.url)
    assert one_clear_error(done) == f"{server.url}: answers 401 Unauthorized"
    assert "--bearer-token-file" in done.stderr
    with answering(vector()) as server:
        assert one_clear_error(verb("fleet", "--prometheus", server.url)).startswith("Prometheus knows no host")
