"""The one real KSM of this machine: taken by one test at a time, and left as it was found.

Plain reads and writes keep it independent of the code under test: it uses nothing of ksmtuned_py.
"""

import errno
import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.support.need import need
from tests.support.process import children, end_all, wait_for

KSM = Path("/sys/kernel/mm/ksm")
LOCK = Path("/run/lock/ksmtuned-py-ksm.lock")
SAVED = Path("/run/lock/ksmtuned-py-ksm.json")
"""The knobs as they were, while somebody changes them: a holder that is killed leaves the file for the next."""
FIRST = ("advisor_mode",)
"""Knobs that are written first: a change of advisor_mode resets pages_to_scan."""
LAST = ("run",)
UNMERGE_SECONDS = 60.0


class RealKsm:
    """The real /sys/kernel/mm/ksm, for a test that holds the lock."""

    def read(self, name: str) -> str:
        """Returns one file's text, stripped."""
        return (KSM / name).read_text().strip()

    def number(self, name: str) -> int:
        """Returns one file's number; 0 where this kernel does not have it."""
        return int(self.read(name)) if (KSM / name).exists() else 0

    def write(self, name: str, value: object) -> None:
        """Sets one knob; EBUSY is tried again for a while, since a process on its way out can hold merged pages."""
        wait_for(lambda: _written(name, str(value)), 5.0, f"end of EBUSY on {name}")

    def saved_pages(self) -> int:
        """Returns how many more pages the machine would need if nothing were merged."""
        return self.number("pages_sharing") + max(0, self.number("ksm_zero_pages"))

    def wait_saved(self, pages: int, seconds: float) -> int:
        """Waits until at least so many pages are saved; returns how many are."""
        with suppress(AssertionError):
            wait_for(lambda: self.saved_pages() >= pages, seconds, "merging", every_seconds=0.1)
        saved = self.saved_pages()
        assert saved >= pages, f"{saved} of {pages} pages saved after {seconds:g} s"
        return saved

    def unmerge(self) -> None:
        """Gives every process its own copies back and leaves ksmd stopped."""
        self.write("run", 2)
        wait_for(lambda: self.number("pages_shared") == 0, UNMERGE_SECONDS, "end of unmerging")
        self.write("run", 0)


def knobs() -> dict[str, str]:
    """Returns every file that can be written, by name, as it would have to be written."""
    files = sorted(path for path in KSM.iterdir() if path.stat().st_mode & 0o200)
    found = {path.name: _chosen(path.read_text()) for path in files}
    if found.get("advisor_mode", "none") != "none":
        del found["pages_to_scan"]  # the advisor sets it at every pass, and a write is EINVAL
    return found


def knobs_at_rest() -> dict[str, str] | None:
    """Returns the knobs; None where there are none, somebody is at work on them, or a killed one left them so."""
    if not KSM.is_dir() or SAVED.exists():
        return None
    if not LOCK.exists():
        return knobs()
    with LOCK.open() as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return None
        return knobs()


def need_real_ksm() -> None:
    """Skips the test, or fails it in CI, where there is no KSM to write to."""
    need(os.geteuid() == 0, "root, to write to /sys/kernel/mm/ksm")
    need(KSM.is_dir(), "a kernel with CONFIG_KSM")


@contextmanager
def locked_ksm() -> Iterator[RealKsm]:
    """Takes the lock for a with block; then ends processes begun in it, unmerges all, and puts each knob back."""
    ksm = RealKsm()
    with LOCK.open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _finish_for_a_killed_holder(ksm)
        before, processes = knobs(), children()
        ksmd = _ksmd()
        scheduled = os.sched_getscheduler(ksmd), os.getpriority(os.PRIO_PROCESS, ksmd)
        need(before["run"] == "0", "a KSM that nobody else uses: run is not 0")
        SAVED.write_text(json.dumps(before))
        try:
            yield ksm
        finally:
            end_all(children() - processes)
            os.sched_setscheduler(ksmd, scheduled[0], os.sched_param(0))
            os.setpriority(os.PRIO_PROCESS, ksmd, scheduled[1])
            _put_back(ksm, before)
            SAVED.unlink()
        assert knobs() == before


def _ksmd() -> int:
    return next(int(file.parent.name) for file in Path("/proc").glob("[0-9]*/comm") if _is_ksmd(file))


def _is_ksmd(comm: Path) -> bool:
    with suppress(OSError):
        return comm.read_text() == "ksmd\n" and not comm.with_name("cmdline").read_bytes()
    return False


def _finish_for_a_killed_holder(ksm: RealKsm) -> None:
    if SAVED.exists():
        _put_back(ksm, json.loads(SAVED.read_text()))
    elif ksm.number("run") == 0 and ksm.number("pages_shared"):
        ksm.unmerge()  # ended processes left records behind, which nobody collects with run=0


def _put_back(ksm: RealKsm, before: Mapping[str, str]) -> None:
    ksm.unmerge()
    for name in sorted(before, key=lambda name: (name in LAST, name not in FIRST)):
        ksm.write(name, before[name])


def _written(name: str, value: str) -> bool:
    try:
        (KSM / name).write_text(value)
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        return False
    return True


def _chosen(text: str) -> str:
    """Returns what is chosen: '[none] scan-time' says that none is."""
    return text.partition("[")[2].partition("]")[0] or text.strip()
