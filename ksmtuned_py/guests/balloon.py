"""Reads from a command line how a virtual machine can hand its free memory back. Pure."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

# QEMU: -device virtio-balloon-pci,free-page-reporting=on; from libvirt {"driver":"virtio-balloon-pci",
# "free-page-reporting":true}. cloud-hypervisor: --balloon size=0,free_page_reporting=on.
_OPTIONS = frozenset({"-device", "--device", "-global", "--global", "-balloon", "--balloon", "-set", "--set"})
_BALLOON = re.compile(r"virtio-balloon|-balloon (virtio|size=)")
_REPORTING = re.compile(r'free[-_]page[-_]reporting"?[=:]"?(on|yes|true)\b')
_PLUGGABLE = re.compile(r"virtio-mem\b")


_WITH_DEVICES = {
    "qemu": frozenset({"-device", "--device", "-m", "-machine", "-M", "-nodefaults", "-kernel", "-drive", "-hda"}),
    "cloud-hypervisor": frozenset({"--kernel", "--firmware", "--memory", "--disk"}),
}
"""Options of a virtual machine that is described on its command line, and not later over its API."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Balloon:
    """The ways in which a virtual machine can hand its free memory back."""

    present: bool = False
    """It has a balloon device, which gives memory back when somebody asks for it."""
    reports_free_pages: bool = False
    """The guest's kernel tells what it has freed, and the host discards that memory at once."""
    pluggable: bool = False
    """It has virtio-mem, memory that can be taken out while it runs."""


def tells_of_devices(kind: str, words: Sequence[str]) -> bool:
    """Whether the command line names all devices. It does not where the machine was described over its API."""
    return not _WITH_DEVICES.get(kind, frozenset()).isdisjoint(word.partition("=")[0] for word in words)


def parse_balloon(words: Sequence[str]) -> Balloon:
    """Find the devices among the words of a command line."""
    devices = "\n".join(f"{option} {value}" for option, value in pairwise(words) if option in _OPTIONS)
    return Balloon(
        present=bool(_BALLOON.search(devices)),
        reports_free_pages=bool(_REPORTING.search(devices)),
        pluggable=bool(_PLUGGABLE.search(devices)),
    )
