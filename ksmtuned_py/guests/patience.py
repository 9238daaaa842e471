"""Asking processes what they can only tell while their memory map is not locked, without waiting for those that can't.

Reading ksm_stat (since the kernel says ksm_mergeable) and cmdline waits for the process's memory map. MADV_UNMERGEABLE
keeps that locked for as long as it works: 0.4 s for each merged GiB (measured on 6.18), so minutes for a large guest.
"""

from collections.abc import Callable, Mapping
from threading import Thread
from typing import TypeVar

T = TypeVar("T")


class Patience:
    """Asks on a thread, and leaves a thread behind with the process that does not answer."""

    SECONDS = 0.1
    """Without one more answer; then another thread asks the rest."""
    STUCK_LIMIT = 8
    """Threads left behind; each ends when its process lets go of its memory map."""

    def __init__(self) -> None:
        self._stuck: dict[int, Thread] = {}

    def ask(self, questions: Mapping[int, Callable[[], T]]) -> dict[int, T]:
        """The answers by PID; those of stuck processes are missing."""
        self._stuck = {pid: thread for pid, thread in self._stuck.items() if thread.is_alive()}
        answers: dict[int, T] = {}
        for _ in range(self.STUCK_LIMIT - len(self._stuck)):
            rest = {pid: ask for pid, ask in questions.items() if pid not in answers and pid not in self._stuck}
            if not (rest and self._gets_stuck(rest, answers)):
                break
        return answers.copy()  # threads left behind still write to the other

    def stuck(self) -> list[str]:
        """The processes that do not answer, as sentences."""
        return [f"process {pid} does not answer: its memory map is locked" for pid in self._stuck]

    def _gets_stuck(self, questions: Mapping[int, Callable[[], T]], answers: dict[int, T]) -> bool:
        thread = Thread(target=_ask_all, args=(questions, answers), name="guests", daemon=True)
        thread.start()
        answered = -1
        while thread.is_alive() and answered < len(answers):
            answered = len(answers)
            thread.join(self.SECONDS)
        silent = next((pid for pid in questions if pid not in answers), None)
        if silent is None or not thread.is_alive():
            return False
        self._stuck[silent] = thread
        return True


def _ask_all(questions: Mapping[int, Callable[[], T]], answers: dict[int, T]) -> None:
    for pid, ask in questions.items():
        answers[pid] = ask()
