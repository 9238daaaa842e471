"""The advisor policy: the kernel's scan-time advisor, started well, and started anew when it lost its way. Pure.

What the advisor gets wrong (mm/ksm.c: scan_time_advisor, Linux 6.8 to 7.2), and what is done about it:
- It recomputes pages_to_scan only at the end of a pass, and begins with 500: on a big host that pass takes hours.
  So it is started with the pages_to_scan that the target needs (advisor_min_pages_to_scan is only its start value).
- It charges all the CPU time that ksmd ever used to its first pass, and so slows down to almost nothing; or, when it
  came on in the middle of a pass, it takes the time since boot for the length of that pass. And it smooths with an
  average that begins at 0. So it stays at its start value until the average has settled: with advisor_max_cpu out of
  reach and a target of 1 s it always wants more, and advisor_max_pages_to_scan, at the start value, is all it gets.
- It never uses less than 10 % of a core. So advisor_max_pages_to_scan stays near what the target needs.
- It does not notice new guests, or memory getting short, before the end of the pass. So when it scans at less than
  half of what the target needs, it is started anew.
"""

from dataclasses import dataclass

from ksmtuned_py.config import Config
from ksmtuned_py.errors import KsmtunedError
from ksmtuned_py.model import Decision, Knobs, Mode, Run, Snapshot, Verdict
from ksmtuned_py.policy.advisorstate import AdvisorState
from ksmtuned_py.policy.need import Need
from ksmtuned_py.policy.overruled import overruled
from ksmtuned_py.policy.trend import Trend
from ksmtuned_py.units import human_seconds

SLEEP_MS = 20
"""The kernel's default: the advisor changes pages_to_scan alone."""
SETTLING_PASSES = 8
"""Its average takes 30 % of each new value: after 8 passes 94 % of it are measured."""
TOO_SLOW = 2
"""Started anew when it scans this many times more slowly than it should."""
CPU_OUT_OF_REACH = 1_000_000
"""The value of advisor_max_cpu while the average settles. No pass ever takes that much CPU time."""
ALWAYS_MORE_SECONDS = 1
"""The value of advisor_target_scan_time meanwhile. No pass is that fast, so the advisor wants more."""


@dataclass(eq=False)
class NoAdvisor(KsmtunedError):
    """The kernel's KSM has no advisor."""

    template = "policy.name = advisor: this kernel's KSM has no advisor"
    hint_template = "it came with Linux 6.8; policy.name = adaptive needs none"


def decide(now: Snapshot, trend: Trend, state: AdvisorState, config: Config) -> Decision:
    """The wanted knobs, and why; raises NoAdvisor."""
    if now.knobs.advisor_mode is None:
        raise NoAdvisor
    return overruled(now, trend, config) or _steer(now, trend, state, config)


def _steer(now: Snapshot, trend: Trend, state: AdvisorState, config: Config) -> Decision:
    needed, target = _needed_pages(now, trend, state, config), _target_seconds(trend, config)
    pages = now.knobs.pages_to_scan or 0
    aim = f"{needed} pages per batch for a pass in {human_seconds(target)}"
    if now.knobs.advisor_mode == "none":
        return _decision("advisor_start", f"the kernel's advisor starts at {aim}", _start(needed), config)
    if state.passes is None:
        return _decision("advisor_restart", "the advisor was on before: off, to start it well", _OFF, config)
    if pages * TOO_SLOW < needed:
        return _decision("advisor_restart", f"the advisor scans {pages} and not {aim}: off, to start it", _OFF, config)
    if state.passes < SETTLING_PASSES:
        sentence = f"the advisor stays at {pages} pages per batch; {state.passes} of {SETTLING_PASSES} passes"
        return _decision("advisor_settles", f"{sentence} that its average needs are done", _hold(now), config)
    sentence = f"the advisor scans {pages} pages per batch; it would take {aim}"
    return _decision("advisor", sentence, _let_go(needed, target, config), config)


def _target_seconds(trend: Trend, config: Config) -> int:
    settings = config.advisor
    return settings.target_short_seconds if trend.need >= Need.SHORT else settings.target_seconds


def _needed_pages(now: Snapshot, trend: Trend, state: AdvisorState, config: Config) -> int:
    """pages_to_scan for a pass in the target time, as far as its limits go."""
    settings, cost = config.advisor, trend.scanner.cost_seconds
    idle = SLEEP_MS / 1000 + trend.scanner.oversleep_seconds
    share = settings.max_cpu_percent / 100
    most = min(settings.max_pages_to_scan, idle * share / (1 - share) / cost)
    spare = _target_seconds(trend, config) - state.next_pass_pages(now) * cost
    needed = state.next_pass_pages(now) * idle / spare if spare > 0 else most
    return max(1, round(min(needed, most)))


def _start(needed: int) -> Knobs:
    return Knobs(
        run=Run.MERGE,
        sleep_millisecs=SLEEP_MS,
        advisor_max_cpu=CPU_OUT_OF_REACH,
        advisor_min_pages_to_scan=needed,
        advisor_max_pages_to_scan=needed,
        advisor_target_scan_time=ALWAYS_MORE_SECONDS,
        advisor_mode="scan-time",
    )


def _hold(now: Snapshot) -> Knobs:
    return _start(now.knobs.advisor_min_pages_to_scan or 1)


def _let_go(needed: int, target_seconds: int, config: Config) -> Knobs:
    settings = config.advisor
    bound = 1 << needed.bit_length()  # a power of two, so that it is seldom written
    return Knobs(
        run=Run.MERGE,
        sleep_millisecs=SLEEP_MS,
        advisor_max_cpu=round(settings.max_cpu_percent),
        advisor_max_pages_to_scan=min(bound, settings.max_pages_to_scan),
        advisor_target_scan_time=target_seconds,
        advisor_mode="scan-time",
    )


def _decision(rule: str, sentence: str, knobs: Knobs, config: Config) -> Decision:
    daemon = config.daemon
    return Decision(
        mode=Mode.CRUISE,
        rule=rule,
        reason=sentence,
        knobs=knobs,
        next_tick_seconds=daemon.idle_tick_seconds if rule == "advisor" else daemon.tick_seconds,
        verdicts=(Verdict(rule=rule, fired=True, sentence=sentence),),
        would_change=("new guests, growing guests, or a change of need",),
    )


_OFF = Knobs(advisor_mode="none")
