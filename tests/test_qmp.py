"""Finding a guest's monitor, and talking to it: by a socket that answers as QEMU does."""

import json
import os
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from ksmtuned_py.guests.libvirtsuspend import domain_number
from ksmtuned_py.guests.qmp import MonitorRefused, monitor, parse_monitors


@pytest.mark.parametrize(
    ("line", "paths"),
    [
        ("qemu -qmp unix:/run/a.qmp,server=on,wait=off", ["/run/a.qmp"]),
        ("qemu --qmp unix:a.d/qmp,server,nowait", ["a.d/qmp"]),
        ("qemu -qmp unix:/run/a,,b.qmp,server=on", ["/run/a,b.qmp"]),
        ("qemu -qmp tcp:localhost:4444,server=on", []),
        ("qemu -qmp unix:/run/a.qmp", []),
        ("qemu -monitor unix:/run/a.hmp,server=on", []),
        ("qemu -chardev socket,id=m,path=/run/m,server=on -mon chardev=m,mode=control", ["/run/m"]),
        ("qemu -mon m,mode=control -chardev socket,id=m,path=/run/m,server=on", ["/run/m"]),
        ("qemu -chardev socket,id=m,path=/run/m,server=on -mon chardev=m,mode=readline", []),
        ("qemu -chardev socket,id=m,path=/run/m,reconnect=5 -mon chardev=m,mode=control", []),
        ("qemu -chardev socket,id=m,fd=22,server=on -mon chardev=m,mode=control", []),
        ("qemu -chardev file,id=m,path=/run/m,server=on -mon chardev=m,mode=control", []),
        ("qemu -qmp-pretty unix:/1,server=on -qmp unix:/2,server=on", ["/1", "/2"]),
        ("qemu", []),
    ],
)
def test_monitors_are_found_on_the_command_line(line: str, paths: list[str]) -> None:
    assert parse_monitors(line.split()) == paths


def test_libvirts_domains_are_known_by_their_directory() -> None:
    assert domain_number('-object {"file":"/var/lib/libvirt/qemu/domain-17-web/master-key.aes"}') == 17
    assert domain_number("-name guest=domain-3-x") is None


@contextmanager
def answering(path: Path, answers: Mapping[str, object]) -> Iterator[list[str]]:
    """Something that listens as QEMU does, and notes what it was asked; an event is told after each `stop`."""
    asked: list[str] = []
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()

        def serve() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.sendall(b'{"QMP": {}}\r\n')
                while text := connection.recv(4096):
                    asked.append(json.loads(text)["execute"])
                    events = [{"event": "RESUME"}] if "events" in answers and asked[-1] == "stop" else []
                    said = {"return": answers.get(asked[-1], {})}
                    connection.sendall("".join(json.dumps(each) + "\r\n" for each in [said, *events]).encode())

        thread = threading.Thread(target=serve)
        thread.start()
        yield asked
        thread.join()


def words(path: Path) -> list[str]:
    return ["qemu", "-qmp", f"unix:{path},server=on"]


def test_a_guest_is_suspended_and_resumed(tmp_path: Path) -> None:
    path = tmp_path / "qmp"
    running: dict[str, object] = {"query-status": {"status": "running"}, "query-block-jobs": []}
    running["query-block-exports"] = []
    with answering(path, running) as asked, monitor("/proc/self", os.getpid(), words(path)) as found:
        assert found.obstacle() == ""
        found.stop()
        running["query-status"] = {"status": "paused"}
        assert found.undisturbed()
        found.resume()
    assert asked[-3:] == ["stop", "query-status", "cont"]


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"query-status": {"status": "paused"}}, "its state is 'paused'"),
        ({"query-migrate": {"status": "active"}}, "it is being migrated"),
        ({"query-block-jobs": [{"device": "drive"}]}, "copied or exported"),
        ({"query-block-exports": [{"id": "nbd"}]}, "copied or exported"),
    ],
)
def test_what_keeps_it_from_being_suspended(changed: dict[str, object], reason: str, tmp_path: Path) -> None:
    path = tmp_path / "qmp"
    running = {"query-status": {"status": "running"}, "query-block-jobs": [], "query-block-exports": []}
    with answering(path, running | changed), monitor("/proc/self", os.getpid(), words(path)) as found:
        assert reason in found.obstacle()


@pytest.mark.parametrize(
    "answers",
    [
        {"query-status": {"status": "paused"}, "events": True},
        {"query-status": {"status": "io-error"}},
        {"query-status": {"status": "running"}},
    ],
)
def test_who_was_touched_by_somebody_else_is_not_resumed(answers: dict[str, object], tmp_path: Path) -> None:
    path = tmp_path / "qmp"
    with answering(path, answers) as asked, monitor("/proc/self", os.getpid(), words(path)) as found:
        found.stop()
        found.resume()
        assert found.undisturbed() == ("events" not in answers)
    assert "cont" not in asked


def test_another_process_at_its_socket_is_not_believed(tmp_path: Path) -> None:
    path = tmp_path / "qmp"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        with pytest.raises(MonitorRefused, match="another process"), monitor("/proc/self", 1, words(path)):
            pass
        with pytest.raises(MonitorRefused, match="somebody else"), monitor("/proc/self", os.getpid(), words(path)):
            pass
    with pytest.raises(MonitorRefused, match="cannot be reached"), monitor("/proc/self", os.getpid(), words(path)):
        pass
    with pytest.raises(MonitorRefused, match="it has no monitor"), monitor("/proc/self", os.getpid(), ["qemu"]):
        pass
