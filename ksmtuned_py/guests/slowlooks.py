"""Reads what costs too much for every tick: a process's descriptors, and the flags of its mappings.

These looks have a budget of CPU time. A share of a core is saved up, and a look that took more is followed by waiting.
Reading smaps walks page tables, 20 ms for each GiB in pages of 4 KiB (measured). A list of descriptors takes 0.1 ms.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress

from ksmtuned_py.door import Door
from ksmtuned_py.errors import Garbage, KsmtunedError
from ksmtuned_py.guests.evidence import KVM_LINKS, Clue, is_flagged
from ksmtuned_py.guests.patience import Patience
from ksmtuned_py.guests.process import Inside, ProcessFiles

SHARE = 0.0009
"""The share of a core for all slow looks, 0.1 % with what is around them. With more processes a round takes longer."""
FIRST_SECONDS = 0.2
"""The budget at the start, when every process is new."""
MOST_SECONDS = 0.06
"""The most that is saved up while there is nobody to look at, a minute's worth."""
LIBVIRT_PIDS = "run/libvirt/qemu"
ASK_LIBVIRT_SECONDS = 60.0
DESCRIPTORS_MAX = 2000
"""The most descriptors read of one process. A virtual machine's own are among its first."""


class SlowLooks:
    """A queue of processes.

    First come the new ones, the largest first, as guests are; then the longest not looked at.
    """

    def __init__(self, door: Door, page_bytes: int, meter: Callable[[], float] = time.thread_time) -> None:
        """Begin with an empty queue. `meter` tells the CPU seconds of the thread that calls it."""
        self.spent_seconds = 0.0
        self._door = door
        self._page_bytes = page_bytes
        self._meter = meter
        self._patience = Patience()
        self._queue: dict[int, int] = {}
        self._looked_seconds: dict[int, float] = {}
        self._allowance_seconds = FIRST_SECONDS
        self._at_seconds: float | None = None
        self._libvirts: set[int] = set()
        self._asked_seconds: float | None = None

    def queue(self, pids: Iterable[int]) -> None:
        """Add these processes to the queue, unless they have no memory."""
        with self._paid():
            for pid in pids:
                if pid not in self._queue:
                    self._add(pid)

    def _add(self, pid: int) -> None:
        with suppress(Garbage):
            if sizes := ProcessFiles(self._door, pid).sizes_pages():
                self._queue[pid] = sizes[1] * self._page_bytes

    def forget(self, pid: int) -> None:
        """Drop a process that is gone."""
        self._queue.pop(pid, None)
        self._looked_seconds.pop(pid, None)

    def _turn(self, pid: int) -> tuple[float, int]:
        return self._looked_seconds.get(pid, float("-inf")), -self._queue[pid]

    def look(self, now_seconds: float, wants_flags: Callable[[int], bool]) -> dict[int, Clue]:
        """Look at as many processes as the budget allows, and return what was seen by PID."""
        since = now_seconds if self._at_seconds is None else self._at_seconds
        self._at_seconds = now_seconds
        earned = max(0.0, now_seconds - since) * SHARE
        self._allowance_seconds = min(self._allowance_seconds + earned, max(MOST_SECONDS, self._allowance_seconds))
        if not self._queue or self._allowance_seconds <= 0:
            return {}
        with self._paid():
            self._ask_libvirt(now_seconds)
            return self._look_at_some(now_seconds, wants_flags)

    def _look_at_some(self, now_seconds: float, wants_flags: Callable[[int], bool]) -> dict[int, Clue]:
        clues: dict[int, Clue] = {}
        for pid in sorted(self._queue, key=self._turn):
            if self._allowance_seconds <= 0:
                break
            self._looked_seconds[pid] = now_seconds
            look = self._metered(pid, self._queue.pop(pid), flags=wants_flags(pid))
            found = self._patience.ask({pid: ProcessFiles(self._door, pid)}, look)
            if not found:
                break  # one silent process is enough waiting for one look
            clues |= found
        return clues

    def _ask_libvirt(self, now_seconds: float) -> None:
        """Read the files in which libvirt keeps the PID of each domain."""
        if self._asked_seconds is not None and now_seconds - self._asked_seconds < ASK_LIBVIRT_SECONDS:
            return
        self._asked_seconds = now_seconds
        self._libvirts.clear()
        for name in self._door.names(LIBVIRT_PIDS):
            if name.endswith(".pid"):
                with suppress(KsmtunedError):
                    self._libvirts.add(self._door.read_int(f"{LIBVIRT_PIDS}/{name}") or 0)

    def _metered(self, pid: int, resident_bytes: int, *, flags: bool) -> Callable[[Inside], Clue]:
        def look(inside: Inside) -> Clue:
            with self._paid():
                seen = _look(inside, flags=flags)
                return seen._replace(resident_bytes=resident_bytes, is_libvirts=pid in self._libvirts)

        return look

    @contextmanager
    def _paid(self) -> Iterator[None]:
        """Charge the CPU time that this thread uses in a with block to the budget."""
        began = self._meter()
        try:
            yield
        finally:
            seconds = self._meter() - began
            self.spent_seconds += seconds
            self._allowance_seconds -= seconds


def _look(inside: Inside, *, flags: bool) -> Clue:
    has_kvm = any(KVM_LINKS.match(link) for link in inside.links(DESCRIPTORS_MAX))
    smaps = inside.read("smaps") if flags and not has_kvm else None
    return Clue(
        words=inside.words(),
        cgroups=inside.read("cgroup") or "",
        has_kvm=has_kvm,
        is_flagged=is_flagged(smaps) if smaps else None,
    )
