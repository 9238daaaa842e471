"""What libvirt says of its domains. PURE."""

from collections.abc import Callable
from dataclasses import dataclass
from xml.etree import ElementTree

from ksmtuned_py.errors import Garbage
from ksmtuned_py.guests.parse import printable

METADATA_NAMESPACE = "urn:ksmtuned-py"


@dataclass(frozen=True, slots=True, kw_only=True)
class Domain:
    """A running domain."""

    uuid: str
    name: str
    aliases: tuple[str, ...] = ()
    """What other tools call it: nova's name, the title."""
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
    unread: frozenset[str] = frozenset()
    """UUIDs of domains that run, and of which it would tell no more."""
    expected: bool = True
    """libvirt is here: what it has not told is not known."""
    problem: str = ""
    """Why there is nothing newer, as a sentence; '' while there is."""


NOTHING_SEEN = View(domains={})

# Each of these paths below <domain> that is there is an obstacle to all of its memory.
_OBSTACLES: tuple[tuple[str, str], ...] = (
    ("nosharepages", "memoryBacking/nosharepages"),
    ("encrypted", "launchSecurity"),  # sev, sev-snp, tdx, s390-pv, and what comes
    ("vfio", "devices/hostdev[@type='pci']"),
    ("vfio", "devices/hostdev[@type='mdev'][@model='vfio-pci']"),  # vfio-ap, vfio-ccw (s390x): a page now and then
    ("vfio", "devices/interface[@type='hostdev']"),
    ("nvme", "devices/disk[@type='nvme']"),
    ("vdpa", "devices/disk[@type='vhostvdpa']"),
    ("vdpa", "devices/interface[@type='vdpa']"),
)
# What other tools call the domain that libvirt knows by its name.
_ALIASES: tuple[str, ...] = (
    "metadata/{http://openstack.org/xmlns/libvirt/nova/1.0}instance/{http://openstack.org/xmlns/libvirt/nova/1.0}name",
    "metadata/{http://openstack.org/xmlns/libvirt/nova/1.1}instance/{http://openstack.org/xmlns/libvirt/nova/1.1}name",
    "metadata/{http://opennebula.org/xmlns/libvirt/1.0}vm/{http://opennebula.org/xmlns/libvirt/1.0}name",
    "metadata/{http://kubevirt.io}kubevirt/{http://kubevirt.io}uid",
    "title",
)


def parse_domain(text: str) -> Domain:
    """A domain from its XML; raises Garbage."""
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
    """The NUMA cells of its memory; a domain without them is one."""
    return root.findall("cpu/numa/cell") or [ElementTree.Element("cell", id="0")]


def _is_shared(root: ElementTree.Element, cell: ElementTree.Element) -> bool:
    """By the cell's own access mode, by the domain's, or because QEMU shares memory from a memfd unless told not to."""
    access = root.find("memoryBacking/access")
    mode = cell.get("memAccess") or (access.get("mode") if access is not None else None)
    memfd = root.find("memoryBacking/source[@type='memfd']") is not None
    return mode == "shared" or (mode is None and memfd)


def _is_hugetlb(root: ElementTree.Element, cell: ElementTree.Element) -> bool:
    """Pages may be meant for some of the cells only: nodeset='0-1,3'."""
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
"""Obstacles to the memory of one cell; the domain's when all of its cells have it."""
