"""The kernel's thread that merges: its CPU time, and how the scheduler treats it."""

import errno
import os
from collections.abc import Callable

from ksmtuned_py.config.cpus import cpus_of
from ksmtuned_py.door import Door
from ksmtuned_py.sensors.stat import is_kernel_thread, parse_nice, parse_schedstat, parse_waited
from ksmtuned_py.sensors.status import has_capability, parse_status

CAP_SYS_NICE = 23  # linux/capability.h


def find_ksmd(door: Door) -> int | None:
    """Returns the PID of ksmd; None when there is none to see. Any user may name a process so, but no kernel thread."""
    for name in filter(str.isdecimal, door.names("proc")):
        if door.read_if_there(f"proc/{name}/comm") == "ksmd\n":
            stat = door.read_if_there(f"proc/{name}/stat")
            if stat is not None and is_kernel_thread(stat):
                return int(name)
    return None


class KsmdThread:
    """ksmd, or nothing that can be told or changed where it is not to be seen."""

    def __init__(self, door: Door, pid: int | None) -> None:
        self._door = door
        self._pid = pid
        self._may_put_back = has_capability(door.read_if_there(f"proc/{os.getpid()}/status") or "", CAP_SYS_NICE)

    def cpu_seconds(self) -> float | None:
        """CPU time since boot."""
        return self._of_schedstat(parse_schedstat)

    def waited_seconds(self) -> float | None:
        """The time since boot for which it wanted a CPU and had none."""
        return self._of_schedstat(parse_waited)

    def nice(self) -> int | None:
        """Its nice value. None in any class but the usual one: who has put it there has a reason.

        None for another host's, too: its PID means another process here. And None without CAP_SYS_NICE, for root may
        put ksmd behind others without it, but not back.
        """
        if self._pid is None or self._door.root != "/" or not self._may_put_back:
            return None
        stat = self._door.read_if_there(f"proc/{self._pid}/stat")
        return None if stat is None else parse_nice(stat)

    def set_nice(self, nice: int) -> None:
        """Sets its nice value; raises OSError."""
        if self._pid is None or self.nice() is None:
            raise ProcessLookupError(errno.ESRCH, "ksmd is not to be seen here, or in a class of its own")
        os.setpriority(os.PRIO_PROCESS, self._pid, nice)

    def cpus(self) -> str | None:
        """The CPUs on which it may run, as 0-3,8; None where it is not to be seen, or another host's.

        Those that are offline count, too, which sched_getaffinity(2) leaves out: they come back, and it may run there.
        """
        if self._pid is None or self._door.root != "/":
            return None
        status = self._door.read_if_there(f"proc/{self._pid}/status")
        return None if status is None else parse_status(status).get("Cpus_allowed_list")

    def set_cpus(self, cpus: str) -> None:
        """Sets them; raises OSError, also where this host has not all of them."""
        before = self.cpus()
        if self._pid is None or before is None:
            raise ProcessLookupError(errno.ESRCH, "ksmd is not to be seen here")
        os.sched_setaffinity(self._pid, cpus_of(cpus))
        if self.cpus() != cpus:
            os.sched_setaffinity(self._pid, cpus_of(before))
            raise OSError(errno.EINVAL, "this host has not all of these CPUs")

    def _of_schedstat(self, parse: Callable[[str, str], float]) -> float | None:
        if self._pid is None:
            return None
        path = f"proc/{self._pid}/schedstat"
        text = self._door.read_if_there(path)
        return parse(text, self._door.path(path)) if text else None
