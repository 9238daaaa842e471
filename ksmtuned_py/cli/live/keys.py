"""Reads keys from what a terminal sends. Pure."""

import codecs
from collections.abc import Iterator

ESCAPE = "\x1b"
NAMES = {
    "\r": "enter",
    "\n": "enter",
    "\x7f": "backspace",
    "\b": "backspace",
    "\x0c": "redraw",
    "\x15": "erase",
    "\x04": "page down",
    "\x06": "page down",
    "\x02": "page up",
}
SEQUENCES = {
    "A": "up",
    "B": "down",
    "C": "right",
    "D": "left",
    "H": "home",
    "F": "end",
    "1~": "home",
    "7~": "home",
    "4~": "end",
    "8~": "end",
    "5~": "page up",
    "6~": "page down",
}
"""What follows ESC [ or ESC O: xterm's, the Linux console's, rxvt's."""
LONGEST = 16
"""The most that an escape sequence is waited for. Whoever sends more sends no key."""


class KeyReader:
    """Makes keys of bytes, which may come in any portions."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._rest = ""

    @property
    def is_within(self) -> bool:
        """Whether an escape sequence has begun. It may be the key Esc, if nothing more comes."""
        return self._rest != ""

    def after(self, data: bytes) -> list[str]:
        """The keys that are complete: a name of one, as 'page up', or the character itself."""
        self._rest += self._decoder.decode(data)
        return list(self._complete())

    def ended(self) -> list[str]:
        """The keys, if nothing more comes: Esc, where a sequence has begun."""
        begun, self._rest = self._rest, ""
        return ["escape"] if begun else []

    def _complete(self) -> Iterator[str]:
        while self._rest:
            if self._rest[0] != ESCAPE:
                one, self._rest = self._rest[0], self._rest[1:]
                yield NAMES.get(one, one)
                continue
            end = _end(self._rest)
            if end is None:
                return
            sequence, self._rest = self._rest[1:end], self._rest[end:]
            yield SEQUENCES.get(sequence[1:], "unknown") if sequence else "escape"


def _end(text: str) -> int | None:
    """Where the sequence at the beginning of the text ends; None while more may come.

    A sequence is ESC and '[' or 'O', and what follows up to a letter or '~'. Any other ESC is the key.
    """
    if len(text) == 1:
        return None
    if text[1] not in "[O":
        return 1
    for place, one in enumerate(text[2:LONGEST], 2):
        if one.isalpha() or one == "~" or not one.isprintable():
            return place + 1
    return LONGEST if len(text) >= LONGEST else None
