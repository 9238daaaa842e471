"""Which programs are guests, and what their command lines call them."""

import pytest

from ksmtuned_py.guests.programs import guest_kind, guest_name, guest_uuid, program_names, suspects

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
    assert guest_name(kind, line.split()) == name


def test_uuid() -> None:
    assert guest_uuid("qemu", ["qemu-kvm", "-name", "web", "-uuid", UUID]) == UUID
    assert guest_uuid("qemu", ["qemu-kvm"]) == ""


def test_a_script_is_known_by_its_own_name() -> None:
    names = program_names("python3", ["/usr/bin/python3.11", "-Es", "/usr/sbin/tuned", "-l"])
    assert suspects(names) == ("tuned",)
    assert suspects(program_names("harvester-node-", ["/bin/harvester-node-manager"])) == ("harvester-node-manager",)


def test_those_who_never_write_knobs_are_not_suspected() -> None:
    assert suspects(["bash", "libvirtd", "ksmtuned-py", "vi ksmtuned"]) == ()
    assert suspects(program_names("vi", ["vi", "/usr/sbin/ksmtuned"])) == ()
