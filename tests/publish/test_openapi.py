"""What is served is as its description says, for programs that are made from that."""

import json
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest

from ksmtuned_py.model import Snapshot
from ksmtuned_py.publish.history import HOUR_SECONDS
from ksmtuned_py.publish.pages import API
from ksmtuned_py.publish.rows import Told
from ksmtuned_py.publish.statusfile import document, status_json, status_of
from ksmtuned_py.publish.totals import Totals
from tests.publish.test_history import NOW, filled
from tests.publish.test_site import Serving
from tests.support.reports import BARE, FULL, report, result

DESCRIPTION = json.loads(API.read_text())


def check(value: object, path: str, status: str = "200") -> None:
    """Fails where a value is not what the description says of this address."""
    schema = DESCRIPTION["paths"][path]["get"]["responses"][status]["content"]["application/json"]["schema"]
    whole = {**schema, "components": DESCRIPTION["components"]}
    jsonschema.Draft202012Validator(whole).validate(value)


@pytest.fixture(scope="module")
def server() -> Iterator[Serving]:
    made = Serving()
    made.web.start()
    yield made
    made.web.stop()


def concrete(path: str) -> str:
    return path.replace("{name}", "page.js")


@pytest.mark.parametrize("path", sorted(DESCRIPTION["paths"]))
def test_every_address_answers_as_described(server: Serving, path: str) -> None:
    status, headers, body = server.get(concrete(path))
    answer = DESCRIPTION["paths"][path]["get"]["responses"][str(status)]
    [(kind, content)] = answer["content"].items()
    assert kind in ("*/*", headers["Content-Type"].partition(";")[0])
    if "schema" in content:
        check(json.loads(body), path)


@pytest.mark.parametrize(
    ("asked", "path", "status"),
    [("/api/v1/history?points=0", "/api/v1/history", 400), ("/api/v1/status", "/api/v1/status", 503)],
)
def test_so_do_errors(server: Serving, asked: str, path: str, status: int) -> None:
    told, server.status = server.status, None
    found, _, body = server.get(asked)
    server.status = told
    assert found == status
    check(json.loads(body), path, str(status))


def test_who_is_refused_is_answered_as_described(server: Serving) -> None:
    status, _, body = server.get("/api/v1/status", Host="evil.example")
    assert status == 403
    check(json.loads(body), "/api/v1/status", "403")


@pytest.mark.parametrize("host", [FULL, BARE], ids=["full", "bare"])
@pytest.mark.parametrize("running", [True, False])
def test_a_status_is_as_described(host: Snapshot, running: bool) -> None:
    tick = report(host, result())
    text = document(status_json(status_of(tick, Totals().after(tick))), running=running)
    check(json.loads(text), "/api/v1/status")


def test_a_history_is_as_described(server: Serving) -> None:
    bare = report(BARE)
    server.history.add(Told(bare, Totals().after(bare)))
    for history in (filled(600), server.history):
        rows: list[Any] = history.since(NOW, HOUR_SECONDS, 100)
        check({"columns": columns(), "rows": rows}, "/api/v1/history")
    assert filled(600).since(NOW, HOUR_SECONDS, 100)


def columns() -> list[str]:
    found: list[str] = DESCRIPTION["components"]["schemas"]["History"]["properties"]["columns"]["const"]
    return found


def test_what_is_not_described_is_noticed() -> None:
    with pytest.raises(jsonschema.ValidationError):
        check({"daemon_running": True}, "/api/v1/status")
    with pytest.raises(jsonschema.ValidationError):
        check({"columns": columns(), "rows": [[None]]}, "/api/v1/history")
