"""Finds other processes with the very same memory, or the very same open files, which would not be stopped.

Such are begun by clone(2) with CLONE_VM or CLONE_FILES, and without CLONE_THREAD.
"""

from ksmtuned_py.door import Door
from ksmtuned_py.scanner.process import Process
from ksmtuned_py.scanner.refusal import Refused
from ksmtuned_py.scanner.remap.stop.system import in_common
from ksmtuned_py.sensors.stat import is_kernel_thread

_MOST_NEW = 500
"""The most processes that are checked while the guest stands still, at about 3 us each."""


class Sharers:
    """Finds processes that share a guest's memory or files: once among all, and in a stop only among new ones.

    Only a process that has them can begin another one with them. So if nobody shared them when the guest once stood
    still, a process that shares them later has a higher number than any had then.
    """

    def __init__(self, door: Door, process: Process) -> None:
        self._door = door
        self._pid = process.target.pid
        self._stood = self._checked = 0

    def stand(self) -> None:
        """Notes, while the guest stands still, the newest process of the host, for `check_all` and `check_new`."""
        self._stood = self._newest()

    def check_all(self) -> None:
        """Raises Refused when a process that had begun at `stand` shares its memory or files."""
        for name in self._door.names("proc"):
            if name.isdecimal():
                self._check(int(name))
        self._checked = self._stood

    def check_new(self) -> None:
        """Raises Refused, while the guest stands still, when a newer process shares them, or too many are new."""
        newest = self._newest()
        if not self._checked <= newest <= self._checked + _MOST_NEW:  # smaller, because the numbers have begun again
            raise Refused("too many processes have begun meanwhile to see whether one of them shares its memory")
        for number in range(self._checked + 1, newest + 1):
            self._check(number)
        self._checked = newest

    def _newest(self) -> int:
        """Returns the number that was given last to a process or thread of the host."""
        return int(self._door.read("proc/loadavg").split()[-1])

    def _check(self, number: int) -> None:
        try:
            what = in_common(self._pid, number)
        except ProcessLookupError:
            return
        except PermissionError:  # some security module protects it
            what = "memory" if any(self._size(number) == self._size(self._pid) for _ in range(3)) else None
        except OSError as error:
            raise Refused(f"whether process {number} shares its memory cannot be known: {error.strerror}") from None
        if what and not self._is_stopped_or_kernels(number):
            raise Refused(f"process {number} shares its {what}")

    def _is_stopped_or_kernels(self, number: int) -> bool:
        """Whether it is a thread of the guest, or of the kernel (vhost before Linux 6.4), which its device shows."""
        if self._door.exists(f"proc/{self._pid}/task/{number}"):
            return True
        stat = self._door.read_if_there(f"proc/{number}/stat")
        return stat is None or is_kernel_thread(stat)

    def _size(self, number: int) -> str:
        """Returns its size in pages, which is equal for two with the same memory while it does not change."""
        return (self._door.read_if_there(f"proc/{number}/statm") or f"{number} has ended").split()[0]
