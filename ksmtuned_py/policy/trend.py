"""How things develop from snapshot to snapshot: pure, and advanced every tick, whatever is decided."""

from dataclasses import dataclass, field, replace

from ksmtuned_py.config import Adaptive, Config
from ksmtuned_py.model import ASIDE, ForeignWrite, GuestKey, KnobName, Run, Snapshot
from ksmtuned_py.policy.boost import pays
from ksmtuned_py.policy.effort import Effort
from ksmtuned_py.policy.hugepages import HugeCost
from ksmtuned_py.policy.khugepaged import KhugepagedLimits
from ksmtuned_py.policy.need import Need, by_need, next_need
from ksmtuned_py.policy.news import NO_NEWS, News, next_news, resting
from ksmtuned_py.policy.plenty import Plenty
from ksmtuned_py.policy.precedence import Precedence
from ksmtuned_py.policy.prospect import Prospect
from ksmtuned_py.policy.scanner import Passes, ScannerSpeed, cost_max_seconds
from ksmtuned_py.policy.splits import Splits
from ksmtuned_py.policy.state import FIRST, PolicyState, next_state

FOREIGN_HOLD_SECONDS = 60.0
FOREIGN_HOLD_MAX_SECONDS = 3600.0
COW_SMOOTHING_SECONDS = 30.0
STORM_SECONDS = 60.0
STORM_PAGES_PER_MINUTE = 10_000
"""Below this (40 MiB a minute) no rate of copy-on-write is a storm, whatever its share."""
GIVEN_UP_MAX_SECONDS = 86_400.0
DOUBLINGS_MAX = 64
"""Beyond any longest time; a float ends after 1023, which what happens each hour reaches within two months."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Foreign:
    """Somebody else's writes to KSM's knobs, and how long we keep our hands off for them."""

    times: int = 0
    until_seconds: float = 0.0
    sentence: str = ""

    def after(self, now: Snapshot) -> "Foreign":
        """The writes after one more snapshot. Each doubles the time, and an hour without any forgets them."""
        seconds = now.clock.monotonic_seconds
        writes = tuple(write for write in now.foreign if write.knob not in ASIDE)
        if not writes:
            return Foreign() if self.times and seconds > self.until_seconds + FOREIGN_HOLD_MAX_SECONDS else self
        hold = _doubled(FOREIGN_HOLD_SECONDS, self.times, FOREIGN_HOLD_MAX_SECONDS)
        return Foreign(times=self.times + 1, until_seconds=seconds + hold, sentence=_foreign_sentence(writes, now))


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyOnWrite:
    """How fast guests write to merged pages."""

    pages_per_minute: float = 0.0
    storm_until_seconds: float = 0.0
    switched_off: frozenset[GuestKey] = frozenset()
    """The guests that we took out of merging up to now."""

    def after(self, before: Snapshot, now: Snapshot, storm_percent: float) -> "CopyOnWrite":
        """The writes after the interval between two snapshots; what we unmerge ourselves is no write of a guest's."""
        switched_off = frozenset(guest.key for guest in now.guests if guest.switched_off)
        ours = before.giving_back or now.giving_back or Run.UNMERGE in (before.knobs.run, now.knobs.run)
        if ours or switched_off - self.switched_off:
            return CopyOnWrite(switched_off=switched_off)
        wall = now.clock.monotonic_seconds - before.clock.monotonic_seconds
        if wall <= 0 or before.vmstat.cow_ksm is None or now.vmstat.cow_ksm is None:
            return replace(self, switched_off=switched_off)
        weight = min(1.0, wall / COW_SMOOTHING_SECONDS)
        rate = (now.vmstat.cow_ksm - before.vmstat.cow_ksm) / wall * 60
        pages_per_minute = self.pages_per_minute * (1 - weight) + rate * weight
        merged = now.counters.pages_sharing + now.counters.pages_shared
        storm = pages_per_minute > max(STORM_PAGES_PER_MINUTE, merged * storm_percent / 100)
        until = now.clock.monotonic_seconds + STORM_SECONDS if storm else self.storm_until_seconds
        return CopyOnWrite(pages_per_minute=pages_per_minute, storm_until_seconds=until, switched_off=switched_off)


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenUp:
    """Merging cost more memory than it saved, so we let it be until there is news, or this time has come."""

    times: int = 0
    until_seconds: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Trend:
    """Everything a policy may remember of the past. Who advances it brings the configuration in force."""

    previous: Snapshot | None = None
    need: Need = Need.CALM
    scarce_since_seconds: float | None = None
    """When the need last rose to short or beyond; None = it is less."""
    precedence: Precedence = field(default_factory=Precedence)
    khugepaged: KhugepagedLimits = field(default_factory=KhugepagedLimits)
    plenty: Plenty = field(default_factory=Plenty)
    effort: Effort = field(default_factory=Effort)
    price: float
    """CPU-seconds that a saved GiB may cost now."""
    scanner: ScannerSpeed = field(default_factory=ScannerSpeed)
    passes: Passes = field(default_factory=Passes)
    splits: Splits = field(default_factory=Splits)
    huge_cost: HugeCost = field(default_factory=HugeCost)
    news: News = NO_NEWS
    gap_seconds: float
    """Aimed at between the starts of two passes outside boosts."""
    foreign: Foreign = Foreign()
    taken: frozenset[KnobName] = frozenset()
    """Knobs outside KSM's directory that somebody else has set. They are theirs from then on."""
    copy_on_write: CopyOnWrite = CopyOnWrite()
    given_up: GivenUp = GivenUp()
    policy_state: PolicyState
    """What the chosen policy remembers on top."""

    @classmethod
    def begin(cls, config: Config) -> "Trend":
        """The trend before the first snapshot."""
        return cls(
            price=_price(config.adaptive, Need.CALM),
            gap_seconds=config.adaptive.pass_gap_seconds,
            policy_state=FIRST[config.policy.name],
        )

    @property
    def pass_cpu_seconds(self) -> float | None:
        """What a pass takes, by the last one; reckoned from its pages where the scanner's CPU time is not known."""
        last = self.passes.last
        if last is None:
            return None
        reckoned = last.pages / last.passes * self.scanner.cost_seconds
        return reckoned if last.each_cpu_seconds is None else last.each_cpu_seconds

    @property
    def last_pass_pays(self) -> bool:
        """Whether the last pass gained enough for its CPU; True as long as there is none."""
        last, each = self.passes.last, self.pass_cpu_seconds
        return last is None or each is None or pays(last.gained_bytes, each * last.passes, self.price)

    @property
    def page_cost_seconds(self) -> float:
        """What a page costs, no less than on average in the last pass.

        Merged pages are cheap, and pass by in long stretches. Where smart_scan begins to skip, a page that is scanned
        stands for many that are passed over, and costs 20 times as much as a merged one. Where nearly all were, that
        says nothing of a page, and would all but end the scan. So there is a limit, as for what is measured, and a pass
        that has scanned twice as many pages as the last is taken for itself.
        """
        last, seen, since = self.passes.last, self.previous, self.passes.since
        if last is None or seen is None or since is None:
            return self.scanner.cost_seconds
        scanned = (seen.counters.pages_scanned or 0) - (since.counters.pages_scanned or 0)
        if scanned > 2 * last.pages:
            return self.scanner.cost_seconds
        return max(self.scanner.cost_seconds, min(last.page_cost_seconds, cost_max_seconds(seen)))

    @property
    def boosting(self) -> bool:
        """Whether news has a boost that is not over."""
        return self.news.boost.open

    def after(self, snapshot: Snapshot, config: Config) -> "Trend":
        """The trend with one more snapshot taken in, and judged by this configuration."""
        before, settings = self.previous, config.adaptive
        alone = replace(snapshot, guests=())  # many, and nobody looks back at them
        need = next_need(self.need, snapshot, settings.need)
        lead_seconds = self.effort.lead_seconds(snapshot, settings.chosen.boost_percent.short / 100)
        plenty = self.plenty.after(snapshot, need, lead_seconds, config)
        lasting = next_need(self.precedence.need, replace(snapshot, woken_by=frozenset()), settings.need)
        if plenty.is_foreseen:
            need, lasting = max(need, Need.SHORT), max(lasting, Need.SHORT)
        lacks = plenty.is_foreseen or snapshot.memory.available_fraction * 100 < settings.need.short_enter_percent
        splits = self.splits.after(snapshot, boosting=self.boosting and not self.plenty.left_alone)
        seen = replace(
            self,
            splits=splits,
            huge_cost=self.huge_cost.after(before, snapshot, splits.freed_bytes),
            previous=alone,
            need=need,
            precedence=self.precedence.after(
                snapshot,
                lasting,
                by_need(settings.chosen.boost_percent, lasting) / 100,
                boosting=self.boosting,
                lacks=lacks,
            ),
            khugepaged=self.khugepaged.after(snapshot),
            plenty=plenty,
            price=_price(settings, need),
            scanner=self.scanner.after(before, snapshot, self.passes.last) if before else ScannerSpeed.begin(snapshot),
            passes=self.passes.after(alone, before, splits.freed_bytes),
            foreign=self.foreign.after(snapshot),
            taken=self.taken.union(ASIDE.intersection(write.knob for write in snapshot.foreign)),
            copy_on_write=self.copy_on_write.after(before, snapshot, settings.guards.cow_storm_percent_per_minute)
            if before
            else self.copy_on_write,
            policy_state=next_state(self.policy_state, snapshot, config),
        )
        told = seen._with_news(self, snapshot)._with_patience(snapshot, config)._with_effort(self, snapshot)
        return told._with_gap(self, settings)._with_loss(self, snapshot, settings)

    def _with_news(self, past: "Trend", snapshot: Snapshot) -> "Trend":
        last, scarce = self.passes.last, self.scarce_since_seconds
        if self.need > past.need:
            scarce = snapshot.clock.monotonic_seconds
        scarce = scarce if self.need >= Need.SHORT else None
        prospect = Prospect(
            passes_done=self.passes.done,
            price=self.price,
            page_cost_seconds=self.effort.compared_seconds(snapshot),
            pass_cpu_seconds=self.pass_cpu_seconds,
            pass_skipped_pages=last.each_skipped_pages if last else 0,
            ended=last if self.passes.done > past.passes.done else None,
            scarce_since_seconds=scarce,
            retry=_is_over(past.given_up.until_seconds, snapshot),
            left_alone=self.plenty.left_alone,
            short_in_seconds=self.plenty.forecast.short_in_seconds if self.plenty.is_foreseen else 0.0,
        )
        return replace(self, news=next_news(past.news, snapshot, prospect), scarce_since_seconds=scarce)

    def held_back_seconds(self, now: Snapshot, config: Config) -> float:
        """The time for which a boost waits from now on, because guests have the CPUs; 0 when it may begin.

        One that was wanted while memory was short goes on to its end: merging itself takes a host from short to calm.
        """
        was_short = self.precedence.lacked_seconds >= self.news.boost.since_seconds
        return 0.0 if was_short else self.precedence.holds_back_seconds(now, config)

    def _with_patience(self, snapshot: Snapshot, config: Config) -> "Trend":
        """A boost takes no time while it waits, or its reason would not be heard for as long."""
        waits = self.boosting and self.held_back_seconds(snapshot, config) > 0
        return replace(self, news=resting(self.news, snapshot)) if waits else self

    def _with_effort(self, past: "Trend", snapshot: Snapshot) -> "Trend":
        if not past.boosting or self.boosting:
            return self
        return replace(self, effort=self.effort.after(self.news.boost, self.passes.done, snapshot))

    def _with_gap(self, past: "Trend", settings: Adaptive) -> "Trend":
        if self.boosting or self.news.number != past.news.number:
            return replace(self, gap_seconds=settings.pass_gap_seconds)
        if self.passes.done == past.passes.done:
            return self
        longer = min(self.gap_seconds * 2, settings.pass_gap_max_seconds)
        return replace(self, gap_seconds=settings.pass_gap_seconds if self.last_pass_pays else longer)

    def _with_loss(self, past: "Trend", snapshot: Snapshot, settings: Adaptive) -> "Trend":
        if self.plenty.left_alone:  # no pass ends, and the last ones were judged
            return self
        if self.news.number != past.news.number:
            return replace(
                self, given_up=replace(self.given_up, until_seconds=None), passes=replace(self.passes, losing=0)
            )
        if self.passes.done != past.passes.done and snapshot.profit_bytes > 0:
            return replace(self, given_up=GivenUp())  # it pays again: the next loss is a first one
        seconds = snapshot.clock.monotonic_seconds
        # On a small host passes take less than a second, in which a guest that begins is not done with that.
        for_long = seconds - self.passes.losing_since_seconds >= settings.pass_gap_seconds
        losing = for_long and self.passes.losing >= settings.guards.net_loss_passes
        if self.given_up.until_seconds is not None or self.boosting or not losing:
            return self
        until = seconds + _doubled(settings.pass_gap_max_seconds, self.given_up.times, GIVEN_UP_MAX_SECONDS)
        return replace(self, given_up=GivenUp(times=self.given_up.times + 1, until_seconds=until))


def _price(settings: Adaptive, need: Need) -> float:
    return by_need(settings.chosen.price_cpu_seconds_per_gib, need)


def _doubled(seconds: float, times: int, most_seconds: float) -> float:
    return min(seconds * 2.0 ** min(times, DOUBLINGS_MAX), most_seconds)


def _is_over(until_seconds: float | None, now: Snapshot) -> bool:
    return until_seconds is not None and now.clock.monotonic_seconds >= until_seconds


def _foreign_sentence(writes: tuple[ForeignWrite, ...], now: Snapshot) -> str:
    told = ", ".join(f"{write.knob} is {write.seen} where we wrote {write.ours}" for write in writes)
    who = f"; running and known to write it: {', '.join(now.suspects)}" if now.suspects else ""
    return f"{told}{who}"
