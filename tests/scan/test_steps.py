"""The worker works in small steps, and may be told something else after each: what it has planned may be old then."""

import time
from collections.abc import Iterator

from ksmtuned_py.cli.workload import Mix, workloads
from ksmtuned_py.door import Door
from ksmtuned_py.scanner.pagemap import PRIVATE
from ksmtuned_py.scanner.pages import Prints, repeated
from ksmtuned_py.scanner.process import Process
from ksmtuned_py.scanner.remap.share.remapper import Remapper
from ksmtuned_py.scanner.scanner import Scanner, Watched
from ksmtuned_py.scanner.sweep import Sweep
from ksmtuned_py.scanner.target import Target
from ksmtuned_py.units import MIB
from tests.scan.test_hostile import odd
from tests.scan.test_remap import REMAP
from tests.scan.writers import Writer, stores

MOST_PAGES = 1024
"""The most pages that one step may add to a memfd, or exchange."""
MERGED = " /memfd:ksmtuned-py-pages"


def test_what_is_merged_first_is_put_into_the_memfd_in_small_steps(root: None) -> None:
    settings = REMAP.model_copy(update={"reclaim": "remap"})
    remapper = Remapper(Door(), settings)
    with workloads([Mix(equal_bytes=64 * MIB)] * 2, mergeable=False) as loads:
        scanner = Scanner(Door(), settings, remapper)
        scanner.watch([Target(pid=load.pid, start_ticks=0, remap=True) for load in loads])
        before, grown = 0, list[int]()
        for _ in scanner.steps():
            now = sum(store.end for store in remapper._stores.by_inode().values())
            grown.append(now - before)
            before = now
            if scanner.counters.pages_sharing > 0.95 * 64 * MIB // 4096:
                break
        assert sum(grown) >= 0.95 * 64 * MIB // 4096
        assert max(grown) <= MOST_PAGES


def known(process: Process, watched: Watched) -> Prints:
    """Makes two passes over a guest, and returns the contents that it has more than once."""
    sweep = Sweep()
    for _ in range(2):
        list(sweep.guest(process, watched.table, PRIVATE, smart=False))
    return repeated([slab.prints[slab.steady & (slab.prints > 1)] for slab in watched.table.slabs.values()])


def test_a_plan_that_has_waited_too_long_is_given_up(root: None) -> None:
    """Run is 0 in the midst of an exchange. What nobody has mapped yet is freed meanwhile, and given out again."""
    remapper = Remapper(Door(), REMAP)
    with odd("one") as one, odd("other") as other:
        first, second = (Watched(Target(pid=guest.pid, start_ticks=0, remap=True)) for guest in (one, other))
        with Process(first.target, Door()) as process:
            steps = begun_exchange(remapper, process, first, one)
            for _ in range(4):  # two looks in which nobody reads a page, two in which nobody has it mapped
                list(remapper.look_after([first.target, second.target]))
                time.sleep(1.1)
            one.ask("blank")
            list(steps)
        with Process(second.target, Door()) as process:
            for _ in range(50):
                list(remapper.merge(process, second, known(process, second), split_huge=True))
                if stores(other):
                    break
        assert stores(other)
        assert one.check()["wrong"] == other.check()["wrong"] == 0


def begun_exchange(remapper: Remapper, process: Process, watched: Watched, one: Writer) -> Iterator[int]:
    """Merges until the guest has mapped its first merged pages, and returns the rest of the steps."""
    for _ in range(50):
        steps = remapper.merge(process, watched, known(process, watched), split_huge=True)
        for _ in steps:
            if stores(one):
                return steps
        time.sleep(0.05)
    raise AssertionError(watched.refusal)
