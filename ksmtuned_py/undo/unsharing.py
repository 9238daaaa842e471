"""Has one guest's pages unshared by a child process, in portions, each of which may be the last."""

from collections.abc import Callable
from dataclasses import dataclass

from ksmtuned_py.errors import FAILED, KsmtunedError
from ksmtuned_py.model import Guest
from ksmtuned_py.undo.helper import STALL_SECONDS as STALL_SECONDS
from ksmtuned_py.undo.helper import Helper


@dataclass(eq=False)
class NotUnshared(KsmtunedError):
    """The pages of a guest cannot be unshared from outside."""

    reason: str
    exit_code = FAILED
    template = "its pages cannot be unshared from outside: {reason}"


@dataclass(eq=False)
class NoAnswer(NotUnshared):
    """A guest kept its helper waiting: something has its memory map locked, and run=2 would wait for that, too."""


class Unsharing:
    """Unshares one guest's pages in a child process. Nothing is unshared before `go_on`."""

    def __init__(self, guest: Guest, progress: Callable[[str], None] = lambda _: None) -> None:
        """Start the child; raises NotUnshared. `progress` hears that the search for merged pages goes on."""
        begun = f"{guest.name}: its merged pages are looked for ..."
        self._helper = Helper("ksmtuned_py.undo.unshare", guest, lambda: progress(begun), NotUnshared, NoAnswer)

    def merged_pages(self) -> int:
        """The number of pages that it shares at the beginning; raises NotUnshared.

        To be called once, before all else.
        """
        return int(self._helper.answer())

    def go_on(self) -> tuple[int, int]:
        """Do one portion; raises NotUnshared.

        Returns its pages and how many are the guest's own now; (0, 0) at the end.
        """
        passed, alone = self._helper.ask().split()
        return int(passed), int(alone)

    def close(self) -> None:
        """End the child wherever it is. What is unshared stays so."""
        self._helper.close()
