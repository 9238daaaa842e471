"""Takes one running guest's memory out of merging, or back in, and checks whether that took effect.

Everything here may wait as long as one QEMU does, so it is called where waiting hurts nobody.
"""

from ksmtuned_py.door import Door
from ksmtuned_py.door.text import printable
from ksmtuned_py.guests.monitor import MemoryBackend
from ksmtuned_py.guests.patience import ask_one
from ksmtuned_py.guests.process import ProcessFiles
from ksmtuned_py.guests.smaps import SMAPS_SECONDS, parse_smaps, ram_mappings
from ksmtuned_py.hypervisor.inpod import uri_of
from ksmtuned_py.hypervisor.link import LibvirtRefused, memory_backends, set_merging
from ksmtuned_py.model import Guest
from ksmtuned_py.units import human_bytes


def switch(door: Door, uri: str, guest: Guest, merge: bool) -> str:
    """Switch a guest and return what was read back, as a sentence; raises LibvirtRefused or Garbage."""
    with uri_of(door, guest, uri) as reached:
        backends = set_merging(reached, guest.uuid, merge)
    stubborn = [printable(backend.name) for backend in backends if backend.merge != merge]
    if stubborn:
        raise LibvirtRefused(f"domain {guest.uuid}", f"QEMU still says merge={not merge} of {', '.join(stubborn)}")
    return _read_back(door, guest.pid, [backend for backend in backends if not backend.shared], merge)


def empty(door: Door, uri: str, guest: Guest, merge: bool) -> str:
    """Take a guest out of merging and, if it was in, put it in again; returns a sentence.

    Its merged pages are then its own, until ksmd scans them again. Raises LibvirtRefused or Garbage.
    """
    if not any(backend.merge for backend in memory_backends(uri, guest.uuid)):
        return "its memory does not merge"
    try:
        return switch(door, uri, guest, merge=merge)
    finally:
        set_merging(uri, guest.uuid, not merge)


def _read_back(door: Door, pid: int, backends: list[MemoryBackend], merge: bool) -> str:
    """Read from smaps whether the switch took effect, as a sentence; raises LibvirtRefused when not.

    QEMU around 9.1 sets the property without telling the kernel, so its own word is no proof.
    """
    smaps = ask_one(ProcessFiles(door, pid), lambda inside: inside.read("smaps"), SMAPS_SECONDS)
    if smaps is None:
        raise LibvirtRefused(f"process {pid}", "whether it took cannot be seen, its smaps cannot be read")
    mappings = ram_mappings(parse_smaps(smaps), [each.size_bytes for each in backends])
    size = human_bytes(sum(mapping.size_bytes for mapping in mappings))
    if not mappings:
        return "QEMU says so, its memory was not found in smaps"
    wrong = [mapping for mapping in mappings if mapping.mergeable != merge]
    if wrong:
        still = "still merge" if not merge else "still do not merge"
        raise LibvirtRefused(f"process {pid}", f"{len(wrong)} of {len(mappings)} mappings of its memory {still}")
    return f"its {size} of memory {'may merge' if merge else 'may no longer merge'}, says smaps"
