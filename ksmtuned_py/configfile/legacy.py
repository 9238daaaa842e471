"""Reads the old ksmtuned.conf without a shell, and makes our configuration of it."""

import difflib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from ksmtuned_py.config import Need
from ksmtuned_py.config.peers import Ksmtuned
from ksmtuned_py.configfile.harvester import translated
from ksmtuned_py.configfile.source import ConfigError
from ksmtuned_py.configfile.text import toml_value
from ksmtuned_py.configfile.wanted import wanted
from ksmtuned_py.errors import KsmtunedError
from ksmtuned_py.units import KIB

KEYS = {
    "KSM_MONITOR_INTERVAL": "monitor_interval_seconds",
    "KSM_SLEEP_MSEC": "sleep_msec",
    "KSM_NPAGES_BOOST": "npages_boost",
    "KSM_NPAGES_DECAY": "npages_decay",
    "KSM_NPAGES_MIN": "npages_min",
    "KSM_NPAGES_MAX": "npages_max",
    "KSM_THRES_COEF": "thres_coef_percent",
    "KSM_THRES_CONST": "thres_const_kib",
}
INERT = {
    "KSM_PS_METRIC": "Proxmox sums up PSS or RSS by it; resident sizes (RSS) are summed up here",
    "LOGFILE": "it only told where debug output goes; here that is the journal",
    "DEBUG": "it only switched debug output on; here that is ksmtuned-py run --debug",
    "KSM_MAX_KERNEL_PAGES": "of /etc/sysconfig/ksm: no kernel has had such a limit since 2.6.33",
    "KSM_ENABLED": "of /etc/default/ksm or qemu-kvm: whether KSM runs is whether ksmtuned-py does",
    "SLEEP_MILLISECS": 'of /etc/default/qemu-kvm: one value for good is policy.name = "fixed", fixed.sleep_millisecs',
    "VHOST_NET_ENABLED": "of /etc/default/qemu-kvm, and not about KSM",
    "KVM_HUGEPAGES": "of /etc/default/qemu-kvm: memory of the hugetlb pools never merges",
    "KVM_NESTED": "of /etc/default/qemu-kvm, and not about KSM",
    "MERGE_ACROSS_NODES": "Harvester's mergeAcrossNodes: here that is kernel.merge_across_nodes, set once at the start",
    "MODE": "Harvester's mode names the parameters, which are what counts",
    "RUN": "Harvester's run: stop is systemctl disable --now ksmtuned-py, prune is ksmtuned-py unmerge --all",
}
"""Settings of ksmtuned and its kin that the arithmetic does not use, with what they were for."""

# None of these takes what a shell would have to evaluate ($, `, \, ;, &, |, <, >, ~, *, brackets).
_VALUE = r"""(?:[A-Za-z0-9_./:,%+=@^-]|'[^']*'|"[^"$`\\]*")*"""
_ASSIGNMENT = re.compile(rf"(?:export[ \t]+)?([A-Za-z_][A-Za-z0-9_]*)=({_VALUE})(?=[ \t]|$)")
_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)")  # a shell that calculates takes 010 for 8
_SECONDS = re.compile(r"(0|[1-9][0-9]*)(\.[0-9]+)?")


@dataclass(eq=False)
class BadLegacyFile(KsmtunedError):
    """The old configuration has lines that are no plain assignments of known settings."""

    errors: tuple[ConfigError, ...]
    hint_template = "the file is never run: write plain assignments, NAME=VALUE, of ksmtuned's own settings"

    def __str__(self) -> str:
        count = "1 line" if len(self.errors) == 1 else f"{len(self.errors)} lines"
        return "\n".join([f"{count} cannot be taken over", *map(str, self.errors)])


@dataclass(frozen=True, slots=True)
class Assignment:
    """One assignment of the old configuration."""

    line: int
    name: str
    value: str


@dataclass(frozen=True)
class LegacyFile:
    """The settings of an old configuration."""

    file: str
    assignments: dict[str, Assignment]
    """The assignments by name. Of several the last counts, as in a shell; an empty one is not set, as in the script."""
    settings: Ksmtuned

    def threshold_percent(self, total_bytes: int | None) -> float:
        """The larger of KSM_THRES_COEF and KSM_THRES_CONST, as in the script, in percent of a host's memory."""
        coef = self.settings.thres_coef_percent
        return max(coef, self.settings.thres_const_kib * KIB / total_bytes * 100) if total_bytes else coef

    def const_counts(self, total_bytes: int | None) -> bool:
        """Whether KSM_THRES_CONST is the larger of the two thresholds."""
        return self.threshold_percent(total_bytes) > self.settings.thres_coef_percent


def parse_legacy(file: str, text: str) -> LegacyFile:
    """Read the settings of a text; raises BadLegacyFile with every mistake."""
    mistakes: list[ConfigError] = []
    found: dict[str, Assignment] = {}
    lines = translated(text.removeprefix("\ufeff") if text.startswith("\ufeff#") else text).split("\n")
    for number, line in enumerate(lines, 1):  # only a newline ends a line in a shell
        try:
            found.update((each.name, each) for each in _assignments(file, number, line))
        except ConfigError as error:
            mistakes.append(error)
    assignments = {name: each for name, each in found.items() if each.value}
    values: dict[str, Any] = {}
    for each in assignments.values():
        try:
            values.update(_checked(file, each))
        except ConfigError as error:
            mistakes.append(error)
    settings = Ksmtuned.model_validate(values)
    if not mistakes and settings.npages_min > settings.npages_max:
        mistakes.append(_order_mistake(file, assignments, settings))
    if mistakes:
        raise BadLegacyFile(tuple(sorted(mistakes, key=lambda mistake: mistake.line)))
    return LegacyFile(file, assignments, settings)


def _assignments(file: str, number: int, line: str) -> Iterator[Assignment]:
    """The assignments of one line; raises ConfigError for anything else in it."""
    left = line.strip(" \t\r")
    while left and not left.startswith("#"):
        match = _ASSIGNMENT.match(left)
        if match is None:
            raise ConfigError(file, number, "", "", f"NAME=VALUE that needs no shell, found {left[:60]!r}")
        name, value = match.groups()
        yield Assignment(number, name, re.sub("['\"]", "", value))
        left = left[match.end() :].strip(" \t\r")


def _checked(file: str, each: Assignment) -> dict[str, int | float]:
    """Our key and its value for a setting, if there is one; raises ConfigError."""
    if each.name not in KEYS:
        if each.name in INERT:
            return {}
        near = difflib.get_close_matches(each.name, [*KEYS, *INERT], n=1)
        guess = f": did you mean {near[0]}?" if near else ""
        raise ConfigError(file, each.line, each.name, each.value, f"a setting of ksmtuned{guess}")
    key = KEYS[each.name]
    pattern, kind = (_SECONDS, float) if key.endswith("_seconds") else (_NUMBER, int)
    try:
        if not pattern.fullmatch(each.value):
            raise ValueError(each.value)
        value = kind(each.value)
        Ksmtuned.model_validate({key: value})
    except (ValueError, ValidationError) as error:
        raise ConfigError(file, each.line, each.name, each.value, wanted(("ksmtuned", key))) from error
    return {key: int(value) if value == int(value) else value}


def _order_mistake(file: str, assignments: Mapping[str, Assignment], settings: Ksmtuned) -> ConfigError:
    both = [assignments[name] for name in ("KSM_NPAGES_MIN", "KSM_NPAGES_MAX") if name in assignments]
    last = max(both, key=lambda each: each.line)
    bounds = f"{settings.npages_min} and {settings.npages_max}"
    return ConfigError(file, last.line, last.name, last.value, f"KSM_NPAGES_MIN at most KSM_NPAGES_MAX, not {bounds}")


def same_policy(legacy: LegacyFile) -> list[str]:
    """The lines of a configuration that does what the old script did."""
    lines = ["[policy]", 'name = "ksmtuned"', "", "[ksmtuned]"]
    for name, key in KEYS.items():
        if name in legacy.assignments:
            place = f"  # {name}, line {legacy.assignments[name].line}"
            lines.append(f"{key} = {toml_value(_plain(getattr(legacy.settings, key)))}{place}")
    return lines


def adaptive_policy(legacy: LegacyFile, total_bytes: int | None = None) -> list[str]:
    """The lines of a configuration whose adaptive policy takes memory for short where the old script did."""
    lines = ["[policy]", 'name = "adaptive"']
    percent = round(legacy.threshold_percent(total_bytes), 1) if legacy.const_counts(total_bytes) else None
    percent = int(legacy.settings.thres_coef_percent) if percent is None else percent
    need = dict(_need(min(percent, 99)))  # 100 leaves no number above it for wary
    if need:
        lines += ["", "[adaptive.need]", *(f"{key} = {toml_value(_plain(value))}" for key, value in need.items())]
    return lines


def _plain(value: float) -> int | float:
    return int(value) if value == int(value) else value


def _need(percent: float) -> Iterator[tuple[str, float]]:
    """The thresholds that differ from the defaults, in the order critical below short below wary."""
    default = Need()
    if percent in (0, default.short_enter_percent):  # with 0 the script never was short of memory
        return
    if percent <= default.critical_enter_percent:
        yield "critical_enter_percent", percent / 2
        yield "critical_leave_percent", percent
    yield "short_enter_percent", percent
    yield "short_leave_percent", min(percent + 5, 100)
    if percent >= default.wary_enter_percent:
        yield "wary_enter_percent", min(percent + 10, 100)
        yield "wary_leave_percent", min(percent + 15, 100)
