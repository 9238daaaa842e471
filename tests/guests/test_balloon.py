"""A guest's command line tells how it hands memory back."""

import pytest

from ksmtuned_py.guests.balloon import Balloon, parse_balloon

NEITHER = Balloon()
PLAIN = Balloon(present=True)
REPORTING = Balloon(present=True, reports_free_pages=True)
LIBVIRT = '{"driver":"virtio-balloon-pci","id":"balloon0","free-page-reporting":true,"bus":"pci.4"}'


@pytest.mark.parametrize(
    ("line", "balloon"),
    [
        ("qemu-system-x86_64 -name guest=virtio-balloon -m 1024", NEITHER),
        ("qemu-system-x86_64 -device virtio-balloon-pci,id=b0", PLAIN),
        ("qemu-system-x86_64 -balloon virtio", PLAIN),
        ("qemu-system-x86_64 -balloon none", NEITHER),
        ("qemu-system-s390x -device virtio-balloon-ccw,free-page-reporting=on", REPORTING),
        ("qemu-system-x86_64 --device virtio-balloon,free-page-reporting=off", PLAIN),
        ("qemu-system-x86_64 -device virtio-balloon -global virtio-balloon-pci.free-page-reporting=on", REPORTING),
        (f"qemu-system-x86_64 -device {LIBVIRT}", REPORTING),
        (f"qemu-system-x86_64 -device {LIBVIRT.replace('true', 'false')}", PLAIN),
        ("qemu-system-x86_64 -device virtio-mem-pci,memdev=m0", Balloon(pluggable=True)),
        ("cloud-hypervisor --balloon size=0,free_page_reporting=on", REPORTING),
        ("cloud-hypervisor --balloon size=512M", PLAIN),
        ("", NEITHER),
    ],
)
def test_of_each_command_line(line: str, balloon: Balloon) -> None:
    assert parse_balloon(line.split(" ")) == balloon
