"""Finds the limits that guests share, as that of machine.slice or of Kubernetes' pods. A guest's own limit is none.

Where such a slice is full, merging helps as on a full host: a page that is shared is charged to one of its users only.
"""

from collections import Counter
from collections.abc import Collection

from ksmtuned_py.door import Door
from ksmtuned_py.guests.cgroups import limits, upwards
from ksmtuned_py.model import Slice


class Slices:
    """Remembers the limits of the cgroups that guests are in."""

    def __init__(self, door: Door) -> None:
        self._door = door
        self._limited: dict[str, Slice] = {}

    def read(self, cgroup: str) -> None:
        """Read the limits anew on the way up from a guest's cgroup."""
        for each in upwards(cgroup):
            self._limited.pop(each, None)
        for limit in limits(self._door, cgroup):
            available = max(0, limit.limit_bytes - limit.used_bytes)
            self._limited[limit.cgroup] = Slice(limit.cgroup, limit.limit_bytes, available)

    def shared(self, cgroups: Collection[str]) -> dict[str, Slice]:
        """The fullest slice of each of the guests' cgroups, for those in one that another guest is in, too."""
        guests = Counter(each for cgroup in cgroups for each in upwards(cgroup) if each in self._limited)
        self._limited = {each: self._limited[each] for each in guests}
        found = {}
        for cgroup in set(cgroups) if guests else ():
            shared = [self._limited[each] for each in upwards(cgroup) if guests[each] > 1]
            if shared:
                found[cgroup] = min(shared, key=lambda one: one.available_bytes / max(1, one.limit_bytes))
        return found
