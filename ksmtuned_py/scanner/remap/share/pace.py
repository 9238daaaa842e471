"""Sets how much is exchanged in one stop: as much as the last stops have shown to fit into the time."""

from collections import deque
from collections.abc import Iterator

from ksmtuned_py.scanner.remap.share.runs import PageRun

_LEAST_WORK = 32
_FIRST_WORK, _MOST_WORK = 256, 8192
_RUN_WORK = 16
"""What a run costs, however short, counted in pages: looking it up, comparing and mapping it."""
_AIM = 0.5
"""The share of the longest stop that is aimed at: on a busy host, what a window costs varies by a factor of two."""
_MOST_RUNS = 120
"""The most runs of one window: as many as the table of operations holds, with four pieces of advice each."""


class Pace:
    """The pace of stops of one length."""

    def __init__(self, longest_seconds: float) -> None:
        self._longest_seconds = longest_seconds
        self._work_per_window = _FIRST_WORK

    def portions(self, runs: list[PageRun]) -> Iterator[list[PageRun]]:
        """Yields as many runs at a time as fit into a stop."""
        left = deque(runs)
        while left:
            work = self._work_per_window
            some: list[PageRun] = []
            while left and work > _RUN_WORK and len(some) < _MOST_RUNS:
                run = left.popleft()
                work -= _RUN_WORK
                some.append(run.part(0, min(work, run.pages)))
                if run.pages > work:
                    left.appendleft(run.part(work, run.pages - work))
                work -= some[-1].pages
            yield some

    def took(self, runs: list[PageRun], seconds: float) -> None:
        """Takes in how long these runs took, without the time in which the guest waited for a processor to stop."""
        work = sum(run.pages + _RUN_WORK for run in runs)
        fits = work * self._longest_seconds * _AIM / seconds
        wanted = min(fits, self._work_per_window * 1.2)
        self._work_per_window = int(max(_LEAST_WORK, min(_MOST_WORK, wanted)))
