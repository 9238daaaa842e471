"""The five words of the house: look, decide, plan, apply, tell."""

from ksmtuned_py import policy
from ksmtuned_py.config import Config
from ksmtuned_py.host import Host
from ksmtuned_py.model import Decision, Snapshot, Wake, Write
from ksmtuned_py.plan import plan
from ksmtuned_py.policy.trend import Trend
from ksmtuned_py.report import Report


def tick(host: Host, config: Config, trend: Trend, woken_by: frozenset[Wake] = frozenset()) -> Report:
    """Do one round. Everything else in this program is one of its words."""
    snapshot = host.observe(woken_by)  # read only; carries its own time
    trend, decision, writes = decide(snapshot, config, trend)  # pure
    outcome = host.apply(writes)  # in their order; none when nothing differs
    return Report(
        snapshot=snapshot,
        trend=trend,
        decision=decision,
        outcome=outcome,
        dry=host.dry,
        tick_seconds=host.seconds_since(snapshot),
    )


def decide(snapshot: Snapshot, config: Config, trend: Trend) -> tuple[Trend, Decision, tuple[Write, ...]]:
    """Decide and plan, without looking and writing, which a simulation does in its own way."""
    trend = trend.after(snapshot, config)  # advances whatever is decided
    decision = policy.decide(snapshot, trend, config)  # wanted knobs, mode, and the reason as a sentence
    return trend, decision, plan(snapshot.knobs, decision.knobs)


def rehearse(host: Host, config: Config) -> None:
    """Decide once with this configuration, and write nothing; raises what keeps it from deciding."""
    snapshot = host.look()
    decide(snapshot, config, Trend.begin(config))
