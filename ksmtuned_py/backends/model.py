"""The model of a host as a backend, in a clock's time, for tests, simulations, and a demo without any rights."""

from collections.abc import Callable

from ksmtuned_py.ksmdmodel.modelhost import ModelHost
from ksmtuned_py.model import Counters, Guest, Knobs, Memory, Vmstat, Write, WriteResult


class ModelBackend:
    """Drives the model's ksmd and says what its host is like, once it has caught up with the clock."""

    name = "model"

    def __init__(self, model: ModelHost, clock_seconds: Callable[[], float]) -> None:
        self.page_bytes = model.page_bytes
        self.cpus = model.cpus
        self._model = model
        self._clock_seconds = clock_seconds
        self._seen_seconds = clock_seconds()

    def knobs(self) -> Knobs:
        """Returns the settings as they are now."""
        return self._caught_up().knobs()

    def counters(self) -> Counters:
        """Returns what was merged and scanned so far."""
        return self._caught_up().counters()

    def scanner_cpu_seconds(self) -> float:
        """CPU time of the model's ksmd, in seconds."""
        return self._caught_up().scanner_cpu_seconds()

    def scanner_waited_seconds(self) -> float:
        """Always 0: the model's ksmd has a CPU to itself."""
        return 0.0

    def write(self, write: Write) -> WriteResult:
        """Sets one knob."""
        return self._caught_up().write(write)

    def unmerge_seconds(self) -> float:
        """Always 0: the model unmerges in no time."""
        return 0.0

    def abort(self) -> None:
        """Does nothing: the model unmerges in no time."""

    def close(self) -> None:
        """Does nothing, because the model has nothing open."""

    def memory(self) -> Memory:
        """Returns the model's memory now."""
        return self._caught_up().memory()

    def pressure(self) -> None:
        """Always None: nobody stalls in the model."""

    def cpu_pressure(self) -> None:
        """Always None: the model knows no other work."""

    def idle_seconds(self) -> None:
        """Always None: the model knows no other work."""

    def vmstat(self) -> Vmstat:
        """Returns the model's events so far."""
        return self._caught_up().vmstat()

    def guests(self, now_seconds: float = 0.0) -> tuple[Guest, ...]:  # noqa: ARG002 - the clock says when
        """Returns the model's guests."""
        return self._caught_up().guests()

    def suspects(self) -> tuple[str, ...]:
        """Always empty: no other program runs in the model."""
        return ()

    def problems(self) -> tuple[str, ...]:
        """Always empty: the model can always be looked at."""
        return ()

    def _caught_up(self) -> ModelHost:
        now = self._clock_seconds()
        self._model.advance(max(0.0, now - self._seen_seconds))
        self._seen_seconds = now
        return self._model
