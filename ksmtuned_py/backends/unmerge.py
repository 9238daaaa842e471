"""Gives every merged page back (run=2), in a throw-away child.

The kernel marks the process that writes run=2 as the OOM killer's first victim (mm/ksm.c, set_current_oom_origin), so
it must not be the daemon. Killing the child aborts the unmerging cleanly, and `run` then reads 0.
"""

import subprocess
from contextlib import suppress

from ksmtuned_py.door import Door
from ksmtuned_py.model import KSM_DIRECTORY
from ksmtuned_py.sensors.stat import parse_schedstat

PATIENCE_SECONDS = 0.1
"""How long the end of a killed child is waited for: it comes at once, unless the child waits for a batch of ksmd's."""


class Unmerging:
    """One run=2 on its way. The child is coreutils' tee: small to start when memory is short, and no shell."""

    def __init__(self, door: Door) -> None:
        path = door.path(f"{KSM_DIRECTORY}/run")
        self._child = subprocess.Popen(
            ["tee", path], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        assert self._child.stdin is not None
        self._child.stdin.write(b"2")
        self._child.stdin.close()

    @property
    def running(self) -> bool:
        """Whether the kernel is still unmerging."""
        return self._child.poll() is None

    @property
    def cpu_seconds(self) -> float:
        """CPU time of the child in seconds; none passes while it waits."""
        text = Door().read_if_there(f"proc/{self._child.pid}/schedstat")
        return parse_schedstat(text) if text else 0.0

    @property
    def error(self) -> str | None:
        """Why the unmerging failed; None while it runs and when it went well."""
        if self.running or self._child.returncode == 0:
            return None
        assert self._child.stderr is not None
        return self._child.stderr.read().decode("utf-8", "replace").strip() or f"ended with {self._child.returncode}"

    def abort(self) -> None:
        """Stops the unmerging where it is; what was unmerged stays so. Does nothing when it has ended."""
        self._child.kill()
        with suppress(subprocess.TimeoutExpired):  # the child still waits for ksmd's mutex, and ends when it has it
            self._child.wait(PATIENCE_SECONDS)
