"""One guest's trouble is that guest's: whatever goes wrong with it becomes a reason that is told, and nothing else."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from ksmtuned_py.errors import KsmtunedError


@dataclass(eq=False)
class Refused(Exception):
    """This guest is not touched, and why."""

    reason: str

    def __str__(self) -> str:
        return self.reason


@contextmanager
def own_trouble(tell: Callable[[str], None]) -> Iterator[None]:
    """What goes wrong in the with block is told as the guest's reason, and ends there."""
    try:
        yield
    except OSError as error:
        tell(error.strerror or str(error))
    except (KsmtunedError, Refused) as refused:
        tell(str(refused))
