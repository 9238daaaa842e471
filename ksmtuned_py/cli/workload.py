"""Runs processes with memory to merge, for the demo, the bench and the tests. Content and savings are known.

`python -m ksmtuned_py.cli.workload -name guest=NAME --equal-bytes N ...` is one such process. It speaks lines on its
standard input and output, and ends when its standard input does. So it never outlives its parent.
"""

import argparse
import array
import ctypes
import mmap
import os
import random
import secrets
import select
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from typing import Self

from ksmtuned_py.cli.nobody import become_nobody
from ksmtuned_py.errors import FAILED, KsmtunedError
from ksmtuned_py.sensors.pages import OWN_PAGE_BYTES
from ksmtuned_py.units import MIB

PAGE_BYTES = OWN_PAGE_BYTES
COMM = "ksm-workload"
READY_SECONDS = 120.0
"""The time in which a child must fill or check its memory. A GiB takes about a second on an idle core."""
_CHANGE_SECONDS = 0.1
"""The time between two rounds of rewriting. A pass of ksmd takes far longer, and a wake-up far less."""
_STAMP = struct.Struct("=QQ")
_PR_SET_NAME = 15  # linux/prctl.h


@dataclass(frozen=True, slots=True, kw_only=True)
class Mix:
    """The content of one process's memory. Bytes are cut down to whole pages."""

    equal_bytes: int = 0
    """Pages that all differ from each other. The n-th is the same in every process of the same seed."""
    zero_bytes: int = 0
    unique_bytes: int = 0
    changing_bytes: int = 0
    """Unique pages that are rewritten in turn."""
    changes_per_second: float = 0.0
    """Pages rewritten each second."""
    seed: int = 0


@dataclass(eq=False)
class WorkloadFailed(KsmtunedError):
    """A workload process ended or went silent."""

    name: str
    reason: str
    exit_code = FAILED
    template = "workload {name}: {reason}"


def achievable_pages(mixes: Sequence[Mix], *, max_page_sharing: int = 256, use_zero_pages: bool = False) -> int:
    """The pages that merging can save at best, in pages_sharing + ksm_zero_pages.

    n equal pages need ceil(n / max_page_sharing) frames, and save the others (mm/ksm.c: is_page_sharing_candidate).
    Zero pages are n equal pages, or with use_zero_pages save all n. Unique and changing pages save nothing.
    """
    zero = sum(mix.zero_bytes // PAGE_BYTES for mix in mixes)
    saved = zero if use_zero_pages else _saved(zero, max_page_sharing)
    for seed in {mix.seed for mix in mixes}:
        sizes = sorted(mix.equal_bytes // PAGE_BYTES for mix in mixes if mix.seed == seed)
        for below, size, sharers in zip([0, *sizes], sizes, range(len(sizes), 0, -1), strict=False):
            saved += (size - below) * _saved(sharers, max_page_sharing)
    return saved


def _saved(copies: int, max_page_sharing: int) -> int:
    return copies + -copies // max_page_sharing  # copies - ceil(copies / max_page_sharing)


class Workload:
    """One child process with its mix. A with block makes sure that it is gone afterwards."""

    def __init__(
        self, name: str, mix: Mix, *, comm: str = COMM, mergeable: bool = True, huge_pages: bool = False
    ) -> None:
        self.name = name
        self.mix = mix
        words = command(name, mix, comm, mergeable=mergeable, huge_pages=huge_pages)
        self._process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    @property
    def pid(self) -> int:
        """The child's process ID."""
        return self._process.pid

    def wait_ready(self, timeout_seconds: float = READY_SECONDS) -> Self:
        """Wait until all its memory is filled; raises WorkloadFailed."""
        self._expect("ready", timeout_seconds)
        return self

    def wrong_pages(self, timeout_seconds: float = READY_SECONDS) -> int:
        """The number of pages that are not as the child wrote them, by every byte; raises WorkloadFailed."""
        self._say("check")
        return self._expect("wrong", timeout_seconds)

    def spoil(self, pages: int, timeout_seconds: float = READY_SECONDS) -> int:
        """Overwrite its next equal pages with unique ones, which breaks merged copies; returns how many it were."""
        self._say(f"spoil {pages}")
        return self._expect("spoiled", timeout_seconds)

    def stop(self) -> None:
        """End the child, and wait until it and its memory are gone."""
        self._process.kill()
        self._process.communicate()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _say(self, line: str) -> None:
        assert self._process.stdin
        try:
            self._process.stdin.write(f"{line}\n".encode())
            self._process.stdin.flush()
        except BrokenPipeError:
            raise WorkloadFailed(self.name, "it has ended") from None

    def _expect(self, word: str, timeout_seconds: float) -> int:
        assert self._process.stdout
        if not select.select([self._process.stdout], [], [], timeout_seconds)[0]:
            raise WorkloadFailed(self.name, f"no {word!r} within {timeout_seconds:g} s")
        answer = self._process.stdout.readline().split()
        if len(answer) != 2 or answer[0].decode() != word:
            raise WorkloadFailed(self.name, f"it ended instead of saying {word!r}" if not answer else repr(answer))
        return int(answer[1])


@contextmanager
def workloads(
    mixes: Sequence[Mix],
    *,
    prefix: str = "load",
    comm: str = COMM,
    mergeable: bool = True,
    huge_pages: bool = False,
) -> Iterator[list[Workload]]:
    """Run children load-1, load-2, ... for the length of a with block. They are filled when it begins."""
    with ExitStack() as stack:
        children = [
            stack.enter_context(
                Workload(f"{prefix}-{number}", mix, comm=comm, mergeable=mergeable, huge_pages=huge_pages)
            )
            for number, mix in enumerate(mixes, 1)
        ]
        for child in children:
            child.wait_ready()
        yield children


def command(name: str, mix: Mix, comm: str = COMM, *, mergeable: bool = True, huge_pages: bool = False) -> list[str]:
    """The command line of one child. It gives the name as QEMU does, so that guest discovery finds the child."""
    options = ["--huge-pages"] * huge_pages + ["--private"] * (not mergeable)
    options += [f"--{key.replace('_', '-')}={value}" for key, value in asdict(mix).items() if value]
    program = [sys.executable, "-P", "-m", "ksmtuned_py.cli.workload"]
    return [*program, "-name", f"guest={name}", f"--comm={comm}", *options]


class Region:
    """Pages of known content. One random block is repeated, and each page is stamped so that no two are equal."""

    def __init__(self, size_bytes: int, block: bytes, *advice: int, stamped: bool = True) -> None:
        """`advice` is for madvise, before it is filled."""
        self._block = block
        self._key = int.from_bytes(block[:8])
        self._stamps = array.array("Q", range(size_bytes // PAGE_BYTES))
        self._stamped = stamped
        self._turn = 0
        self.memory = _memory(len(self) * PAGE_BYTES, advice)
        self._fill()

    def __len__(self) -> int:
        return len(self._stamps)

    def rewrite_next(self, pages: int) -> int:
        """Give the next pages, round and round, a content that no page had before; returns how many it were."""
        pages = min(pages, len(self))
        for page in range(self._turn, self._turn + pages):
            self._stamps[page % len(self)] = secrets.randbits(64)
            self._stamp(page % len(self))
        self._turn += pages
        return pages

    def wrong_pages(self) -> int:
        """The number of pages whose content is not what was written to them."""
        begins = range(0, len(self) * PAGE_BYTES, PAGE_BYTES)
        return sum(
            self.memory[begin : begin + PAGE_BYTES] != self._expected(begin, stamp)
            for begin, stamp in zip(begins, self._stamps, strict=True)
        )

    def _fill(self) -> None:
        for begin in range(0, len(self) * PAGE_BYTES, len(self._block)):
            end = min(begin + len(self._block), len(self) * PAGE_BYTES)
            self.memory[begin:end] = self._block[: end - begin]
            for page in range(begin // PAGE_BYTES, end // PAGE_BYTES):
                self._stamp(page)

    def _stamp(self, page: int) -> None:
        if self._stamped:
            _STAMP.pack_into(self.memory, page * PAGE_BYTES, self._key, self._stamps[page])

    def _expected(self, begin: int, stamp: int) -> bytes:
        offset = begin % len(self._block)
        page = self._block[offset : offset + PAGE_BYTES]
        return _STAMP.pack(self._key, stamp) + page[_STAMP.size :] if self._stamped else page


def equal_block(seed: int) -> bytes:
    """The block that all processes of one seed make their equal pages of."""
    return random.Random(seed).randbytes(MIB)  # noqa: S311 - not for secrets: the same everywhere is the point


def _memory(size_bytes: int, advice: Sequence[int]) -> mmap.mmap:
    memory = mmap.mmap(-1, max(size_bytes, PAGE_BYTES), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    for each in advice:
        with suppress(OSError):  # a kernel without huge pages, or without KSM: the scan backend needs no leave
            memory.madvise(each)
    return memory


class _Child:
    """One workload process from within, with its memory and the lines that it answers."""

    def __init__(self, mix: Mix, *advice: int) -> None:
        self._equal = Region(mix.equal_bytes, equal_block(mix.seed), *advice)
        self._zero = Region(mix.zero_bytes, bytes(MIB), *advice, stamped=False)
        self._unique = Region(mix.unique_bytes, os.urandom(MIB), *advice)
        self._changing = Region(mix.changing_bytes, os.urandom(MIB), *advice)
        self._changes_per_second = mix.changes_per_second if len(self._changing) else 0

    def serve(self) -> None:
        """Answer until standard input ends, and rewrite the changing part meanwhile."""
        _answer("ready", 0)
        begun, changed = time.monotonic(), 0
        while True:
            if self._wait_for_input():
                line = os.read(0, 4096)  # the parent waits for each answer, so one read is one line
                if not line:
                    return
                self._obey(line.split())
            due = int((time.monotonic() - begun) * self._changes_per_second) - changed
            self._changing.rewrite_next(due)
            changed += due

    def _wait_for_input(self) -> bool:
        timeout = _CHANGE_SECONDS if self._changes_per_second else None
        return bool(select.select([0], [], [], timeout)[0])

    def _obey(self, words: list[bytes]) -> None:
        match words:
            case [b"check"]:
                parts = (self._equal, self._zero, self._unique, self._changing)
                _answer("wrong", sum(part.wrong_pages() for part in parts))
            case [b"spoil", pages]:
                _answer("spoiled", self._equal.rewrite_next(int(pages)))


def _answer(word: str, number: int) -> None:
    os.write(1, f"{word} {number}\n".encode())


def main() -> None:
    """One workload process: fills its memory, says 'ready', and serves its parent."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("-name", metavar="guest=NAME", help="only to be seen in the process list")
    parser.add_argument("--comm", default=COMM, help="the process name")
    parser.add_argument("--private", action="store_true", help="ask for no merging")
    parser.add_argument("--huge-pages", action="store_true", help="ask for huge pages, which ksmd has to split first")
    for key, default in asdict(Mix()).items():
        parser.add_argument(f"--{key.replace('_', '-')}", type=type(default), default=default)
    options = vars(parser.parse_args())
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C in the terminal is the parent's business
    ctypes.CDLL(None).prctl(_PR_SET_NAME, options["comm"].encode())
    become_nobody()
    advice = [mmap.MADV_HUGEPAGE if options["huge_pages"] else mmap.MADV_NOHUGEPAGE]
    advice += [] if options["private"] else [mmap.MADV_MERGEABLE]
    _Child(Mix(**{key: options[key] for key in asdict(Mix())}), *advice).serve()


if __name__ == "__main__":
    main()
