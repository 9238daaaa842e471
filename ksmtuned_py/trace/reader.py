"""Reads a trace."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from ksmtuned_py.trace.lines import BadTrace, Header, NoZstd, Tick, parse_header, parse_tick
from ksmtuned_py.units import KIB, MIB

ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
READ_BYTES = 64 * KIB
UNPACKED_BYTES = KIB
"""What is unpacked at a time. Four bytes of it may stand for 128 KiB, so it becomes 32 MiB at most."""
MOST_LINE_BYTES = 8 * MIB
"""A tick of 20,000 guests has as much. A longer line would take memory that guests need."""


@dataclass(frozen=True)
class Trace:
    """A trace that is open, with its header and its ticks, which can be read once."""

    header: Header
    ticks: Iterator[Tick]


@contextmanager
def open_trace(path: Path) -> Iterator[Trace]:
    """Opens the trace of a file, in a with block; raises NoZstd, and BadTrace with the line (also from the ticks)."""
    file = str(path)
    try:
        with path.open("rb") as raw:
            lines = _lines(file, raw)
            header = parse_header(file, next(lines, (1, b""))[1])
            yield Trace(header, (parse_tick(file, number, text) for number, text in lines))
    except OSError as error:
        raise BadTrace(file, 0, f"cannot be read: {error.strerror or error}") from error


def _lines(file: str, raw: IO[bytes]) -> Iterator[tuple[int, bytes]]:
    """Yields numbered lines. The first bytes tell whether they are packed: FILE.zst.1 is zstd, too."""
    packed = raw.read(len(ZSTD_MAGIC)) == ZSTD_MAGIC
    raw.seek(0)
    number = 0
    try:
        for number, text in enumerate(_split(_unpacked(file, raw) if packed else _read(raw)), 1):
            yield number, text
    except _Damaged as error:
        raise BadTrace(file, number + 1, f"damaged: {error}") from error


class _Damaged(Exception):
    """Raised for a frame that is cut off, or whose content is not what was written, and for a line without an end."""


def _read(raw: IO[bytes]) -> Iterator[bytes]:
    while data := raw.read(READ_BYTES):
        yield data


def _unpacked(file: str, raw: IO[bytes]) -> Iterator[bytes]:
    """Yields the content of all frames; raises NoZstd and _Damaged."""
    try:
        import zstandard
    except ImportError as error:
        raise NoZstd(file) from error
    data = raw.read(UNPACKED_BYTES)
    while data:
        frame = zstandard.ZstdDecompressor().decompressobj()
        while not frame.eof:
            if not data:
                raise _Damaged("the file is cut off")
            try:
                yield frame.decompress(data)
            except zstandard.ZstdError as error:
                raise _Damaged(str(error)) from error
            data = frame.unused_data or raw.read(UNPACKED_BYTES)


def _split(chunks: Iterator[bytes]) -> Iterator[bytes]:
    left = b""
    for chunk in chunks:
        *whole, left = (left + chunk).split(b"\n")
        yield from (line + b"\n" for line in whole)
        if len(left) > MOST_LINE_BYTES:
            raise _Damaged(f"a line has more than {MOST_LINE_BYTES // MIB} MiB")
    if left:
        yield left
