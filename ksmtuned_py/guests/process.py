"""Reads one process in /proc by a descriptor, so that a reused PID cannot pass for it.

A Process reads the files that never make the reader wait. An Inside reads those that wait while the process's memory
map or the kernel's cgroups are locked. That may be long, so only Patience makes an Inside, on a thread.
"""

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

from ksmtuned_py.door import Door
from ksmtuned_py.door.text import printable, printable_lines
from ksmtuned_py.guests.cgroupspace import from_root
from ksmtuned_py.guests.parse import parse_statm, split_words
from ksmtuned_py.sensors.stat import Identity, parse_stat
from ksmtuned_py.units import MIB

QuickFile = Literal["stat", "statm", "comm"]
SlowFile = Literal["cmdline", "ksm_stat", "ksm_merging_pages", "smaps", "smaps_rollup", "cgroup"]
WORDS, WORD_LENGTH = 4096, 4096
"""The most words that are kept, and letters of each. A QEMU with a hundred disks has 700 words of up to 600 letters."""
MOST_BYTES: Mapping[QuickFile | SlowFile, int] = {"cmdline": MIB, "smaps": 8 * MIB}
"""The most that is read of a file.

Any process may declare all its memory to be its command line (PR_SET_MM). It may have 65,530 mappings, which take 0.7
KiB each in smaps.
"""
MOST_BYTES_OF_OTHERS = MIB


@dataclass(slots=True)
class ProcessFiles:
    """Reads files below /proc/PID that never make us wait, through a descriptor where there is one."""

    door: Door
    pid: int
    descriptor: int | None = None

    def hold(self) -> None:
        """Open a descriptor, which means this very process; raises OSError when it is gone or descriptors ran out."""
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
        """The process's name as the kernel cuts it; '' when it is gone."""
        return printable((_read(self, "comm") or "").removesuffix("\n"))

    def identity(self) -> Identity | None:
        """The process's name and start; None when it is gone; raises Garbage."""
        text = _read(self, "stat")
        return parse_stat(text, self.path("stat")) if text else None

    def sizes_pages(self) -> tuple[int, int] | None:
        """The mapped and the resident pages; raises Garbage.

        None without memory: a kernel thread, a zombie, one that ended.
        """
        text = _read(self, "statm")
        sizes = parse_statm(text, self.path("statm")) if text else (0, 0)
        return sizes if sizes[0] else None


class Inside:
    """Reads the files that wait while the process's memory map or cgroup is locked. Only Patience makes one."""

    def __init__(self, process: ProcessFiles) -> None:
        self._process = process

    def read(self, name: SlowFile) -> str | None:
        """The file's printable text; None when there is no such file, it is too long, or we may not read it."""
        text = _read(self._process, name)
        if text is not None and name == "cgroup":
            text = from_root(self._process.door, text)
        return None if text is None else printable_lines(text)

    def words(self) -> list[str]:
        """The words of the command line; none for a kernel thread, a process that is gone, or one that is too long.

        Their number and their lengths are cut, because a search takes the square of a word's length.
        """
        words = split_words(_read(self._process, "cmdline") or "")
        return [printable(word[:WORD_LENGTH]) for word in words[:WORDS]]

    def path(self, name: SlowFile) -> str:
        """The file's full path, for messages."""
        return self._process.path(name)

    def links(self, most: int) -> list[str]:
        """The links of the first `most` descriptors; none when we may not see them."""
        process = self._process
        with suppress(OSError):
            if process.descriptor is None:
                return process.door.links(f"proc/{process.pid}/fd", most)
            return process.door.links("fd", most, at=process.descriptor)
        return []


def _read(process: ProcessFiles, name: QuickFile | SlowFile) -> str | None:
    most = MOST_BYTES.get(name, MOST_BYTES_OF_OTHERS)
    with suppress(OSError):
        if process.descriptor is None:
            return process.door.read(f"proc/{process.pid}/{name}", most_bytes=most)
        return process.door.read(name, at=process.descriptor, most_bytes=most)
    return None
