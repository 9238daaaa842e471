"""Asking processes what they can only tell while nobody holds their memory map, without waiting for those that can't.

Reading ksm_stat (since the kernel says ksm_mergeable), cmdline and smaps waits for the process's memory map.
MADV_UNMERGEABLE keeps that locked for as long as it works: 0.4 s for each merged GiB (measured on 6.18), so minutes for
a large guest; a page fault on a file of a dead NFS server, for as long as that is dead.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from threading import Thread
from typing import Generic, TypeVar

from ksmtuned_py.descriptors import begin
from ksmtuned_py.guests.process import Inside, Process

T = TypeVar("T")

NAMED = 3
"""Of processes that do not answer so many are named."""


class Patience:
    """Asks on a thread, and leaves a thread behind with the process that does not answer: one for each such process.

    Who may keep whom waiting is a question of who asks with which Patience: its limit is for those alone.
    """

    NEW_AT_ONCE = 3
    """So many may begin not to answer before the rest has to wait for the next time."""

    def __init__(self, limit: int = 32, seconds: float = 0.1) -> None:
        """Not more than `limit` threads are left behind; `seconds` without one more answer, and another thread asks."""
        self.limit = limit
        self._seconds = seconds
        self._silent: dict[int, Thread] = {}

    def ask(self, processes: Mapping[int, Process], question: Callable[[Inside], T]) -> dict[int, T]:
        """The answers by PID, asked in this order; those of processes that do not answer are missing."""
        self._silent = {pid: thread for pid, thread in self._silent.items() if thread.is_alive()}
        answers: dict[int, T] = {}
        for _ in range(min(self.NEW_AT_ONCE, self.limit - len(self._silent))):
            rest = {pid: one for pid, one in processes.items() if pid not in answers and pid not in self._silent}
            if not rest or not self._falls_silent(_Asking(rest, question, answers)):
                break
        return answers.copy()  # a thread left behind may still write to the other

    def silent(self) -> tuple[int, ...]:
        """The processes that do not answer."""
        return tuple(pid for pid, thread in self._silent.items() if thread.is_alive())

    def _falls_silent(self, asking: "_Asking[T]") -> bool:
        if not begin(asking):
            return False
        asked = -1
        while asking.is_alive() and asked < asking.asked:
            asked = asking.asked
            asking.join(self._seconds)
        if not asking.is_alive():
            return False
        asking.left_behind = True
        self._silent[asking.pid] = asking
        return True


def ask_one(process: Process, question: Callable[[Inside], T], seconds: float) -> T | None:
    """One process's answer for who asks only once; None when it did not come within the time."""
    return Patience(limit=1, seconds=seconds).ask({process.pid: process}, question).get(process.pid)


def unanswered(guests: Sequence[int], others: Sequence[int]) -> Iterator[str]:
    """What the admin is told of guests that do not answer, and of others that may be some."""
    for pid in guests[:NAMED]:
        yield f"process {pid} does not answer: its memory map is locked"
    if more := guests[NAMED:]:
        yield f"{len(more)} more guests do not answer"
    if others:
        verb = "processes do" if len(others) > 1 else "process does"
        named = ", ".join(map(str, sorted(others)[:NAMED])) + (" ..." if len(others) > NAMED else "")
        yield f"{len(others)} {verb} not answer (PID {named}): discovery is incomplete"


class _Asking(Thread, Generic[T]):
    """Asks one process after the other, until it is left behind with one."""

    def __init__(
        self, processes: Mapping[int, Process], question: Callable[[Inside], T], answers: dict[int, T]
    ) -> None:
        super().__init__(name="guests", daemon=True)
        self.pid = 0
        """Asked now."""
        self.asked = 0
        self.left_behind = False
        self._processes = processes
        self._question = question
        self._answers = answers

    def run(self) -> None:
        for pid, process in self._processes.items():
            self.pid = pid
            answer = self._question(Inside(process))
            if self.left_behind:
                return
            self._answers[pid] = answer
            self.asked += 1
