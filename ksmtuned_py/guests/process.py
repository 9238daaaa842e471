"""One process in /proc: held by a descriptor, so that a reused PID cannot pass for it.

What reads it never waits (Process), or may wait for as long as somebody holds the process's memory map, or the kernel's
cgroups (Inside). Nobody can read the second kind by a Process: Patience makes an Inside, on a thread, and asks it.
"""

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

from ksmtuned_py.door import Door
from ksmtuned_py.guests.parse import Identity, parse_stat, parse_statm, printable, printable_lines, split_words
from ksmtuned_py.units import MIB

QuickFile = Literal["stat", "statm", "comm"]
SlowFile = Literal["cmdline", "ksm_stat", "ksm_merging_pages", "smaps", "cgroup"]
WORDS, WORD_LENGTH = 4096, 4096
"""Of a QEMU with a hundred disks: 700 words, the longest of 600 letters."""
MOST_BYTES: Mapping[QuickFile | SlowFile, int] = {"cmdline": MIB, "smaps": 8 * MIB}
"""Any process may say that its command line is all its memory (PR_SET_MM), and have 65,530 mappings of 0.7 KiB each."""
MOST_BYTES_OF_OTHERS = MIB


@dataclass(slots=True)
class Process:
    """Reads below /proc/PID, through the descriptor where there is one; nothing here waits for the process."""

    door: Door
    pid: int
    descriptor: int | None = None

    def hold(self) -> None:
        """From now on mean this very process; raises OSError when it is gone or descriptors ran out."""
        self.descriptor = self.door.hold(f"proc/{self.pid}")

    def close(self) -> None:
        """Let go of the descriptor."""
        if self.descriptor is not None:
            os.close(self.descriptor)
            self.descriptor = None

    def path(self, name: QuickFile | SlowFile) -> str:
        """The file's full path, for messages."""
        return self.door.path(f"proc/{self.pid}/{name}")

    def name(self) -> str:
        """Its name as the kernel cuts it; '' when it is gone."""
        return printable((_read(self, "comm") or "").removesuffix("\n"))

    def identity(self) -> Identity | None:
        """Who it is; None when it is gone; raises Garbage."""
        text = _read(self, "stat")
        return parse_stat(text, self.path("stat")) if text else None

    def sizes_pages(self) -> tuple[int, int] | None:
        """Mapped, and resident; None when it has no memory: kernel threads, zombies, the gone; raises Garbage."""
        text = _read(self, "statm")
        sizes = parse_statm(text, self.path("statm")) if text else (0, 0)
        return sizes if sizes[0] else None


class Inside:
    """What a process tells only while its memory map and its cgroup are not locked. Patience alone makes one."""

    def __init__(self, process: Process) -> None:
        self._process = process

    def read(self, name: SlowFile) -> str | None:
        """The file's lines; None when the process is gone, or has no such file, or it is not ours, or too long."""
        text = _read(self._process, name)
        return None if text is None else printable_lines(text)

    def words(self) -> list[str]:
        """Its command line; none when it is gone, or a kernel thread, or when it is too long to be one.

        Its end is cut, and so is each word: whoever searches them takes the square of a word's length.
        """
        words = split_words(_read(self._process, "cmdline") or "")
        return [printable(word[:WORD_LENGTH]) for word in words[:WORDS]]

    def path(self, name: SlowFile) -> str:
        """The file's full path, for messages."""
        return self._process.path(name)

    def links(self, most: int) -> list[str]:
        """What its descriptors are of, of the first so many; none when they are not ours to see."""
        process = self._process
        with suppress(OSError):
            if process.descriptor is None:
                return process.door.links(f"proc/{process.pid}/fd", most)
            return process.door.links("fd", most, at=process.descriptor)
        return []


def _read(process: Process, name: QuickFile | SlowFile) -> str | None:
    most = MOST_BYTES.get(name, MOST_BYTES_OF_OTHERS)
    with suppress(OSError):
        if process.descriptor is None:
            return process.door.read(f"proc/{process.pid}/{name}", most_bytes=most)
        return process.door.read(name, at=process.descriptor, most_bytes=most)
    return None
