"""Which memfd a guest's pages are merged in: one for each group and NUMA policy."""

import hashlib
import os
import re
import time
from contextlib import suppress

from ksmtuned_py.backends.scan.mappings import PAGES_NAME
from ksmtuned_py.backends.scan.pages import Prints
from ksmtuned_py.backends.scan.refusal import Refused
from ksmtuned_py.backends.scan.remap import system
from ksmtuned_py.backends.scan.remap.numa import Policy
from ksmtuned_py.backends.scan.remap.references import mapped_end, merged_mappings
from ksmtuned_py.backends.scan.remap.store import Store, is_ours, memfd_device
from ksmtuned_py.door import Door
from ksmtuned_py.errors import KsmtunedError

_MOST_OF_MEMORY = 4
"""Times all memory: so far a guest's mappings may reach into a store that is taken over. The tables are as long."""


class Stores:
    """All stores of this worker."""

    def __init__(self, door: Door) -> None:
        self._door = door
        self._stores: dict[tuple[str, Policy | None], Store] = {}

    def of(self, group: str, policy: Policy | None) -> Store:
        """The one there is already, or one that a worker before us has left, or a new one; raises Refused."""
        if (group, policy) not in self._stores:
            text = f"{group}\0{policy.text}" if policy else group
            name = f"{PAGES_NAME}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
            store = self._adopted(name) or _new(name)
            if policy:
                _bind(store, policy)
            self._stores[group, policy] = store
        return self._stores[group, policy]

    def known(self, group: str) -> list[Prints]:
        """What is merged already in a group, by its stores."""
        return [store.known for (name, _), store in self._stores.items() if name == group]

    def by_inode(self) -> dict[int, Store]:
        """As the mappings of guests name them."""
        return {store.key[1]: store for store in self._stores.values()}

    def _adopted(self, name: str) -> Store | None:
        """A store that nobody works with any more."""
        tried: set[int] = set()
        with_time = re.compile(rf"/memfd:({name}-([0-9a-f]+)) ")
        for pid in self._door.names("proc"):
            with suppress(OSError, KsmtunedError):
                for mapping in merged_mappings(self._door, pid):
                    found = with_time.match(mapping.name)
                    if found and mapping.inode not in tried:
                        tried.add(mapping.inode)
                        path = f"proc/{pid}/map_files/{mapping.start:x}-{mapping.end:x}"
                        if store := self._take_over(found[1], int(found[2], 16), path):
                            return store
        return None

    def _take_over(self, name: str, since_ticks: int, path: str) -> Store | None:
        """The memfd that is mapped there, if it is one of ours, and not used as no worker of ours would."""
        if system.file(self._door.path(path), system.ANYWHERE).key[0] != memfd_device():
            return None  # a file of that name, whose server may not answer when it is opened
        descriptor = os.open(self._door.path(path), os.O_RDWR | os.O_CLOEXEC)
        end = mapped_end(self._door, os.fstat(descriptor).st_ino)
        if is_ours(descriptor) and end < _MOST_OF_MEMORY * os.sysconf("SC_PHYS_PAGES"):
            try:
                store = Store(name, since_ticks, descriptor)
            except OSError:
                os.close(descriptor)
                raise
            store.end = max(store.end, end)
            return store
        os.close(descriptor)
        return None


def _new(name: str) -> Store:
    """One with the time in its name, for whoever adopts it."""
    ticks = int(time.clock_gettime(time.CLOCK_BOOTTIME) * os.sysconf("SC_CLK_TCK"))
    return Store(f"{name}-{ticks:x}", ticks)


def _bind(store: Store, policy: Policy) -> None:
    try:
        store.bind(policy)
    except OSError as error:
        store.close()
        raise Refused(f"merged pages cannot have its NUMA policy {policy.text}: {error.strerror}") from None
