"""Words mends for the program, the kernel, the systemd and the distribution at hand. Pure."""

from ksmtuned_py.doctor.system import System
from ksmtuned_py.model import Guest

MEMORY_KSM_SYSTEMD = 256
"""The first systemd whose MemoryKSM= works. 254 and 255 give prctl only two of the five arguments that it checks."""
ZRAM = "modprobe zram; z=$(zramctl --find --size 4G) && mkswap $z && swapon -p 100 $z"
"""Sets up a zram device that nobody uses, because /dev/zram0 may be somebody's."""
RED_HAT = frozenset({"rhel", "fedora", "centos"})


def ask_for_merging(guest: Guest, system: System) -> str:
    """The mend that starts a guest of this kind so that its memory may merge."""
    if guest.kind == "qemu":
        return "start QEMU with mem-merge=on (-machine; it is the default); a libvirt domain without <nosharepages/>"
    if guest.kind == "cloud-hypervisor":
        return "start it with --memory size=...,mergeable=on and without shared=on"
    return enrol(system)


def enrol(system: System) -> str:
    """The mend that offers the memory of a program which does not ask for merging itself."""
    if not system.keeps_enrolment:
        return f"the program has to call madvise itself on this kernel; {newer_kernel(system)}, where a starter can"
    start = "start it with ksmtuned-py exec -- PROGRAM"
    if system.systemd is None:
        return f"{start}, in a systemd unit too (ExecStart=)"
    if system.systemd < MEMORY_KSM_SYSTEMD:
        here = f"MemoryKSM=yes fails before systemd {MEMORY_KSM_SYSTEMD}, and here is {system.systemd}"
        return f"{start}, in a systemd unit too (ExecStart=): {here}"
    return f"{start}, or with MemoryKSM=yes in its systemd unit"


def newer_kernel(system: System) -> str:
    """The mend that brings Linux 6.7, in which merging improved most."""
    if "debian" in system.distribution and "ubuntu" not in system.distribution:
        return "boot Linux 6.7 or newer (Debian 12 has one in bookworm-backports)"
    return "boot Linux 6.7 or newer"


def boot_option(system: System, option: str) -> str:
    """The mend that gives the kernel an option for good."""
    if system.distribution & RED_HAT:
        return f"grubby --update-kernel=ALL --args={option}, and boot"
    if "debian" in system.distribution:
        return f"{option} in GRUB_CMDLINE_LINUX of /etc/default/grub, update-grub, and boot"
    return f"boot with {option}"
