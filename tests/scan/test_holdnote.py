"""The note of a suspension: who was killed is told from who is at work, and from who has ended well."""

import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from ksmtuned_py.backends.scan.remap.holdnote import Suspendable, noted, settle
from ksmtuned_py.guests.qmp import MonitorRefused

GUEST = Suspendable(11, 22, "qemu:///system")
KILLED = """
import os, signal, sys
from pathlib import Path
from ksmtuned_py.backends.scan.remap.holdnote import Suspendable, noted
with noted(Suspendable(11, 22, "qemu:///system"), Path(sys.argv[1])):
    os.kill(os.getpid(), signal.SIGKILL)
"""


@dataclass
class Resume:
    """Notes whom it was to resume, and says whether it has."""

    found: list[Suspendable]
    done: bool

    def __call__(self, guest: Suspendable) -> bool:
        self.found.append(guest)
        return self.done


def test_who_ends_well_leaves_nothing(tmp_path: Path) -> None:
    with noted(GUEST, tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_who_is_at_work_is_let_be_and_has_it_alone(tmp_path: Path) -> None:
    found: list[Suspendable] = []
    with noted(GUEST, tmp_path):
        assert settle(Resume(found, done=False), tmp_path) == []
        with pytest.raises(MonitorRefused), noted(GUEST, tmp_path):
            pass
    assert found == []


def test_who_was_killed_is_found_until_the_guest_is_resumed(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False)
    assert done.returncode == -signal.SIGKILL
    found: list[Suspendable] = []
    for resumed in (False, True, True):
        assert settle(Resume(found, done=resumed), tmp_path) == ([] if resumed else ["11-22"])
    assert found == [GUEST, GUEST]
