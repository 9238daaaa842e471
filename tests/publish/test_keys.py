"""Who has a key is let in at once; guesses are refused, and cannot take the host's CPU time."""

import threading
import time
from base64 import b64encode
from hashlib import sha256

import pytest

from ksmtuned_py.publish.keys import IDLE_TIMES, Keys, has_bcrypt, matches

SECRET = "$2b$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW"
"""Made by htpasswd's algorithm at its lowest cost; the password is "secret"."""
DEAR = "$2b$10$abcdefghijklmnopqrstuuqflPDzB6gcMhKa1rZqKiun2YGL5sa2u"
TOKEN = "6f2b5e0d"


def basic(user: str, password: str) -> dict[str, str]:
    return {"HTTP_AUTHORIZATION": f"Basic {b64encode(f'{user}:{password}'.encode()).decode()}"}


def status(keys: Keys, environ: dict[str, str]) -> str:
    """The status with which a request is refused; '' for one that is let in."""
    refusal = keys.refusal(environ)
    return "" if refusal is None else refusal.status[:3]


def made() -> Keys:
    return Keys({"prometheus": SECRET}, [sha256(TOKEN.encode()).hexdigest()])


def test_this_system_knows_bcrypt() -> None:
    assert has_bcrypt()
    assert matches(b"secret", SECRET)
    assert not matches(b"Secret", SECRET)


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_a_token(scheme: str) -> None:
    assert status(made(), {"HTTP_AUTHORIZATION": f"{scheme} {TOKEN}"}) == ""


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Bearer",
        "Bearer ",
        f"Bearer {TOKEN}x",
        f"Bearer {sha256(TOKEN.encode()).hexdigest()}",
        f"Token {TOKEN}",
        "Basic",
        "Basic !!!!",
        "Basic c2VjcmV0",
        f"Basic {b64encode(b'prometheus:' + bytes([255, 254])).decode()}",
        f"Basic {b64encode(b'prometheus:secret' + bytes(1)).decode()}",
        f"Basic {b64encode(bytes([255]) + b':secret').decode()}",
        "Bearer \xff\u0100",
    ],
)
def test_without_a_key_nobody_is_let_in(header: str) -> None:
    refusal = made().refusal({"HTTP_AUTHORIZATION": header})
    assert refusal is not None
    assert refusal.status == "401 Unauthorized"
    assert dict(refusal.headers)["WWW-Authenticate"].startswith("Basic ")


def test_a_password() -> None:
    keys = made()
    assert status(keys, basic("prometheus", "secret")) == ""
    for user, password in (("prometheus", "wrong"), ("nobody", "secret"), ("", "secret"), ("prometheus", "")):
        time.sleep(0.05)
        assert status(keys, basic(user, password)) == "401"


def test_who_was_let_in_is_not_looked_at_again() -> None:
    """However many others guess meanwhile."""
    keys = Keys({"prometheus": DEAR}, [])
    assert status(keys, basic("prometheus", "secret")) == ""
    began = time.thread_time()
    for _ in range(100):
        assert status(keys, basic("prometheus", f"guess {_}")) == "429"
        assert status(keys, basic("prometheus", "secret")) == ""
    assert time.thread_time() - began < 100 * cost_seconds()


def cost_seconds() -> float:
    """The CPU time of one guess."""
    began = time.thread_time()
    matches(b"", DEAR)
    return time.thread_time() - began


def test_guesses_have_a_tenth_of_a_core() -> None:
    keys = Keys({"prometheus": DEAR}, [])
    cost, ends, tried = cost_seconds(), time.monotonic() + 1.0, 0

    def guess() -> None:
        nonlocal tried
        while time.monotonic() < ends:
            tried += status(keys, basic("prometheus", "guess")) == "401"
            time.sleep(0.001)

    threads = [threading.Thread(target=guess) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 1 <= tried <= 2 + 1.5 / (cost * IDLE_TIMES)


def test_without_users_no_password_is_looked_at() -> None:
    keys = Keys({}, [sha256(TOKEN.encode()).hexdigest()])
    refusal = keys.refusal(basic("prometheus", "secret"))
    assert refusal is not None
    assert dict(refusal.headers)["WWW-Authenticate"] == "Bearer"
