"""Gives everything back beside the ticks, on a thread of its own, and leaves off when nobody wants it any more."""

import threading
from collections.abc import Callable
from dataclasses import dataclass

from ksmtuned_py.backends.base import Backend
from ksmtuned_py.door.descriptors import begin
from ksmtuned_py.errors import KsmtunedError, NoThread
from ksmtuned_py.host import Host, Senses
from ksmtuned_py.model import Memory, Snapshot, Write, WriteResult, WriteStatus
from ksmtuned_py.undo.giveback import Say, Ways, give_back
from ksmtuned_py.units import human_seconds

RETRY_SECONDS, RETRY_MAX_SECONDS = 3600.0, 86_400.0
"""The wait after something had to stay merged, and the longest: each time it takes twice as long.

A helper takes 0.08 s of CPU time for each guest (measured), and to look for merged pages takes a minute for a TiB.
"""


@dataclass(eq=False)
class CalledOff(KsmtunedError):
    """Nobody wants memory given back any more."""

    template = "nobody wants it any more"


class Handle(Host):
    """A second handle on the same machine, for one round. Once called off, it lets nobody go on."""

    def __init__(self, backend: Backend, senses: Senses) -> None:
        super().__init__(backend, senses)
        self._lock = threading.Lock()
        self._called_off = False

    def call_off(self) -> None:
        """Let nobody go on from now on. A write on its way is waited for, which takes 100 ms at most."""
        with self._lock:
            self._called_off = True

    def memory(self) -> Memory:
        """The host's memory, which is read before each step; raises CalledOff."""
        self._check()
        return super().memory()

    def write(self, write: Write) -> WriteResult:
        """Carry out one write; raises CalledOff."""
        with self._lock:
            self._check()
            return super().write(write)

    def _check(self) -> None:
        if self._called_off:
            raise CalledOff


class Round:
    """One try to give everything back."""

    def __init__(self, handle: Handle, ways: Callable[[Host, Say], Ways], seen: Snapshot) -> None:
        """Begin it with the guests that were seen; raises NoThread."""
        self.told = "memory is given back"
        self.problem: str | None = None
        self._handle = handle
        self._ways = ways(handle, self._tell)
        self._seen = seen
        self._thread = threading.Thread(target=self._run, name="give-back", daemon=True)
        if not begin(self._thread):
            raise NoThread

    @property
    def running(self) -> bool:
        """Whether it is not over yet."""
        return self._thread.is_alive()

    def call_off(self) -> None:
        """Have it end. It writes nothing more, but may still wait for a guest that does not answer."""
        self._handle.call_off()

    def _tell(self, sentence: str) -> None:
        self.told = sentence

    def _run(self) -> None:
        try:
            give_back(self._ways, self._seen)
        except Exception as error:  # whatever it is, the next tick tells it
            self.problem = str(error) or type(error).__name__


class GivingBack:
    """Carries out a write of run=2, which the policy repeats for as long as it wants it. One round goes at a time."""

    def __init__(self, backend: Backend, senses: Senses, ways: Callable[[Host, Say], Ways]) -> None:
        """`ways` makes the ways of one round from its handle, and from who hears how far it is."""
        self._backend = backend
        self._senses = senses
        self._ways = ways
        self._round: Round | None = None
        self._called_off: Round | None = None
        self._refused: str | None = None
        self._rest_seconds = RETRY_SECONDS
        self._not_before_seconds = 0.0

    @property
    def on_its_way(self) -> bool:
        """Whether a round has begun whose result nobody has asked for yet."""
        return self._round is not None

    def go_on(self, write: Write, seen: Snapshot) -> WriteResult:
        """Begin a round, or tell how far it is; never waits."""
        if self._round is None and (problem := self._begin(seen)):
            return WriteResult(write=write, status=WriteStatus.PENDING, detail=problem)
        assert self._round is not None
        if self._round.running:
            return WriteResult(write=write, status=WriteStatus.PENDING, detail=self._round.told)
        ended, self._round = self._round, None
        if ended.problem is None:
            self._rest_seconds = RETRY_SECONDS
            return WriteResult(write=write, status=WriteStatus.OK)
        self._refused = f"{ended.problem}; the next try is {human_seconds(self._rest_seconds)} later"
        self._not_before_seconds = seen.clock.monotonic_seconds + self._rest_seconds
        self._rest_seconds = min(2 * self._rest_seconds, RETRY_MAX_SECONDS)
        return WriteResult(write=write, status=WriteStatus.REFUSED, detail=self._refused)

    def call_off(self) -> None:
        """End a round wherever it is; what was given back stays so."""
        if self._round is not None:
            self._round.call_off()
            self._called_off, self._round = self._round, None

    def _begin(self, seen: Snapshot) -> str | None:
        """Begin a round, and return why there is none; None when there is."""
        if seen.clock.monotonic_seconds < self._not_before_seconds:
            return self._refused
        if self._called_off is not None and self._called_off.running:
            return "a round that was called off still waits for a guest"
        try:
            self._round = Round(Handle(self._backend, self._senses), self._ways, seen)
        except NoThread as error:
            return str(error)
        return None
