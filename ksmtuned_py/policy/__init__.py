"""Policies: pure functions from what was seen to what is wanted."""

from typing import assert_never

from ksmtuned_py.config import Config
from ksmtuned_py.model import Decision, Snapshot
from ksmtuned_py.policy import adaptive, advisor, fixed
from ksmtuned_py.policy.advisorstate import AdvisorState
from ksmtuned_py.policy.aside import with_aside
from ksmtuned_py.policy.overruled import nothing_merges
from ksmtuned_py.policy.peers import peer
from ksmtuned_py.policy.peers.kubevirt import KubevirtState
from ksmtuned_py.policy.peers.mom import MomState
from ksmtuned_py.policy.peers.shellscript import ScriptState
from ksmtuned_py.policy.state import AdaptiveState, FixedState
from ksmtuned_py.policy.trend import Trend


def decide(now: Snapshot, trend: Trend, config: Config) -> Decision:
    """The wanted knobs, and why, by the policy whose state the trend has; raises what keeps it from deciding."""
    if now.knobs.run is None:
        return nothing_merges(config)
    return with_aside(_decided(now, trend, config), trend, config)


def _decided(now: Snapshot, trend: Trend, config: Config) -> Decision:
    match trend.policy_state:
        case AdaptiveState():
            return adaptive.decide(now, trend, config)
        case AdvisorState() as state:
            return advisor.decide(now, trend, state, config)
        case FixedState():
            return fixed.decide(now, trend, config)
        case ScriptState() | MomState() | KubevirtState() as state:
            return peer.decide(now, trend, state, config)
        case never:
            assert_never(never)
