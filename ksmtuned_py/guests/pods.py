"""Tells the namespace of a pod by what kubelet alone makes: the pod's cgroup, and its directory in /var/log/pods.

No word of a guest's, and no API server, is needed for it.
"""

import re
from collections.abc import Iterable

from ksmtuned_py.door import Door

LOGS = "var/log/pods"
"""Kubelet makes NAMESPACE_POD_UID in it before a container of the pod starts."""
_UID = r"[0-9a-f]{8}(?:[_-][0-9a-f]{4}){3}[_-][0-9a-f]{12}"
# From the root on, and the first that matches: a container may make cgroups of any name below its own.
_OF_POD = re.compile(
    r"/kubepods(?:\.slice)?(?:/(?:kubepods-)?(?:burstable|besteffort)(?:\.slice)?)?"
    rf"/(?:kubepods(?:-burstable|-besteffort)?-)?pod({_UID})(?:\.slice)?(?:/|$)"
)
_DIRECTORY = re.compile(r"([a-z0-9][a-z0-9-]{0,62})_[^_]+_(" + _UID + ")")


def pod_uid(cgroup: str) -> str:
    """The UID of the pod whose cgroup this is, or is below; '' for none."""
    found = _OF_POD.match(cgroup)
    return found[1].replace("_", "-") if found else ""


class Pods:
    """Knows the namespace of each pod that has a guest."""

    def __init__(self, door: Door) -> None:
        self._door = door
        self._namespaces: dict[str, str] = {}

    def look(self, cgroups: Iterable[str]) -> None:
        """Find the namespaces of these guests' pods. The directory is read only when there is a new one."""
        wanted = {uid for cgroup in cgroups if (uid := pod_uid(cgroup))}
        self._namespaces = {uid: name for uid, name in self._namespaces.items() if uid in wanted}
        if wanted - self._namespaces.keys():
            found = map(_DIRECTORY.fullmatch, self._door.names(LOGS))
            self._namespaces |= {match[2]: match[1] for match in found if match and match[2] in wanted}

    def namespace(self, cgroup: str) -> str | None:
        """The namespace of the pod with this cgroup; '' when it is no pod's, None when it is not known."""
        uid = pod_uid(cgroup)
        return self._namespaces.get(uid) if uid else ""
