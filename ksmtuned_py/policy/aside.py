"""The knobs outside KSM's directory, which need decides, whatever the policy. Pure.

They are no part of a policy: with a reload to another one, ksmd would stay before the guests, or on its few CPUs.
"""

from dataclasses import replace

from ksmtuned_py.config import Config
from ksmtuned_py.model import Decision, Knobs, Mode
from ksmtuned_py.policy.trend import Trend


def with_aside(decision: Decision, trend: Trend, config: Config) -> Decision:
    """The decision with those that say who goes first, and whether khugepaged may undo merging."""
    if decision.mode is Mode.HELD:
        return decision
    wanted = {
        "ksmd_nice": trend.precedence.nice(trend.need, config),
        "ksmd_cpus": trend.precedence.cpus(trend.need, config),
        **trend.khugepaged.wanted(trend.need, config),
    }
    ours = {name: value for name, value in wanted.items() if name not in trend.taken}
    return replace(decision, knobs=Knobs.of({**dict(decision.knobs.items()), **ours}))
