"""Shows what is seen on a full screen, and does what the keys say."""

import os
import signal
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

from ksmtuned_py.cli.live.fullscreen import FullScreen, full_screen
from ksmtuned_py.cli.live.picture import picture, rows_of
from ksmtuned_py.cli.live.sight import Sight
from ksmtuned_py.cli.live.viewing import Viewing
from ksmtuned_py.cli.terminal import out, stop_writing


class LiveScreen:
    """One full screen with its state."""

    def __init__(self, screen: FullScreen) -> None:
        self._screen = screen
        self._viewing = Viewing()
        self._sight: Sight | None = None

    def fileno(self) -> int:
        """A descriptor, readable when there is something to drain."""
        return self._screen.fileno()

    def show(self, sight: Sight) -> None:
        """Show what is seen now."""
        self._sight = sight
        self._screen.draw(picture(sight, self._viewing, *self._screen.size))

    @property
    def ended(self) -> signal.Signals | None:
        """The signal that ended it, of those that it was to heed."""
        return self._screen.ended

    @property
    def is_gone(self) -> bool:
        """Whether the terminal was hung up, so that nobody is left to be told."""
        return self._screen.is_gone

    @property
    def is_over(self) -> bool:
        """Whether somebody wants it to end, or nobody looks any more."""
        return self._viewing.is_over or self._screen.is_gone or self._screen.ended is not None

    def drain(self) -> bool:
        """Do what the keys say that came, and return whether it is over."""
        keys, sight = self._screen.drain(), self._sight
        if sight is not None and keys:
            for key in keys:
                rows, lines = rows_of(sight, self._viewing, *self._screen.size)
                self._viewing = self._viewing.after(key, sight.status.snapshot, rows, lines)
            if not self.is_over:
                self.show(sight)
        return self.is_over


@contextmanager
def live_screen(ending: Iterable[signal.Signals] = ()) -> Iterator[LiveScreen]:
    """Take the terminal for a with block. The signals end the screen; all others are somebody else's."""
    with full_screen(out(), ending, ascii_only=has_only_ascii(os.environ)) as screen:
        yield LiveScreen(screen)
    if screen.is_gone:
        stop_writing()


def can_live() -> bool:
    """Whether there is a terminal on which a cursor can be moved."""
    return sys.stdout is not None and sys.stdout.isatty() and os.environ.get("TERM", "dumb") not in {"dumb", "unknown"}


def has_only_ascii(environment: Mapping[str, str]) -> bool:
    """Whether a terminal can be expected to show no curves, by its kind and by the locale.

    Python puts LC_CTYPE=C.UTF-8 into a C locale (PEP 538), so that this alone says nothing of the terminal.
    """
    if environment.get("TERM") == "linux":  # its fonts have 256 or 512 characters
        return True
    all_, kind, usual = (environment.get(name, "") for name in ("LC_ALL", "LC_CTYPE", "LANG"))
    locale = all_ or (kind if kind != "C.UTF-8" else "") or usual
    return "utf" not in locale.casefold()
