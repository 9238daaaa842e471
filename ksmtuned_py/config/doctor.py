"""The codes of the doctor's findings, and the section in which an admin accepts some. Pure."""

from typing import Annotated, Literal, get_args

from pydantic import AfterValidator, Field, Strict

from ksmtuned_py.config.types import Section

Code = Literal[
    # the kernel's KSM
    "ksm_absent",
    "uksm",
    "ksm_off",
    "old_kernel",
    "nobody",
    "unknown_sharers",
    "max_page_sharing",
    "merge_across_nodes",
    "khugepaged",
    "slow_ksmd",
    # who else steers it
    "advisor_on",
    "knobs_contested",
    "foreign_writer",
    "foreign_service",
    "possible_writer",
    "enroller",
    # the host's memory
    "swap_off",
    "swap_full",
    "psi_off",
    "debt",
    "groups_share",
    "cgroup_full",
    "zeros_refused",
    "problem",
    # a guest's memory
    "switched_off",
    "nosharepages",
    "not_mergeable",
    "memory_not_mergeable",
    "encrypted",
    "vfio",
    "nvme",
    "vdpa",
    "shared",
    "hugetlb",
    "locked",
    "huge_pages",
    "in_swap",
    # what came of it
    "no_account",
    "not_yet_scanned",
    "nothing_equal",
    "losing",
    "cgroup_debt",
    # how its free memory comes back
    "reports_free_pages",
    "no_free_page_reporting",
    "no_balloon",
]
CODES: tuple[Code, ...] = get_args(Code)
"""All codes of findings. Each has a paragraph in docs/doctor.md."""


def _known(code: str) -> str:
    if code not in CODES:
        raise ValueError(f"{code!r} is no code of the doctor's")
    return code


CodeName = Annotated[
    str, AfterValidator(_known), Field(json_schema_extra={"format": "a code that ksmtuned-py doctor prints"})
]
Reason = Annotated[str, Field(min_length=1, json_schema_extra={"format": "a reason, in words"})]


class Accept(Section):
    """A finding that is wanted so."""

    code: CodeName = Field(description="what is found")
    guest: str = Field("*", description="in guests of such a name; what is found on the host has the name ''")
    reason: Reason = Field(description="why it is wanted so")


class Doctor(Section):
    """What the doctor may find without it being a fault."""

    accept: Annotated[tuple[Accept, ...], Strict(False)] = Field(
        (),
        description="findings that are wanted so: shown with --all, and not counted for the exit code.\n"
        "In place of this line, at the end of the file or in a drop-in, tables are easier to read:\n"
        '[[doctor.accept]]\ncode = "swap_off"\nguest = "*"              # a shell pattern\n'
        'reason = "kubelet wants no swap"',
    )
