"""Makes the server's answers: bodies with a tag, packed where that is smaller, headers that browsers heed. Pure."""

import gzip
import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

TEXT, JSON = "text/plain; charset=utf-8", "application/json"
HEADERS = (
    (
        "Content-Security-Policy",
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Referrer-Policy", "no-referrer"),
    ("X-Content-Type-Options", "nosniff"),
)
"""On every answer: a page of ours loads nothing from elsewhere, and no page of others can show or use one of ours."""
FRESH, KEPT = "no-store", "no-cache"
"""What a browser may keep: nothing, or a copy about which it asks each time."""
LEAST_PACKED_BYTES = 500
"""A smaller body fits into one packet anyway."""

Environ = dict[str, Any]
StartResponse = Callable[..., Any]
Application = Callable[[Environ, StartResponse], Iterable[bytes]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One answer, before it is known who asked for it and how."""

    body: bytes
    kind: str
    status: str = "200 OK"
    packed: bytes | None = None
    """The body as gzip; None where that is not smaller."""
    tag: str = ""
    """The body's entity tag, by which a client that has it already is spared it; '' = it has none."""
    headers: tuple[tuple[str, str], ...] = ()


def kept(body: bytes, kind: str, *, level: int = 9) -> Answer:
    """An answer that is given to many, and that they may keep."""
    packed = gzip.compress(body, level, mtime=0) if len(body) >= LEAST_PACKED_BYTES else body
    tag = f'W/"{hashlib.sha256(body).hexdigest()[:24]}"'
    return Answer(body=body, kind=kind, packed=packed if len(packed) < len(body) else None, tag=tag)


def text(sentence: str, status: str = "200 OK") -> Answer:
    """A sentence for a person, or for a probe that only looks at the status."""
    return Answer(body=f"{sentence}\n".encode(), kind=TEXT, status=status)


def error(sentence: str, status: str, *headers: tuple[str, str]) -> Answer:
    """An error for a program."""
    body = json.dumps({"error": sentence}).encode()
    return Answer(body=body, kind=JSON, status=status, headers=headers)


def send(answer: Answer, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Give an answer: without its body to those who only ask for the head, or who have it."""
    headers = [("Content-Type", answer.kind), ("Cache-Control", KEPT if answer.tag else FRESH)]
    headers += [*HEADERS, *answer.headers]
    body = answer.body
    if answer.tag:
        headers.append(("ETag", answer.tag))
    if answer.packed is not None:
        headers.append(("Vary", "Accept-Encoding"))
        if _takes_gzip(environ.get("HTTP_ACCEPT_ENCODING", "")):
            headers.append(("Content-Encoding", "gzip"))
            body = answer.packed
    if answer.tag and answer.tag.removeprefix("W/") in environ.get("HTTP_IF_NONE_MATCH", ""):
        start_response("304 Not Modified", headers)
        return []
    start_response(answer.status, [*headers, ("Content-Length", str(len(body)))])
    return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]


def _takes_gzip(accepted: str) -> bool:
    """Whether a client takes gzip (RFC 9110, 12.5.3). Who says q=0 does not."""
    for each in accepted.lower().split(","):
        coding, _, weight = each.partition(";")
        if coding.strip() == "gzip":
            return weight.replace(" ", "") not in {"q=0", "q=0.0", "q=0.00", "q=0.000"}
    return False
