"""A guest's domain, cgroup, room and mappings are parsed, and the roster puts them together."""

from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from ksmtuned_py.config import Config, GuestRule, Guests, InForce
from ksmtuned_py.door import Door
from ksmtuned_py.errors import Garbage
from ksmtuned_py.guests.cgroups import parse_cgroup, room_bytes
from ksmtuned_py.guests.discovery import GuestFinder
from ksmtuned_py.guests.domains import NOTHING_SEEN, Domain, View, parse_domain
from ksmtuned_py.guests.monitor import MemoryBackend, parse_answer, parse_backends
from ksmtuned_py.guests.places import PER_LOOK, YOUNG_LOOKS, Places, rooms
from ksmtuned_py.guests.roster import STALE_SECONDS, Roster
from ksmtuned_py.guests.smaps import parse_smaps, ram_mappings
from ksmtuned_py.units import KIB, MIB
from tests.support.snapshots import guest
from tests.support.trees import FakeGuest, make_fake_tree, put

CELLS = "<cpu><numa><cell id='0'{}/><cell id='1'{}/></numa></cpu>"
HUGE = "<memoryBacking><hugepages><page size='2' unit='M' nodeset='{}'/></hugepages></memoryBacking>"
XML = "<domain><name>web</name><uuid>u-1</uuid>{}</domain>"


@pytest.mark.parametrize(
    ("inside", "obstacles"),
    [
        ("", ()),
        ("<memoryBacking><nosharepages/><hugepages/></memoryBacking>", ("nosharepages", "hugepages")),
        ("<memoryBacking><source type='memfd'/><access mode='shared'/></memoryBacking>", ("shared",)),
        ("<memoryBacking><source type='memfd'/><access mode='private'/></memoryBacking>", ()),
        ("<memoryBacking><source type='memfd'/></memoryBacking>", ("shared",)),
        (
            "<memoryBacking><source type='memfd'/></memoryBacking>"
            "<cpu><numa><cell id='0' memAccess='private'/></numa></cpu>",
            (),
        ),
        ("<memoryBacking><source type='file'/><locked/><allocation mode='immediate'/></memoryBacking>", ()),
        ("<launchSecurity type='sev'><policy>0x0003</policy></launchSecurity>", ("encrypted",)),
        ("<launchSecurity type='sev-snp'><policy>0x30000</policy></launchSecurity>", ("encrypted",)),
        ("<launchSecurity type='s390-pv'/>", ("encrypted",)),
        ("<launchSecurity type='tdx'/>", ("encrypted",)),
        ("<devices><disk type='nvme' device='disk'><source type='pci'/></disk></devices>", ("nvme",)),
        ("<devices><disk type='vhostvdpa'><source dev='/dev/vhost-vdpa-0'/></disk></devices>", ("vdpa",)),
        ("<devices><interface type='vdpa'><source dev='/dev/vhost-vdpa-0'/></interface></devices>", ("vdpa",)),
        ("<devices><disk type='file'/><interface type='bridge'/><hostdev type='scsi'/></devices>", ()),
        (CELLS.format("", " memAccess='shared'"), ()),
        (CELLS.format(" memAccess='shared'", " memAccess='shared'"), ("shared",)),
        (CELLS.format("", "") + HUGE.format("0"), ()),
        (CELLS.format("", "") + HUGE.format("0-1"), ("hugepages",)),
        (CELLS.format("", "") + HUGE.format("0,1"), ("hugepages",)),
        (HUGE.format("0"), ("hugepages",)),
        ("<devices><memory model='dimm' access='shared'/></devices>", ()),  # one module of many
        ("<cpu><numa><cell id='0' memAccess='shared'/></numa></cpu>", ("shared",)),
        ("<devices><hostdev mode='subsystem' type='pci'/><hostdev type='pci'/></devices>", ("vfio",)),
        ("<devices><hostdev mode='subsystem' type='usb'/></devices>", ()),
        ("<devices><hostdev mode='subsystem' type='mdev' model='vfio-pci'/></devices>", ("vfio",)),
        ("<devices><hostdev mode='subsystem' type='mdev' model='vfio-ap'/></devices>", ()),
        ("<devices><interface type='hostdev'/></devices>", ("vfio",)),
    ],
)
def test_what_a_domain_says_against_merging(inside: str, obstacles: tuple[str, ...]) -> None:
    assert parse_domain(XML.format(inside)) == Domain(uuid="u-1", name="web", obstacles=obstacles)


def test_the_tag_is_in_our_own_namespace() -> None:
    ours = "<metadata><k:tag xmlns:k='urn:ksmtuned-py'> gold </k:tag><tag>other</tag></metadata>"
    assert parse_domain(XML.format(ours)).tag == "gold"


NOVA = "http://openstack.org/xmlns/libvirt/nova/1.1"
ONE = "http://opennebula.org/xmlns/libvirt/1.0"


@pytest.mark.parametrize(
    ("inside", "aliases"),
    [
        (f"<metadata><n:instance xmlns:n='{NOVA}'><n:name>shop</n:name></n:instance></metadata>", ("shop",)),
        (f"<metadata><one:vm xmlns:one='{ONE}'><one:name>shop</one:name></one:vm></metadata>", ("shop",)),
        ("<title>The shop</title>", ("The shop",)),
        ("", ()),
    ],
)
def test_other_tools_names_are_in_the_metadata(inside: str, aliases: tuple[str, ...]) -> None:
    assert parse_domain(XML.format(inside)).aliases == aliases


@pytest.mark.parametrize(
    "inside",
    [
        "<memoryBacking><hugepages><page nodeset='many'/></hugepages></memoryBacking>",
        "<cpu><numa><cell id='first'/></numa></cpu><memoryBacking><hugepages><page nodeset='0'/></hugepages>"
        "</memoryBacking>",
    ],
)
def test_a_domain_that_makes_no_sense_is_garbage_and_nothing_worse(inside: str) -> None:
    with pytest.raises(Garbage):
        parse_domain(f"<domain><uuid>u</uuid>{inside}</domain>")


def test_hostile_xml_is_garbage_or_read() -> None:
    entities = "".join(f"<!ENTITY e{n} '{f'&e{n - 1};' * 10}'>" for n in range(1, 12))
    with pytest.raises(Garbage):
        parse_domain(f"<!DOCTYPE d [<!ENTITY e0 'x'>{entities}]><domain><name>&e11;</name></domain>")
    with pytest.raises(Garbage):
        parse_domain("<!DOCTYPE d [<!ENTITY x SYSTEM 'file:///etc/hostname'>]><domain><name>&x;</name></domain>")
    deep = 100_000  # of elements that are in each other
    assert parse_domain(f"<domain><name>web</name>{'<a>' * deep}{'</a>' * deep}</domain>").name == "web"
    assert parse_domain("<?xml version='1.0' encoding='UTF-16'?><domain><name>web</name></domain>").name == "web"


def test_no_xml_is_garbage() -> None:
    with pytest.raises(Garbage):
        parse_domain("<domain")


def test_a_cell_that_is_no_number_is_garbage() -> None:
    with pytest.raises(Garbage):
        parse_domain("<domain><memoryBacking><hugepages><page nodeset='all'/></hugepages></memoryBacking></domain>")


@pytest.mark.parametrize(
    "text", ["", "null", "[]", "{}", "[" * 100_000, '{"error": "no"}', '{"return": ', '{"error": {}, "id": 1}']
)
def test_a_monitor_may_answer_anything(text: str) -> None:
    with pytest.raises(Garbage):
        parse_answer("query-memdev", text)


@pytest.mark.parametrize(
    "answer",
    [
        None,
        7,
        "text",
        {"size": 1},
        [None],
        ["x"],
        [{}],
        [{"size": 1}],
        [{"size": "1", "merge": True}],
        [{"size": 1, "merge": "no"}],
        [{"size": 1, "merge": True}] * 2000,
    ],
)
def test_a_monitor_may_tell_anything_of_its_memory(answer: object) -> None:
    with pytest.raises(Garbage):
        parse_backends(answer)


def test_what_a_monitor_tells() -> None:
    text = '{"return": [{"id": "pc.ram", "size": 1024, "merge": true, "share": false, "policy": "default"}]}'
    answer, error = parse_answer("query-memdev", text)
    assert error is None
    assert parse_backends(answer) == (MemoryBackend(name="pc.ram", size_bytes=1024, merge=True, shared=False),)
    assert parse_answer("qom-set", '{"error": {"class": "x", "desc": "no\\u001b[2J"}}') == (None, r"no\x1b[2J")


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("0::/machine.slice/a.scope\n", "/machine.slice/a.scope"),
        ("0::/\n", ""),
        ("9:memory:/v1\n0::/\n", None),
        ("9:memory:/v1\n1:name=systemd:/a.slice\n0::/a.slice\n", "/a.slice"),
        ("0::/gone (deleted)\n", "/gone"),
        ("9:memory:/v1\n", None),
        ("", None),
    ],
)
def test_the_path_in_the_unified_tree_counts(text: str, path: str | None) -> None:
    assert parse_cgroup(text) == path


def test_the_tightest_limit_on_the_way_up_counts(tmp_path: Path) -> None:
    door = Door(str(tmp_path))
    assert room_bytes(door, "/a.slice/b.scope") is None
    put(tmp_path, "sys/fs/cgroup/a.slice/b.scope/memory.max", "max\n")
    put(tmp_path, "sys/fs/cgroup/a.slice/memory.max", "1000000\n")
    put(tmp_path, "sys/fs/cgroup/a.slice/memory.current", "400000\n")
    assert room_bytes(door, "/a.slice/b.scope") == 600_000
    put(tmp_path, "sys/fs/cgroup/a.slice/b.scope/memory.max", "500000\n")
    put(tmp_path, "sys/fs/cgroup/a.slice/b.scope/memory.current", "700000\n")
    assert room_bytes(door, "/a.slice/b.scope") == 0
    put(tmp_path, "sys/fs/cgroup/a.slice/b.scope/memory.max", "nonsense\n")
    assert room_bytes(door, "/a.slice/b.scope") == 600_000


@pytest.mark.parametrize(
    ("text", "files"),
    [
        ("0::/a/b\n", {"a/memory.max": 1000, "a/memory.current": 900, "a/b/memory.max": "max"}),
        (
            "4:cpu,memory:/a/b\n0::/a/b\n",
            {
                "memory/a/memory.limit_in_bytes": 1000,
                "memory/a/memory.usage_in_bytes": 900,
                "memory/a/b/memory.limit_in_bytes": 2**63 - 4096,
                "memory/a/b/memory.usage_in_bytes": 900,
            },
        ),
    ],
    ids=["one tree", "a tree for memory"],
)
def test_a_limit_is_seen_in_either_kind_of_tree(tmp_path: Path, text: str, files: dict[str, object]) -> None:
    put(tmp_path, "proc/100/cgroup", text)
    for path, value in files.items():
        put(tmp_path, f"sys/fs/cgroup/{path}", f"{value}\n")
    door, web = Door(str(tmp_path)), guest("web", 100)
    assert Places(door).look([web])[web.key].room_bytes == 100
    left = rooms(door)
    assert left(web) == 100
    name = next(path for path, value in files.items() if value == 900)
    put(tmp_path, f"sys/fs/cgroup/{name}", "950\n")
    assert left(web) == 50
    put(tmp_path, f"sys/fs/cgroup/{name}", "nonsense\n")
    assert left(web) != 50  # the limit is unknown, without an error


def test_who_does_not_answer_keeps_the_room_that_was_seen(tmp_path: Path) -> None:
    assert rooms(Door(str(tmp_path)))(replace(guest("web", 100), room_bytes=7)) == 7


def test_places_are_read_at_once_for_new_guests_and_in_turn_later(tmp_path: Path) -> None:
    places = Places(Door(str(tmp_path)))
    guests = [guest(f"g-{number}", number) for number in range(1, 3 * PER_LOOK + 1)]
    for _ in range(YOUNG_LOOKS):
        places.look(guests)
    for each in guests:
        put(tmp_path, f"proc/{each.pid}/cgroup", "0::/new\n")
    seen = [sum(place.cgroup == "/new" for place in places.look(guests).values()) for _ in range(3)]
    assert seen == [PER_LOOK, 2 * PER_LOOK, 3 * PER_LOOK]
    assert places.look([]) == {}


SMAPS = """\
7f73d3e00000-7f73d7e00000 rw-p 00000000 00:00 0 
Size:              65536 kB
KernelPageSize:        4 kB
Rss:               65536 kB
AnonHugePages:     40960 kB
THPeligible:           1
VmFlags: rd wr mr mw me dc ac dd hg mg 
7f7440000000-7f7444000000 rw-s 00000000 00:01 1030      /memfd:memory-backend-memfd (deleted)
Size:              65536 kB
VmFlags: rd wr sh mr mw me ms
7f7445000000-7f7445001000 r-xp 00000000 fe:00 12        /usr/lib/a library.so
Size:                  4 kB
VmFlags: rd ex mr mw me
"""  # noqa: W291 - as the kernel writes it


def test_smaps_tell_what_may_merge() -> None:
    ram, memfd, library = parse_smaps(SMAPS)
    assert (ram.size_bytes, ram.mergeable, ram.shared, ram.path) == (64 * MIB, True, False, "")
    assert (ram.sizes["AnonHugePages"], ram.sizes["Rss"]) == (40960 * KIB, 65536 * KIB)
    assert (memfd.mergeable, memfd.shared) == (False, True)
    assert (library.path, library.size_bytes) == ("/usr/lib/a library.so", 4096)
    assert ram_mappings([ram, memfd, library], [64 * MIB]) == [ram, memfd]
    assert parse_smaps("") == []


@dataclass
class Told:
    """A link to libvirt with a given view."""

    view: View = field(default_factory=lambda: NOTHING_SEEN)


def roster(root: Path, link: Told | None = None, *rules: GuestRule, **keys: object) -> Roster:
    """A roster on a made-up tree with one guest, web."""
    make_fake_tree(root, guests=[FakeGuest(pid=1001, name="web", uuid="u-1", rmap_items=1000, merging_pages=1)])
    settings = Guests.model_validate({"rule": [rule.model_dump() for rule in rules], **keys})
    door = Door(str(root))
    return Roster(
        door, GuestFinder(door, cgroup_patterns=settings.cgroup_patterns), InForce(Config(guests=settings)), link
    )


def test_libvirt_adds_what_it_knows_and_how_old_that_is(tmp_path: Path) -> None:
    domain = Domain(uuid="u-1", name="renamed", aliases=("shop",), tag="gold", obstacles=("vfio",))
    link = Told(View(domains={"u-1": domain}, at_seconds=90.0))
    (found,) = roster(tmp_path, link, GuestRule(tag="gold", group="a")).find(100.0)
    assert (found.name, found.tag, found.obstacles, found.group) == ("renamed", "gold", ("vfio",), "a")
    assert found.libvirt_age_seconds == 10.0
    assert set(found.aliases) == {"web", "shop"}


def test_without_libvirt_a_guest_is_what_its_command_line_says(tmp_path: Path) -> None:
    (found,) = roster(tmp_path).find(100.0)
    assert (found.name, found.uuid, found.libvirt_age_seconds) == ("web", "u-1", None)


def test_a_silent_libvirt_is_a_problem_only_after_a_while(tmp_path: Path) -> None:
    domain = Domain(uuid="u-1", name="web")
    link = Told(View(domains={"u-1": domain}, at_seconds=100.0, problem="gone"))
    one = roster(tmp_path, link)
    one.find(100.0)
    assert one.problems == ()
    (found,) = one.find(101.0 + STALE_SECONDS)
    assert found.libvirt_age_seconds == 31.0
    assert "libvirt does not answer" in " ".join(one.problems)
    link.view = replace(link.view, problem="")
    one.find(200.0)
    assert one.problems == ()


def test_passes_with_a_loss_are_counted(tmp_path: Path) -> None:
    one = roster(tmp_path, None, losing_passes=2, switch_off_losing=True)
    for passes in (1, 2):
        put(tmp_path, "sys/kernel/mm/ksm/full_scans", f"{passes}\n")
        (found,) = one.find(float(passes))
    assert (found.losing_passes, found.merge) == (2, False)


def test_all_processes_of_a_cgroup_may_be_guests(tmp_path: Path) -> None:
    one = roster(tmp_path, None, cgroup_patterns=["*/my-*.service"])
    plain = FakeGuest(pid=1002, name="x", comm="worker", command=("/usr/bin/worker",), mergeable=False)
    make_fake_tree(
        tmp_path, guests=[plain, FakeGuest(pid=1003, name="y", comm="other", command=("other",), mergeable=False)]
    )
    put(tmp_path, "proc/1002/cgroup", "0::/system.slice/my-app.service\n")
    assert [(found.name, found.kind) for found in one.find(1.0)] == [("web", "qemu"), ("worker-1002", "pattern")]
    assert {found.cgroup for found in one.find(2.0)} == {"", "/system.slice/my-app.service"}
