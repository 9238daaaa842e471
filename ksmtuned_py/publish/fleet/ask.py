"""Asks a Prometheus over HTTP, within bounds of time and size, and follows it nowhere else."""

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from http.client import HTTPException
from pathlib import Path
from threading import Thread
from urllib.error import HTTPError
from urllib.parse import urlencode, urlsplit
from urllib.request import (
    HTTPDefaultErrorHandler,
    HTTPErrorProcessor,
    HTTPHandler,
    HTTPSHandler,
    OpenerDirector,
    Request,
)

from pydantic import TypeAdapter, ValidationError

from ksmtuned_py.door.descriptors import begin
from ksmtuned_py.door.runtime import read_anybodys
from ksmtuned_py.door.text import printable
from ksmtuned_py.errors import KsmtunedError, Unreadable
from ksmtuned_py.publish.fleet.hosts import Series
from ksmtuned_py.units import KIB, MIB

AT_ONCE = 4
"""The questions under way at a time. Prometheus answers 20 at a time as a rule, and not only us."""
PATIENCE_SECONDS = 30.0
"""The time that one answer may take."""
MOST_BYTES = 16 * MIB
"""The most that all answers may have: 1,000 hosts take 1.6 MiB, and each MiB takes 15 in memory."""
MOST_ERROR_BYTES = 64 * KIB
MOST_TOKEN_BYTES = 16 * KIB
ERROR_LENGTH = 300


@dataclass(eq=False)
class NotAnswered(KsmtunedError):
    """Prometheus could not be asked, or its answer is none."""

    url: str
    reason: str
    template = "{url}: {reason}"


@dataclass(eq=False)
class NotAdmitted(NotAnswered):
    """Prometheus wants to know who asks."""

    hint_template = "--bearer-token-file names a file with a token that it knows"


@dataclass(eq=False)
class NoPrometheusUrl(KsmtunedError):
    """What was given as Prometheus's address is none."""

    url: str
    wanted: str
    template = "{url}: {wanted}"
    hint_template = "as in http://127.0.0.1:9090 or https://monitoring.example/prometheus"


@dataclass(frozen=True)
class _Sample:
    metric: dict[str, str]
    value: tuple[float, float]


@dataclass(frozen=True)
class _Data:
    result: list[_Sample]


@dataclass(frozen=True)
class _Answer:
    data: _Data
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Refusal:
    error: str


class Prometheus:
    """Answers instant queries."""

    def __init__(self, url: str, token: str = "", patience_seconds: float = PATIENCE_SECONDS) -> None:
        """Do not connect yet; raises NoPrometheusUrl."""
        self.url = _checked(url)
        self.warnings: set[str] = set()
        """What the answers so far have told on top: that a part is missing, for instance."""
        self._token = token
        self._patience_seconds = patience_seconds
        self._left_bytes = MOST_BYTES

    def query(self, expression: str) -> list[Series]:
        """The series of an expression now; raises NotAnswered."""
        try:
            answer = _answers().validate_json(self._answer(expression))
        except ValidationError as error:
            raise NotAnswered(self.url, f"no answer of Prometheus: {_first(error)}") from error
        self.warnings |= {printable(warning)[:ERROR_LENGTH] for warning in answer.warnings}
        return [Series(sample.metric, sample.value[1]) for sample in answer.data.result]

    def answers(self, expressions: Mapping[str, str]) -> dict[str, list[Series]]:
        """The series of many expressions, by the same names; raises NotAnswered. Some are asked at a time."""
        with ThreadPoolExecutor(AT_ONCE) as askers:
            return dict(zip(expressions, askers.map(self.query, expressions.values()), strict=True))

    def _answer(self, expression: str) -> bytes:
        """The text of an answer. Name servers, headers and chunks wait for each byte, so a thread of its own waits."""
        texts: list[bytes] = []
        problems: list[NotAnswered] = []

        def ask() -> None:
            try:
                texts.append(self._read(expression))
            except NotAnswered as problem:
                problems.append(problem)

        asking = Thread(target=ask, name="prometheus", daemon=True)
        if not begin(asking):
            raise NotAnswered(self.url, "no thread can be begun to ask it")
        asking.join(self._patience_seconds)
        if asking.is_alive():
            raise NotAnswered(self.url, f"its answer takes longer than {self._patience_seconds:g} s")
        if problems:
            raise problems[0]
        return texts[0]

    def _read(self, expression: str) -> bytes:
        request = Request(f"{self.url}/api/v1/query?{urlencode({'query': expression})}")  # noqa: S310 - only http and https
        if self._token:
            request.add_unredirected_header("Authorization", f"Bearer {self._token}")
        try:
            with _opener().open(request, timeout=self._patience_seconds) as answer:
                text: bytes = answer.read(self._left_bytes + 1)
        except HTTPError as error:
            with error:
                raise self._refusal(error) from error
        except (OSError, HTTPException, ValueError) as error:
            raise NotAnswered(
                self.url, printable(str(getattr(error, "reason", error) or type(error).__name__))
            ) from error
        self._left_bytes -= len(text)
        if self._left_bytes < 0:
            raise NotAnswered(self.url, f"its answers are longer than {MOST_BYTES // MIB} MiB")
        return text

    def _refusal(self, error: HTTPError) -> NotAnswered:
        """What an answer other than 200 means."""
        said = f"answers {error.code} {printable(str(error.reason))[:ERROR_LENGTH]}"
        if error.code in (401, 403):
            return NotAdmitted(self.url, said)
        if 300 <= error.code < 400:
            where = printable(str(error.headers.get("Location", "")))[:ERROR_LENGTH]
            return NotAnswered(self.url, f"{said}, to {where}: nobody else is told what Prometheus is asked")
        try:
            refusal = TypeAdapter(_Refusal).validate_json(error.read(MOST_ERROR_BYTES))
        except (ValidationError, OSError, HTTPException):
            return NotAnswered(self.url, said)
        return NotAnswered(self.url, f"{said}: {printable(refusal.error)[:ERROR_LENGTH]}")


def read_token(path: Path) -> str:
    """The token in a file; raises Unreadable when there is none, or when it could not stand in a header."""
    try:
        # A pod's token is a link, and whoever names the file may follow it.
        text = read_anybodys(Path(os.path.realpath(path, strict=True)), MOST_TOKEN_BYTES)
    except OSError as error:
        raise Unreadable(str(path), error.strerror or str(error)) from error
    token = text.decode("ascii", "replace").strip()
    if not token or not all(character.isascii() and "!" <= character <= "~" for character in token):
        raise Unreadable(str(path), "wanted one token, of ASCII letters, digits and signs")
    return token


def _checked(url: str) -> str:
    """The address without a slash at its end; raises NoPrometheusUrl."""
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises ValueError for what is no number
    except ValueError as error:
        raise NoPrometheusUrl(printable(url), str(error)) from error
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise NoPrometheusUrl(printable(url), "wanted an address that begins with http:// or https://")
    if "@" in parts.netloc:
        hidden = f"{parts.scheme}://...@{parts.netloc.rpartition('@')[2]}"
        raise NoPrometheusUrl(
            hidden, "wanted no user and no password in it: everybody sees them in the list of processes"
        )
    if parts.query or parts.fragment or not url.isprintable() or " " in url:
        raise NoPrometheusUrl(printable(url), "wanted an address without ? and #")
    return url.rstrip("/")


@cache
def _opener() -> OpenerDirector:
    """What opens http and https alone: no file, no redirect, which could carry the token to another host, no proxy."""
    opener = OpenerDirector()
    for handler in (HTTPHandler(), HTTPSHandler(), HTTPDefaultErrorHandler(), HTTPErrorProcessor()):
        opener.add_handler(handler)
    return opener


@cache
def _answers() -> "TypeAdapter[_Answer]":
    return TypeAdapter(_Answer)


def _first(error: ValidationError) -> str:
    first = error.errors(include_input=False, include_url=False)[0]
    return printable(f"{'.'.join(map(str, first['loc']))}: {first['msg']}".removeprefix(": "))[:ERROR_LENGTH]
