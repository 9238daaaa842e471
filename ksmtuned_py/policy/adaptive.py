"""The adaptive policy: boost on news, cruise while passes pay, rest when they do not; guards last. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import assert_never

from ksmtuned_py.config import Config
from ksmtuned_py.model import Decision, Knobs, Mode, Run, Snapshot, Verdict
from ksmtuned_py.policy.batch import batch_for
from ksmtuned_py.policy.guards import TRICKLE, Ceiling, Guard, guards
from ksmtuned_py.policy.need import Need, by_need
from ksmtuned_py.policy.overruled import before_pause_ends
from ksmtuned_py.policy.precedence import BUSY_SECONDS
from ksmtuned_py.policy.scanner import usual_cost_seconds
from ksmtuned_py.policy.trend import Trend
from ksmtuned_py.units import human_bytes, human_percent, human_seconds

BUDGET_MIN = 0.0002
"""The least share of one core: below this ksmd would sleep for longer than a change of mind may wait."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What the policy would do if no guard spoke."""

    mode: Mode
    budget: float
    """The share of one core that ksmd may take, 0 to 1."""
    rule: str
    reason: str


def decide(now: Snapshot, trend: Trend, config: Config) -> Decision:
    """The wanted knobs, and why."""
    said = tuple(guards(now, trend, config))
    wish = _wish(now, trend, config)
    guard = next((guard for guard in said if guard.verdict.fired), None)
    if guard is not None:
        wish = _lowered(wish, guard, _cruise(trend, config))
    return Decision(
        mode=wish.mode,
        rule=wish.rule,
        reason=wish.reason,
        knobs=_knobs(wish, guard, now, trend, config),
        next_tick_seconds=_next_tick_seconds(wish, now, trend, config),
        verdicts=(
            _need_verdict(now, trend),
            _news_verdict(now, trend, config),
            _yield_verdict(trend),
            trend.plenty.verdict(config),
            *(guard.verdict for guard in said),
        ),
        would_change=tuple(_would_change(wish, now, trend, config)),
    )


def _wish(now: Snapshot, trend: Trend, config: Config) -> Wish:
    if trend.plenty.left_alone:
        verdict = trend.plenty.verdict(config)
        return Wish(mode=Mode.OFF, budget=0, rule=verdict.rule, reason=f"leaving alone: {verdict.sentence}")
    if trend.boosting and _boost_budget(trend, config):
        return _boost(now, trend, config)
    return _cruise(trend, config)


def _boost_budget(trend: Trend, config: Config) -> float:
    return by_need(config.adaptive.chosen.boost_percent, trend.need) / 100


def _boost(now: Snapshot, trend: Trend, config: Config) -> Wish:
    budget = _boost_budget(trend, config)
    left = trend.news.boost.done_at_pass - trend.passes.done
    why = f"{left} more pass{'es' if left > 1 else ''} to go" if left > 0 else "passes still pay"
    ago = human_seconds(now.clock.monotonic_seconds - trend.news.seconds)
    return Wish(
        mode=Mode.BOOST,
        budget=budget,
        rule="news" if left > 0 else "yield",
        reason=f"boosting at {human_percent(budget)} of a core: {trend.news.sentence}, {ago} ago; {why}",
    )


def _cruise(trend: Trend, config: Config) -> Wish:
    """The wish to cruise: one pass in each gap, as far as the budget goes."""
    cap = by_need(config.adaptive.chosen.cruise_percent, trend.need) / 100
    if not cap:
        zero = f"adaptive.{config.adaptive.profile}.cruise_percent.{trend.need.word} = 0"
        return Wish(mode=Mode.OFF, budget=0, rule="budget", reason=f"off: {zero}, and no boost is due")
    gap, pass_cpu = trend.gap_seconds, trend.pass_cpu_seconds
    budget = max(BUDGET_MIN, cap if pass_cpu is None else min(cap, pass_cpu / gap))
    pace = f"passes are meant to be {human_seconds(gap)} apart"
    if pass_cpu is not None and pass_cpu > budget * gap:
        pace = f"a pass like the last takes {human_seconds(pass_cpu / budget)} at that"
    resting = gap > config.adaptive.pass_gap_seconds
    word, rule = ("resting", "price") if resting else ("cruising", "yield")
    return Wish(
        mode=Mode.REST if resting else Mode.CRUISE,
        budget=budget,
        rule=rule,
        reason=f"{word} at {human_percent(budget)} of a core: {_yield_verdict(trend).sentence}; {pace}",
    )


def _knobs(wish: Wish, guard: Guard | None, now: Snapshot, trend: Trend, config: Config) -> Knobs:
    if wish.mode is Mode.HELD:
        return Knobs()
    if wish.mode is Mode.OFF:
        run = Run.UNMERGE if guard and guard.ceiling is Ceiling.GIVE_BACK else Run.STOP
        return Knobs(run=run, smart_scan=1)
    boost = wish.mode is Mode.BOOST
    thorough = boost and trend.passes.done < trend.news.boost.thorough_until_pass
    skips_nothing = thorough and not trend.news.usual.are_young(now.counters)
    cost_seconds = trend.scanner.cost_seconds if boost else trend.page_cost_seconds
    batch = batch_for(wish.budget, cost_seconds, trend.scanner.oversleep_seconds, usual_cost_seconds(now))
    return Knobs(
        run=Run.MERGE,
        pages_to_scan=batch.pages_to_scan,
        sleep_millisecs=batch.sleep_millisecs,
        smart_scan=0 if skips_nothing or not config.adaptive.smart_scan_in_cruise else 1,
        advisor_mode="none",
    )


def _news_verdict(now: Snapshot, trend: Trend, config: Config) -> Verdict:
    if not trend.news.number:
        return Verdict(rule="news", fired=False, sentence="no news so far")
    ago = human_seconds(now.clock.monotonic_seconds - trend.news.seconds)
    state = "still open" if trend.boosting else "settled"
    if trend.boosting and not _boost_budget(trend, config):
        state = f"no boost, for adaptive.{config.adaptive.profile}.boost_percent.{trend.need.word} = 0"
    return Verdict(rule="news", fired=trend.boosting, sentence=f"{trend.news.sentence}, {ago} ago: {state}")


def _next_tick_seconds(wish: Wish, now: Snapshot, trend: Trend, config: Config) -> float:
    daemon, asking = config.daemon, now.clock.monotonic_seconds < trend.news.asking_until_seconds
    awaited = asking or any(guest.awaits_switch for guest in now.guests)
    counting = wish.rule == "busy" and trend.precedence.counts_first(now)
    soon = wish.mode is Mode.BOOST or trend.need >= Need.SHORT or awaited or counting or trend.plenty.is_watched
    seconds = min(daemon.tick_seconds, daemon.idle_tick_seconds) if soon else daemon.idle_tick_seconds
    return before_pause_ends(now, seconds)


def _would_change(wish: Wish, now: Snapshot, trend: Trend, config: Config) -> list[str]:
    settings, sentences = config.adaptive, []
    if trend.plenty.left_alone:
        sentences.append(f"merging: {trend.plenty.begin_sentence}")
    elif wish.mode is Mode.BOOST:
        sentences.append(
            f"cruise: {trend.news.boost.done_at_pass} passes done (now {trend.passes.done}) and a pass that "
            f"costs more than {trend.price:g} CPU-s per GiB"
        )
    elif wish.rule == "busy":
        sentences.append(
            f"boost: CPUs with {trend.precedence.boost_cores:.2g} cores to spare for {human_seconds(BUSY_SECONDS)}"
        )
    else:
        sentences.append(
            "boost: a new guest, or growth of the guests' memory, now "
            f"{human_bytes(sum(guest.rss_bytes for guest in now.guests))}"
        )
        sentences += _deaf_sentences(now, trend)
    if trend.need < Need.SHORT:
        enter = settings.need.short_enter_percent
        sentences.append(
            f"more CPU: less than {enter:g} % of memory available (now {human_percent(now.memory.available_fraction)})"
        )
    return sentences


def _lowered(wish: Wish, guard: Guard, cruise: Wish) -> Wish:
    """The wish, lowered to the guard's ceiling."""
    rule, sentence = guard.verdict.rule, guard.verdict.sentence
    match guard.ceiling:
        case Ceiling.NO_WRITE:
            return Wish(mode=Mode.HELD, budget=0, rule=rule, reason=f"hands off: {sentence}")
        case Ceiling.STOP | Ceiling.GIVE_BACK:
            return Wish(mode=Mode.OFF, budget=0, rule=rule, reason=f"off: {sentence}")
        case Ceiling.TRICKLE | Ceiling.NO_BOOST:
            lower = _without_boost(wish, cruise)
            if lower.mode is Mode.OFF:
                return lower
            budget = min(lower.budget, TRICKLE) if guard.ceiling is Ceiling.TRICKLE else lower.budget
            return replace(lower, mode=Mode.REST, budget=budget, rule=rule, reason=f"resting: {sentence}")
        case never:
            assert_never(never)


def _without_boost(wish: Wish, cruise: Wish) -> Wish:
    """The wish, or what takes the place of a boost.

    Where there is no cruise that is a trickle, because the guard's number may be one that only a scan corrects.
    """
    if wish.mode is not Mode.BOOST:
        return wish
    return cruise if cruise.budget else replace(wish, budget=TRICKLE)


def _need_verdict(now: Snapshot, trend: Trend) -> Verdict:
    stalls = "it is not known how long tasks stalled on memory"
    if now.pressure:
        stalls = f"tasks stalled on memory {now.pressure.some.avg10_percent:g} % of the last 10 s"
    memory = now.memory
    free = memory.swap_free_bytes / memory.swap_total_bytes if memory.swap_total_bytes else None
    sentence = (
        f"need is {trend.need.word}: {human_percent(memory.available_fraction)} of memory available, "
        + (f"{human_percent(free)} of swap free, " if free is not None else "")
        + stalls
    )
    return Verdict(rule="need", fired=trend.need > Need.CALM, sentence=sentence)


def _deaf_sentences(now: Snapshot, trend: Trend) -> Iterator[str]:
    for kind, record in trend.news.records.items():
        left = record.deaf_until_seconds - now.clock.monotonic_seconds
        if left > 0:
            brought = f"{human_bytes(record.gained_bytes)} for {record.cpu_seconds:.3g} CPU-s"
            yield f"news of {kind} in {human_seconds(left)}: it is not heard now, for its last boost gained {brought}"


def _yield_verdict(trend: Trend) -> Verdict:
    last = trend.passes.last
    if last is None:
        return Verdict(rule="yield", fired=False, sentence="no pass is done yet")
    cost, price = last.cpu_seconds_per_gib, f"{trend.price:g}"
    said = f"the last pass {'lost' if last.gained_bytes < 0 else 'gained'} {human_bytes(abs(last.gained_bytes))}"
    if last.gained_bytes <= 0 or cost is None:
        price += " CPU-s per GiB"
    else:
        said += f" at {cost:.3g} CPU-s per GiB"
    if last.freed_bytes:
        said += f" ({human_bytes(last.freed_bytes)} of it from huge pages that were split)"
    return Verdict(rule="yield", fired=trend.last_pass_pays, sentence=f"{said}, where {price} is the price")
