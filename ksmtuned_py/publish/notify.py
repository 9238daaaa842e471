"""What systemd is told over NOTIFY_SOCKET, and what it asked for.

The protocol is one datagram of text, and systemd promises to keep it (sd_notify(3)). So these few lines stand in for
systemd-python, which may be missing: a Type=notify service without them would be killed at its start.
"""

import os
import socket
import time
from collections.abc import Mapping

SEND_TIMEOUT_SECONDS = 1.0
EXTENSION_SECONDS = 60.0
"""What is waited after the last sign of progress."""


class Notifier:
    """Talks to the service manager; without one, or with one that does not listen, nothing happens."""

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        self._environ = environ

    def ready(self) -> None:
        """The service is up, or its reload is over."""
        self._send("READY=1")

    def status(self, text: str) -> None:
        """One line for `systemctl status`."""
        self._send(f"STATUS={' '.join(text.split())}")  # a line break would begin another assignment

    def extend_timeout(self, seconds: float) -> None:
        """The start or the stop goes on: it may last that much longer from now, whatever was configured."""
        self._send(f"EXTEND_TIMEOUT_USEC={round(seconds * 1e6)}")

    def goes_on(self, sentence: str) -> None:
        """Something takes long at the start or the end, and moves: it is to be waited for."""
        self.extend_timeout(EXTENSION_SECONDS)
        self.status(sentence)

    def watchdog(self) -> None:
        """The service is alive."""
        self._send("WATCHDOG=1")

    def reloading(self) -> None:
        """A reload has begun; ready() ends it."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """The service is on its way out."""
        self._send("STOPPING=1")

    def watchdog_interval_seconds(self) -> float | None:
        """How often to call watchdog(): half the time after which systemd kills us. None = it does not watch us."""
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
        except (OSError, ValueError):  # a path that is too long, or has a zero byte, is a ValueError or an OSError
            return
