"""The fixed policy pins the knobs to those of the configuration, whatever happens. Pure."""

from ksmtuned_py.config import Config
from ksmtuned_py.model import Decision, Knobs, Mode, Run, Snapshot
from ksmtuned_py.policy.overruled import overruled
from ksmtuned_py.policy.trend import Trend


def decide(now: Snapshot, trend: Trend, config: Config) -> Decision:
    """The knobs of the configuration, unless every policy must stop."""
    fixed = config.fixed
    return overruled(now, trend, config) or Decision(
        mode=Mode.PINNED if fixed.run else Mode.OFF,
        rule="fixed",
        reason=f"pinned by [fixed]: run={fixed.run}, {fixed.pages_to_scan} pages every {fixed.sleep_millisecs} ms",
        knobs=Knobs(
            run=Run(fixed.run),
            pages_to_scan=fixed.pages_to_scan,
            sleep_millisecs=fixed.sleep_millisecs,
            smart_scan=fixed.smart_scan,
            advisor_mode="none",
        ),
        next_tick_seconds=config.daemon.idle_tick_seconds,
        would_change=("another [fixed] section, or another policy",),
    )
