"""Connections are encrypted where the admin wants it, and no number of clients can hurt the daemon there either."""

import os
import shutil
import socket
import ssl
import subprocess
import threading
from base64 import b64encode
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from http.client import HTTPSConnection
from pathlib import Path

import pytest

from ksmtuned_py.daemon.front import read_front
from ksmtuned_py.errors import UnfitWebConfig
from ksmtuned_py.publish.site import Sources
from ksmtuned_py.publish.web import ANYBODYS, CLIENTS_MAX, Web
from tests.publish.test_keys import SECRET
from tests.publish.test_web import open_files, registry
from tests.support.need import need

LONG = b'{"schema":1,"long":"%s"}' % os.urandom(300_000).hex().encode()

PROMETHEUS = f"Basic {b64encode(b'prometheus:secret').decode()}"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a certificate, its key, and a web configuration that names them."""
    need(shutil.which("openssl") is not None, "openssl")
    place = tmp_path_factory.mktemp("tls")
    made = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    made += ["-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    subprocess.run([*made, "-keyout", place / "key.pem", "-out", place / "cert.pem"], check=True, capture_output=True)
    written(place, f'[basic_auth_users]\nprometheus = "{SECRET}"\n')
    return place


def written(place: Path, more: str = "", name: str = "web.toml") -> Path:
    """A web configuration with the certificate."""
    path = place / name
    path.write_text(f'{more}\n[tls_server_config]\ncert_file = "{place}/cert.pem"\nkey_file = "{place}/key.pem"\n')
    path.chmod(0o600)
    return path


@pytest.fixture(scope="module")
def web(files: Path) -> Iterator[Web]:
    front = read_front(str(files / "web.toml"))
    assert front.keys is not None
    sources = Sources(registry=registry(), status=lambda: LONG)
    made = Web("127.0.0.1:0", sources, [*ANYBODYS, front.keys.refusal], front.context)
    made.start()
    yield made
    made.stop()


@pytest.fixture(scope="module")
def trust(files: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(files / "cert.pem"))


def get(web: Web, trust: ssl.SSLContext, path: str, authorization: str | None = None) -> tuple[int, bytes]:
    """The status and the body of an answer."""
    headers = {"Authorization": authorization or PROMETHEUS}
    client = HTTPSConnection("localhost", web.port, timeout=10, context=trust)
    try:
        client.request("GET", path, headers=headers)
        response = client.getresponse()
        return response.status, response.read()
    finally:
        client.close()


def test_a_scrape(web: Web, trust: ssl.SSLContext) -> None:
    status, body = get(web, trust, "/metrics")
    assert (status, b"answer 42.0" in body) == (200, True)
    assert get(web, trust, "/metrics", "Bearer x")[0] == 401


def test_a_long_answer_is_whole(web: Web, trust: ssl.SSLContext) -> None:
    status, body = get(web, trust, "/api/v1/status")
    assert (status, body.endswith(LONG[1:])) == (200, True)


def test_requests_that_come_in_small_parts(web: Web, trust: ssl.SSLContext) -> None:
    request = f"GET /healthz HTTP/1.0\r\nHost: localhost\r\nAuthorization: {PROMETHEUS}\r\n\r\n"
    with (
        socket.create_connection(("127.0.0.1", web.port), timeout=10) as plain,
        trust.wrap_socket(plain, server_hostname="localhost") as client,
    ):
        for byte in request.encode():
            client.sendall(bytes([byte]))
        assert client.recv(12) == b"HTTP/1.0 200"


def test_old_versions_are_refused(web: Web) -> None:
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
    old.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    with socket.create_connection(("127.0.0.1", web.port), timeout=10) as plain, pytest.raises(ssl.SSLError):
        old.wrap_socket(plain)


@pytest.mark.parametrize("sent", [b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\xff\xff" + b"\0" * 40_000, b"\x16", b""])
def test_what_is_no_handshake_ends_that_connection_alone(web: Web, trust: ssl.SSLContext, sent: bytes) -> None:
    with socket.create_connection(("127.0.0.1", web.port), timeout=10) as client:
        with suppress(OSError):
            client.sendall(sent)
        if len(sent) > 1:
            with suppress(ConnectionError):
                while client.recv(4096):  # an alert, and the end
                    pass
        assert get(web, trust, "/healthz") == (200, b"ok\n")


def test_half_open_clients_grow_nothing_and_do_not_stop_a_scrape(web: Web, trust: ssl.SSLContext) -> None:
    before, open_before = threading.active_count(), open_files()
    incoming, hello = ssl.MemoryBIO(), ssl.MemoryBIO()
    with suppress(ssl.SSLWantReadError):
        trust.wrap_bio(incoming, hello, server_hostname="localhost").do_handshake()
    first = hello.read()
    with ExitStack() as clients:
        for number in range(200):
            client = clients.enter_context(socket.create_connection(("127.0.0.1", web.port), timeout=10))
            with suppress(ConnectionError):  # it was one too many already
                client.sendall([b"", first[:50], first][number % 3])
        assert get(web, trust, "/metrics")[0] == 200
        assert threading.active_count() == before
        assert open_files() - open_before <= 200 + CLIENTS_MAX + 1


@pytest.mark.parametrize(
    ("file", "mode", "told"),
    [
        ("key.pem", 0o644, "others than its owner and group may use it (mode 644)"),
        ("web.toml", 0o604, "others than its owner and group may use it (mode 604)"),
        ("key.pem", None, "No such file"),
        ("web.toml", None, "No such file"),
    ],
)
def test_a_secret_that_others_may_know(files: Path, tmp_path: Path, file: str, mode: int | None, told: str) -> None:
    for name in ("cert.pem", "key.pem"):
        shutil.copy(files / name, tmp_path / name)
    path = written(tmp_path)
    (tmp_path / file).chmod(mode) if mode is not None else (tmp_path / file).unlink()
    with pytest.raises(UnfitWebConfig) as raised:
        read_front(str(path))
    assert told in str(raised.value)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[basic_auth_users]\nme = 'secret'", "basic_auth_users.me: String should match"),
        ("[basic_auth_users]\nme = '$2y$31$" + "a" * 53 + "'", "basic_auth_users.me: String should match"),
        ("[basic_auth_users]\n'me:you' = '" + SECRET + "'", "String should match"),
        ("[bearer_tokens]\nme = 'secret'", "bearer_tokens.me: String should match"),
        ("[tls_server_config]\ncert_file = '/x'", "tls_server_config.key_file: Field required"),
        ("[tls_server]\n", "tls_server: Extra inputs"),
        ("tls_server_config:\n  cert_file: x\n", "Expected '='"),
        ("[tls_server_config]\ncert_file = '/dev/null'\nkey_file = '/dev/zero'", "is no file, or a large one"),
        ("a = " + "[" * 5000, "recursion"),
    ],
)
def test_a_configuration_that_cannot_be(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "web.toml"
    path.write_text(text)
    path.chmod(0o600)
    with pytest.raises(UnfitWebConfig) as raised:
        read_front(str(path))
    assert told in str(raised.value)
    assert "secret" not in str(raised.value)


def test_a_key_that_is_not_the_certificates(files: Path, tmp_path: Path) -> None:
    shutil.copy(files / "cert.pem", tmp_path / "cert.pem")
    (tmp_path / "key.pem").write_text("no key")
    (tmp_path / "key.pem").chmod(0o600)
    with pytest.raises(UnfitWebConfig, match=r"key\.pem"):
        read_front(str(written(tmp_path)))


def test_a_pipe_as_certificate_is_not_waited_for(files: Path, tmp_path: Path) -> None:
    shutil.copy(files / "key.pem", tmp_path / "key.pem")
    os.mkfifo(tmp_path / "cert.pem")
    with pytest.raises(UnfitWebConfig, match=r"cert\.pem is no file"):
        read_front(str(written(tmp_path)))


def test_none_is_wanted() -> None:
    assert (read_front("").context, read_front("").keys) == (None, None)
