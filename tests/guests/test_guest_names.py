"""Programs are known as guests, and command lines tell their names."""

from dataclasses import replace

import pytest

from ksmtuned_py.guests.names import cgroup_names, goes_by, names_of, placed, told_apart
from ksmtuned_py.guests.programs import guest_kind, program_names, suspects
from tests.support.snapshots import guest

UUID = "0c5f4b6e-6ef0-4d2c-9d3b-6f0a5ad1a111"


@pytest.mark.parametrize(
    ("name", "words", "kind"),
    [
        ("qemu-system-x86_64", [], "qemu"),
        ("qemu-system-x86", [], "qemu"),  # as the kernel cuts it
        ("qemu-kvm", [], "qemu"),
        ("kvm", [], "qemu"),
        ("qemu:web", [], "qemu"),
        ("web server", ["/usr/bin/qemu-system-x86_64"], "qemu"),  # -name process=
        (".qemu-system-x8", ["/nix/store/x/bin/qemu-system-x86_64"], "qemu"),
        ("cloud-hypervisor", [], "cloud-hypervisor"),
        ("cloud-hyperviso", [], "cloud-hypervisor"),
        ("firecracker", [], "firecracker"),
        ("firecracker-v1.", [], "firecracker"),
        ("crosvm", [], "crosvm"),
        ("stratovirt", [], "stratovirt"),
        ("my-vmm-7", [], "pattern"),
        ("main", ["/opt/my-vmm-7"], "pattern"),
    ],
)
def test_guests(name: str, words: list[str], kind: str) -> None:
    assert guest_kind(name, words, ["my-vmm*"]) == kind


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("qemu-ga", []),
        ("qemu-img", ["/usr/bin/qemu-img"]),
        ("kvm-pit/1234", []),
        ("virtqemud", []),
        ("pcivirtio-block", ["crosvm", "run"]),  # a device of crosvm's: no guest memory of its own
        ("bash", ["bash", "-c", "qemu-system-x86_64 -m 512"]),
        ("", []),
    ],
)
def test_others(name: str, words: list[str]) -> None:
    assert guest_kind(name, words, ["my-vmm*"]) is None


@pytest.mark.parametrize(
    ("kind", "line", "name"),
    [
        ("qemu", "qemu-kvm -name guest=web,debug-threads=on -m 1", "web"),
        ("qemu", "qemu-kvm -m 1 -name web", "web"),
        ("qemu", "qemu-kvm --name web,process=x", "web"),
        ("qemu", "qemu-kvm -name debug-threads=on,guest=web", "web"),
        ("qemu", "qemu-kvm -name guest=a,,b,debug-threads=on", "a,b"),
        ("qemu", "qemu-kvm -name debug-threads=on", ""),
        ("qemu", "qemu-kvm -m 1", ""),
        ("qemu", "qemu-kvm -name", ""),
        ("pattern", "my-vmm -name guest=web", "web"),
        ("mergeable", "redis-server", ""),
        ("cloud-hypervisor", "cloud-hypervisor --api-socket /run/ch/web.sock", "web"),
        ("cloud-hypervisor", "cloud-hypervisor --api-socket=path=/run/web.sock", "web"),
        ("cloud-hypervisor", "cloud-hypervisor --api-socket /run/vc/vm/6f0a/clh-api.sock", "6f0a"),
        ("firecracker", "firecracker --id web --api-sock /run/api.sock", "web"),
        ("firecracker", "firecracker --api-sock /srv/web/api.socket", "web"),
        ("crosvm", "crosvm run --name=web --socket /run/x.sock", "web"),
        ("crosvm", "crosvm run -s /run/web.sock kernel", "web"),
    ],
)
def test_names(kind: str, line: str, name: str) -> None:
    assert names_of(kind, line.split()).name == name


SANDBOX = "ee5f2f02aa" + 54 * "0"
SHORT = [SANDBOX[:13], SANDBOX[:12]]
PROXMOX = f"/usr/bin/kvm -id 102 -name web,debug-threads=on -smbios type=0,vendor=x -smbios type=1,uuid={UUID.upper()}"


@pytest.mark.parametrize(
    ("kind", "line", "names"),
    [
        ("qemu", PROXMOX, ["web", "102"]),
        ("qemu", "qemu-kvm-one -name guest=one-524,debug-threads=on", ["one-524", "524"]),
        ("qemu", "qemu -name guest=instance-0000001a,debug-threads=on", ["instance-0000001a"]),
        (
            "qemu",
            f"qemu -name sandbox-{SANDBOX},debug-threads=on",
            [SANDBOX, SANDBOX[:13], SANDBOX[:12], f"sandbox-{SANDBOX}"],
        ),
        ("qemu", "qemu -name sandbox-web", ["sandbox-web"]),
        ("qemu", "microvm@web -name web-1", ["web-1", "web"]),
        ("cloud-hypervisor", "microvm@web --api-socket /var/lib/microvms/web/run/ch.sock", ["web"]),
        ("cloud-hypervisor", "ch --api-socket /run/kata/ee5f2f02aa/ch-api.sock", ["ee5f2f02aa"]),
        ("cloud-hypervisor", "ch --api-socket path=/run/web-1/cloud-hypervisor.sock", ["web-1"]),
        ("cloud-hypervisor", "ch --api-socket /run/ch.sock", []),
        ("firecracker", "firecracker --id 551e7604 --api-sock /run/firecracker.socket", ["551e7604"]),
        ("firecracker", "fc --api-sock /srv/jailer/firecracker/551e/root/run/firecracker.socket", ["551e"]),
        ("crosvm", "crosvm run -s /run/vms/web/control.sock k", ["web"]),
        ("stratovirt", "stratovirt -name web -uuid x", ["web"]),
        ("vm", f"containerd-shim-kata-v2 -namespace k8s.io -id {SANDBOX} -address x", [SANDBOX, *SHORT]),  # Dragonball
        ("cloud-hypervisor", f"ch --api-socket /run/vc/vm/{SANDBOX}/clh-api.sock", [SANDBOX, *SHORT]),
        ("firecracker", "/firecracker --id 6b1f0f1a --start-time-us 1 --config-file fcConfig.json", ["6b1f0f1a"]),
        ("firecracker", "microvm@web --config-file x.json --api-sock web.sock", ["web"]),
        ("cloud-hypervisor", "microvm@db --api-socket db.sock", ["db"]),
        ("cloud-hypervisor", "ch --api-socket fd=3", []),
        ("cloud-hypervisor", "ch --api-socket api.sock", []),
        ("qemu", f"qemu-system-x86_64 -S -name v1 -uuid {UUID} -daemonize -readconfig /run/incus/v1/qemu.conf", ["v1"]),
        ("qemu", f"qemu-system-x86_64 -S -name project_v1 -uuid {UUID} -nographic -nodefaults", ["project_v1"]),
        ("qemu", "/usr/bin/kvm -id 9000 -name tmpl,,x,debug-threads=on -no-shutdown", ["tmpl,x", "9000"]),
        ("qemu", "qemu-kvm-one -name guest=one-7-clone,debug-threads=on", ["one-7-clone"]),
        ("crosvm", "crosvm run --socket=/run/vm/android/crosvm.sock -m 2048", ["android"]),
        ("stratovirt", "stratovirt -machine microvm -name guest=web,debug-threads=on -qmp unix:/s", ["web"]),
        ("mergeable", "postgres: app app@10.0.0.1 idle", []),
        ("mergeable", "java -id 7 -jar x", []),
    ],
)
def test_names_that_tools_have(kind: str, line: str, names: list[str]) -> None:
    found = names_of(kind, line.split())
    assert [name for name in (found.name, *found.aliases) if name] == names


@pytest.mark.parametrize(
    ("cgroup", "names"),
    [
        (r"/machine.slice/machine-qemu\x2d3\x2dweb\x2d1.scope/libvirt/emulator", ("web-1",)),
        ("/machine.slice/machine-web.scope/payload", ("web",)),
        ("/lxc.payload.c1/init.scope", ("c1",)),
        ("/lxc.payload.project_c1", ("project_c1",)),
        ("/qemu.slice/102.scope", ("102",)),
        ("/system.slice/microvm@web.service", ("web",)),
        (r"/system.slice/system-vm.slice/vm@a\x2db.service", ("a-b",)),
        (f"/kubepods.slice/kubepods-pod1.slice/cri-containerd-{SANDBOX}.scope", (SANDBOX, SANDBOX[:13], SANDBOX[:12])),
        (f"/system.slice/docker-{SANDBOX}.scope", (SANDBOX, SANDBOX[:13], SANDBOX[:12])),
        (f"/machine.slice/libpod-{SANDBOX}.scope/container", (SANDBOX, SANDBOX[:13], SANDBOX[:12])),
        ("/user.slice/user-1000.slice/session-3.scope", ()),
        ("/system.slice/nginx.service", ()),
        ("", ()),
    ],
)
def test_names_in_cgroups(cgroup: str, names: tuple[str, ...]) -> None:
    assert cgroup_names(cgroup) == names


@pytest.mark.parametrize(
    ("line", "uuid"),
    [
        (f"qemu-kvm -name web -uuid {UUID}", UUID),
        (f"qemu-kvm -uuid {UUID.upper()} -smbios type=1,uuid=11111111-1111-1111-1111-111111111111", UUID),
        (PROXMOX, UUID),
        (f"kvm -smbios type=3,uuid={UUID}", ""),
        ("kvm -smbios type=1,uuid=", ""),
        ("qemu-kvm", ""),
    ],
)
def test_uuid(line: str, uuid: str) -> None:
    assert names_of("qemu", line.split()).uuid == uuid


def test_a_program_that_only_merges_has_no_domains_uuid() -> None:
    assert names_of("mergeable", ["evil", "-uuid", UUID]).uuid == ""


def test_a_pod_makes_a_kubevirt_name_of_a_domains() -> None:
    vmi = placed(guest("default_testvm"), "/kubepods.slice/kubepods-pod1.slice/x.scope")
    assert (vmi.name, vmi.aliases) == ("default/testvm", ("default_testvm",))
    assert placed(guest("default_testvm"), "/machine.slice").name == "default_testvm"
    assert placed(replace(guest("my_app-7"), kind="mergeable"), "/kubepods.slice/x.scope").name == "my_app-7"


def test_a_name_that_two_share_is_no_name() -> None:
    first = replace(guest("ch-api", 1), aliases=("ee5f",))
    second = replace(guest("ch-api", 2), aliases=("0a1b",))
    assert [each.name for each in told_apart([first, second, guest("db", 3)])] == ["ch-api-ee5f", "ch-api-0a1b", "db"]
    twins = told_apart(
        [guest("web", 7), replace(guest("web", 8), aliases=("shared",)), replace(guest("web", 9), aliases=("shared",))]
    )
    assert [each.name for each in twins] == ["web-7", "web-8", "web-9"]
    assert all("web" in each.aliases for each in twins)
    assert told_apart([guest("web", 7)])[0].name == "web"


def test_a_person_may_use_every_form() -> None:
    one = replace(guest("web", 7), aliases=("102", "default/web"), uuid=UUID)
    assert all(goes_by(one, word) for word in ("web", "102", "default/web", "7", UUID, UUID.upper()))
    assert not any(goes_by(one, word) for word in ("", "we", "8"))
    assert not goes_by(guest("web"), "")


def test_a_script_is_known_by_its_own_name() -> None:
    names = program_names("python3", ["/usr/bin/python3.11", "-Es", "/usr/sbin/tuned", "-l"])
    assert suspects(names) == ("tuned",)
    assert suspects(program_names("harvester-node-", ["/bin/harvester-node-manager"])) == ("harvester-node-manager",)


def test_those_who_never_write_knobs_are_not_suspected() -> None:
    assert suspects(["bash", "libvirtd", "ksmtuned-py", "vi ksmtuned"]) == ()
    assert suspects(program_names("vi", ["vi", "/usr/sbin/ksmtuned"])) == ()
