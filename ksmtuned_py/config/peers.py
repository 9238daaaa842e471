"""The sections of the policies that do what old managers did: their settings, with their defaults."""

from typing import Annotated

from pydantic import Field

from ksmtuned_py.config.types import U32_MAX, Pages, Percent, Seconds, Section

BaseSleep = Annotated[int, Field(ge=1, le=3_600_000)]


class Ksmtuned(Section):
    """The old script's settings, under its own names and meanings."""

    monitor_interval_seconds: Seconds = Field(60, description="KSM_MONITOR_INTERVAL")
    sleep_msec: BaseSleep = Field(10, description="KSM_SLEEP_MSEC, for a host of 16 GiB")
    npages_boost: int = Field(300, description="KSM_NPAGES_BOOST")
    npages_decay: int = Field(-50, description="KSM_NPAGES_DECAY")
    npages_min: Pages = Field(64, description="KSM_NPAGES_MIN")
    npages_max: Pages = Field(1250, description="KSM_NPAGES_MAX")
    thres_coef_percent: Percent = Field(20, description="KSM_THRES_COEF")
    thres_const_kib: Annotated[int, Field(ge=0, le=U32_MAX)] = Field(
        2048, description="KSM_THRES_CONST: KiB in fact, although the old manual says MB"
    )


class Mom(Section):
    """oVirt's Memory Overcommitment Manager. As VDSM ran it: monitor_interval_seconds = 15."""

    monitor_interval_seconds: Seconds = Field(10, description="between two adjustments")
    sample_interval_seconds: Seconds = Field(5, description="between two samples of free memory")
    samples: Annotated[int, Field(ge=1, le=1000)] = Field(10, description="samples of which free memory is the mean")
    sleep_msec: BaseSleep = Field(10, description="ksm_sleep_ms_baseline, for a host of 16 GiB")
    sleep_min_msec: Annotated[int, Field(ge=0, le=3_600_000)] = Field(
        10, description="VDSM's floor; MOM's own rules had none (0), so that ksmd spins above 160 GiB"
    )
    npages_boost: int = Field(300, description="ksm_pages_boost")
    npages_decay: int = Field(-50, description="ksm_pages_decay")
    npages_min: Pages = Field(64, description="ksm_npages_min")
    npages_max: Pages = Field(1250, description="ksm_npages_max")
    free_percent: Percent = Field(20, description="ksm_free_percent, of the host's memory")


class Kubevirt(Section):
    """KubeVirt's virt-handler; the defaults are those of its node annotations."""

    monitor_interval_seconds: Seconds = Field(180, description="between two adjustments")
    sleep_msec: Annotated[int, Field(ge=10, le=3_600_000)] = Field(
        100, description="for 16 GiB in use; never below a tenth of it"
    )
    pages_boost: Annotated[int, Field(ge=0, le=U32_MAX)] = Field(300, description="more pages per step while short")
    pages_decay: Annotated[int, Field(ge=-U32_MAX, le=0)] = Field(-50, description="fewer pages per step while not")
    pages_min: Pages = Field(64, description="below this it stops")
    pages_max: Pages = Field(1250, description="at most")
    pages_init: Pages = Field(100, description="when it starts")
    free_percent: Percent = Field(20, description="available memory above this share: no pressure")
