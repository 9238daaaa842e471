"""Policies: pure functions from what was seen to what is wanted."""

from typing import Protocol, assert_never

from ksmtuned_py.config import Config
from ksmtuned_py.model import Decision, Snapshot
from ksmtuned_py.policy.adaptive import Adaptive
from ksmtuned_py.policy.advisor import Advisor
from ksmtuned_py.policy.fixed import Fixed
from ksmtuned_py.policy.peers.peer import Peer
from ksmtuned_py.policy.trend import Trend


class Policy(Protocol):
    """Who decides."""

    def decide(self, now: Snapshot, trend: Trend) -> Decision:
        """The wanted knobs, and why."""


def policy_of(config: Config) -> Policy:
    """The policy that the config names."""
    match config.policy.name:
        case "adaptive":
            return Adaptive(config)
        case "advisor":
            return Advisor(config)
        case "fixed":
            return Fixed(config)
        case "ksmtuned" | "mom" | "kubevirt":
            return Peer(config)
        case never:
            assert_never(never)
