"""Keeps the footholds in all guests: gets at one, checks what takes long to check, and stops it for a with block."""

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial

from ksmtuned_py.door import Door
from ksmtuned_py.errors import KsmtunedError
from ksmtuned_py.guests.mappings import are_still_there
from ksmtuned_py.model import GuestKey
from ksmtuned_py.scanner.process import Process
from ksmtuned_py.scanner.refusal import Refused
from ksmtuned_py.scanner.remap.foothold.session import FileKey, Session, Window
from ksmtuned_py.scanner.remap.refuse.eligibility import mappings_refusal
from ksmtuned_py.scanner.remap.refuse.opened import Belongings
from ksmtuned_py.scanner.remap.refuse.sharers import Sharers
from ksmtuned_py.scanner.remap.stop.stops import NotStopped, Resting, Stops, patiently
from ksmtuned_py.scanner.remap.stop.threads import Lost

_STOPS = 5
"""How often one window is tried with a guest whose mappings have changed since the look a millisecond before."""
Ranges = list[tuple[int, int]]
Standing = Callable[[], AbstractContextManager[Window]]
"""Stops a guest for a with block."""


class Footholds:
    """Those of one worker, each as long as its guest."""

    def __init__(self, door: Door, least_bytes: int, longest_seconds: float) -> None:
        """Begin without any; a stop may take so long."""
        self.stops = Stops(longest_seconds)
        self._door = door
        self._least_bytes = least_bytes
        self._sessions = dict[GuestKey, Session]()

    def session(self, process: Process, store: int, key: FileKey) -> Generator[int, None, Session]:
        """Returns the guest's, with that store's descriptor open there; raises Refused and Gone."""
        held = process.target.key
        if held in self._sessions and self._sessions[held].store_key != key:
            self._drop(process)  # its group or NUMA policy has changed, and what it has open is the old one's memfd
        if held not in self._sessions:
            self._sessions[held] = yield from Session.begin(process, store, self.stops)
        return self._sessions[held]

    def keep(self, guests: Iterable[GuestKey]) -> None:
        """Lets go of all others."""
        for key in self._sessions.keys() - set(guests):
            self._sessions.pop(key).close()

    def all(self) -> list[Session]:
        """Returns every one of them."""
        return list(self._sessions.values())

    @contextmanager
    def own_trouble(self, process: Process, refuse: Callable[[str], None]) -> Iterator[None]:
        """Tells whatever goes wrong with one guest as that guest's reason, and lets go of its session if need be."""
        try:
            yield
        except Resting as error:
            refuse(str(error))
        except NotStopped as error:
            self.stops.left_alone.begin(process.target.pid)
            refuse(str(error))
        except Lost as error:
            self.stops.left_alone.begin(process.target.pid)
            self._drop(process)  # when the line ends, all threads that wait at the gate go on
            refuse(str(error))
        except Refused as error:
            refuse(str(error))
        except (OSError, KsmtunedError) as error:
            self._drop(process)
            refuse(str(error))

    def prepared(
        self, process: Process, belongings: Belongings, session: Session, wanted: Ranges
    ) -> Generator[int, None, Standing]:
        """Checks all that takes long to check, and returns what stops the guest; raises Refused."""
        sharers = Sharers(self._door, process)

        def stand() -> None:
            with session.window(process):
                sharers.stand()

        yield from patiently(self.stops, process.target.pid, stand)
        sharers.check_all()
        self._check_belongings(process, belongings, wanted)
        return partial(self._standing, process, belongings, session, wanted, sharers)

    def _check_belongings(self, process: Process, belongings: Belongings, wanted: Ranges) -> None:
        """Checks mappings and open files; mappings nobody wants may come and go (QEMU's coroutines). Raises Refused."""
        mappings = process.note_mappings()
        if reason := mappings_refusal(mappings, self._least_bytes) or belongings.refusal(mappings):
            raise Refused(reason)
        if not are_still_there(wanted, mappings):
            raise Refused("its mappings have changed")

    @contextmanager
    def _standing(
        self, process: Process, belongings: Belongings, session: Session, wanted: Ranges, sharers: Sharers
    ) -> Iterator[Window]:
        """Stops the guest, and checks that what was found before still holds, now that nothing can change it."""
        for _ in range(_STOPS):
            with session.window(process) as window:
                if not belongings.new() and not process.has_changed():
                    sharers.check_new()
                    yield window
                    self.stops.left_alone.forget(process.target.pid)
                    return
            self._check_belongings(process, belongings, wanted)
        raise Refused("its mappings, or what it has open, are changing all the time")

    def _drop(self, process: Process) -> None:
        session = self._sessions.pop(process.target.key, None)
        if session:
            session.close()
