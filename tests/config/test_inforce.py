"""One object has the configuration in force, and keeps some keys until the next start."""

import re
from pathlib import Path

from ksmtuned_py.config import Config, InForce
from ksmtuned_py.config.inforce import fingerprint, is_start_only
from ksmtuned_py.config.types import START_ONLY, Section
from ksmtuned_py.configfile.text import keys, render_sample, sections

PACKAGE = Path(__file__).parent.parent.parent / "ksmtuned_py"


def start_only() -> set[str]:
    """The dotted keys that are marked as taking effect at the next start."""
    return {
        ".".join([*map(str, path), name])
        for path, section in sections(Config())
        for name, _, _ in keys(section)
        if is_start_only(section, name)
    }


def test_a_new_configuration_holds_but_for_what_waits_for_the_next_start() -> None:
    in_force = InForce(Config())
    new = Config.model_validate(
        {
            "daemon": {"mode": "observe", "backend": "scan"},
            "kernel": {"max_page_sharing": 20},
            "scan": {"remap_guests": ["test-*"], "reclaim": "remap"},
            "policy": {"name": "fixed"},
        }
    )
    in_force.take(new)
    now = in_force.config
    assert (now.daemon.mode, now.policy.name, now.scan.remap_guests) == ("observe", "fixed", ("test-*",))
    assert (now.daemon.backend, now.kernel.max_page_sharing, now.scan.reclaim) == ("auto", "keep", "zero")
    in_force.take(Config())
    assert in_force.config == Config()


def test_what_is_read_once_is_marked() -> None:
    """A key that somebody keeps for longer than a call has to be marked. The comments name who keeps each."""
    once = {f"kernel.{name}" for name in ("use_zero_pages", "merge_across_nodes", "max_page_sharing", "ksmd_nice")}
    once |= {"kernel.ksmd_cpus", "kernel.khugepaged"}
    once |= {"daemon.backend", "daemon.pressure_trigger_ms"}  # who merges; the kernel's trigger
    once |= {f"guests.{name}" for name in ("name_patterns", "cgroup_patterns", "mergeable")}  # the finder
    once |= {"guests.mergeable_rescan_seconds", "guests.libvirt_uri", "guests.max_guest_series"}
    once |= {f"scan.{name}" for name in Config().scan.model_dump() if name not in ("groups", "remap_guests")}  # worker
    assert start_only() == once


def test_the_sample_says_which_they_are() -> None:
    parts = re.split(r"\n\n+", render_sample())
    assert sum(f"# ({START_ONLY})" in part for part in parts) == len(start_only())


SECTIONS = [each for each in Section.__subclasses__() if each.__module__.startswith("ksmtuned_py.config.")]
KEEPERS = re.compile(
    r"self\._?\w+ = (?:\w+\.)*(?:config|settings)(?:\.\w+)*$"  # an attribute
    rf"|^    _?\w+: (?:\w+\.)*(?:{'|'.join(each.__name__ for each in SECTIONS)})$",  # a field
    re.MULTILINE,
)
OTHERS = (
    "config/",
    "configfile/",  # what was read, and what a reload compares
    "trace/lines.py",  # what stood at a trace's head
    *(f"policy/{name}.py" for name in ("adaptive", "advisor", "fixed", "peers/peer")),  # made anew for each decision
    "scanner/scanner.py",  # programs of their own, which get their settings at the start
    "scanner/remap/",
    "ksmdmodel/",
)


def test_nobody_else_keeps_the_configuration() -> None:
    """An object that outlives a reload would go on with the old configuration, if it kept a part of it."""
    found = {
        f"{file.relative_to(PACKAGE)}: {match.group()}"
        for file in PACKAGE.rglob("*.py")
        for match in KEEPERS.finditer(file.read_text())
    }
    assert {each for each in found if not each.startswith(OTHERS)} == set()


def test_configurations_are_alike_by_their_fingerprint_wherever_they_are_served() -> None:
    elsewhere = Config.model_validate({"metrics": {"address": "192.0.2.1:10776"}})
    assert fingerprint(elsewhere) == fingerprint(Config())
    others = [{"daemon": {"mode": "observe"}}, {"guests": {"rule": [{"merge": "no"}]}}, {"fixed": {"run": 0}}]
    found = {fingerprint(Config.model_validate(each)) for each in others} | {fingerprint(Config())}
    assert len(found) == 4
    assert {len(each) for each in found} == {12}
