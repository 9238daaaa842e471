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
    ("encrypted", "launchSecurity"),  # sev, sev-snp, tdx, s390-pv, and what comes
    ("hugepages", "memoryBacking/hugepages"),
    ("hugepages", "devices/memory/source/pagesize"),
    ("shared", "memoryBacking/access[@mode='shared']"),
    ("shared", "cpu/numa/cell[@memAccess='shared']"),
    ("shared", "devices/memory[@access='shared']"),
    ("vfio", "devices/hostdev[@type='pci']"),
    ("vfio", "devices/hostdev[@type='mdev']"),
    ("vfio", "devices/interface[@type='hostdev']"),
    ("nvme", "devices/disk[@type='nvme']"),
    ("vdpa", "devices/disk[@type='vhostvdpa']"),
    ("vdpa", "devices/interface[@type='vdpa']"),
)


def parse_domain(text: str) -> Domain:
    """A domain from its XML; raises Garbage."""
    try:
        root = ElementTree.fromstring(text)  # noqa: S314 - see the import
    except ElementTree.ParseError as error:
        raise Garbage("domain XML", str(error), "XML") from error
    obstacles = dict.fromkeys(name for name, path in _OBSTACLES if root.find(path) is not None)
    if _shared_memfd(root):
        obstacles["shared"] = None
    return Domain(
        uuid=root.findtext("uuid", ""),
        name=root.findtext("name", ""),
        tag=(root.findtext(f"metadata/{{{METADATA_NAMESPACE}}}tag") or "").strip(),
        obstacles=tuple(obstacles),
    )


def _shared_memfd(root: ElementTree.Element) -> bool:
    """QEMU shares memory from a memfd unless it is told not to, by the domain or by each of its NUMA cells."""
    if root.find("memoryBacking/source[@type='memfd']") is None:
        return False
    cells = root.findall("cpu/numa/cell")
    private = all(cell.get("memAccess") == "private" for cell in cells) if cells else False
    return root.find("memoryBacking/access[@mode='private']") is None and not private
