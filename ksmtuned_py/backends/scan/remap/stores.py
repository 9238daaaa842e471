"""Which memfd a guest's pages are merged in: one for each group and NUMA policy."""

import hashlib
import os
from contextlib import suppress

from ksmtuned_py.backends.scan.mappings import PAGES_NAME
from ksmtuned_py.backends.scan.remap.numa import Policy
from ksmtuned_py.backends.scan.remap.references import merged_mappings
from ksmtuned_py.backends.scan.remap.store import Store
from ksmtuned_py.backends.scan.remap.threads import Refused
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
            store = self._adopted(name) or Store(name)
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
        for pid in self._door.names("proc"):
            with suppress(OSError, KsmtunedError):
                for mapping in merged_mappings(self._door, pid):
                    if mapping.name.startswith(f"/memfd:{name} ") and mapping.inode not in tried:
                        tried.add(mapping.inode)
                        path = f"proc/{pid}/map_files/{mapping.start:x}-{mapping.end:x}"
                        return _take_over(name, os.open(self._door.path(path), os.O_RDWR | os.O_CLOEXEC))
        return None


def _take_over(name: str, descriptor: int) -> Store:
    try:
        return Store(name, descriptor)
    except OSError:
        os.close(descriptor)
        raise


def _bind(store: Store, policy: Policy) -> None:
    try:
        store.bind(policy)
    except OSError as error:
        store.close()
        raise Refused(f"merged pages cannot have its NUMA policy {policy.text}: {error.strerror}") from None
