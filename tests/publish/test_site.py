"""The page and its data are served to whom they are for, in the way browsers and programs expect."""

import gzip
import json
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest

from ksmtuned_py.model.room import CGROUP_RESERVE_BYTES
from ksmtuned_py.publish.answers import HEADERS
from ksmtuned_py.publish.gate import Gate, own_names
from ksmtuned_py.publish.history import COLUMNS, MOST_POINTS, History
from ksmtuned_py.publish.pages import FOLDER, pages
from ksmtuned_py.publish.rows import Told
from ksmtuned_py.publish.site import MOST_SECONDS, Sources
from ksmtuned_py.publish.statusfile import status_json, status_of
from ksmtuned_py.publish.totals import Totals
from ksmtuned_py.publish.web import Web
from ksmtuned_py.units import MIB
from tests.publish.test_web import get, registry
from tests.support.reports import report

STATUS = status_json(status_of(report(), Totals().after(report())))
NAMES = own_names(
    "kvm1", "127.0.0.1 localhost\n127.0.1.1 kvm1.example.com kvm1 # its own\n10.0.0.1 other\n", ["kvm.lan"]
)


class Serving:
    """A server on a free port, whose sources a test may change."""

    def __init__(self) -> None:
        self.status: bytes | None = STATUS
        self.unready: str | None = None
        self.history = History()
        self.web = Web(
            "127.0.0.1:0",
            Sources(
                registry=registry(),
                unreadiness=lambda: self.unready,
                status=lambda: self.status,
                history=self.history,
            ),
            [Gate(NAMES).refusal],
        )

    def get(self, path: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], bytes]:
        """The status, the headers and the body of an answer. In names of headers, _ stands for -."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        response, body = get(self.web, path, method, **named)
        return response.status, dict(response.headers.items()), body

    def json(self, path: str) -> Any:
        """The content of a good answer in JSON."""
        status, headers, body = self.get(path)
        assert (status, headers["Content-Type"]) == (200, "application/json"), body
        return json.loads(body)


@pytest.fixture(scope="module")
def server() -> Iterator[Serving]:
    made = Serving()
    made.web.start()
    yield made
    made.web.stop()


@pytest.mark.parametrize(
    "path", ["/", "/metrics", "/healthz", "/api/v1/status", "/nothing", "/api/v1/history?points=0"]
)
def test_every_answer_keeps_browsers_from_mixing_it_with_others(server: Serving, path: str) -> None:
    headers = server.get(path)[1]
    assert {name: headers[name] for name, _ in HEADERS} == dict(HEADERS)


def test_so_does_the_answer_to_what_is_no_request(server: Serving) -> None:
    status, headers, _ = server.get("/" + "a" * 20_000)
    assert status == 431
    assert dict(HEADERS).items() <= headers.items()


def test_the_status_is_that_of_the_status_file(server: Serving) -> None:
    assert server.json("/api/v1/status") == {"daemon_running": True, **json.loads(STATUS)}


def test_who_has_the_status_already_is_spared_it(server: Serving) -> None:
    _, headers, body = server.get("/api/v1/status")
    tag = headers["Etag"]
    status, _, rest = server.get("/api/v1/status", If_None_Match=tag)
    assert (status, rest) == (304, b"")
    server.status = STATUS.replace(b'"pid":', b'"pid":1')
    assert server.get("/api/v1/status", If_None_Match=tag)[0] == 200
    server.status = STATUS
    assert server.get("/api/v1/status")[2] == body


@pytest.mark.parametrize(("accepted", "packed"), [("gzip, br", True), ("", False), ("gzip;q=0", False), ("br", False)])
def test_it_is_packed_for_those_who_take_it(server: Serving, accepted: str, packed: bool) -> None:
    _, headers, body = server.get("/api/v1/status", Accept_Encoding=accepted)
    assert (headers.get("Content-Encoding") == "gzip") is packed
    assert json.loads(gzip.decompress(body) if packed else body)["schema"] == 1
    assert headers["Vary"] == "Accept-Encoding"


def test_before_the_first_tick_there_is_no_status(server: Serving) -> None:
    server.status = None
    status, _, body = server.get("/api/v1/status")
    server.status = STATUS
    assert (status, json.loads(body)) == (503, {"error": "no tick yet"})


def test_the_files_of_the_page_are_served_as_what_they_are(server: Serving) -> None:
    status, headers, body = server.get("/")
    assert (status, headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert body == (FOLDER / "index.html").read_bytes()
    status, headers, body = server.get("/static/page.js", Accept_Encoding="gzip")
    assert (status, headers["Content-Type"]) == (200, "text/javascript; charset=utf-8")
    assert gzip.decompress(body) == (FOLDER / "page.js").read_bytes()
    assert server.get("/static/page.js", If_None_Match=headers["Etag"])[0] == 304


def test_other_files_are_not_served_and_without_a_page_there_is_a_plain_one(tmp_path: Path) -> None:
    for name in ("page.js", "page.py", ".js", "secret"):
        (tmp_path / name).touch()
    found = pages(tmp_path)
    assert set(found) == {"/", "/static/page.js", "/api/v1/openapi.json"}
    assert b"href=/metrics" in found["/"].body
    assert set(pages(tmp_path / "gone")) == {"/", "/api/v1/openapi.json"}


def test_readiness(server: Serving) -> None:
    assert server.get("/readyz")[0] == 200
    server.unready = "the knobs cannot be read"
    status, _, body = server.get("/readyz")
    server.unready = None
    assert (status, body) == (503, b"the knobs cannot be read\n")


@pytest.mark.parametrize("path", ["/", "/metrics", "/healthz", "/api/v1/status", "/api/v1/history"])
def test_a_head_is_an_answer_without_its_body(server: Serving, path: str) -> None:
    whole, head = server.get(path), server.get(path, "HEAD")
    assert (head[0], head[2]) == (200, b"")
    assert head[1]["Content-Type"] == whole[1]["Content-Type"]
    assert int(head[1]["Content-Length"]) > 0


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE"])
@pytest.mark.parametrize("path", ["/", "/metrics", "/api/v1/status"])
def test_nothing_can_be_changed(server: Serving, method: str, path: str) -> None:
    status, headers, _ = server.get(path, method)
    assert (status, headers["Allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize("path", ["/api", "/static/../web.py", "/static/", "/static/index.html", "/..%2fweb.py"])
def test_other_addresses(server: Serving, path: str) -> None:
    assert server.get(path)[0] == 404


@pytest.mark.parametrize("path", ["/nothing", "/api/nothing", "/api/v1/status", "/readyz", "/api/v1/history?points=0"])
def test_the_words_of_a_status_are_those_of_http(server: Serving, path: str) -> None:
    response, _ = get(server.web, path)
    assert response.reason == HTTPStatus(response.status).phrase


def test_below_api_errors_are_for_programs(server: Serving) -> None:
    status, headers, body = server.get("/api/v2/status")
    assert (status, headers["Content-Type"]) == (404, "application/json")
    assert "no such address" in json.loads(body)["error"]


def test_the_history_has_a_name_for_each_column(server: Serving) -> None:
    server.history.add(Told(report(), Totals().after(report())))
    found = server.json(f"/api/v1/history?seconds={MOST_SECONDS}&points=10")
    assert found["columns"] == list(COLUMNS)
    assert found["rows"] == []  # the report is from 2023
    assert all(len(row) == len(COLUMNS) for row in found["rows"])


@pytest.mark.parametrize(
    "query",
    [
        "seconds=0",
        f"seconds={MOST_SECONDS + 1}",
        f"points={MOST_POINTS + 1}",
        "points=-1",
        "points=1e3",
        "points=",
        "seconds=" + "9" * 5000,
        "seconds=%D9%A3",
        "&".join(f"a{number}=1" for number in range(100)),
    ],
)
def test_a_history_that_cannot_be(server: Serving, query: str) -> None:
    status, _, body = server.get(f"/api/v1/history?{query}")
    assert status == 400
    assert len(json.loads(body)["error"]) < 100


OURS = ["localhost:10776", "127.0.0.1", "[::1]:10776", "192.0.2.7:80", "kvm1", "KVM1.example.com.:10776", "kvm.lan", ""]
FOREIGN = [
    "evil.example",
    "kvm1.evil.example",
    "localhost.evil.example",
    "other",
    "a, localhost",
    "localhost@evil",
    "[",
]


@pytest.mark.parametrize("host", OURS)
def test_whoever_asks_by_our_name_is_let_in(server: Serving, host: str) -> None:
    assert server.get("/api/v1/status", Host=host)[0] == 200


@pytest.mark.parametrize("host", FOREIGN)
@pytest.mark.parametrize("path", ["/", "/api/v1/status", "/nothing"])
def test_a_page_that_has_its_name_lead_here_is_not(server: Serving, host: str, path: str) -> None:
    assert server.get(path, Host=host)[0] == 403


@pytest.mark.parametrize("path", ["/metrics", "/healthz", "/readyz"])
def test_scrapers_and_probes_may_have_a_name_of_their_own_for_us(server: Serving, path: str) -> None:
    assert server.get(path, Host="kvm1.monitoring.example:10776")[0] == 200


@pytest.mark.parametrize("header", ["Accept_Language", "Referer", "Origin", "Sec_Fetch_Site"])
def test_a_browser_is_no_scraper(server: Serving, header: str) -> None:
    assert server.get("/metrics", Host="evil.example", **{header: ""})[0] == 403


@pytest.mark.parametrize(
    "origin", ["null", "", "http://evil.example", "http://localhost", "http://localhost:1", "file://localhost:10776"]
)
@pytest.mark.parametrize("path", ["/", "/metrics", "/api/v1/status"])
def test_other_pages_may_not_ask(server: Serving, origin: str, path: str) -> None:
    assert server.get(path, Host="localhost:10776", Origin=origin)[0] == 403


@pytest.mark.parametrize("origin", ["http://localhost:10776", "https://localhost:10776"])
def test_our_own_page_may(server: Serving, origin: str) -> None:
    assert server.get("/api/v1/status", Host="localhost:10776", Origin=origin)[0] == 200


def test_the_page_leaves_a_guest_as_much_below_its_limit_as_the_daemon_does() -> None:
    assert f"RESERVE = {CGROUP_RESERVE_BYTES // MIB} * MIB;" in (FOLDER / "overview.js").read_text()
