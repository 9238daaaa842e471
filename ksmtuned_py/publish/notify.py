"""Tells systemd over NOTIFY_SOCKET how the service is, and reads what systemd asks for.

The protocol is one datagram of text, and systemd promises to keep it (sd_notify(3)). So these few lines stand in for
systemd-python, which may be missing. A Type=notify service that says nothing is killed at its start.
"""

import os
import socket
import time
from collections.abc import Mapping

SEND_TIMEOUT_SECONDS = 1.0
EXTENSION_SECONDS = 60.0
"""The time that systemd is asked to wait after the last sign of progress."""


class Notifier:
    """Talks to the service manager. Without one, or with one that does not listen, nothing happens."""

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        self._environ = environ

    def ready(self) -> None:
        """Tell that the service is up, or that its reload is over."""
        self._send("READY=1")

    def status(self, text: str) -> None:
        """Tell one line for `systemctl status`."""
        self._send(f"STATUS={' '.join(text.split())}")  # a line break would begin another assignment

    def extend_timeout(self, seconds: float) -> None:
        """Ask for that much more time from now for the start or the stop, whatever was configured."""
        self._send(f"EXTEND_TIMEOUT_USEC={round(seconds * 1e6)}")

    def goes_on(self, sentence: str) -> None:
        """Tell that the start or the stop takes long but moves, and ask for more time."""
        self.extend_timeout(EXTENSION_SECONDS)
        self.status(sentence)

    def watchdog(self) -> None:
        """Tell that the service is alive."""
        self._send("WATCHDOG=1")

    def reloading(self) -> None:
        """Tell that a reload has begun. ready() ends it."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """Tell that the service is about to end."""
        self._send("STOPPING=1")

    def watchdog_interval_seconds(self) -> float | None:
        """The time between two calls of watchdog(), half of that after which systemd kills us. None = no watchdog."""
        if self._environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
            return None
        microseconds = self._environ.get("WATCHDOG_USEC", "")
        return int(microseconds) / 2e6 if microseconds.isdecimal() and int(microseconds) else None

    def _send(self, text: str) -> None:
        path = self._environ.get("NOTIFY_SOCKET", "")
        if not path.startswith(("/", "@")):
            return
        address = "\0" + path[1:] if path.startswith("@") else path
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
                channel.settimeout(SEND_TIMEOUT_SECONDS)  # a manager that hangs must not hold up a tick for longer
                channel.sendto(text.encode("utf-8", "replace"), address)
        except (OSError, ValueError):  # a path that is too long or has a zero byte raises either
            return
