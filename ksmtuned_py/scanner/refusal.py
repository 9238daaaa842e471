"""Keeps one guest's trouble with that guest: whatever goes wrong with it becomes a reason that is told."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from ksmtuned_py.errors import KsmtunedError


@dataclass(eq=False)
class Refused(Exception):
    """Raised, with the reason, when a guest must not be touched."""

    reason: str

    def __str__(self) -> str:
        return self.reason


TROUBLE = (OSError, KsmtunedError, Refused)
"""What goes wrong with one guest."""


@contextmanager
def own_trouble(tell: Callable[[str], None]) -> Iterator[None]:
    """Turns an error in the with block into the guest's reason, and ends it there."""
    try:
        yield
    except OSError as error:
        tell(error.strerror or str(error))
    except (KsmtunedError, Refused) as refused:
        tell(str(refused))
