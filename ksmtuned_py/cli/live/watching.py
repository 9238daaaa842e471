"""Looks again and again: at the daemon's word where one runs, else at the host itself."""

import socket
import time
from argparse import Namespace
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING

from ksmtuned_py.cli.live.past import Past
from ksmtuned_py.cli.live.sight import Sight
from ksmtuned_py.cli.options import runtime_of
from ksmtuned_py.cli.seen import daemons_word, is_alive, own_looks
from ksmtuned_py.cli.tell import first_line
from ksmtuned_py.door.text import printable
from ksmtuned_py.errors import KsmtunedError

if TYPE_CHECKING:
    from collections.abc import Callable

    from ksmtuned_py.publish.statusfile import Status

REST = 9
"""The pause after a look of our own, in times its length: it takes at most a tenth of a core, on whatever host."""


class Watching:
    """Knows what was seen so far."""

    def __init__(self, args: Namespace) -> None:
        self._args = args
        self._status_path = runtime_of(args).status_path
        self._written: tuple[int, int] | None = None
        """Which status file was read last. While that is there it need not be read again."""
        self._word: Status | None = None
        self._own = ExitStack()
        self._look: Callable[[], Status] | None = None
        self._past = Past()
        self._last: Sight | None = None
        self.next_seconds = 0.0
        """When the next look is due (monotonic seconds)."""

    def look(self) -> Sight:
        """What is seen now; raises KsmtunedError when the first look fails. Later, what was seen last says so."""
        began = time.monotonic()
        try:
            self._last = self._sight()
        except KsmtunedError as error:
            if self._last is None:
                raise
            self._last = replace(self._last, trouble=f"as it was: {error}", headline_style="red")
        took = time.monotonic() - began if self._word is None else 0.0
        self.next_seconds = time.monotonic() + max(self._args.interval, REST * took)
        return self._last

    def close(self) -> None:
        """Let go of the host."""
        self._look = None
        self._own.close()

    def _sight(self) -> Sight:
        word = self._word_now()
        if word is not None:
            self.close()
        status = word or self._own_look()
        self._past = self._past.after(status.snapshot)
        headline, style = first_line(status, word is not None)
        return Sight(status=status, host=host_name(), headline=headline, headline_style=style, past=self._past)

    def _word_now(self) -> "Status | None":
        """The daemon's word. It is read and checked again only when there is another."""
        written = self._stamp()
        if self._word is None or written != self._written:
            self._word, self._written = daemons_word(self._args), written
        elif not is_alive(self._word):
            self._word = None
        return self._word

    def _stamp(self) -> tuple[int, int] | None:
        try:
            found = self._status_path.stat()
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns

    def _own_look(self) -> "Status":
        if self._look is None:
            self._look = self._own.enter_context(own_looks(self._args))
        return self._look()


def host_name() -> str:
    """This host's name, without its domain."""
    return printable(socket.gethostname().partition(".")[0])
