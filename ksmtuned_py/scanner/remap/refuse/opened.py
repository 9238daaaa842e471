"""Judges what a process has open or mapped beside memory: it passes if it is known to leave memory alone.

Stopping all threads of a process does not stop a device or the kernel. What those wrote to a page between our
comparison and the remapping would be lost without a trace. Nothing here waits. Types are asked for without
synchronising with a file's server. Sockets are told apart by the name of their protocol.
"""

import os
import re
import stat
from collections.abc import Iterable, Iterator
from contextlib import suppress

from ksmtuned_py.door import Door
from ksmtuned_py.door.text import printable
from ksmtuned_py.guests.mappings import Mapping
from ksmtuned_py.scanner.process import Process
from ksmtuned_py.scanner.remap.stop import system

_FILES = {stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK, stat.S_IFIFO, stat.S_IFBLK}
"""A disk is harmless: a thread that reads it past the page cache cannot be stopped before it is done."""
_DEVICES = {(1, minor) for minor in (3, 5, 7, 8, 9, 11)} | {(10, 200), (10, 232)}
"""null, zero, full, random, urandom, kmsg; tun; and kvm, which follows a change of mappings."""
_TERMINALS = {4, 5, *range(136, 144)}
_DRIVERS = {"macvtap", "rtc"}
"""Drivers by their names in /proc/devices. They write to memory only in a system call of the process itself."""
_PROTOCOLS = {"UNIX", "UNIX-STREAM", "TCP", "TCPv6", "MPTCP", "MPTCPv6", "UDP", "UDPv6", "NETLINK", "AF_VSOCK"}
_ANONYMOUS = re.compile(
    r"anon_inode:(\[(eventfd|eventpoll|timerfd|signalfd|pidfd|fanotify|kvm-vm|kvm-vcpu(-stats)?:.*|perf_event)\]"
    r"|inotify|kvm-vm|kvm-vcpu(-stats)?:.*|kvm-vm-stats)"
)
_OF_THE_KERNEL = re.compile(r"(pipe|net|mnt|pid|user|uts|ipc|cgroup|time):\[\d+\]")
_AIO = "/[aio]"
_MOST_OPEN = 1000
"""Files that are checked in 5 ms, as long as a guest is stopped by default."""
_REASONS = (
    ("vfio", "a device of its own (VFIO) may write to its memory at any time"),
    ("vhost", "the kernel (vhost) may write to its memory at any time"),
    ("infiniband", "a network card (RDMA) may write to its memory at any time"),
    ("[io_uring]", "the kernel (io_uring) may write to its memory at any time"),
    (_AIO, "the kernel (native AIO) may write to its memory at any time"),
    ("[userfaultfd]", "its missing pages are handled by userfaultfd"),
)


class Belongings:
    """What one process has open or mapped; a name that was let through once is not looked at again."""

    def __init__(self, door: Door, process: Process) -> None:
        self._process = process
        self._directory = door.path(f"proc/self/fd/{process.directory}")
        self._majors = _majors(door)
        self._passed: set[str] = set()

    def refusal(self, mappings: Iterable[Mapping]) -> str | None:
        """Returns why a process with these mappings, and with what it has open, is refused; None when it is not."""
        if len(self._process.names("fd", _MOST_OPEN + 1)) > _MOST_OPEN:
            return f"it has more than {_MOST_OPEN} files open: to check them takes longer than a stop may"
        return next(filter(None, (self._reason(*one) for one in (*self._opened(), *_mapped(mappings)))), None)

    @property
    def has_kvm(self) -> bool:
        """Whether it has a virtual machine of KVM."""
        return any("kvm-vm" in name for name in self._passed)

    def new(self) -> list[str]:
        """Returns what it has open now that was not let through yet, or is more than can be looked at in a stop."""
        links = [link for link, _ in self._opened()]
        return [link for link in links if link not in self._passed] or links[_MOST_OPEN:]

    def _opened(self) -> Iterator[tuple[str, str]]:
        for number in self._process.names("fd", _MOST_OPEN + 1):
            with suppress(FileNotFoundError):  # closed since
                yield os.readlink(f"fd/{number}", dir_fd=self._process.directory), f"fd/{number}"

    def _reason(self, name: str, path: str) -> str | None:
        """Returns why it is refused for what a name stands for, or None. The file is below its /proc/PID."""
        if name in self._passed:
            return None
        try:
            what, harmless = self._judged(name, path)
        except FileNotFoundError:  # closed or unmapped since
            return None
        except OSError as error:
            what = printable(name)
            return f"whether {what} leaves its memory alone cannot be known: {error.strerror} (systemd/scan_remap.conf)"
        if harmless:
            self._passed.add(name)
            return None
        return reason(printable(what))

    def _judged(self, name: str, path: str) -> tuple[str, bool]:
        """Returns what the name stands for, and whether it is harmless; raises OSError."""
        if name.startswith("/"):
            return name, is_harmless_file(name, system.file(path, self._process.directory), self._majors)
        if not name.startswith("socket:["):
            return name, is_harmless_object(name)
        if not path.startswith("fd/"):
            return "a socket with rings (AF_XDP, AF_PACKET)", False
        protocol = os.getxattr(f"{self._directory}/{path}", "system.sockprotoname").rstrip(b"\0").decode()
        return f"a socket of {protocol}", protocol in _PROTOCOLS


def is_harmless_object(name: str) -> bool:
    """Whether an object of this name, which is no file, leaves the memory of its owner alone."""
    return bool(_ANONYMOUS.fullmatch(name) or _OF_THE_KERNEL.fullmatch(name))


def is_harmless_file(name: str, found: system.File, majors: set[int]) -> bool:
    """Whether a file leaves the memory of its owner alone; some drivers get their numbers at boot."""
    if found.mode == stat.S_IFCHR:
        return found.device in _DEVICES or found.device[0] in majors | _TERMINALS
    return found.mode in _FILES and not name.startswith(_AIO)


def reason(what: str) -> str:
    """The reason that is told when something is not harmless."""
    known = (reason for word, reason in _REASONS if word in what)
    return next(known, f"it has {what} open, which may write to its memory at any time")


def _mapped(mappings: Iterable[Mapping]) -> Iterator[tuple[str, str]]:
    """Yields the files in mappings; memory has no inode, and no name but one in brackets."""
    for one in mappings:
        if one.inode or not (one.name == "" or one.name.startswith("[")):
            yield one.name, f"map_files/{one.start:x}-{one.end:x}"


def _majors(door: Door) -> set[int]:
    text = (door.read_if_there("proc/devices") or "").split("Block devices:")[0]
    words = (line.split() for line in text.splitlines())
    return {int(line[0]) for line in words if len(line) == 2 and line[1] in _DRIVERS}
