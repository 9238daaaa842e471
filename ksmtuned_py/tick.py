"""The five words of the house: look, decide, plan, apply, tell."""

from ksmtuned_py.config import Config
from ksmtuned_py.host import Host
from ksmtuned_py.plan import plan
from ksmtuned_py.policy import policy_of
from ksmtuned_py.policy.trend import Trend
from ksmtuned_py.report import Report


def tick(host: Host, config: Config, trend: Trend, woken_by: frozenset[str] = frozenset()) -> Report:
    """One round: everything else in this program is one of its words."""
    snapshot = host.observe(woken_by)  # read only; carries its own time
    trend = trend.under(config).after(snapshot)  # pure; advances whatever is decided
    decision = policy_of(config).decide(snapshot, trend)  # pure; wanted knobs, mode, and the reason as a sentence
    outcome = host.apply(plan(snapshot.knobs, decision.knobs))  # ordered writes; none when nothing differs
    return Report(
        snapshot=snapshot,
        trend=trend,
        decision=decision,
        outcome=outcome,
        tick_seconds=host.seconds_since(snapshot),
    )


def rehearse(host: Host, config: Config) -> None:
    """What this configuration would decide now, and nothing done about it; raises what keeps it from deciding."""
    snapshot = host.look()
    policy_of(config).decide(snapshot, Trend.begin(config).after(snapshot))
