"""Lets in who knows a password or a token, and does not let the others make the host work for their guesses."""

import hmac
import secrets
import threading
import time
from base64 import b64decode
from binascii import Error
from collections.abc import Iterable, Mapping
from functools import cache
from hashlib import sha256
from typing import Any

from ksmtuned_py.publish.answers import Answer, Environ, error

LIBRARIES = ("libcrypt.so.1", "libcrypt.so.2")
"""The C library's companion, which checks the passwords of this system, too."""
SCRATCH_BYTES = 32_768
IDLE_TIMES = 9
"""The rest after each guess, in times its CPU time. So guesses have a tenth of a core."""
MOST_KNOWN = 100
TRY = "$2b$04$abcdefghijklmnopqrstuu"
"""The cheapest setting there is, to see whether the library knows bcrypt."""


class Keys:
    """Knows who may ask."""

    def __init__(self, users: Mapping[str, str], tokens: Iterable[str]) -> None:
        """`users` are bcrypt hashes by name, `tokens` the SHA-256 of tokens that nobody can guess, as hex."""
        self._users = dict(users)
        self._tokens = tuple(tokens)
        self._secret = secrets.token_bytes(32)
        self._known: set[bytes] = set()
        """The names and passwords that were right, unreadable even here."""
        self._lock = threading.Lock()
        self._free_seconds = 0.0

    def refusal(self, environ: Environ) -> Answer | None:
        """The answer to a request without the right key; None for one that has it."""
        kind, _, value = environ.get("HTTP_AUTHORIZATION", "").partition(" ")
        match kind.lower():
            case "bearer" if self._is_token(value.strip()):
                return None
            case "basic" if (pair := _pair(value)) is not None:
                return self._basic_refusal(*pair)
        return self._unknown()

    def _unknown(self) -> Answer:
        challenge = 'Basic realm="ksmtuned-py", charset="UTF-8"' if self._users else "Bearer"
        return error("who are you?", "401 Unauthorized", ("WWW-Authenticate", challenge))

    def _is_token(self, token: str) -> bool:
        found = sha256(token.encode("latin-1", "replace")).hexdigest()
        return sum(hmac.compare_digest(found, each) for each in self._tokens) > 0

    def _basic_refusal(self, user: str, password: bytes) -> Answer | None:
        mark = hmac.digest(self._secret, user.encode() + b":" + password, "sha256")
        if mark in self._known:
            return None
        if not self._lock.acquire(blocking=False):
            return _later()
        try:
            return self._guess_refusal(user, password, mark)
        finally:
            self._lock.release()

    def _guess_refusal(self, user: str, password: bytes, mark: bytes) -> Answer | None:
        if not self._users:
            return self._unknown()
        if time.monotonic() < self._free_seconds:
            return _later()
        began = time.thread_time()
        anybodys = next(iter(self._users.values()))  # a name that there is not takes as long as one that there is
        is_right = matches(password, self._users.get(user, anybodys)) and user in self._users
        self._free_seconds = time.monotonic() + IDLE_TIMES * (time.thread_time() - began)
        if not is_right:
            return self._unknown()
        if len(self._known) < MOST_KNOWN:
            self._known.add(mark)
        return None


def _later() -> Answer:
    return error("too many guesses", "429 Too Many Requests", ("Retry-After", "1"))


def _pair(value: str) -> tuple[str, bytes] | None:
    """The name and the password of a header (RFC 7617); None where it has none."""
    try:
        name, colon, password = b64decode(value.strip(), validate=True).partition(b":")
        return (name.decode(), password) if colon and b"\0" not in password else None
    except (Error, ValueError):
        return None


def matches(password: bytes, hashed: str) -> bool:
    """Whether a password has this bcrypt hash. That takes its time, in which other threads run."""
    found = _crypt(password, hashed)
    return found is not None and hmac.compare_digest(found, hashed.encode())


def has_bcrypt() -> bool:
    """Whether this system can check such hashes."""
    return (_crypt(b"", TRY) or b"").startswith(TRY.encode())


def _crypt(password: bytes, setting: str) -> bytes | None:
    """The hash of a password as crypt(3) makes it; None where that cannot be."""
    import ctypes

    library = _library()
    if library is None:
        return None
    scratch = ctypes.create_string_buffer(SCRATCH_BYTES)
    found: bytes | None = library.crypt_rn(password, setting.encode(), scratch, SCRATCH_BYTES)
    return found


@cache
def _library() -> Any:
    import ctypes

    for name in LIBRARIES:
        try:
            found = ctypes.CDLL(name)
            found.crypt_rn.restype = ctypes.c_char_p
            found.crypt_rn.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_int]
        except (OSError, AttributeError):
            continue
        return found
    return None
