"""Reads how the kernel makes transparent huge pages."""

from contextlib import suppress
from dataclasses import dataclass

from ksmtuned_py.door import Door
from ksmtuned_py.door.text import chosen
from ksmtuned_py.errors import KsmtunedError
from ksmtuned_py.model import THP_DIRECTORY
from ksmtuned_py.units import KIB


@dataclass(frozen=True, slots=True, kw_only=True)
class HugePages:
    """The kernel's settings for transparent huge pages. None = this kernel has no such setting."""

    enabled: str = "never"
    """'always', 'madvise' or 'never', for those of the size below."""
    size_bytes: int = 0
    """The size of those that fill a page of the page table; 0 where the kernel has none."""
    max_ptes_shared: int | None = None
    max_ptes_none: int | None = None


def read_huge_pages(door: Door) -> HugePages:
    """The settings now. Since Linux 6.8 each size has a switch of its own, which mostly says 'inherit'."""

    def number(name: str) -> int | None:
        with suppress(KsmtunedError):
            return door.read_int(f"{THP_DIRECTORY}/{name}")
        return None

    def choice(name: str) -> str:
        with suppress(KsmtunedError):
            return chosen(door.read_if_there(f"{THP_DIRECTORY}/{name}") or "")
        return ""

    size_bytes = number("hpage_pmd_size") or 0
    own = choice(f"hugepages-{size_bytes // KIB}kB/enabled")
    return HugePages(
        enabled=(choice("enabled") if own in ("", "inherit") else own) or "never",
        size_bytes=size_bytes,
        max_ptes_shared=number("khugepaged/max_ptes_shared"),
        max_ptes_none=number("khugepaged/max_ptes_none"),
    )
