"""What libvirt says of its domains. PURE."""

from dataclasses import dataclass
from xml.etree import ElementTree

from ksmtuned_py.errors import Garbage

METADATA_NAMESPACE = "urn:ksmtuned-py"


@dataclass(frozen=True, slots=True, kw_only=True)
class Domain:
    """A running domain."""

    uuid: str
    name: str
    tag: str = ""
    obstacles: tuple[str, ...] = ()
    """What keeps its memory from merging, as model.Guest has it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """All running domains as libvirt last told of them."""

    domains: dict[str, Domain]
    """By UUID."""
    at_seconds: float | None = None
    """When (monotonic); None = never yet."""
    problem: str = ""
    """Why there is nothing newer, as a sentence; '' while there is."""


NOTHING_SEEN = View(domains={})

# Each of these paths below <domain> that is there is an obstacle.
_OBSTACLES: tuple[tuple[str, str], ...] = (
    ("nosharepages", "memoryBacking/nosharepages"),
    ("hugepages", "memoryBacking/hugepages"),
    ("shared", "memoryBacking/access[@mode='shared']"),
    ("shared", "cpu/numa/cell[@memAccess='shared']"),
    ("vfio", "devices/hostdev[@type='pci']"),
    ("vfio", "devices/hostdev[@type='mdev']"),
    ("vfio", "devices/interface[@type='hostdev']"),
)


def parse_domain(text: str) -> Domain:
    """A domain from its XML; raises Garbage."""
    try:
        root = ElementTree.fromstring(text)  # noqa: S314 - see the import
    except ElementTree.ParseError as error:
        raise Garbage("domain XML", str(error), "XML") from error
    obstacles = dict.fromkeys(name for name, path in _OBSTACLES if root.find(path) is not None)
    return Domain(
        uuid=root.findtext("uuid", ""),
        name=root.findtext("name", ""),
        tag=(root.findtext(f"metadata/{{{METADATA_NAMESPACE}}}tag") or "").strip(),
        obstacles=tuple(obstacles),
    )
