"""The real daemon serves its page's data, keeps the past over a restart, and takes keys at a reload."""

import json
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import psutil
import pytest

from bench.web import NEVER_SECONDS, costs_ms, serving
from ksmtuned_py.publish.historyfile import NAME
from ksmtuned_py.publish.web import CLIENTS_MAX
from tests.process.test_limits import RESIDENT_BYTES_MAX
from tests.publish.test_findings import keep_waiting
from tests.publish.test_openapi import check
from tests.support.daemon import QUICK, Daemon, free_port, merged, verb
from tests.support.process import wait_for
from tests.support.trees import FakeGuest, make_fake_tree

TOKEN = "a long one that nobody guesses"


class Served:
    """A daemon with an address and a directory for its history, on a made-up tree."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.port = free_port()
        self.root = make_fake_tree(place / "root", guests=[FakeGuest(pid=1001, name="web")], run=1)
        self.state = place / "state"
        self.state.mkdir(mode=0o755)

    def daemon(self) -> Daemon:
        environment = {"STATE_DIRECTORY": str(self.state)}
        return Daemon(self.place / "daemon", self.sections(), root=self.root, environment=environment)

    def sections(self, **metrics: object) -> dict[str, dict[str, object]]:
        return merged(QUICK, {"metrics": {"address": f"127.0.0.1:{self.port}", **metrics}})

    def json(self, path: str, **headers: str) -> Any:
        with urlopen(Request(f"http://127.0.0.1:{self.port}{path}", headers=headers), timeout=10) as answer:
            return json.load(answer)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Served:
    return Served(tmp_path_factory.mktemp("served"))


@pytest.fixture(scope="module")
def daemon(served: Served) -> Iterator[Daemon]:
    with served.daemon() as running:
        running.wait_ticks(2)
        yield running


def test_the_status_is_what_the_verb_prints(served: Served, daemon: Daemon) -> None:
    printed = json.loads(verb("status", "--json", "--root", served.root, "--runtime-dir", daemon.runtime).stdout)
    found = served.json("/api/v1/status")
    check(printed, "/api/v1/status")
    check(found, "/api/v1/status")
    assert list(found) == list(printed)
    assert (found["pid"], found["daemon_running"]) == (daemon.pid, True)
    [guest] = found["snapshot"]["guests"]
    assert guest["name"] == "web"
    assert found["decisions"][-1]["reason"].startswith("boosting")


def test_the_first_rows_of_the_past_are_there_at_once(served: Served, daemon: Daemon) -> None:
    found = served.json("/api/v1/history?seconds=60")
    check(found, "/api/v1/history")
    assert found["rows"]


def test_what_the_doctor_finds_is_what_the_verb_prints(served: Served, daemon: Daemon) -> None:
    printed = json.loads(verb("doctor", "--json", "--root", served.root, "--runtime-dir", daemon.runtime).stdout)
    first = served.json("/api/v1/doctor")
    assert (first["looked_unix_seconds"], first["looking"]) == (None, True)
    wait_for(lambda: not served.json("/api/v1/doctor")["looking"], 30, "end of the look")
    found = served.json("/api/v1/doctor")
    check(found, "/api/v1/doctor")
    assert found["looked_unix_seconds"] is not None
    assert {one["code"] for one in found["findings"]} == {one["code"] for one in printed}


def test_a_doctor_that_hangs_delays_no_tick_no_answer_and_no_end(tmp_path: Path) -> None:
    served = Served(tmp_path)
    keep_waiting(served.root)
    with served.daemon() as daemon:
        daemon.wait_ticks(2)
        assert served.json("/api/v1/doctor")["looking"]
        daemon.wait_ticks(20)
        assert served.json("/api/v1/status")["pid"] == daemon.pid
        assert served.json("/api/v1/doctor")["looking"]
        assert len(psutil.Process(daemon.pid).children()) == 1
        assert daemon.end() == 0


def test_slow_clients_take_no_more_than_twenty_connections_and_the_ticks_go_on(served: Served, daemon: Daemon) -> None:
    process = psutil.Process(daemon.pid)
    files = process.num_fds()
    with ExitStack() as clients:
        for number in range(300):
            client = clients.enter_context(socket.create_connection(("127.0.0.1", served.port), timeout=10))
            with suppress(ConnectionError):  # it was one too many already
                client.sendall((b"", b"GET /api/v1/sta", b"GET / HTTP/1.1\r\nHost: x\r\n" * 20)[number % 3])
        daemon.wait_ticks(10)
        assert served.json("/api/v1/history")["rows"]
        assert process.num_fds() <= files + CLIENTS_MAX + 2
        assert process.memory_info().rss <= RESIDENT_BYTES_MAX
        daemon.wait_ticks(10)


def test_a_scrape_of_500_guests_takes_little_cpu_and_the_next_one_hardly_any() -> None:
    with serving(500, NEVER_SECONDS) as many:
        (_, first, _), (_, others, _) = costs_ms(many, "/metrics")
    assert first < 100
    assert others < 5


def test_a_token_is_wanted_after_a_reload_and_a_file_that_others_may_read_is_refused(
    served: Served, daemon: Daemon
) -> None:
    file = served.place / "web.toml"
    file.write_text(f'[bearer_tokens]\nprometheus = "{sha256(TOKEN.encode()).hexdigest()}"\n')
    file.chmod(0o644)
    keyed = served.sections(web_config_file=str(file))
    daemon.reload("reload refused, the old configuration stays: metrics.web_config_file", keyed)
    assert served.json("/api/v1/status")["pid"] == daemon.pid
    file.chmod(0o600)
    daemon.reload("reloaded: metrics.web_config_file", keyed)
    with pytest.raises(HTTPError, match="401"):
        served.json("/api/v1/status")
    assert served.json("/api/v1/status", Authorization=f"Bearer {TOKEN}")["pid"] == daemon.pid
    file.write_text("[bearer_tokens]\n")  # a change of the file alone counts, too
    daemon.reload("reloaded: nothing changed")
    assert served.json("/api/v1/status")["pid"] == daemon.pid


def test_the_past_is_there_again_after_a_restart(tmp_path: Path) -> None:
    served = Served(tmp_path)
    with served.daemon() as first:
        first.wait_ticks(2)
        began = served.json("/api/v1/status")["snapshot"]["clock"]["unix_seconds"]
        first.wait_status(lambda status: status["snapshot"]["clock"]["unix_seconds"] > began + 6, "6 s")
        assert first.end() == 0
    assert (served.state / NAME).stat().st_size > 0
    with served.daemon() as second:
        second.wait_ticks(2)
        begun = second.status()["decisions"][-1]["unix_seconds"]
        second.wait_status(lambda _: served.json("/api/v1/history")["rows"][0][0] < begun - 1, "rows of before")
        assert second.end() == 0


def test_a_pipe_in_place_of_the_file_delays_nothing(tmp_path: Path) -> None:
    served = Served(tmp_path)
    os.mkfifo(served.state / NAME)
    with served.daemon() as daemon:
        daemon.wait_output(f"the history lives in memory alone: {served.state / NAME}: {NAME} is no file of ours")
        daemon.wait_ticks(5)
        assert served.json("/api/v1/history")["rows"]
        assert daemon.end() == 0
