"""Picks the processes that are worth a look this time. It takes sets of PIDs and a time, and returns PIDs."""

from collections.abc import Iterable


class Rounds:
    """Picks new processes at once and at the next few looks, and all of them every so often, or as soon as it can."""

    YOUNG_LOOKS = 4
    """The looks at a new process, because it execs and asks for merging only shortly after its fork."""
    PER_LOOK = 1000
    """The most processes of a round at one look, so that none takes long. One process takes about 30 us (measured)."""

    def __init__(self, every_seconds: float) -> None:
        self._every_seconds = every_seconds
        self._next_seconds: float | None = None
        self._young: dict[int, int] = {}
        self._left: list[int] = []

    def again(self, pids: Iterable[int]) -> None:
        """Count these processes as new."""
        self._young.update(dict.fromkeys(pids, self.YOUNG_LOOKS))

    def due(self, pids: set[int], new: set[int], now_seconds: float) -> set[int]:
        """The PIDs of all `pids` that are due at this look; `new` were never looked at."""
        self.again(new)
        due = self._take_young() | self._take_round(pids, now_seconds)
        return due & pids

    def _take_young(self) -> set[int]:
        due = set(self._young)
        self._young = {pid: looks - 1 for pid, looks in self._young.items() if looks > 1}
        return due

    def _take_round(self, pids: set[int], now_seconds: float) -> set[int]:
        if self._next_seconds is None:  # at the first look every process is new
            self._next_seconds = now_seconds + self._every_seconds
        elif now_seconds >= self._next_seconds and not self._left:  # or the last ones would never have their turn
            self._next_seconds = now_seconds + self._every_seconds
            self._left = sorted(pids)
        due, self._left = self._left[: self.PER_LOOK], self._left[self.PER_LOOK :]
        return set(due)
