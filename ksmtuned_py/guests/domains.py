"""Parses libvirt's description of its domains. Pure."""

from collections.abc import Callable
from dataclasses import dataclass
from xml.etree import ElementTree

from ksmtuned_py.door.text import printable
from ksmtuned_py.errors import Garbage

METADATA_NAMESPACE = "urn:ksmtuned-py"


@dataclass(frozen=True, slots=True, kw_only=True)
class Domain:
    """A running domain."""

    uuid: str
    name: str
    aliases: tuple[str, ...] = ()
    """The names that other tools have for it: nova's name, the title."""
    tag: str = ""
    obstacles: tuple[str, ...] = ()
    """The obstacles to merging its memory, in the words of model.Guest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """All running domains as libvirt last told of them."""

    domains: dict[str, Domain]
    """The running domains by UUID."""
    at_seconds: float | None = None
    """The time at which libvirt told this (monotonic); None = never yet."""
    unread: frozenset[str] = frozenset()
    """UUIDs of running domains whose XML libvirt would not give."""
    expected: bool = True
    """libvirt is here, so what it has not told is unknown."""
    problem: str | None = None
    """Why libvirt tells nothing newer, as a sentence; None while it does."""


NOTHING_SEEN = View(domains={})

# An element at one of these paths below <domain> is an obstacle to all of the domain's memory.
_OBSTACLES: tuple[tuple[str, str], ...] = (
    ("nosharepages", "memoryBacking/nosharepages"),
    ("encrypted", "launchSecurity"),  # sev, sev-snp, tdx, s390-pv, and later kinds
    ("vfio", "devices/hostdev[@type='pci']"),
    ("vfio", "devices/hostdev[@type='mdev'][@model='vfio-pci']"),  # vfio-ap, vfio-ccw (s390x) pin a page now and then
    ("vfio", "devices/interface[@type='hostdev']"),
    ("nvme", "devices/disk[@type='nvme']"),
    ("vdpa", "devices/disk[@type='vhostvdpa']"),
    ("vdpa", "devices/interface[@type='vdpa']"),
)
# Where the XML has the names that other tools give the domain.
_ALIASES: tuple[str, ...] = (
    "metadata/{http://openstack.org/xmlns/libvirt/nova/1.0}instance/{http://openstack.org/xmlns/libvirt/nova/1.0}name",
    "metadata/{http://openstack.org/xmlns/libvirt/nova/1.1}instance/{http://openstack.org/xmlns/libvirt/nova/1.1}name",
    "metadata/{http://opennebula.org/xmlns/libvirt/1.0}vm/{http://opennebula.org/xmlns/libvirt/1.0}name",
    "metadata/{http://kubevirt.io}kubevirt/{http://kubevirt.io}uid",
    "title",
)


def parse_domain(text: str) -> Domain:
    """Read a domain from its XML; raises Garbage."""
    try:
        root = ElementTree.fromstring(text)  # noqa: S314 - see the import
    except ElementTree.ParseError as error:
        raise Garbage("domain XML", str(error), "XML") from error
    obstacles = dict.fromkeys(name for name, path in _OBSTACLES if root.find(path) is not None)
    try:
        obstacles |= dict.fromkeys(
            name for name, holds in _OF_CELLS.items() if all(holds(root, cell) for cell in _cells(root))
        )
    except ValueError as error:
        raise Garbage("domain XML", str(error), "numbers of NUMA cells") from error
    aliases = dict.fromkeys((root.findtext(path) or "").strip() for path in _ALIASES)
    return Domain(
        uuid=printable(root.findtext("uuid", "").lower()),
        name=printable(root.findtext("name", "")),
        aliases=tuple(printable(alias) for alias in aliases if alias),
        tag=printable((root.findtext(f"metadata/{{{METADATA_NAMESPACE}}}tag") or "").strip()),
        obstacles=tuple(obstacles),
    )


def _cells(root: ElementTree.Element) -> list[ElementTree.Element]:
    """The NUMA cells of a domain's memory; a domain without cells counts as one cell."""
    return root.findall("cpu/numa/cell") or [ElementTree.Element("cell", id="0")]


def _is_shared(root: ElementTree.Element, cell: ElementTree.Element) -> bool:
    """Whether a cell's memory is shared, by its own access mode or the domain's.

    Without either, QEMU shares memory from a memfd.
    """
    access = root.find("memoryBacking/access")
    mode = cell.get("memAccess") or (access.get("mode") if access is not None else None)
    memfd = root.find("memoryBacking/source[@type='memfd']") is not None
    return mode == "shared" or (mode is None and memfd)


def _is_hugetlb(root: ElementTree.Element, cell: ElementTree.Element) -> bool:
    """Whether a cell has huge pages. They may be for some of the cells only (nodeset='0-1,3')."""
    if root.find("memoryBacking/hugepages") is None:
        return False
    pages = root.findall("memoryBacking/hugepages/page")
    return not pages or any(_has(page.get("nodeset"), int(cell.get("id") or 0)) for page in pages)


def _has(nodeset: str | None, cell: int) -> bool:
    if nodeset is None:
        return True
    ranges = [[int(end) for end in part.split("-")] for part in nodeset.split(",") if not part.startswith("^")]
    return any(ends[0] <= cell <= ends[-1] for ends in ranges)


_OF_CELLS: dict[str, Callable[[ElementTree.Element, ElementTree.Element], bool]] = {
    "hugepages": _is_hugetlb,
    "shared": _is_shared,
}
"""Obstacles to the memory of one cell. The domain has an obstacle when all of its cells have it."""
