"""Whatever systemd or an unprivileged user does to the service, the knobs are as found afterwards."""

import json
import subprocess
import time
from typing import Any

import pytest

from ksmtuned_py.cli.options import RUNTIME_DIR
from ksmtuned_py.config import Config
from tests.support.container import PYTHON
from tests.support.daemon import Sections
from tests.support.process import wait_for
from tests.support.unit import SECONDS
from tests.systemd.conftest import Service

LOCK = f"{RUNTIME_DIR}/lock"
PORT = Config().metrics.address.rpartition(":")[2]
IDLE = """
import socket, sys
clients = [socket.create_connection(("127.0.0.1", int(sys.argv[1])), timeout=10) for _ in range(int(sys.argv[2]))]
print("connected", flush=True)
sys.stdin.read()
"""


PINNED: Sections = {"policy": {"name": "fixed"}, "fixed": {"pages_to_scan": 777}}


def steers(service: Service) -> bool:
    """Whether the knobs are those that the service writes."""
    return service.knobs()["pages_to_scan"] != service.found["pages_to_scan"]


def test_killed_it_puts_the_knobs_back_and_begins_again(service: Service) -> None:
    service.start()
    wait_for(lambda: steers(service), SECONDS, "knobs of its own")
    pid = service.shows("MainPID")
    service.container.run("kill", "-KILL", pid)
    wait_for(lambda: service.knobs() == service.found, SECONDS, "knobs as found")
    wait_for(lambda: service.shows("MainPID") not in ("0", pid) and steers(service), SECONDS, "another one at work")
    assert service.shows("NRestarts") == "1"
    service.stop()


@pytest.mark.parametrize("seconds", [0.05, 0.2, 0.4, 0.6, 0.8])
def test_stopped_in_its_first_second(service: Service, seconds: float) -> None:
    service.systemctl("start", "--no-block")
    time.sleep(seconds)
    service.stop()


def test_a_reload_for_which_this_kernel_is_too_old(service: Service) -> None:
    service.make_tree("6.1")
    service.start()
    pid = service.shows("MainPID")
    service.configure({"policy": {"name": "advisor"}})
    assert "Job for ksmtuned-py.service failed" in service.systemctl("reload")
    assert "reload refused, the old configuration stays: " in service.journal()
    assert "this kernel's KSM has no advisor" in service.journal()
    service.wait_ticks(10)
    assert (service.shows("MainPID"), service.shows("NRestarts")) == (pid, "0")
    assert "tick failed" not in service.journal()
    service.configure({"policy": {"name": "adviser"}})
    assert "Job for ksmtuned-py.service failed" in service.systemctl("reload")
    assert (service.shows("MainPID"), service.shows("ActiveState")) == (pid, "active")
    service.configure({"policy": {"name": "fixed"}})
    assert service.systemctl("reload") == ""
    assert "policy.name 'adaptive' -> 'fixed'" in service.journal()
    assert service.shows("MainPID") == pid
    service.stop()


def test_a_reload_right_after_the_start(service: Service) -> None:
    for _ in range(2):
        service.start()
        assert service.systemctl("reload") == "", service.journal()
        service.systemctl("restart")
        assert service.systemctl("reload") == "", service.journal()
        service.stop()
        service.systemctl("reset-failed")


def test_a_reload_of_one_that_is_killed_meanwhile_fails(service: Service) -> None:
    service.start()
    pid = service.shows("MainPID")
    service.container.run("kill", "-STOP", pid)
    service.systemctl("reload", "--no-block")
    wait_for(lambda: service.shows("ActiveState") == "reloading", SECONDS, "reload")
    service.container.run("kill", "-KILL", pid)
    wait_for(lambda: service.shows("MainPID") not in ("0", pid), SECONDS, "another one")
    wait_for(lambda: service.shows("ActiveState") == "active", SECONDS, "another one at work")
    service.stop()


def test_a_thousand_guests_and_two_hundred_idle_connections(service: Service) -> None:
    service.make_tree(guests=1000)
    service.start()
    service.wait_ticks(1)
    wait_for(lambda: len(service.status()["snapshot"]["guests"]) == 1000, SECONDS, "all guests")
    command = service.nobody(f"{PYTHON}/bin/python", "-c", IDLE, PORT, "200")
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as idle:
        assert idle.stdout is not None
        assert idle.stdout.readline() == "connected\n"
        service.wait_ticks(3)
        scraped = service.container.run("curl", "--silent", "--max-time", "10", f"http://127.0.0.1:{PORT}/metrics")
        assert "ksmtuned_saved_bytes" in scraped
        assert "tick failed" not in service.journal()
        service.stop()
        idle.communicate(timeout=SECONDS)
    assert service.status() == {}
    assert len(service.journal().splitlines()) < 30


def test_the_doctor_looks_within_the_bounds_of_the_unit(service: Service) -> None:
    service.start()
    looked_at(service)
    service.stop()


def looked_at(service: Service) -> None:
    """Waits until the daemon's doctor has looked, and fails where it could not."""

    def found() -> dict[str, Any]:
        said = service.container.run("curl", "--silent", "--max-time", "10", f"http://127.0.0.1:{PORT}/api/v1/doctor")
        now: dict[str, Any] = json.loads(said)
        return now if not now["looking"] else {}

    now = wait_for(found, SECONDS, "look of the doctor")
    assert now["problem"] is None
    assert now["looked_unix_seconds"] is not None
    assert now["findings"]


def test_the_lock_is_nobodys(service: Service) -> None:
    service.start()
    service.stop()
    assert service.container.run("stat", "--format=%a %U", LOCK) == "600 root\n"
    locking = subprocess.run(
        service.nobody("flock", "--exclusive", "--nonblock", LOCK, "sleep", "1"),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS,
    )
    assert "Permission denied" in locking.stderr
    service.start()
    service.stop()
