"""Reads the files of processes that may block, without waiting for a process whose memory map is locked.

Reading ksm_stat (since the kernel says ksm_mergeable), cmdline and smaps waits for the lock of the memory map.
MADV_UNMERGEABLE holds that lock while it works: 0.4 s for each merged GiB (measured on 6.18), minutes for a large
guest. A page fault on a file of a dead NFS server holds it while the server is dead.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from threading import Thread
from typing import Generic, TypeVar

from ksmtuned_py.door.descriptors import begin
from ksmtuned_py.guests.process import Inside, ProcessFiles

T = TypeVar("T")

THREAD_NAME = "guests"
NAMED = 3
"""The most silent processes that a sentence names."""


class Patience:
    """Asks processes on a thread, and leaves that thread behind with a process that does not answer.

    The limit is for those asked with this Patience. So only they can keep each other waiting.
    """

    NEW_AT_ONCE = 3
    """The most processes that may fall silent at one call. The others then wait for the next call."""

    def __init__(self, limit: int = 32, seconds: float = 0.1) -> None:
        """Leave at most `limit` threads behind. After `seconds` without one more answer another thread asks."""
        self.limit = limit
        self._seconds = seconds
        self._silent: dict[int, Thread] = {}

    def ask(self, processes: Mapping[int, ProcessFiles], question: Callable[[Inside], T]) -> dict[int, T]:
        """Ask the processes in their order, and return the answers by PID. Silent processes are missing in it."""
        self._silent = {pid: thread for pid, thread in self._silent.items() if thread.is_alive()}
        answers: dict[int, T] = {}
        for _ in range(min(self.NEW_AT_ONCE, self.limit - len(self._silent))):
            left = {pid: one for pid, one in processes.items() if pid not in answers and pid not in self._silent}
            if not left or not self._falls_silent(_Asking(left, question, answers)):
                break
        return answers.copy()  # a thread left behind may still write to ours

    def silent(self) -> tuple[int, ...]:
        """The PIDs of the processes that do not answer."""
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


class Errand(Generic[T]):
    """Asks one process on a thread, and nobody waits: whoever wants the answer comes back for it."""

    def __init__(self, process: ProcessFiles, question: Callable[[Inside], T]) -> None:
        """Begin to ask, where one more thread can be begun."""
        self._answers: dict[int, T] = {}
        self._asking = _Asking({process.pid: process}, question, self._answers)
        self._began = begin(self._asking)

    @property
    def on_its_way(self) -> bool:
        """Whether the process has not answered yet."""
        return self._began and self._asking.is_alive()

    @property
    def answer(self) -> T | None:
        """The answer; None as long as there is none."""
        return None if self.on_its_way else next(iter(self._answers.values()), None)


def ask_one(process: ProcessFiles, question: Callable[[Inside], T], seconds: float) -> T | None:
    """Ask one process once; None when no answer came within the time."""
    return Patience(limit=1, seconds=seconds).ask({process.pid: process}, question).get(process.pid)


def unanswered(guests: Sequence[int], others: Sequence[int]) -> Iterator[str]:
    """Sentences for the admin about guests that do not answer, and about other processes that may be guests."""
    for pid in guests[:NAMED]:
        yield f"process {pid} does not answer: its memory map is locked"
    if more := guests[NAMED:]:
        yield f"{len(more)} more guests do not answer"
    if others:
        verb = "processes do" if len(others) > 1 else "process does"
        named = ", ".join(map(str, sorted(others)[:NAMED])) + (" ..." if len(others) > NAMED else "")
        yield f"{len(others)} {verb} not answer (PID {named}): discovery is incomplete"


class _Asking(Thread, Generic[T]):
    """Asks one process after the other, until it is left behind with a silent one."""

    def __init__(
        self, processes: Mapping[int, ProcessFiles], question: Callable[[Inside], T], answers: dict[int, T]
    ) -> None:
        super().__init__(name=THREAD_NAME, daemon=True)
        self.pid = 0
        """The process that is asked now."""
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
