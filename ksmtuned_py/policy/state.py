"""What the chosen policy remembers from tick to tick, beside what the trend knows for all of them. Pure."""

from collections.abc import Mapping
from typing import TypeAlias

from ksmtuned_py.config import Config
from ksmtuned_py.model import Snapshot
from ksmtuned_py.policy.advisorstate import AdvisorState
from ksmtuned_py.policy.peers.kubevirt import KubevirtState
from ksmtuned_py.policy.peers.mom import MomState
from ksmtuned_py.policy.peers.periodic import Periodic
from ksmtuned_py.policy.peers.shellscript import ScriptState

PolicyState: TypeAlias = AdvisorState | Periodic | None
STATES: Mapping[str, type[AdvisorState] | type[Periodic]] = {
    "advisor": AdvisorState,
    "ksmtuned": ScriptState,
    "mom": MomState,
    "kubevirt": KubevirtState,
}
"""By the name of the policy; the others need none."""


def next_state(past: PolicyState, now: Snapshot, config: Config) -> PolicyState:
    """That of the policy that the config names, with one more snapshot; another policy's is forgotten."""
    kind = STATES.get(config.policy.name)
    if kind is None:
        return None
    return (past if isinstance(past, kind) else kind()).after(now, config)
