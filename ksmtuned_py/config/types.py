"""The types of the configuration's values, and the base of all sections."""

from typing import Annotated, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from ksmtuned_py.config.cpus import cpu_list, cpus_of

T = TypeVar("T")
START_ONLY = "takes effect at the next start"
AtStart = Annotated[T, START_ONLY]
"""The type of a key that takes effect only at the next start, although a reload reads it."""

U32_MAX = 2**32 - 1
"""The kernel keeps pages_to_scan and sleep_millisecs in an unsigned int."""

Percent = Annotated[float, Field(ge=0, le=100)]
# A week at most. poll() takes its timeout as an int of milliseconds, which ends at 24 days.
Seconds = Annotated[float, Field(gt=0, le=604_800)]
# Below 10 ms the daemon itself would be the load.
TickSeconds = Annotated[float, Field(ge=0.01, le=3600)]
Pages = Annotated[int, Field(ge=1, le=U32_MAX)]
Bit = Literal[0, 1]
PolicyName = Literal["adaptive", "advisor", "fixed", "ksmtuned", "mom", "kubevirt"]
OLD_BACKENDS = {"memory": "model"}
"""The names that backends once had, which are still taken, and what they are called now."""


def _todays_backend(name: object) -> object:
    return OLD_BACKENDS.get(name, name) if isinstance(name, str) else name


BackendName = Annotated[Literal["auto", "kernel", "model", "scan"], BeforeValidator(_todays_backend)]
OnExit = Literal["restore", "keep", "stop", "unmerge"]
ProfileName = Literal["quiet", "balanced", "eager"]


DAY_MINUTES = 24 * 60


def _minutes(text: str) -> int:
    hours, separator, minutes = text.strip().partition(":")
    if not (separator and hours.isdigit() and minutes.isdigit() and int(minutes) < 60):
        raise ValueError(f"{text!r} is no time of day (HH:MM)")
    return int(hours) * 60 + int(minutes)


def window_minutes(window: str) -> tuple[int, int]:
    """The ends of a window like '22:30-06:00' as minutes of the day; raises ValueError. Only the end may be 24:00."""
    begin, _, end = window.partition("-")
    first, last = _minutes(begin), _minutes(end)
    if first >= DAY_MINUTES or last > DAY_MINUTES or first == last:
        raise ValueError(f"{window!r} is no window (HH:MM-HH:MM)")
    return first, last


def _window(text: str) -> str:
    window_minutes(text)
    return text


SOCKET_PATH_BYTES = 107
"""The longest path of a socket (unix(7))."""


def _address(text: str) -> str:
    host, separator, port = text.rpartition(":")
    if host == "unix" and port.startswith("/"):
        if len(port.encode()) > SOCKET_PATH_BYTES or "\0" in port:
            raise ValueError(f"{text[:200]!r} is no path of a socket")
        return text
    if text and not (separator and host and port.isdigit() and 0 <= int(port) < 65536):
        raise ValueError(f"{text!r} is no HOST:PORT or unix:/PATH")
    return text


def _cpus(text: str) -> str:
    return cpu_list(cpus_of(text))


CpuList = Annotated[str, AfterValidator(_cpus), Field(json_schema_extra={"format": "a list of CPUs like 0-3,8"})]
"""A list of CPUs, which is then as the kernel writes it."""

# An error quotes "format" as what was wanted.
Off = Annotated[float, Field(ge=0, le=0, json_schema_extra={"format": "0"})]
# A smaller share would make a boost take days, and never end on a large host.
BoostPercent = Off | Annotated[float, Field(ge=1, le=100)]
# A smaller share would make ksmd sleep for too long before it heeds a new decision.
CruisePercent = Off | Annotated[float, Field(ge=0.02, le=100)]
Window = Annotated[
    str,
    AfterValidator(_window),
    Field(json_schema_extra={"format": "two local times HH:MM-HH:MM that differ (00:00-24:00: always)"}),
]
Address = Annotated[str, AfterValidator(_address), Field(json_schema_extra={"format": 'HOST:PORT, unix:/PATH or ""'})]


class Section(BaseModel):
    """Base of all sections. They are frozen and strict about types, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)
