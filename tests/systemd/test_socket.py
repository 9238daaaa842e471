"""The socket for /metrics comes and goes with the service, and never starts it."""

from tests.support.process import wait_for
from tests.support.unit import SECONDS
from tests.systemd.conftest import Service
from tests.systemd.test_service import PORT

SOCKET = "ksmtuned-py.socket"
ELSEWHERE = f"""
mkdir -p /run/systemd/system/{SOCKET}.d
printf '[Socket]\\nListenStream=\\nListenStream=127.0.0.1:10777\\n' > /run/systemd/system/{SOCKET}.d/elsewhere.conf
systemctl daemon-reload
"""
DROP_INS = "/run/systemd/system/ksmtuned-py.service.d"
QUICK = f"""
mkdir -p {DROP_INS}
printf '[Service]\\nType=exec\\nExecStart=\\nExecStart=/bin/sleep infinity\\nExecStopPost=\\n' > {DROP_INS}/quick.conf
systemctl daemon-reload
"""
"""In the place of the service, another sleeps."""
SLOW = f"rm -r {DROP_INS}; systemctl daemon-reload"
BACK = f"rm -r /run/systemd/system/{SOCKET}.d; systemctl daemon-reload"


def healthy(service: Service, port: str = PORT) -> bool:
    """Whether the service answers at that port."""
    return service.container.run("curl", "--silent", "--max-time", "10", f"http://127.0.0.1:{port}/healthz") == "ok\n"


def state(service: Service) -> str:
    """Whether systemd listens."""
    return service.container.run("systemctl", "is-active", SOCKET).strip()


def test_it_is_there_as_long_as_the_service(service: Service) -> None:
    service.start()
    service.wait_ticks(1)
    assert (state(service), healthy(service)) == ("active", True)
    service.container.run("kill", "-KILL", service.shows("MainPID"))
    wait_for(lambda: service.shows("NRestarts") == "1" and healthy(service), SECONDS, "another one that answers")
    service.stop()
    assert (state(service), healthy(service)) == ("inactive", False)
    assert service.shows("ActiveState") == "inactive"  # nobody started it by asking


def test_it_has_no_limit_of_its_own(service: Service) -> None:
    service.container.run("sh", "-c", QUICK)
    try:
        for _ in range(7):
            service.start()
            service.systemctl("stop")
            service.systemctl("reset-failed")  # of the service alone
    finally:
        service.container.run("sh", "-c", SLOW)


def test_it_goes_with_a_service_that_cannot_start(service: Service) -> None:
    service.configure({"metrics": {"address": "127.0.0.1:1"}})
    assert "Job for ksmtuned-py.service failed" in service.systemctl("start")
    assert "metrics.address '127.0.0.1:1': systemd passes a socket at 127.0.0.1:10776" in service.journal()
    wait_for(lambda: state(service) == "inactive", SECONDS, "closed socket")
    assert (service.shows("ActiveState"), healthy(service)) == ("failed", False)


def test_it_is_elsewhere_after_a_restart(service: Service) -> None:
    service.start()
    service.container.run("sh", "-c", ELSEWHERE)
    try:
        service.systemctl("restart")
        service.wait_ticks(1)
        assert (healthy(service, "10777"), healthy(service)) == (True, False)
        service.stop()
    finally:
        service.container.run("sh", "-c", BACK)


def test_it_may_be_stopped_under_a_service_that_goes_on(service: Service) -> None:
    service.start()
    service.container.run("systemctl", "stop", SOCKET)
    service.wait_ticks(2)
    assert (service.shows("ActiveState"), healthy(service)) == ("active", True)
    service.stop()


def test_without_it_there_are_no_metrics(service: Service) -> None:
    service.container.run("sh", "-c", ELSEWHERE.replace("127.0.0.1:10777", "192.0.2.1:10776"))
    try:
        service.systemctl("start")
        said = "metrics.address 127.0.0.1:10776: cannot listen: this service may open none, and takes that of"
        assert said in service.journal()
        service.configure({"metrics": {"address": ""}, "daemon": {"tick_seconds": 0.1}})
        service.systemctl("reset-failed")
        service.start()
        service.wait_ticks(1)
        assert not healthy(service)
        service.stop()
    finally:
        service.container.run("sh", "-c", BACK)
