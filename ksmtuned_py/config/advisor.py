"""The section of the policy that keeps the kernel's own advisor at work."""

from typing import Annotated

from pydantic import Field

from ksmtuned_py.config.types import Section

PassSeconds = Annotated[int, Field(ge=1, le=604_800)]


class Advisor(Section):
    """The advisor policy: the kernel's own scan-time advisor (Linux 6.8 and later), kept at work."""

    target_seconds: PassSeconds = Field(200, description="what a pass should take")
    target_short_seconds: PassSeconds = Field(20, description="what it should take while memory is short")
    max_cpu_percent: Annotated[float, Field(ge=1, le=99)] = Field(70, description="of one core at most")
    max_pages_to_scan: Annotated[int, Field(ge=1, le=1_000_000)] = Field(30_000, description="pages per batch at most")
