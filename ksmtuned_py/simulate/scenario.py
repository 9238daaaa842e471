"""Reads what happens on a simulated host from TOML files, some of which are shipped."""

import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, ValidationError, model_validator

from ksmtuned_py.config.types import Percent, Seconds, Section, TickSeconds
from ksmtuned_py.errors import KsmtunedError
from ksmtuned_py.ksmdmodel.guestmemory import PageGroup, equal, unique, zero
from ksmtuned_py.ksmdmodel.modelhost import Paging
from ksmtuned_py.units import GIB, KIB

SUFFIX = ".toml"
MOST_BYTES = 64 * KIB
"""The most that is read of a file. Those that are shipped have less than 1 KiB."""
Count = Annotated[int, Field(ge=1, le=10_000)]
Gib = Annotated[float, Field(gt=0, le=65_536)]
Moment = Annotated[float, Field(ge=0, le=604_800)]


@dataclass(eq=False)
class BadScenario(KsmtunedError):
    """Raised for a scenario that cannot be used."""

    place: str
    reason: str
    template = "{place}: {reason}"
    hint_template = "docs/simulation.md explains every key"


@dataclass(eq=False)
class NoScenario(KsmtunedError):
    """Raised when there is no scenario of that name."""

    name: str
    shipped: str
    template = "{name}: neither a file nor a scenario that is shipped"
    hint_template = "shipped are: {shipped}"


class HostSize(Section):
    """The simulated host."""

    total_gib: Gib
    used_gib: Gib = 1.0
    cpus: Count = 4
    stall_every_seconds: Moment = 0.0
    """How often some task stalls on memory, which wakes the daemon; 0 is never."""
    filling_gib: Annotated[float, Field(ge=0, le=65_536)] = 0.0
    """How much memory others than guests take in the course of time."""
    filling_gib_per_second: Gib = 1.0
    filling_from_seconds: Moment = 0.0

    def used_now_gib(self, seconds: float) -> float:
        """Returns what others than guests use then."""
        taken = max(0.0, seconds - self.filling_from_seconds) * self.filling_gib_per_second
        return self.used_gib + min(self.filling_gib, taken)


class Guests(Section):
    """Guests of one kind. Pages that are neither equal, zero nor changing are unique to each."""

    name: str
    count: Count = 1
    memory_gib: Gib = 1.0
    equal_percent: Percent = 50
    images: Count = 1
    """How many images there are, of which guests take one in turn; equal pages are equal within an image."""
    zero_percent: Percent = 15
    changing_percent: Percent = 10
    rewrites_per_second: Annotated[float, Field(ge=0, le=1000)] = 1.0
    """How often each changing page is written to."""
    pages: Paging = "small"
    """Its memory is in small pages, or in huge ones: a row of them for each kind of content, or all kinds in each."""
    swing_percent: Percent = 0
    """The part of its memory that a guest gives back to the host and takes anew, with other content."""
    swing_seconds: Moment = 3600.0
    """The time in which a guest gives that part back and takes it anew."""
    first_seconds: Moment = 0.0
    every_seconds: Moment = 0.0
    lifetime_seconds: Moment = 0.0
    """After this time a guest ends and a new one replaces it; 0 lets it live to the end."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.equal_percent + self.zero_percent + self.changing_percent + self.swing_percent > 100:
            raise ValueError("equal, zero, changing and swing_percent are more than 100 together")
        return self

    def groups(self, number: int, page_bytes: int) -> tuple[PageGroup, ...]:
        """Returns the memory of guest `number`."""
        pages = round(self.memory_gib * GIB) // page_bytes
        same = round(pages * self.equal_percent / 100)
        zeroes = round(pages * self.zero_percent / 100)
        changing = round(pages * self.changing_percent / 100)
        swinging = round(pages * self.swing_percent / 100)
        return (
            equal(f"{self.name}-{number % self.images}", same),
            zero(zeroes),
            unique(pages - same - zeroes - changing - swinging),
            unique(swinging, rewrites_per_second=1 / self.swing_seconds if self.swing_seconds else 0),
            unique(changing, rewrites_per_second=self.rewrites_per_second),
        )

    def resident_share(self, seconds: float) -> float:
        """Returns the share of its memory that a guest has then: it falls evenly for half a swing, and rises again."""
        phase = seconds / self.swing_seconds % 1 if self.swing_seconds else 0.0
        return 1 - self.swing_percent / 100 * (1 - abs(2 * phase - 1))


class Scenario(Section):
    """A host and what happens on it."""

    title: str
    seconds: Seconds
    tick_seconds: TickSeconds = 1.0
    """The daemon's tick, in place of the configured one: a day on a big host needs no look each second."""
    idle_tick_seconds: TickSeconds = 10.0
    host: HostSize
    guests: Annotated[list[Guests], Field(min_length=1)]

    @property
    def complete_seconds(self) -> float:
        """The moment when the last of the first guests has come, in seconds."""
        return max(kind.first_seconds + (kind.count - 1) * kind.every_seconds for kind in self.guests)


@dataclass(frozen=True, slots=True, order=True)
class Event:
    """A guest that comes, or goes."""

    seconds: float
    name: str
    kind: int
    """The kind's place in Scenario.guests."""
    number: int
    comes: bool


def events(scenario: Scenario) -> list[Event]:
    """Returns all events, in their order."""
    return sorted(event for kind in range(len(scenario.guests)) for event in _events_of(scenario, kind))


def _events_of(scenario: Scenario, kind: int) -> Iterator[Event]:
    spec = scenario.guests[kind]
    for number in range(spec.count):
        comes, generation = spec.first_seconds + number * spec.every_seconds, 0
        while comes < scenario.seconds:
            name = f"{spec.name}-{number}" + (f".{generation}" if generation else "")
            yield Event(comes, name, kind, number, comes=True)
            if not spec.lifetime_seconds:
                break
            comes, generation = comes + spec.lifetime_seconds, generation + 1
            yield Event(comes, name, kind, number, comes=False)


def load(name: str) -> Scenario:
    """Reads a file, or a shipped scenario by its name; raises NoScenario and BadScenario."""
    path = Path(name)
    try:
        with (path if path.suffix == SUFFIX or path.exists() else _shipped(name)).open("rb") as file:
            data = file.read(MOST_BYTES + 1)
        text = data.decode()
    except (OSError, UnicodeDecodeError) as error:
        raise BadScenario(name, f"cannot be read: {error}") from error
    if len(data) > MOST_BYTES:
        raise BadScenario(name, f"a scenario has {MOST_BYTES // KIB} KiB at most")
    return parse_scenario(name, text)


def shipped_names() -> list[str]:
    """Returns the names of the scenarios that come with the program."""
    return sorted(file.name.removesuffix(SUFFIX) for file in _directory().iterdir() if file.name.endswith(SUFFIX))


def parse_scenario(place: str, text: str) -> Scenario:
    """Returns the scenario that a text describes; raises BadScenario."""
    try:
        return Scenario.model_validate(tomllib.loads(text))
    except ValidationError as error:
        mistakes = (f"{'.'.join(map(str, found['loc'])) or 'scenario'}: {found['msg']}" for found in error.errors())
        raise BadScenario(place, "; ".join(mistakes)) from error
    except (ValueError, RecursionError) as error:  # tomllib has others than its own, as for many nested arrays
        raise BadScenario(place, f"no valid TOML: {error}") from error


def _directory() -> Traversable:
    return files("ksmtuned_py") / "simulate" / "scenarios"


def _shipped(name: str) -> Traversable:
    if name not in shipped_names():
        raise NoScenario(name, ", ".join(shipped_names()))
    return _directory() / f"{name}{SUFFIX}"
