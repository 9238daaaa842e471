"""Which memfd a guest's pages are merged in: one for each group and NUMA policy."""

import hashlib
import os
import re
import time
from contextlib import suppress

from ksmtuned_py.backends.scan.mappings import PAGES_NAME
from ksmtuned_py.backends.scan.refusal import Refused
from ksmtuned_py.backends.scan.remap.numa import Policy
from ksmtuned_py.backends.scan.remap.references import mapped_end, merged_mappings
from ksmtuned_py.backends.scan.remap.store import Store
from ksmtuned_py.door import Door
from ksmtuned_py.errors import KsmtunedError


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
                        descriptor = os.open(self._door.path(path), os.O_RDWR | os.O_CLOEXEC)
                        store = _take_over(found[1], int(found[2], 16), descriptor)
                        store.end = max(store.end, mapped_end(self._door, mapping.inode))
                        return store
        return None


def _new(name: str) -> Store:
    """One with the time in its name, for whoever adopts it."""
    ticks = int(time.clock_gettime(time.CLOCK_BOOTTIME) * os.sysconf("SC_CLK_TCK"))
    return Store(f"{name}-{ticks:x}", ticks)


def _take_over(name: str, since_ticks: int, descriptor: int) -> Store:
    try:
        return Store(name, since_ticks, descriptor)
    except OSError:
        os.close(descriptor)
        raise


def _bind(store: Store, policy: Policy) -> None:
    try:
        store.bind(policy)
    except OSError as error:
        store.close()
        raise Refused(f"merged pages cannot have its NUMA policy {policy.text}: {error.strerror}") from None
