"""What each policy remembers from tick to tick, beside what the trend knows for all of them. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from ksmtuned_py.config import Config
from ksmtuned_py.config.types import PolicyName
from ksmtuned_py.model import Snapshot
from ksmtuned_py.policy.advisorstate import AdvisorState
from ksmtuned_py.policy.peers.kubevirt import KubevirtState
from ksmtuned_py.policy.peers.mom import MomState
from ksmtuned_py.policy.peers.shellscript import ScriptState


@dataclass(frozen=True, slots=True)
class AdaptiveState:
    """Nothing: the trend has all that the adaptive policy goes by."""

    def after(self, _now: Snapshot, _config: Config) -> "AdaptiveState":
        """This state, which never changes."""
        return self


@dataclass(frozen=True, slots=True)
class FixedState:
    """Nothing: the fixed policy goes by the configuration alone."""

    def after(self, _now: Snapshot, _config: Config) -> "FixedState":
        """This state, which never changes."""
        return self


PolicyState: TypeAlias = AdaptiveState | AdvisorState | FixedState | ScriptState | MomState | KubevirtState
FIRST: Mapping[PolicyName, PolicyState] = {
    "adaptive": AdaptiveState(),
    "advisor": AdvisorState(),
    "fixed": FixedState(),
    "ksmtuned": ScriptState(),
    "mom": MomState(),
    "kubevirt": KubevirtState(),
}
"""What each policy begins with."""


def next_state(past: PolicyState, now: Snapshot, config: Config) -> PolicyState:
    """The state of the policy that the configuration names, with one more snapshot. Another policy's is forgotten."""
    first = FIRST[config.policy.name]
    return (past if isinstance(past, type(first)) else first).after(now, config)
