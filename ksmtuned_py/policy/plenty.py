"""Plenty: whether the guests are left alone, with their huge pages, since nobody needs what merging would save. Pure.

Theory of operation
===================
ksmd splits a huge page as soon as one of its 512 parts merges, and makes the guest slower by that. So the question is
whether the host needs the memory, and by when. It has plenty when more is available than comfort wants, and when it
will not be short within twice the lead: the time that merging takes. Then nothing scans, and no news is heard.

What was not heard adds up, and is heard when plenty ends. That is at once. When memory will be short within the lead,
need is short from then on, so that merging is done when it would have been short.

Plenty begins again when there was more than enough for a minute. Nor are guests spared again within a minute after
they had nothing to spare. So there is at most one change of mind in a minute, there and back.

Guests without huge pages lose nothing but copies, and are merged as if there was no plenty.
"""

from dataclasses import dataclass, field, replace
from math import inf

from ksmtuned_py.config import Config
from ksmtuned_py.config import Need as Thresholds
from ksmtuned_py.model import Decision, Snapshot, Verdict
from ksmtuned_py.policy.comfort import NO_STAKE, Stake, Supply, comfort_bytes, largest_bytes, stake, tightest
from ksmtuned_py.policy.forecast import KEPT_SECONDS, SWING_SECONDS, Forecast, Margin
from ksmtuned_py.policy.grower import Grower
from ksmtuned_py.policy.need import Need, by_swap
from ksmtuned_py.units import human_bytes, human_percent, human_seconds

RULE = "plenty"
MIND_SECONDS = 60.0
"""At most one change of mind in so long."""
LEADS_ENOUGH, LEADS_AMPLE = 2, 3
"""So many leads before memory is short plenty ends; it begins again when there are so many."""
WATCHED_LOOKS = 6
"""When plenty may end within so many idle ticks, they are short ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plenty:
    """What is known of it at one moment."""

    grower: Grower = field(default_factory=Grower)
    forecast: Forecast = field(default_factory=Forecast)
    supply: Supply = field(default_factory=lambda: Supply("", 0, 0))
    """Where memory is tightest."""
    comfort_bytes: int = 0
    lead_seconds: float = 0.0
    late_seconds: float = 0.0
    """The next look may be so late."""
    stake: Stake = NO_STAKE
    is_plenty: bool = False
    spares: bool = False
    """The guests have huge pages, and the profile wants to spare them."""
    is_foreseen: bool = False
    """Memory is going to be short within the lead, so need is short already."""
    came_true: bool = False
    """Since plenty ended, memory was no longer comfortable."""
    swing_seconds: float = SWING_SECONDS
    """What swings within this time is no fall. An end of plenty that was in vain doubles it."""
    doubted_seconds: float = -inf
    """When there was last less than ample memory (monotonic)."""
    at_stake_seconds: float = -inf
    """When guests last had so many huge pages, for sure, that they are worth sparing."""
    unspared_seconds: float = -inf
    """When guests were last no longer left alone because they had nothing to spare."""
    foreseen_seconds: float = -inf
    """When memory was last going to be short within the lead."""

    @property
    def left_alone(self) -> bool:
        """Whether nothing scans because of it."""
        return self.is_plenty and self.spares

    @property
    def ends_before_seconds(self) -> float:
        """How long before memory would be short plenty ends."""
        return LEADS_ENOUGH * self.lead_seconds + self.late_seconds

    @property
    def is_watched(self) -> bool:
        """Whether it may end soon, or too little is known to tell."""
        near = self.forecast.at_worst_seconds <= self.ends_before_seconds + WATCHED_LOOKS * self.late_seconds
        return self.left_alone and (near or self.forecast.is_young)

    def after(self, now: Snapshot, need: Need, lead_seconds: float, config: Config) -> "Plenty":
        """What is known after one more look. `need` is what memory itself tells; merging takes `lead_seconds`."""
        thresholds, seconds = config.adaptive.need, now.clock.monotonic_seconds
        supply = tightest(now, thresholds.short_enter_percent)
        left_bytes = supply.beyond_bytes(thresholds.short_enter_percent)
        grower = self.grower.after(now)
        forecast = self.forecast.after(
            Margin(seconds, left_bytes, left_bytes - now.saved_bytes), grower, self.swing_seconds
        )
        lead_bytes = forecast.falls_by_bytes(lead_seconds)
        at_stake = stake(now)
        seen = replace(
            self,
            grower=grower,
            forecast=forecast,
            supply=supply,
            comfort_bytes=comfort_bytes(supply, largest_bytes(now), lead_bytes, thresholds),
            lead_seconds=lead_seconds,
            late_seconds=config.daemon.idle_tick_seconds,
            stake=at_stake,
            at_stake_seconds=seconds if at_stake.is_much and at_stake.is_sure else self.at_stake_seconds,
        )
        needed = need >= Need.SHORT or by_swap(need, now.memory) >= Need.WARY
        return seen._judged(seconds, thresholds, needed=needed)._spared(seconds, config)

    def _judged(self, seconds: float, thresholds: Thresholds, *, needed: bool) -> "Plenty":
        """Whether it is plenty: it ends at once, and begins when there was ample memory for long enough."""
        available, short_in = self.supply.available_bytes, self.forecast.short_in_seconds
        enough = not needed and available > self.comfort_bytes and short_in > self.ends_before_seconds
        ample = enough and available > self.comfort_bytes * _gap(thresholds)
        ample = ample and short_in > LEADS_AMPLE * self.lead_seconds + self.late_seconds
        doubted = min(self.doubted_seconds, seconds) if ample else seconds
        begins = ample and seconds - doubted >= MIND_SECONDS
        came_true = needed or available <= self.comfort_bytes or (self.came_true and not self.is_plenty)
        swing_seconds = self.swing_seconds
        if begins and not self.is_plenty and self.doubted_seconds > -inf:
            swing_seconds = SWING_SECONDS if came_true else min(2 * swing_seconds, KEPT_SECONDS)
        return replace(
            self,
            is_plenty=(enough and self.is_plenty) or begins,
            came_true=came_true,
            swing_seconds=swing_seconds,
            doubted_seconds=doubted,
        )

    def _spared(self, seconds: float, config: Config) -> "Plenty":
        """Whether there is anything to spare, and whether merging must begin for what is foreseen."""
        wanted = config.policy.name == "adaptive" and config.adaptive.profile != "eager"
        at_stake = config.adaptive.huge_pages_back or self.stake.is_much
        spares = wanted and (at_stake or _is_recent(self.at_stake_seconds, seconds))
        spares = spares and (self.spares or not _is_recent(self.unspared_seconds, seconds))
        unspared = seconds if self.left_alone and not spares else self.unspared_seconds
        soon = 0 < self.forecast.short_in_seconds <= self.lead_seconds + self.late_seconds
        foreseen = seconds if soon and (spares or self.is_foreseen) else self.foreseen_seconds
        is_foreseen = wanted and not self.is_plenty and _is_recent(foreseen, seconds)
        return replace(
            self, spares=spares, unspared_seconds=unspared, foreseen_seconds=foreseen, is_foreseen=is_foreseen
        )

    def spare_bytes(self, config: Config, decision: Decision) -> int | None:
        """What may be spent on giving huge pages back, so that it stays ample; None when that is not wanted now.

        Guests are left alone in that, too, when another rule has won: somebody asked for a pause, or an inhibit window
        is open.
        """
        if not config.adaptive.huge_pages_back or not self.left_alone or decision.rule != RULE:
            return None
        return int(self.supply.available_bytes - self.comfort_bytes * _gap(config.adaptive.need))

    def verdict(self, config: Config) -> Verdict:
        """What this rule says, whether it wins or not."""
        split = f"merging would split {human_bytes(self.stake.huge_bytes)} of huge pages"
        if self.spares:
            state = f"{self._share(self.supply.available_bytes)} available, {self._outlook}"
            said = f"; {split}" if self.left_alone else ", which is not plenty"
            sentence = f"{state}{said}; begins {self.begin_sentence}"
        elif config.adaptive.profile == "eager":
            sentence = f"the profile eager merges at all times, though {split}"
        else:
            sentence = f"{split}, too little to be spared"
        return Verdict(rule=RULE, fired=self.left_alone, sentence=sentence)

    @property
    def begin_sentence(self) -> str:
        """When merging begins, as a part of a sentence."""
        before = human_seconds(round(self.ends_before_seconds))
        return f"at {self._share(self.comfort_bytes)}, or {before} before it would be short"

    @property
    def _outlook(self) -> str:
        seconds = self.forecast.short_in_seconds
        return "no shortage in sight" if seconds == inf else f"short not before {human_seconds(round(seconds))}"

    def _share(self, available_bytes: int) -> str:
        share = human_percent(max(0.0, min(1.0, available_bytes / max(1, self.supply.size_bytes))))
        return f"{share} of {self.supply.name}" if self.supply.name else share


def _gap(thresholds: Thresholds) -> float:
    """So many times what comfort wants is ample."""
    return max(1.0, thresholds.wary_leave_percent / max(thresholds.wary_enter_percent, 1))


def _is_recent(since_seconds: float, seconds: float) -> bool:
    return 0 <= seconds - since_seconds < MIND_SECONDS
