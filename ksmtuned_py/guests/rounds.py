"""Which processes are worth a look this time. PURE: sets of PIDs and a time in, PIDs out."""

from collections.abc import Iterable


class Rounds:
    """New processes at once and at the next few looks, all of them every so often."""

    YOUNG_LOOKS = 4
    """A process execs, and asks for merging, shortly after its fork: the first look and three more."""
    PER_LOOK = 1000
    """Of a round over all processes, so that no look takes long: about 30 us each (measured)."""

    def __init__(self, every_seconds: float) -> None:
        self._every_seconds = every_seconds
        self._next_seconds: float | None = None
        self._young: dict[int, int] = {}
        self._left: list[int] = []

    def again(self, pids: Iterable[int]) -> None:
        """Count these as new."""
        self._young.update(dict.fromkeys(pids, self.YOUNG_LOOKS))

    def due(self, pids: set[int], new: set[int], now_seconds: float) -> set[int]:
        """Those of all `pids` that this look is for; `new` are the ones never looked at."""
        self.again(new)
        due = self._take_young() | self._take_round(pids, now_seconds)
        return due & pids

    def _take_young(self) -> set[int]:
        due = set(self._young)
        self._young = {pid: looks - 1 for pid, looks in self._young.items() if looks > 1}
        return due

    def _take_round(self, pids: set[int], now_seconds: float) -> set[int]:
        if self._next_seconds is None:  # the first look is at everything anyway
            self._next_seconds = now_seconds + self._every_seconds
        elif now_seconds >= self._next_seconds:
            self._next_seconds = now_seconds + self._every_seconds
            self._left = sorted(pids)
        due, self._left = self._left[: self.PER_LOOK], self._left[self.PER_LOOK :]
        return set(due)
