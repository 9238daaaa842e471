"""The batch law: from a CPU budget straight to pages_to_scan and sleep_millisecs, with what was measured."""

from dataclasses import dataclass

DEFAULT_COST_SECONDS = 0.9e-6
"""CPU per page until it is measured: ksmd scans about 1.1 million unique pages per CPU-second."""
DEFAULT_OVERSLEEP_SECONDS = 0.003
"""How much longer than sleep_millisecs ksmd sleeps, until it is measured: timers end one or two jiffies later."""
BATCH_MIN_SECONDS = 0.005
"""Shorter batches would spend much of a small budget on waking up."""
BATCH_SECONDS = 0.020
"""The usual longest batch: knob writes wait for its end, and so does whoever shares the core."""
BATCH_MAX_SECONDS = 0.100
"""The longest batch where the budget is so high that the sleep beside a shorter one would drown in timer slack.

A sleep of one jiffy takes 5 ms and more: batches of 50 ms made 95 % of a core 88, and on a busy host, where each sleep
has to wait for a core as well, 78.
"""
HIGH_BUDGET = 0.85
"""Above this, batches are as long. Below, guests go first, and nothing ends a batch but its last page.

One of 108,000 pages that was meant to take 100 ms took 2.5 s, because its pages were merged and huge pages split.
"""
DEAREST_BATCH = 2.5
"""How much longer than meant a batch of a high budget may take, where the last pages were dear.

Beside dear pages (merged just now) lie cheap ones, and a batch of those would be short beside its sleep. With batches
by the last second's cost alone, ksmd had 0.81 of a core in place of 0.87 while guests came one after the other.
"""
MOST_BEYOND = 0.03
"""What that may take beyond the budget, as a share of a core. Where a machine is slow, all pages are dear for ever."""
USUAL_IDLE_SECONDS = 0.020
"""The sleep aimed at: several jiffies at any HZ, so that rounding stays small."""
SLEEP_MIN_MS = 1
SLEEP_MAX_MS = 10_000
PAGES_MAX = 1_000_000


@dataclass(frozen=True, slots=True)
class Batch:
    """One setting of the scan rate."""

    pages_to_scan: int
    sleep_millisecs: int


def batch_for(
    budget: float, cost_seconds: float, oversleep_seconds: float, usual_cost_seconds: float = DEFAULT_COST_SECONDS
) -> Batch:
    """The batch that keeps ksmd busy for `budget` of one core (0 to 1), at cost_seconds of CPU per page."""
    budget = min(max(budget, 1e-6), 0.99)
    busy_per_idle = _busy_per_idle(budget)
    longest = BATCH_MAX_SECONDS if budget > HIGH_BUDGET else BATCH_SECONDS
    busy = min(max(USUAL_IDLE_SECONDS * busy_per_idle, BATCH_MIN_SECONDS), longest)
    sleep_ms = round((busy / busy_per_idle - oversleep_seconds) * 1000)
    sleep_ms = min(max(sleep_ms, SLEEP_MIN_MS), SLEEP_MAX_MS)
    busy = min((sleep_ms / 1000 + oversleep_seconds) * busy_per_idle, longest)
    if budget > HIGH_BUDGET:
        longer = min(DEAREST_BATCH, _busy_per_idle(min(budget + MOST_BEYOND, 0.99)) / busy_per_idle)
        cost_seconds = max(min(cost_seconds, usual_cost_seconds), cost_seconds / longer)
    return Batch(min(max(round(busy / cost_seconds), 1), PAGES_MAX), sleep_ms)


def _busy_per_idle(budget: float) -> float:
    return budget / (1 - budget)
