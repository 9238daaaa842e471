"""Finds obstacles to merging on a virtual machine's command line, and in the file that it may name. Pure."""

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

READCONFIG = frozenset({"-readconfig", "--readconfig"})
_SECTION = re.compile(r'\[\s*([\w-]+)(?:\s+"([^"]*)")?\s*\]')
_KEY = re.compile(r'([\w.-]+)\s*=\s*"(.*)"')
_KINDS = ("driver", "qom-type", "type", "backend")
"""Keys whose value stands first on a command line, without the key."""

# For each obstacle, the options whose values can show it, and how.
_QEMU: Mapping[str, Mapping[str, re.Pattern[str]]] = {
    "encrypted": {
        "object": re.compile(r"\b(sev(-snp)?|tdx|s390-pv|pef|rme)-guest\b"),
        "machine": re.compile(r"confidential-guest-support=|memory-encryption="),
        "M": re.compile(r"confidential-guest-support=|memory-encryption="),
    },
    "nosharepages": {
        "machine": re.compile(r"mem-merge=(off|no|false)\b"),
        "M": re.compile(r"mem-merge=(off|no|false)\b"),
    },
    "vfio": {"device": re.compile(r"\bvfio-pci\b")},
    "vdpa": {
        "netdev": re.compile(r"\bvhost-vdpa\b"),
        "blockdev": re.compile(r"vhost-vdpa\b"),
        "device": re.compile(r"\bvhost-vdpa\b"),
    },
    "nvme": {"drive": re.compile(r"\bnvme://"), "blockdev": re.compile(r'(driver=|"driver":\s*")nvme\b')},
    "hugepages": {
        "mem-path": re.compile(r"huge"),
        "object": re.compile(r"hugetlb(=on|\":\s*true)|mem-path[=:\" ]+\S*huge"),
    },
    "shared": {"object": re.compile(r"memory-backend-.*share(=on|\":\s*true)")},
}
_CLOUD_HYPERVISOR: Mapping[str, Mapping[str, re.Pattern[str]]] = {
    "encrypted": {"platform": re.compile(r"\b(sev_snp|tdx)=on\b")},
    "vfio": {"device": re.compile(r"path=")},
    "vdpa": {"vdpa": re.compile(r"path=")},
    "hugepages": {"memory": re.compile(r"\bhugepages=on\b"), "memory-zone": re.compile(r"\bhugepages=on\b")},
    "shared": {"memory": re.compile(r"\bshared=on\b"), "memory-zone": re.compile(r"\bshared=on\b")},
}
_CROSVM: Mapping[str, Mapping[str, re.Pattern[str]]] = {
    "encrypted": {"protected-vm": re.compile(""), "protected-vm-with-firmware": re.compile("")},
    "vfio": {"vfio": re.compile(""), "vfio-platform": re.compile("")},
    "hugepages": {"hugetlb": re.compile("")},
}
_PROGRAMS = {"qemu": _QEMU, "cloud-hypervisor": _CLOUD_HYPERVISOR, "crosvm": _CROSVM}


def parse_command_line(kind: str, words: Sequence[str]) -> frozenset[str]:
    """The obstacles on a command line, in the words of model.Guest."""
    table = _PROGRAMS.get(kind, {})
    given = list(_options(words))
    return frozenset(
        obstacle
        for obstacle, options in table.items()
        if any(option in options and options[option].search(value) for option, value in given)
    )


def opted_out(kind: str, words: Sequence[str]) -> tuple[str, ...]:
    """The obstacles on a command line that keep all the memory out for good; the others may concern a part."""
    return tuple(parse_command_line(kind, words) & {"nosharepages"})


def _options(words: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Each option without its dashes, with its value: the next word, or what follows its '='."""
    for word, following in pairwise([*words, ""]):
        if word.startswith("-"):
            name, equals, value = word.lstrip("-").partition("=")
            yield (name, value) if equals and word.startswith("--") else (word.lstrip("-"), following)


def read_files(words: Sequence[str]) -> list[str]:
    """The paths of the files given by -readconfig."""
    return [value for option, value in pairwise(words) if option in READCONFIG]


def parse_readconfig(text: str) -> list[str]:
    """Turn the text of a file for -readconfig into the words of a command line."""
    words: list[str] = []
    for line in text.splitlines():
        if section := _SECTION.match(line.strip()):
            words += [f"-{section[1]}", f"id={section[2]}" if section[2] else ""]
        elif (key := _KEY.match(line.strip())) and words:
            own = key[2] if key[1] in _KINDS else f"{key[1]}={key[2]}"
            words[-1] = ",".join(filter(None, [own, words[-1]] if key[1] in _KINDS else [words[-1], own]))
    return words
