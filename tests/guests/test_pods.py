"""Pods are told by what kubelet makes on the node, whatever a guest says of itself."""

from pathlib import Path

import pytest

from ksmtuned_py.config import Config, GuestRule, Guests, InForce
from ksmtuned_py.door import Door
from ksmtuned_py.guests.cgroupspace import from_root
from ksmtuned_py.guests.discovery import GuestFinder
from ksmtuned_py.guests.pods import pod_uid
from ksmtuned_py.guests.roster import Roster
from ksmtuned_py.hypervisor.inpod import uri_of
from ksmtuned_py.hypervisor.link import LibvirtRefused
from ksmtuned_py.model import Guest
from tests.support.trees import FakeGuest, make_fake_tree, put

UID = "0a1b2c3d-1111-2222-3333-444455556666"
OTHER_UID = "ffffffff-1111-2222-3333-444455556666"
DOMAIN = "5f7a5b3c-0000-4000-8000-00000000000{}"


def cgroup_of(uid: str = UID) -> str:
    """The cgroup of a container of that pod, as kubelet and containerd make it."""
    name = f"kubepods-burstable-pod{uid.replace('-', '_')}.slice"
    return f"/kubepods.slice/kubepods-burstable.slice/{name}/cri-containerd-{'c' * 64}.scope"


@pytest.mark.parametrize(
    ("cgroup", "uid"),
    [
        (cgroup_of(), UID),
        (f"/kubepods.slice/kubepods-pod{UID.replace('-', '_')}.slice/crio-{'c' * 64}.scope", UID),
        (f"/kubepods/besteffort/pod{UID}/{'c' * 64}", UID),
        (f"/kubepods/pod{UID}", UID),
        ("/machine.slice/machine-qemu-1-web.scope", ""),
        # What a container, or a user's session, makes below its own:
        (f"{cgroup_of()}{cgroup_of(OTHER_UID)}", UID),
        (f"/user.slice/user-1000.slice/user@1000.service{cgroup_of()}", ""),
    ],
)
def test_the_pod_of_a_cgroup(cgroup: str, uid: str) -> None:
    assert pod_uid(cgroup) == uid


def node(root: Path, *pods: tuple[str, str, str], **more: tuple[str, ...]) -> Door:
    """A node with a guest for each pod of this namespace, UID and name that its QEMU has; each is known to kubelet."""
    guests = []
    for number, (namespace, uid, name) in enumerate(pods, start=1):
        words = (
            "/usr/libexec/qemu-kvm",
            "-name",
            f"guest={name}",
            "-uuid",
            DOMAIN.format(number),
            *more.get("words", ()),
        )
        guests.append(FakeGuest(pid=1000 + number, name=name, comm="qemu-kvm", command=words))
        put(root, f"proc/{1000 + number}/cgroup", f"0::{cgroup_of(uid)}\n")
        if namespace:
            (root / f"var/log/pods/{namespace}_virt-launcher-{number}_{uid}").mkdir(parents=True)
    return Door(str(make_fake_tree(root, guests=guests, kernel="6.12")))


def listed(door: Door, *rules: GuestRule, **keys: object) -> list[Guest]:
    """The guests of a node under these rules."""
    guests = Guests.model_validate({"rule": [rule.model_dump() for rule in rules], "libvirt_uri": "", **keys})
    finder = GuestFinder(door)
    try:
        return list(Roster(door, finder, InForce(Config(guests=guests))).find(100.0))
    finally:
        finder.close()


def test_a_guest_has_the_namespace_of_its_pod(tmp_path: Path) -> None:
    (found,) = listed(node(tmp_path, ("tenant-a", UID, "tenant-a_web")))
    assert (found.namespace, found.name, found.unknown) == ("tenant-a", "tenant-a/web", ("tag",))
    assert found.has_monitor


def test_a_guest_that_calls_itself_a_vm_of_another_namespace_is_none(tmp_path: Path) -> None:
    (found,) = listed(node(tmp_path, ("tenant-a", UID, "tenant-b_web")), GuestRule(namespace="tenant-b", merge="yes"))
    assert (found.namespace, found.merge) == ("tenant-a", None)
    assert "tenant-b/web" not in (found.name, *found.aliases)


BY_NAMESPACE = GuestRule(namespace="?*", group="{namespace}")


def test_each_namespace_is_a_group(tmp_path: Path) -> None:
    door = node(tmp_path, ("tenant-a", UID, "tenant-a_web"), ("tenant-b", OTHER_UID, "tenant-b_web"))
    found = listed(door, BY_NAMESPACE, isolation="groups", isolation_group="tenant-b")
    assert [(each.group, each.merge) for each in found] == [("tenant-a", False), ("tenant-b", None)]
    assert [each.awaits_switch for each in found] == [True, False]  # it can be switched, so merging waits for it


@pytest.mark.parametrize("rule", [BY_NAMESPACE, GuestRule(group="{namespace}"), GuestRule(namespace="a", merge="no")])
def test_a_pod_that_kubelet_does_not_tell_of_is_kept_out(tmp_path: Path, rule: GuestRule) -> None:
    (found,) = listed(node(tmp_path, ("", UID, "tenant-a_web")), rule)
    assert (found.namespace, found.merge) == ("", False)
    assert found.merge_reason.endswith("its namespace")


def test_no_name_of_a_directory_is_taken_for_a_namespace_that_is_none(tmp_path: Path) -> None:
    door = node(tmp_path, ("", UID, "tenant-a_web"))
    for name in (f"a_b_c_{UID}", f"_pod_{UID}", f"{{namespace}}_pod_{UID}", f"A_pod_{UID}", UID):
        (tmp_path / "var/log/pods" / name).mkdir(parents=True)
    assert listed(door)[0].unknown == ("tag", "namespace")


def test_outside_of_pods_there_is_no_namespace(tmp_path: Path) -> None:
    door = node(tmp_path, ("tenant-a", UID, "tenant-a_web"))
    put(tmp_path, "proc/1001/cgroup", "0::/machine.slice/machine-qemu-1-web.scope\n")
    (found,) = listed(door, GuestRule(namespace="tenant-a", merge="no"))
    assert (found.namespace, found.merge, found.has_monitor) == ("", None, False)


def test_a_guest_that_opted_out_is_out_by_its_command_line(tmp_path: Path) -> None:
    """KubeVirt is to make mem-merge=off of an annotation; before Linux 6.18 the kernel does not tell who asked."""
    off = node(tmp_path, ("a", UID, "a_web"), words=("-machine", "pc-q35-9.2,usb=off,mem-merge=off"))
    (found,) = listed(off, GuestRule(merge="yes"))
    assert (found.obstacles, found.kept_out, found.may_merge) == (("nosharepages",), True, False)


OWN = f"/kubepods.slice/kubepods-pod{OTHER_UID.replace('-', '_')}.slice/cri-containerd-{'d' * 64}.scope"


def from_inside(root: Path, mounted: bool = True) -> Door:
    """A tree as a container sees it that is in OWN, with the host's cgroups mounted or only its own."""
    put(root, "proc/self/stat", "77 (ksmtuned-py) S 1\n")
    put(root, "sys/fs/cgroup/cgroup.controllers", "memory\n")
    put(root, "sys/fs/cgroup/cgroup.procs", "1\n" if mounted else "77\n")
    if mounted:
        put(root, f"sys/fs/cgroup{cgroup_of()}/cgroup.procs", "177\n")
        put(root, f"sys/fs/cgroup{OWN}/cgroup.procs", "76\n77\n")
    return Door(str(root))


@pytest.mark.parametrize(
    ("said", "path"),
    [
        (f"0::/../../{cgroup_of().removeprefix('/kubepods.slice/')}", cgroup_of()),
        ("0::/../../../machine.slice/web.scope", "/machine.slice/web.scope"),
        ("0::/../../..", ""),
        ("0::/../other", OWN.rpartition("/")[0] + "/other"),
        ("0::/..a/b", "/..a/b"),
    ],
)
def test_a_container_knows_the_hosts_paths(tmp_path: Path, said: str, path: str) -> None:
    assert from_root(from_inside(tmp_path), f"{said}\n").rstrip("\n") == f"0::{path}"


def test_no_other_path_is_taken_for_one_that_is_not_known(tmp_path: Path) -> None:
    alone = from_inside(tmp_path, mounted=False)
    assert from_root(alone, "0::/../../machine.slice/web.scope\n") == ""
    assert from_root(alone, "4:memory:/../../x\n0::/here\n") == "0::/here"


def test_no_link_of_a_guests_leads_out_of_its_pod(tmp_path: Path) -> None:
    door = node(tmp_path, ("a", UID, "a_web"))
    (found,) = listed(door)
    place = tmp_path / "proc/1001/root/run/libvirt"
    place.mkdir(parents=True)
    (place / "virtqemud-sock").symlink_to("/run/libvirt/libvirt-sock")
    with pytest.raises(LibvirtRefused, match=r"a/web.*virtqemud-sock"), uri_of(door, found, "qemu:///system"):
        pass
    (place / "virtqemud-sock").unlink()
    (place / "virtqemud-sock").write_text("")
    with pytest.raises(LibvirtRefused, match="no socket"), uri_of(door, found, "qemu:///system"):
        pass
