"""The settings of the adaptive policy: its profiles, the states of need, and the guards."""

from typing import Annotated

from pydantic import Field, Strict

from ksmtuned_py.config.types import BoostPercent, CruisePercent, Percent, ProfileName, Seconds, Section, Window


class ByNeed(Section):
    """One number for each state of need."""

    calm: float = Field(ge=0)
    wary: float = Field(ge=0)
    short: float = Field(ge=0)
    critical: float = Field(ge=0)


class BoostByNeed(ByNeed):
    """One share of a core for each state of need: ksmd is one thread, so 100 is all there is."""

    calm: BoostPercent
    wary: BoostPercent
    short: BoostPercent
    critical: BoostPercent


class CruiseByNeed(ByNeed):
    """One share of a core for each state of need."""

    calm: CruisePercent
    wary: CruisePercent
    short: CruisePercent
    critical: CruisePercent


class Profile(Section):
    """How much CPU the adaptive policy may give to ksmd."""

    boost_percent: BoostByNeed = Field(description="of one core while there is news, by need; 0 = as without news")
    cruise_percent: CruiseByNeed = Field(
        description="of one core at most while there is none, by need; 0 = no scan (run=0)"
    )
    price_cpu_seconds_per_gib: ByNeed = Field(
        description="what a saved GiB may cost, by need; past it, passes move apart"
    )


QUIET = Profile(
    boost_percent=BoostByNeed(calm=20, wary=40, short=95, critical=95),
    cruise_percent=CruiseByNeed(calm=0.1, wary=0.5, short=5, critical=20),
    price_cpu_seconds_per_gib=ByNeed(calm=3, wary=20, short=60, critical=300),
)
BALANCED = Profile(
    boost_percent=BoostByNeed(calm=60, wary=80, short=95, critical=95),
    cruise_percent=CruiseByNeed(calm=0.2, wary=1, short=5, critical=20),
    price_cpu_seconds_per_gib=ByNeed(calm=5, wary=30, short=60, critical=300),
)
EAGER = Profile(
    boost_percent=BoostByNeed(calm=95, wary=95, short=95, critical=95),
    cruise_percent=CruiseByNeed(calm=0.2, wary=1, short=5, critical=20),
    price_cpu_seconds_per_gib=ByNeed(calm=20, wary=60, short=120, critical=300),
)


class Need(Section):
    """When memory counts as needed: percent of the host's memory still available, with a gap against flapping."""

    wary_enter_percent: Percent = Field(30, description="available memory below this: wary ...")
    wary_leave_percent: Percent = Field(35, description="... until it is above this")
    short_enter_percent: Percent = Field(15, description="available memory below this: short ...")
    short_leave_percent: Percent = Field(20, description="... until it is above this")
    critical_enter_percent: Percent = Field(5, description="available memory below this: critical ...")
    critical_leave_percent: Percent = Field(8, description="... until it is above this")
    short_stall_percent: Percent = Field(
        5, description="some tasks stalled on memory this share of 10 s while memory is wary: short at least"
    )
    critical_stall_percent: Percent = Field(
        10, description="all tasks stalled this share of 10 s while memory is wary: critical"
    )


class Guards(Section):
    """What may lower or stop merging, whatever the rest says."""

    net_loss_passes: Annotated[int, Field(ge=1)] = Field(
        2,
        description="passes in a row, and at least pass_gap_seconds in all, "
        "whose bookkeeping costs more memory than merging saves",
    )
    cow_storm_percent_per_minute: Percent = Field(
        10, description="of the merged pages broken by writes within a minute"
    )
    max_debt_percent: Annotated[float, Field(ge=0)] = Field(
        0,
        description="debt (merged memory) of what the host could find for it; beyond it scanning goes on at a trickle\n"
        "at most, which keeps the debt's figure true; 0 = no limit",
    )
    inhibit: Annotated[tuple[Window, ...], Strict(False)] = Field(
        (), description='local times without scanning, like ["08:00-18:00"]; "00:00-24:00" = never scan'
    )


class Adaptive(Section):
    """The adaptive policy."""

    profile: ProfileName = Field("balanced", description="which of the three tables below holds")
    smart_scan_in_cruise: bool = Field(True, description="let ksmd skip pages that found no partner, outside boosts")
    huge_pages_back: bool = Field(
        False,
        description="while memory is plenty, leave all guests alone, and make huge pages of split ranges again,\n"
        "those with the fewest merged pages first; needs the rights of systemd/huge.conf",
    )
    pass_gap_seconds: Seconds = Field(60, description="between two passes while they pay")
    pass_gap_max_seconds: Seconds = Field(3600, description="between two passes when they find nothing")
    need: Need = Need()
    guards: Guards = Guards()
    quiet: Profile = QUIET
    balanced: Profile = BALANCED
    eager: Profile = EAGER

    @property
    def chosen(self) -> Profile:
        """The profile that is chosen."""
        return {"quiet": self.quiet, "balanced": self.balanced, "eager": self.eager}[self.profile]
