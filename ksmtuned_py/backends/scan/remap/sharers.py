"""Other processes with the very same memory (clone with CLONE_VM, without CLONE_THREAD): they would not be stopped."""

from ksmtuned_py.backends.scan.process import KERNEL_THREAD, Process, kernel_flags
from ksmtuned_py.backends.scan.refusal import Refused
from ksmtuned_py.backends.scan.remap.system import same_memory
from ksmtuned_py.door import Door

_MOST_NEW = 500
"""Processes that are looked at while the guest stands still: about 2 us each."""


class Sharers:
    """Who shares the memory of a guest: every process of the host is asked, and in a stop only those that are new.

    Only who has that memory already can begin another process with it. So when the guest stood still once and nobody
    shared, what shares later has a higher number than any process had then.
    """

    def __init__(self, door: Door, process: Process) -> None:
        self._door = door
        self._pid = process.target.pid
        self._stood = self._looked = 0

    def stand(self) -> None:
        """To be told while the guest stands still: what it has begun so far can be seen."""
        self._stood = self._newest()

    def look_at_all(self) -> None:
        """Raises Refused when a process that had begun by then shares its memory."""
        for name in self._door.names("proc"):
            if name.isdecimal():
                self._look_at(int(name))
        self._looked = self._stood

    def look_at_new(self) -> None:
        """While the guest stands still: the same for those that have begun since; there must not be too many."""
        newest = self._newest()
        if not self._looked <= newest <= self._looked + _MOST_NEW:  # less: the numbers have begun again
            raise Refused("too many processes have begun meanwhile to see whether one of them shares its memory")
        for number in range(self._looked + 1, newest + 1):
            self._look_at(number)
        self._looked = newest

    def _newest(self) -> int:
        """The number that was given last to a process or thread of the host."""
        return int(self._door.read("proc/loadavg").split()[-1])

    def _look_at(self, number: int) -> None:
        try:
            same = same_memory(self._pid, number)
        except ProcessLookupError:
            return
        except PermissionError:  # some security module protects it
            same = any(self._size(number) == self._size(self._pid) for _ in range(3))
        except OSError as error:
            raise Refused(f"whether process {number} shares its memory cannot be known: {error.strerror}") from None
        if same and not self._is_stopped_or_kernels(number):
            raise Refused(f"process {number} shares its memory")

    def _is_stopped_or_kernels(self, number: int) -> bool:
        """A thread of the guest, or one of the kernel (vhost before Linux 6.4), which is seen by its device."""
        if self._door.exists(f"proc/{self._pid}/task/{number}"):
            return True
        stat = self._door.read_if_there(f"proc/{number}/stat")
        return stat is None or bool(kernel_flags(stat) & KERNEL_THREAD)

    def _size(self, number: int) -> str:
        """In pages; equal for two with the same memory, whenever it does not change in between."""
        return (self._door.read_if_there(f"proc/{number}/statm") or f"{number} has ended").split()[0]
