"""Makes sketches of guests, by reading every page once. At most half a core is taken, and nobody is waited for."""

import time
from collections.abc import Iterator
from threading import Thread

import numpy as np
from numpy.typing import NDArray

from ksmtuned_py.door import Door
from ksmtuned_py.door.descriptors import begin
from ksmtuned_py.errors import KsmtunedError
from ksmtuned_py.guests.mappings import candidates
from ksmtuned_py.guests.smaps import parse_blocks
from ksmtuned_py.model.ksm import KSM_DIRECTORY
from ksmtuned_py.scanner.pagemap import PAGE, PRIVATE
from ksmtuned_py.scanner.pages import LEAST, ZERO, Prints
from ksmtuned_py.scanner.process import Gone, Process
from ksmtuned_py.scanner.refusal import Refused
from ksmtuned_py.scanner.sketch import MOST_CONTENTS, GuestSketch, places, value
from ksmtuned_py.scanner.sweep import blocks, pages_in, read_block
from ksmtuned_py.scanner.table import BLOCK_PAGES, windows
from ksmtuned_py.scanner.target import Target

PATIENCE_SECONDS = 30.0
"""A guest that does not answer for so long is left out. Listing its mappings takes a second for some 100 GiB."""
FAULTS_ELSEWHERE = frozenset({"um", "uw", "ui"})
"""VmFlags of memory whose page faults another process handles (userfaultfd), and may never do."""
MERGEABLE = "mg"
"""The VmFlag of memory that ksmd takes. A kernel without KSM has none, and there all private memory may merge."""
MOST_COUNTED = 1 << 16
"""Contents of which the number of all is reckoned: within 1 percent."""
_BITS = 64


class Sketching(Thread):
    """Reads one guest, on a thread that is left behind when it hangs."""

    def __init__(self, target: Target, door: Door, key: bytes) -> None:
        super().__init__(name="sketch", daemon=True)
        self.sketch: GuestSketch | None = None
        self.problem: str | None = None
        self.has_ended = False
        self._target, self._door, self._key = target, door, key
        self._steps = 0
        self._left_behind = False

    def answer(self, patience_seconds: float = PATIENCE_SECONDS) -> GuestSketch | None:
        """Read the guest, and return its sketch; None, with the problem, when there is none."""
        if not begin(self):
            self.problem = "no thread can be begun for it"
            return None
        seen = -1
        while self.is_alive() and seen != self._steps:
            seen = self._steps
            self.join(patience_seconds)
        if self.is_alive():
            self._left_behind = True
            self.problem = "it does not answer: its memory map is locked"
            return None
        return self.sketch

    def run(self) -> None:
        """Read all of it."""
        try:
            sampler = Sampler(self._key)
            with Process(self._target, self._door) as process:
                for found in _read(process, has_ksm=self._door.exists(KSM_DIRECTORY)):
                    self._steps += 1
                    if self._left_behind:
                        return
                    sampler.add(found)
            self.sketch = sampler.sketch(self._target.name)
        except Gone:
            self.problem, self.has_ended = "it has ended", True
        except (OSError, Refused, KsmtunedError) as error:
            self.problem = str(error)


def _read(process: Process, *, has_ksm: bool) -> Iterator[Prints]:
    """Yields the prints of its pages that may merge, some at a time, and rests for as long as each took."""
    buffer = memoryview(bytearray(BLOCK_PAGES * PAGE))
    flags = {
        mapping: frozenset(lines.get("VmFlags", "").split())
        for mapping, lines in parse_blocks(process.read_text("smaps"))
    }
    mappings = [one for one, its in flags.items() if not FAULTS_ELSEWHERE & its and (MERGEABLE in its or not has_ksm)]
    for base, ranges in windows(candidates(mappings)).items():
        for block in blocks(pages_in(process, base, ranges, PRIVATE)):
            began = time.thread_time()
            yield read_block(process, base, block, PRIVATE, buffer)
            time.sleep(time.thread_time() - began)


class Sampler:
    """Keeps contents whose hash begins with zeros, with the more zeros the more contents there are."""

    def __init__(self, key: bytes) -> None:
        self._key = key
        first, second = places(key)
        self._first, self._second = np.uint64(first), np.uint64(second)
        self._kept: Prints = np.empty(0, np.uint64)
        self._fresh: list[Prints] = []
        self._zeros = self._fresh_pages = 0
        self._zero_pages = self._filled_pages = 0

    def add(self, found: Prints) -> None:
        """Takes in the prints of some pages."""
        self._zero_pages += int(np.count_nonzero(found == ZERO))
        filled = found[found >= LEAST]
        self._filled_pages += len(filled)
        self._fresh.append(filled[self._sampled(filled, self._zeros)])
        self._fresh_pages += len(self._fresh[-1])
        if self._fresh_pages > MOST_COUNTED:
            self._merge()

    def _merge(self) -> None:
        self._kept = np.unique(np.concatenate((self._kept, *self._fresh)))
        self._fresh, self._fresh_pages = [], 0
        while len(self._kept) > MOST_COUNTED:
            self._zeros += 1
            self._kept = self._kept[self._sampled(self._kept, self._zeros)]

    def sketch(self, name: str) -> GuestSketch:
        """Returns the sketch of what was taken in."""
        self._merge()
        kept, zeros = self._kept, self._zeros
        while len(kept) > MOST_CONTENTS:
            zeros += 1
            kept = kept[self._sampled(kept, zeros)]
        contents: dict[int, list[str]] = {}
        for content, mixed in zip(kept.tolist(), self._mixed(kept).tolist(), strict=True):
            contents.setdefault(_BITS - mixed.bit_length(), []).append(value(self._key, content))
        return GuestSketch(
            name=name,
            zero_pages=self._zero_pages,
            filled_pages=self._filled_pages,
            distinct_pages=min(self._filled_pages, len(self._kept) << self._zeros),
            contents={level: tuple(sorted(values)) for level, values in sorted(contents.items())},
            zeros=zeros,
        )

    def _mixed(self, found: Prints) -> Prints:
        mixed: Prints = (found ^ self._first) * self._second
        return mixed

    def _sampled(self, found: Prints, zeros: int) -> NDArray[np.bool_]:
        sampled: NDArray[np.bool_] = self._mixed(found) <= np.uint64(2 ** (_BITS - zeros) - 1)
        return sampled
