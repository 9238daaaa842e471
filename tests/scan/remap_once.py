"""One remapping of a process by hand, for tests that kill it on the way: `python -m tests.scan.remap_once PID WHAT`.

WHAT is 'merge', 'back', 'both', or 'whole'. Each takes over first what one before has left.
"""

import sys
import time
from collections.abc import Callable

from ksmtuned_py.backends.scanlink import for_scanner
from ksmtuned_py.config import Scan
from ksmtuned_py.door import Door
from ksmtuned_py.scanner.pagemap import PRIVATE
from ksmtuned_py.scanner.pages import ZERO, repeated
from ksmtuned_py.scanner.process import Process
from ksmtuned_py.scanner.remap.share.remapper import Remapper
from ksmtuned_py.scanner.scanner import Watched
from ksmtuned_py.scanner.sweep import Sweep
from ksmtuned_py.scanner.target import Target

WINDOW_MS = 100
"""The longest, for who is counted at each call, or is emulated, has done less by then."""


def main(pid: int, what: str, before_merging: Callable[[], object] = lambda: None) -> None:
    """Makes two passes over the process and merges once what was steady; gives everything back."""
    target = Target(pid=pid, start_ticks=0, remap=True)
    watched, sweep = Watched(target), Sweep()
    remapper = Remapper(Door(), for_scanner(Scan(reclaim="remap", remap_least_mib=1, stop_window_ms=WINDOW_MS)))
    list(remapper.tend([target]))
    with Process(target, Door()) as process:
        if what in ("merge", "both"):
            print(f"merged {merge(process, watched, sweep, remapper, before_merging)} {watched.refusal}", flush=True)
        if what == "whole":
            made = list[int]()
            list(remapper.make_whole(process, 512, lambda: True, made.append))
            print(f"made whole {len(made)}", flush=True)
        if what in ("back", "both"):
            print(f"given back {sum(remapper.give_back(process))}", flush=True)


def merge(
    process: Process, watched: Watched, sweep: Sweep, remapper: Remapper, before_merging: Callable[[], object]
) -> int:
    for _ in range(2):
        list(sweep.guest(process, watched.table, PRIVATE, smart=False))
    slabs = watched.table.slabs.values()
    shares = repeated([slab.prints[slab.steady & (slab.prints > ZERO)] for slab in slabs])
    before_merging()
    for _ in range(50):  # merging is refused while the guest's mappings are changing
        if done := sum(remapper.merge(process, watched, shares, split_huge=True)):
            return done
        time.sleep(0.02)
    return 0


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
