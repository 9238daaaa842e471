"""Sketches of what guests hold, by which hosts can be compared without any content leaving them. Pure.

Theory of operation
===================
A sketch is a sample of a guest's contents, not of its addresses: the contents whose hash begins with some zeros. The
more contents a guest has, the more zeros are wanted, so that a sketch always fits into 8 KiB. The same content is in
all sketches or in none, as long as they want as many zeros. So two sketches are compared by those contents that both
would have. The share of them that is there, too, is the share that will merge.

What is kept of a content is a hash with the fleet's key. Whoever has the key can find out whether a page that they know
is among the sample. Whoever has not can only see which sketches have contents in common.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from math import sqrt

SCHEMA = 1
VALUE_BYTES = 6
"""Of a content's hash. Two of 1,365 contents are taken for equal by chance once in millions of guests."""
MOST_CONTENTS = 8192 // VALUE_BYTES
_TWO_SIGMA = 1.96


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestSketch:
    """What is told of one guest's memory."""

    name: str
    zero_pages: int
    filled_pages: int
    """Private pages in memory that are not zero."""
    distinct_pages: int
    """The different contents among them, within a percent."""
    contents: dict[int, tuple[str, ...]]
    """Hashes of the sampled contents, in hexadecimal, by the zeros with which each one's other hash begins."""
    zeros: int
    """All contents with so many zeros, or more, are there."""

    def at(self, zeros: int) -> frozenset[str]:
        """The contents with so many zeros, or more."""
        return frozenset(value for level, values in self.contents.items() if level >= zeros for value in values)


@dataclass(frozen=True, slots=True, kw_only=True)
class HostSketch:
    """What one host tells of its guests."""

    schema: int = SCHEMA
    host: str
    unix_seconds: float
    key_id: str
    """The name of the key; only sketches of one key can be compared."""
    page_bytes: int
    room_bytes: int
    """What a guest that lands may take there, without swap."""
    guests: tuple[GuestSketch, ...]


@dataclass(frozen=True, slots=True)
class Shared:
    """How many of a guest's pages merge where it lands, and between which numbers that lies with 95 % confidence."""

    pages: int
    low: int
    high: int


def shared(guest: GuestSketch, there: Sequence[GuestSketch]) -> Shared:
    """What of a guest merges with those who are there, with itself, and as pages of zeros."""
    zeros = max([guest.zeros, *(other.zeros for other in there)])
    sample = guest.at(zeros)
    known = sample & frozenset().union(*(other.at(zeros) for other in there))
    share = len(known) / len(sample) if sample else 0.0
    # A share of 0 or 1 in a small sample is no certainty: one content more either way.
    error = _TWO_SIGMA * sqrt(share * (1 - share) / len(sample)) + 1 / len(sample) if sample else 1.0

    def pages(known_share: float) -> int:
        own = guest.distinct_pages * (1 - min(1.0, max(0.0, known_share)))
        return guest.zero_pages + max(0, round(guest.filled_pages - own))

    return Shared(pages(share), pages(share - error), pages(share + error))


def value(key: bytes, content: int) -> str:
    """The hash of a content's 64-bit hash, with the key."""
    return blake2b(content.to_bytes(8, "little"), key=key, digest_size=VALUE_BYTES, person=b"sketch").hexdigest()


def key_id(key: bytes) -> str:
    """The name of a key, from which the key does not follow."""
    return blake2b(key=key, digest_size=8, person=b"name").hexdigest()


def places(key: bytes) -> tuple[int, int]:
    """Two numbers that decide which contents are sampled. Who does not know them cannot choose to be."""
    digest = blake2b(key=key, digest_size=16, person=b"sample").digest()
    return int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:], "little") | 1
