"""A host on the model whose guests have split huge pages, for giving them back."""

from dataclasses import replace
from threading import Event

from ksmtuned_py.backends.model import ModelBackend
from ksmtuned_py.daemon.machine import small_model
from ksmtuned_py.host import Host
from ksmtuned_py.model import Guest, Memory, Run, Write
from ksmtuned_py.model.hugeplan import Portion, Survey
from ksmtuned_py.undo.hugeback import HugeWays, NotHuge, Pieces
from ksmtuned_py.units import GIB

PAGE, RANGE_PAGES = 4096, 512
ANSWER_SECONDS = 10.0
RANGE_BYTES = PAGE * RANGE_PAGES


class Backend(ModelBackend):
    """The model, with so much available memory as the test says, less what was given back."""

    available_bytes = 10 * GIB

    def memory(self) -> Memory:
        """The model's memory, or less of it."""
        return replace(super().memory(), total_bytes=16 * GIB, available_bytes=self.available_bytes)


class HugeStage:
    """A host whose guests have so many ranges with so many merged pages each."""

    def __init__(self) -> None:
        self.backend = Backend(small_model(), lambda: 0.0)
        self.backend.write(Write(knob="run", old=Run.MERGE, new=Run.STOP))
        self.host = Host(self.backend, self.backend)
        self.split = {10: 20, 100: 20, 400: 20}
        self.open = 0
        self.limit_bytes: int | None = None
        self.fails: dict[str, str] = {}
        """By the guest's name, why it cannot be looked at."""
        self.breaks = False
        self.asked = 0
        self.answers = Event()
        """Guests answer only while it is set."""
        self.answers.set()

    def ways(self, comfort_bytes: int = 5 * GIB) -> HugeWays:
        """The ways on this host."""
        return HugeWays(self.host, self.pieces, comfort_bytes, lambda _: self.limit_bytes)

    def pieces(self, guest: Guest) -> Pieces:
        """The ranges of a guest."""
        self.open += 1
        return FakePieces(self, guest.name)

    def scans(self) -> None:
        """Have ksmd scan."""
        self.backend.write(Write(knob="run", old=Run.STOP, new=Run.MERGE))


class FakePieces:
    """Stands for the child that collapses ranges. Each merged page takes one of the host's."""

    def __init__(self, stage: HugeStage, name: str) -> None:
        self._stage = stage
        self._name = name

    def survey(self) -> Survey:
        if problem := self._stage.fails.get(self._name):
            raise NotHuge(problem)
        counts = self._stage.split
        return Survey(range_pages=RANGE_PAGES, split=tuple(counts.get(merged, 0) for merged in range(RANGE_PAGES + 1)))

    def go_on(self, bound: int, count: int) -> Portion:
        self._stage.asked += 1
        if self._stage.breaks:
            raise OSError("broken")
        self._stage.answers.wait(ANSWER_SECONDS)
        told = Portion(cpu_seconds=0.01)
        for merged in sorted(self._stage.split):
            while merged <= bound and self._stage.split[merged] and told.given < count:
                self._stage.split[merged] -= 1
                self._stage.backend.available_bytes -= merged * PAGE
                told.given, told.paid = told.given + 1, told.paid + merged
        told.more = told.given == count
        return told

    def close(self) -> None:
        self._stage.open -= 1
