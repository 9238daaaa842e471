"""Tells whether the seccomp filters of a guest's threads let our system calls through."""

from dataclasses import dataclass
from functools import lru_cache

from ksmtuned_py.scanner.process import Process
from ksmtuned_py.scanner.refusal import Refused
from ksmtuned_py.scanner.remap.foothold.calls import CALLS, NATIVE
from ksmtuned_py.scanner.remap.refuse.seccomp import permits
from ksmtuned_py.scanner.remap.stop import ptrace
from ksmtuned_py.scanner.remap.stop.hurry import hurry
from ksmtuned_py.scanner.remap.stop.stops import Stops
from ksmtuned_py.scanner.remap.stop.threads import Lost, Threads

_ONLY_SOMETIMES = frozenset({"mbind"})
"""Calls needed only where memory has a NUMA policy; container runtimes forbid mbind as a rule."""
_MOST_FILTERS, _MOST_BYTES = 32, 1 << 16
"""Filters of one thread, and bytes of all: they are read in each stop, and 8,000 instructions are judged in 0.5 s."""


@dataclass(frozen=True, slots=True)
class Permits:
    """Filters that have been judged; judging one takes some milliseconds, so the guest runs meanwhile."""

    filters: frozenset[bytes]
    forbidden: frozenset[str]
    """Forbidden calls that only some guests need."""

    @classmethod
    def of(cls, process: Process, stops: Stops) -> "Permits":
        """Stops the guest for a moment to read its filters; raises Refused when one forbids what every guest needs."""
        with hurry(), Threads(process, stops) as threads:
            filters = _filters(process, threads)
        forbidden = frozenset[str]().union(*map(forbidden_by, filters))
        refuse_forbidden(forbidden - _ONLY_SOMETIMES)
        return cls(filters, forbidden)

    def check(self, process: Process, threads: Threads) -> None:
        """Raises Lost when a thread has a filter that was not judged."""
        if not _filters(process, threads) <= self.filters:
            raise Lost("it has begun to use another seccomp filter")


def refuse_forbidden(forbidden: frozenset[str]) -> None:
    """Raises Refused when any call is forbidden."""
    if forbidden:
        raise Refused(f"its seccomp filter forbids {', '.join(sorted(forbidden))}")


@lru_cache(maxsize=256)
def forbidden_by(program: bytes) -> frozenset[str]:
    """Returns our calls that the filter does not always permit; all of them when it cannot be understood."""
    try:
        return frozenset(call.name for call in CALLS if not permits(program, call, NATIVE))
    except LookupError:
        return frozenset(call.name for call in CALLS)


def _filters(process: Process, threads: Threads) -> frozenset[bytes]:
    found = set[bytes]()
    try:
        for one in threads.all:
            some = ptrace.seccomp_filters(one.number, _MOST_FILTERS + 1)
            found.update(some)
            if len(some) > _MOST_FILTERS or sum(map(len, found)) > _MOST_BYTES:
                raise Refused("it has so many seccomp filters, or so long ones, that to read them would hold it up")
        return frozenset(found)
    except ProcessLookupError:
        raise
    except OSError as error:  # we run under seccomp ourselves, or the kernel has no CONFIG_CHECKPOINT_RESTORE
        for one in threads.all:
            if process.status(f"task/{one.number}/status").get("Seccomp") != "0":
                raise Refused(f"its seccomp filters cannot be read: {error.strerror}") from None
        return frozenset()
