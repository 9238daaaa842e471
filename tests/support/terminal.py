"""A program in a terminal of its own: its screen can be seen, its keys pressed, its size changed."""

import os
import pty
import signal
import subprocess
import termios
import time
from collections.abc import Mapping, Sequence
from typing import Any, Self

import pyte

from tests.support.process import wait_for

ALTERNATE, MAIN = b"\x1b[?1049h", b"\x1b[?1049l"


class DimScreen(pyte.Screen):
    """A screen that shows dim text as grey. pyte itself does not know dim."""

    def select_graphic_rendition(self, *attributes: int, **fields: Any) -> None:
        """Sets colours and attributes."""
        super().select_graphic_rendition(*(90 if each == 2 else each for each in attributes), **fields)


class Terminal:
    """The terminal, in a with block. The program in it is the leader of a session, as below ssh."""

    def __init__(
        self, command: Sequence[str], size: tuple[int, int] = (80, 24), environment: Mapping[str, str] | None = None
    ) -> None:
        """Starts the program; a size is columns and lines."""
        self._master, self._slave = pty.openpty()
        os.set_blocking(self._master, False)
        self.screen = DimScreen(*size)
        self._stream = pyte.ByteStream(self.screen)
        self.sent = b""
        """All that the program has written."""
        self._resize(*size)
        self._attributes = termios.tcgetattr(self._slave)
        usual = {**os.environ, "TERM": "xterm-256color", "LC_ALL": "C.UTF-8"}
        usual = {name: value for name, value in usual.items() if name not in {"NO_COLOR", "COLUMNS", "LINES"}}
        self.process = subprocess.Popen(
            ["setsid", "--ctty", *command],
            stdin=self._slave,
            stdout=self._slave,
            stderr=self._slave,
            env={**usual, **(environment or {})},
        )

    def text(self) -> str:
        """Returns what is on the screen now."""
        self._take()
        return "\n".join(self.screen.display)

    def wait(self, text: str, seconds: float = 20.0) -> str:
        """Waits until this is on the screen, and returns all that is."""
        return wait_for(lambda: text in self.text() and self.text(), seconds, f"{text!r} on:\n{self.text()}\n") or ""

    def wait_gone(self, text: str, seconds: float = 20.0) -> str:
        """Waits until this is no more on the screen, and returns what is."""
        return wait_for(lambda: text not in self.text() and self.text(), seconds, f"end of {text!r}") or ""

    def press(self, keys: str) -> None:
        """Presses keys, as the bytes that a terminal sends for them."""
        os.write(self._master, keys.encode())

    def hang_up(self) -> None:
        """Closes the window, as when a connection ends."""
        os.close(self._master)
        self._master = os.open(os.devnull, os.O_RDWR)

    def pause(self) -> None:
        """Gives the program a moment, and does not look."""
        time.sleep(0.02)

    def resize(self, columns: int, lines: int) -> None:
        """Makes the window larger or smaller."""
        self._take()
        self.screen.resize(lines, columns)
        self._resize(columns, lines)

    def _resize(self, columns: int, lines: int) -> None:
        termios.tcsetwinsize(self._master, (lines, columns))

    def end(self, number: signal.Signals | None = None, seconds: float = 10.0) -> int:
        """Waits for the program's end, after a signal perhaps, and returns its exit code."""
        if number is not None:
            self.process.send_signal(number)
        wait_for(lambda: self.text() and self.process.poll() is not None, seconds, f"end; on:\n{self.text()}\n")
        self._take()
        return self.process.returncode

    def is_restored(self) -> bool:
        """Whether the terminal is as before: its screen, its cursor, its line ends, and what it does with keys."""
        self._take()
        modes = termios.tcgetattr(self._slave) == self._attributes
        screens = self.sent.count(ALTERNATE) == self.sent.count(MAIN)
        return modes and screens and not self.screen.cursor.hidden and pyte.modes.DECAWM in self.screen.mode

    def _take(self) -> None:
        """Shows what was written since the last time."""
        try:
            while data := os.read(self._master, 65536):
                self.sent += data
                self._stream.feed(data)
        except (BlockingIOError, OSError):
            return

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._master)
        os.close(self._slave)
