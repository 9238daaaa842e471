"""Makes a terminal one screen: keys come one by one, and lines are drawn in place.

The terminal is as it was on every way out: at the end, at an error, at SIGTERM, SIGINT and SIGHUP, and while we are
stopped. One that takes no output, as over a stalled connection, holds nothing up: older pictures are left out then.
"""

import fcntl
import os
import select
import signal
import sys
import termios
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from io import StringIO
from types import FrameType
from typing import Any

from rich.console import Console
from rich.text import Text

from ksmtuned_py.cli.live.keys import KeyReader
from ksmtuned_py.cli.live.strokes import in_ascii

ENTER = b"\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[2J"
"""The alternate screen, without a cursor, where a line that is too long goes on nowhere."""
LEAVE = b"\x18\x1b[0m\x1b[2J\x1b[H\x1b[?7h\x1b[?25h\x1b[?1049l"
"""The same back. What was cut short is cancelled first. A terminal without an alternate screen is left empty."""
LEAVE_SECONDS = 0.5
"""The time that a stalled terminal has to take LEAVE."""
ESCAPE_SECONDS = 0.05
"""The time in which the rest of an escape sequence comes."""
PORTION_BYTES = 512
MOST_KEYS = 64
"""The most that is read at once: what is pasted by mistake holds up no tick of demo's daemon."""
FALLBACK_SIZE = (80, 24)
REDRAW = "redraw"
Attributes = list[Any]
"""What termios has of a terminal: six numbers, and its special characters."""


class FullScreen:
    """The terminal on standard output. Its keys are read there, too, whatever standard input is."""

    def __init__(self, console: Console, ending: Iterable[signal.Signals], *, ascii_only: bool) -> None:
        """The signals that are to end it are remembered in `ended`. Nobody else may handle them meanwhile."""
        self.ended: signal.Signals | None = None
        self.is_gone = False
        """Whether nobody is at the terminal any more."""
        self._painter, self._ascii_only = _painter(console.color_system), ascii_only
        self._terminal = _opened_anew(sys.stdout.fileno())
        self._is_read = fcntl.fcntl(self._terminal, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDWR
        self._attributes = termios.tcgetattr(self._terminal)
        self._keys = KeyReader()
        self._came: set[int] = set()
        self._wake, self._waker = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._poll = select.epoll()
        self._poll.register(self._wake, select.EPOLLIN)
        self._poll.register(self._terminal, 0)
        self._drawn: list[str] = []
        self._wanted: list[str] = []
        self._drawn_size = (0, 0)
        self._left = b""
        """What the terminal has not taken yet."""
        numbers = {signal.SIGWINCH, signal.SIGTSTP, signal.SIGCONT, *ending}
        self._old_handlers = {number: signal.signal(number, self._note) for number in numbers}
        self._old_waker = signal.set_wakeup_fd(self._waker, warn_on_full_buffer=False)
        if self._old_waker != -1:
            signal.set_wakeup_fd(self._old_waker)  # who has it wakes, and our handlers are called then

    def fileno(self) -> int:
        """A descriptor, readable when there is something to drain."""
        return self._poll.fileno()

    @property
    def size(self) -> tuple[int, int]:
        """The columns and lines."""
        with suppress(OSError):
            columns, lines = os.get_terminal_size(self._terminal)
            if columns and lines:  # a serial line does not know
                return columns, lines
        return FALLBACK_SIZE

    def enter(self) -> None:
        """Take the terminal. In the background this stops us, until we are in front."""
        try:
            termios.tcsetattr(self._terminal, termios.TCSANOW, _key_by_key(self._attributes))
        except termios.error:  # it was hung up, which continues whoever is stopped
            self.is_gone = True
        self._drawn, self._left = [], ENTER
        self._write()

    def leave(self) -> None:
        """Give the terminal back."""
        with suppress(OSError, termios.error):
            if self._left:
                termios.tcflush(self._terminal, termios.TCOFLUSH)
            left = LEAVE
            while left and _is_ready(self._terminal, select.POLLOUT, LEAVE_SECONDS):
                left = left[os.write(self._terminal, left) :]
        with suppress(termios.error):
            termios.tcsetattr(self._terminal, termios.TCSANOW, self._attributes)

    def close(self) -> None:
        """Put the handlers of signals back, and close what was opened."""
        signal.set_wakeup_fd(self._old_waker)
        for number, handler in self._old_handlers.items():
            signal.signal(number, handler)
        self._poll.close()
        for descriptor in (self._wake, self._waker, self._terminal):
            os.close(descriptor)

    def draw(self, lines: list[Text]) -> None:
        """Draw these lines, from the top. Only those that changed are written."""
        if self._ascii_only:
            lines = [in_ascii(line) for line in lines]
        with self._painter.capture() as captured:
            self._painter.print(Text("\n").join(lines), end="")
        if self.size != self._drawn_size:
            self._drawn, self._drawn_size = [], self.size
        self._wanted = captured.get().split("\n")
        self._write()

    def drain(self) -> list[str]:
        """The keys that came; 'redraw' when the picture has to be made anew. Signals are heeded."""
        keys: list[str] = []
        for descriptor, events in self._poll.poll(0):
            if descriptor == self._wake:
                os.read(self._wake, 4096)
            elif events & (select.EPOLLHUP | select.EPOLLERR):
                self.is_gone = True
            elif events & select.EPOLLIN:
                keys += self._read()
        keys += self._heeded()
        if REDRAW in keys:
            self._drawn = []  # whoever asks for keys draws then
        else:
            self._write()
        return keys

    def _read(self) -> list[str]:
        keys = self._keys.after(self._received())
        if self._keys.is_within and _is_ready(self._terminal, select.POLLIN, ESCAPE_SECONDS):
            keys += self._keys.after(self._received())
        return keys + (self._keys.ended() if self._keys.is_within else [])

    def _received(self) -> bytes:
        try:
            data = os.read(self._terminal, MOST_KEYS)
        except BlockingIOError:
            return b""
        except OSError:  # it was hung up
            data = b""
        self.is_gone = self.is_gone or not data
        return data

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self._came.add(number)
        with suppress(BlockingIOError):
            os.write(self._waker, b"\0")

    def _heeded(self) -> list[str]:
        """Heed the signals that came, and say whether the picture has to be made anew."""
        came, self._came = self._came, set()
        if signal.SIGTSTP in came:
            self._stop()
        elif signal.SIGCONT in came:
            self.enter()
        for number in came - {signal.SIGTSTP, signal.SIGCONT, signal.SIGWINCH}:
            self.ended = self.ended or signal.Signals(number)
        return [REDRAW] if came else []

    def _stop(self) -> None:
        """Be stopped with the terminal as it was, and go on in front again."""
        self.leave()
        handler = signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        signal.raise_signal(signal.SIGTSTP)
        signal.signal(signal.SIGTSTP, handler)
        self._came.discard(signal.SIGCONT)
        self.enter()

    def _write(self) -> None:
        """Write what the terminal takes now. The newest picture begins when the one before is out."""
        try:
            while True:
                if not self._left:
                    self._left = _changes(self._drawn, self._wanted)
                    self._drawn = self._wanted
                if not self._left or not _is_ready(self._terminal, select.POLLOUT, 0):
                    break
                self._left = self._left[os.write(self._terminal, self._left[:PORTION_BYTES]) :]
        except BlockingIOError:
            pass
        except OSError:
            self._left, self.is_gone = b"", True
        self._poll.modify(
            self._terminal, (select.EPOLLIN if self._is_read else 0) | (select.EPOLLOUT if self._left else 0)
        )


@contextmanager
def full_screen(console: Console, ending: Iterable[signal.Signals] = (), *, ascii_only: bool) -> Iterator[FullScreen]:
    """Take the terminal for a with block."""
    screen = FullScreen(console, ending, ascii_only=ascii_only)
    try:
        screen.enter()
        yield screen
    finally:
        screen.leave()
        screen.close()


def _painter(colours: str | None) -> Console:
    """A console that only makes escape sequences. The one on standard output fails when that is hung up."""
    kind: Any = colours  # rich has a list of the names that this is one of
    return Console(
        file=StringIO(),
        force_terminal=True,
        color_system=kind,
        markup=False,
        emoji=False,
        highlight=False,
        soft_wrap=True,
    )


def _opened_anew(descriptor: int) -> int:
    """A descriptor that never waits for the terminal. Changing this one would change it for the shell, too."""
    try:
        return os.open(os.ttyname(descriptor), os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:  # a container may lack its name, another user's may not be opened: then portions are small
        return os.dup(descriptor)


def _key_by_key(attributes: Attributes) -> Attributes:
    """The attributes with which keys come at once and are not shown. Ctrl-C and Ctrl-Z are signals, as before."""
    before, local, after = attributes[:3], attributes[3], attributes[4:]
    assert isinstance(local, int)
    return [*before, local & ~(termios.ECHO | termios.ICANON), *after]


def _is_ready(descriptor: int, event: int, seconds: float) -> bool:
    poll = select.poll()
    poll.register(descriptor, event)
    return bool(poll.poll(seconds * 1000))


def _changes(before: list[str], after: list[str]) -> bytes:
    """What makes one picture of another on the terminal."""
    changed = (
        f"\x1b[{row};1H\x1b[K{line}"
        for row, line in enumerate(after, 1)
        if row > len(before) or before[row - 1] != line
    )
    return "".join(changed).encode(errors="replace")
