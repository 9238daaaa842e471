"""A host on the model whose guests stand for processes and libvirt's domains, for giving memory back."""

from collections.abc import Iterator
from dataclasses import replace
from threading import Event

from ksmtuned_py.backends.model import ModelBackend
from ksmtuned_py.daemon.machine import small_model
from ksmtuned_py.errors import Unreadable
from ksmtuned_py.host import Host
from ksmtuned_py.model import Counters, Guest, Knobs, Memory, Run, Write, WriteResult, WriteStatus
from ksmtuned_py.undo.giveback import Ways
from ksmtuned_py.undo.knobs import set_knobs
from ksmtuned_py.undo.unshare import PORTION_PAGES
from ksmtuned_py.undo.unsharing import NoAnswer, NotUnshared
from ksmtuned_py.units import GIB, MIB

ANSWER_SECONDS = 10.0


class Domains(ModelBackend):
    """The model, whose guests are domains, and whose memory a test may make short."""

    available_bytes: int | None = None
    spent_bytes = 0
    looks = 0
    pending: Iterator[float] = iter(())
    """The seconds that run=2 has worked at each look. While there are more, run=2 is pending."""
    worked_seconds = 0.0
    left: Counters | None = None
    """What is still merged after run=2, as the test says."""

    def counters(self) -> Counters:
        """The model's counters, or what the test says is left."""
        found = super().counters()
        return self.left if self.left and self.knobs().run is Run.UNMERGE else found

    def guests(self, now_seconds: float = 0.0) -> tuple[Guest, ...]:
        """The model's guests, each known to libvirt."""
        self.looks += 1
        return tuple(replace(guest, libvirt_age_seconds=0.0) for guest in super().guests(now_seconds))

    def memory(self) -> Memory:
        """The model's memory, or less of it."""
        memory = super().memory()
        if self.available_bytes is None:
            return memory
        return replace(memory, available_bytes=max(0, self.available_bytes - self.spent_bytes), swap_free_bytes=GIB)

    def write(self, write: Write) -> WriteResult:
        """Write as the model does, or after a while."""
        if write.new == 2 and (seconds := next(self.pending, None)) is not None:
            self.worked_seconds = seconds
            return WriteResult(write=write, status=WriteStatus.PENDING)
        return super().write(write)

    def unmerge_seconds(self) -> float:
        """The seconds that run=2 has worked, as the test says."""
        return self.worked_seconds


class Portions:
    """Stands for the unsharing of a guest. Each of its pages takes one of the host's."""

    def __init__(self, stage: "Stage", guest: Guest) -> None:
        assert guest.ksm is not None
        self.closed = False
        self._stage = stage
        self._name = guest.name
        self._left = 0 if guest.name in stage.alone else guest.ksm.merging_pages

    def merged_pages(self) -> int:
        if self._name in self._stage.unreadable:
            raise NotUnshared("not permitted")
        if self._name in self._stage.silent:
            raise NoAnswer("nothing has moved for 30 s")
        return self._left

    def go_on(self) -> tuple[int, int]:
        self._stage.answers.wait(ANSWER_SECONDS)
        pages = min(self._left, PORTION_PAGES)
        self._left -= pages
        self._stage.unshared[self._name] = self._stage.unshared.get(self._name, 0) + pages
        self._stage.domains.spent_bytes += pages * 4096
        return pages, pages if self._stage.unshares else 0

    def close(self) -> None:
        self.closed = True


class Stage:
    """A host with two merged guests, which remembers what was done to each."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.switched: list[tuple[str, bool]] = []
        self.said: list[str] = []
        self.went_on: list[str] = []
        self.failing: tuple[str, ...] = ()
        self.unreadable: tuple[str, ...] = ()
        self.silent: tuple[str, ...] = ()
        self.alone: tuple[str, ...] = ()
        """The guests whose merged pages nobody else has any more."""
        self.unshared: dict[str, int] = {}
        self.unshares = True
        self.rooms: dict[str, int] = {}
        self.portions: list[Portions] = []
        self.answers = Event()
        """Guests are given nothing while it is not set."""
        self.answers.set()
        self.domains = Domains(small_model(2, 64 * MIB), lambda: self.seconds)
        self.host = Host(self.domains, self.domains)
        set_knobs(self.host, Knobs(run=Run.MERGE, pages_to_scan=2000, sleep_millisecs=20))
        self.seconds += 4.0
        assert self.host.observe().saved_bytes > 16 * MIB

    @property
    def ways(self) -> Ways:
        return Ways(
            self.host,
            self.said.append,
            self.went_on.append,
            unshare=self.unshare,
            empty=self.switch,
            limit_bytes=lambda guest: self.rooms.get(guest.name),
        )

    @property
    def guest(self) -> Guest:
        return self.host.observe().guests[0]

    def unshare(self, guest: Guest) -> Portions:
        self.portions.append(Portions(self, guest))
        return self.portions[-1]

    def switch(self, guest: Guest, merge: bool) -> str:
        if guest.name in self.failing:
            raise Unreadable("monitor", "no")
        self.switched.append((guest.name, merge))
        return "read back"
