"""Obstacles to merging are found on a virtual machine's command line."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ksmtuned_py.guests.obstacles import parse_command_line, parse_readconfig, read_files


@pytest.mark.parametrize(
    ("kind", "line", "obstacles"),
    [
        ("qemu", "qemu -name sev-guest -m 1024", set()),
        ("qemu", "qemu -object memory-backend-ram,id=m,size=1G", set()),
        ("qemu", "qemu -machine q35,memory-encryption=sev0 -object sev-guest,id=sev0", {"encrypted"}),
        ("qemu", "qemu --machine q35,mem-merge=off", {"nosharepages"}),
        ("qemu", "qemu -M q35,mem-merge=on", set()),
        ("qemu", "qemu -object memory-backend-memfd,id=m,share=on", {"shared"}),
        ("qemu", 'qemu -object {"qom-type":"memory-backend-memfd","id":"m","share":true}', {"shared"}),
        ("qemu", "qemu -object memory-backend-file,mem-path=/dev/hugepages/x,share=off", {"hugepages"}),
        ("qemu", "qemu -mem-path /dev/hugepages", {"hugepages"}),
        ("qemu", "qemu -netdev type=vhost-vdpa,vhostdev=/dev/vhost-vdpa-0", {"vdpa"}),
        ("qemu", "qemu -drive file=disk.img -device nvme,drive=d0", set()),  # an emulated one
        ("cloud-hypervisor", "ch --memory size=1G,shared=on,hugepages=on", {"shared", "hugepages"}),
        ("cloud-hypervisor", "ch --platform sev_snp=on --device path=/sys/bus/pci/devices/x", {"encrypted", "vfio"}),
        ("cloud-hypervisor", "ch --vdpa=path=/dev/vhost-vdpa-0", {"vdpa"}),
        ("crosvm", "crosvm run --protected-vm kernel", {"encrypted"}),
        ("crosvm", "crosvm run --vfio=/sys/bus/pci/devices/x kernel", {"vfio"}),
        ("firecracker", "firecracker --id x --device vfio-pci", set()),
    ],
)
def test_of_each_command_line(kind: str, line: str, obstacles: set[str]) -> None:
    assert parse_command_line(kind, line.split()) == obstacles


def test_a_file_of_devices_is_read_as_words() -> None:
    text = '# a comment\n[device "net0"]\n  driver = "vfio-pci"\n  host = "01:00.0"\n[machine]\n  mem-merge = "off"\n'
    words = parse_readconfig(text)
    assert words == ["-device", "vfio-pci,id=net0,host=01:00.0", "-machine", "mem-merge=off"]
    assert parse_command_line("qemu", words) == {"vfio", "nosharepages"}
    assert read_files(["qemu", "-readconfig", "a.cfg", "--readconfig", "b.cfg"]) == ["a.cfg", "b.cfg"]


@given(st.text())
def test_any_text_is_read(text: str) -> None:
    parse_command_line("qemu", parse_readconfig(text))
