"""Chooses the memfd that a guest's pages are merged in: one for each group and NUMA policy."""

import hashlib
import os
import re
import time
from collections.abc import Generator
from contextlib import suppress
from dataclasses import dataclass

from ksmtuned_py.door import Door
from ksmtuned_py.errors import KsmtunedError
from ksmtuned_py.guests.mappings import PAGES_NAME
from ksmtuned_py.scanner.pages import Prints
from ksmtuned_py.scanner.refusal import Refused
from ksmtuned_py.scanner.remap.refuse.numa import NumaPolicy
from ksmtuned_py.scanner.remap.share.references import PAGES_PER_PROCESS, merged_mappings
from ksmtuned_py.scanner.remap.share.store import PAGE, Store, has_pages_from, is_ours, memfd_device
from ksmtuned_py.scanner.remap.stop import system

_MOST_OF_MEMORY = 4
"""How far, in times of all memory, a store may reach that is taken over, and its mappings: its tables are as long."""
_NAME = re.compile(rf"/memfd:({PAGES_NAME}-[0-9a-f]{{8}})-([0-9a-f]{{1,16}}) ")
"""The name of a store: the hash of its group and policy, and when it was made."""


@dataclass(frozen=True, slots=True)
class _Left:
    """A memfd with the name of a store, where its last mapped page is mapped."""

    inode: int
    name: re.Match[str]
    path: str
    """A path that leads to it. Nothing else lies behind it, like a file on a server that does not answer."""
    end: int
    """How far, in pages, it is mapped; beyond its content, guests have copies of their own."""


class Stores:
    """All stores of this worker."""

    def __init__(self, door: Door) -> None:
        self._door = door
        self._stores: dict[tuple[str, NumaPolicy | None], Store] = {}
        self._left: dict[str, list[Store]] = {}
        """Stores that earlier workers have left, by name without the time, as long as no guest is merged with them."""
        self._has_looked = False

    def of(self, group: str, policy: NumaPolicy | None) -> Generator[int, None, Store]:
        """Returns a store we have, or one that an earlier worker has left, or a new one; raises Refused.

        Yields the work of each step, in pages.
        """
        if (group, policy) not in self._stores:
            text = f"{group}\0{policy.text}" if policy else group
            name = f"{PAGES_NAME}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
            if not self._left.get(name):
                yield from self._look()
            left = self._left.get(name)
            store = left.pop() if left else _new(name)
            if policy:
                _bind(store, policy)
            self._stores[group, policy] = store
        return self._stores[group, policy]

    def take_over(self) -> Generator[int, None, None]:
        """Takes over what earlier workers have left, so that it is counted, and freed when nobody needs it."""
        if not self._has_looked:
            yield from self._look()

    def known(self, group: str) -> list[Prints]:
        """Returns what is merged already in a group, by its stores; each store that was left may be of the group."""
        return [store.known for store in self._all(group)]

    def by_inode(self) -> dict[int, Store]:
        """Returns the stores by their inodes, as the mappings of guests name them."""
        return {store.key[1]: store for store in self._all()}

    def _all(self, group: str | None = None) -> list[Store]:
        used = [store for (name, _), store in self._stores.items() if group in (None, name)]
        return [*used, *(store for stores in self._left.values() for store in stores)]

    def _look(self) -> Generator[int, None, None]:
        """Takes over the stores that nobody works with any more; yields the work of each step, in pages."""
        found, device = dict[int, _Left](), memfd_device()
        for pid in self._door.names("proc"):
            with suppress(OSError, KsmtunedError):
                for mapping in (yield from merged_mappings(self._door, pid)):
                    match, end = _NAME.match(mapping.name), (mapping.offset + mapping.size) // PAGE
                    if match and (mapping.inode not in found or end > found[mapping.inode].end):
                        path = self._door.path(f"proc/{pid}/map_files/{mapping.start:x}-{mapping.end:x}")
                        if system.file(path, system.ANYWHERE).key == (device, mapping.inode):
                            found[mapping.inode] = _Left(mapping.inode, match, path, end)
            yield PAGES_PER_PROCESS
        for inode in found.keys() - self.by_inode().keys():
            yield from self._take_over(found[inode])
        self._has_looked = True

    def _take_over(self, left: _Left) -> Generator[int, None, None]:
        """Takes over the memfd that is mapped there, if a worker of ours has made it and nobody uses it wrongly."""
        store = None
        with suppress(OSError):
            store = self._opened(left)
        if store:
            try:
                yield from store.take_over()
            except BaseException:  # also when this is not gone on with: the next worker's look needs the lock
                store.close()
                raise
            self._left.setdefault(left.name[1], []).append(store)

    def _opened(self, left: _Left) -> Store | None:
        """Opens one of our memfds, of which anybody can make more."""
        descriptor = os.open(left.path, os.O_RDWR | os.O_CLOEXEC)
        try:
            most = _MOST_OF_MEMORY * os.sysconf("SC_PHYS_PAGES")
            is_it = os.fstat(descriptor).st_ino == left.inode and is_ours(descriptor)
            if is_it and left.end < most and not has_pages_from(descriptor, most):
                return Store(left.name[1], int(left.name[2], 16), descriptor, left.end)
        except OSError:
            os.close(descriptor)
            raise
        os.close(descriptor)
        return None


def _new(name: str) -> Store:
    """Makes a store with the time in its name, for whoever adopts it."""
    ticks = int(time.clock_gettime(time.CLOCK_BOOTTIME) * os.sysconf("SC_CLK_TCK"))
    return Store(f"{name}-{ticks:x}", ticks)


def _bind(store: Store, policy: NumaPolicy) -> None:
    try:
        store.bind(policy)
    except OSError as error:
        store.close()
        raise Refused(f"merged pages cannot have its NUMA policy {policy.text}: {error.strerror}") from None
