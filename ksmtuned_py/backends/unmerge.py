"""Giving every merged page back (run=2), in a throw-away child.

The kernel marks the process that writes run=2 as the OOM killer's first victim (mm/ksm.c, set_current_oom_origin),
so it must not be the daemon. Killing the child aborts the unmerging cleanly, and `run` then reads 0.
"""

import subprocess

from ksmtuned_py.door import Door
from ksmtuned_py.model import KSM_DIRECTORY


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
        """Whether the kernel is still at it."""
        return self._child.poll() is None

    @property
    def error(self) -> str:
        """Why it failed; '' while it runs and when it went well."""
        if self.running or self._child.returncode == 0:
            return ""
        assert self._child.stderr is not None
        return self._child.stderr.read().decode("utf-8", "replace").strip() or f"ended with {self._child.returncode}"

    def wait(self, timeout_seconds: float) -> bool:
        """Whether it ended within the time."""
        try:
            self._child.wait(timeout_seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def abort(self) -> None:
        """Stop it where it is; what was unmerged stays so. Harmless when it has ended."""
        self._child.kill()
        self._child.wait()
