"""Finds and reads the files of the configuration, and tells the line of a key."""

import re
import tomllib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ksmtuned_py.configfile.lines import KeyPath, key_lines
from ksmtuned_py.configfile.text import dotted, flat
from ksmtuned_py.errors import KsmtunedError

DEFAULT_FILE = Path("/etc/ksmtuned-py/config.toml")
DROP_INS = "config.d"
MOST_BYTES = 2**20
"""The most that is read of a file. It is enough for a rule for each of 5000 guests."""
VALUE_LENGTH = 60
"""The length to which values are cut in messages."""


@dataclass(eq=False)
class ConfigError(KsmtunedError):
    """One mistake in the configuration. Line 0 is the whole file, and an empty key is the text itself."""

    file: str
    line: int
    key: str
    value: str
    wanted: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        value = self.value if len(self.value) <= VALUE_LENGTH else self.value[:VALUE_LENGTH] + " ..."
        return f"{place}: {self.key} = {value}: wanted {self.wanted}" if self.key else f"{place}: wanted {self.wanted}"


@dataclass(frozen=True)
class Source:
    """One file that was read."""

    file: str
    text: str
    table: dict[str, Any]

    @cached_property
    def values(self) -> dict[str, Any]:
        """The values that the file sets, by dotted key."""
        return {dotted(path): value for path, value in flat(self.table)}

    @cached_property
    def _lines(self) -> dict[KeyPath, int]:
        return key_lines(self.text)

    def line(self, path: KeyPath) -> int:
        """The line of a key, or of the nearest thing around it."""
        return next((self._lines[path[:end]] for end in range(len(path), 0, -1) if path[:end] in self._lines), 1)

    def place(self, key: str) -> str:
        """The FILE:LINE of a dotted key that the file sets."""
        return f"{self.file}:{self.line(tuple(key.split('.')))}"


def read_sources(config_path: Path | None, config_dir: Path | None) -> tuple[list[Source], list[ConfigError]]:
    """Read the main file and its drop-ins, and return the mistakes of those that could not be read.

    A file or directory that nobody named may be missing.
    """
    main = config_path or DEFAULT_FILE
    sources: list[Source] = []
    errors: list[ConfigError] = []
    try:
        if config_path is None:  # who names a pipe writes to it
            _refuse_pipe(main)
        sources += _read(main, may_miss=config_path is None)
    except ConfigError as error:
        errors.append(error)
    try:
        drop_ins = list(_drop_ins(config_dir or main.parent / DROP_INS, may_miss=config_dir is None))
    except ConfigError as error:
        return sources, [*errors, error]
    for path in drop_ins:
        try:
            _refuse_pipe(path)
            sources += _read(path, may_miss=False)
        except ConfigError as error:
            errors.append(error)
    return sources, errors


def _drop_ins(directory: Path, *, may_miss: bool) -> Iterator[Path]:
    try:
        names = sorted(path.name for path in directory.iterdir())
    except OSError as error:
        if may_miss and isinstance(error, FileNotFoundError):
            return
        raise ConfigError(str(directory), 0, "", "", f"a readable directory ({error.strerror})") from error
    for name in names:
        if name.endswith(".toml") and not name.startswith("."):  # a dot file is an editor's, and not the admin's
            yield directory / name


def _refuse_pipe(path: Path) -> None:
    """Raises ConfigError for a pipe. Perhaps nobody ever writes to it, and a daemon that waits is killed."""
    with suppress(OSError):  # that it cannot be read is told by who reads it
        if path.is_fifo():
            raise ConfigError(str(path), 0, "", "", "a readable file (it is a pipe)")


def _read(path: Path, *, may_miss: bool) -> Iterator[Source]:
    """Read one file, or none when it is missing and may be; raises ConfigError."""
    try:
        data = read_bytes(path, MOST_BYTES)
    except ConfigError as error:
        if may_miss and isinstance(error.__cause__, FileNotFoundError):
            return
        raise
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError(str(path), line, "", "", "UTF-8 text") from error
    yield Source(str(path), text, _parsed(str(path), text))


def read_bytes(path: Path, most: int) -> bytes:
    """Read the whole file; raises ConfigError when it has more than `most` bytes, as a picture or a device has."""
    try:
        with path.open("rb") as file:
            data = file.read(most + 1)
    except OSError as error:
        raise ConfigError(str(path), 0, "", "", f"a readable file ({error.strerror})") from error
    if len(data) > most:
        raise ConfigError(str(path), 0, "", "", f"a file of settings, of {most:,} bytes at most")
    return data


def _parsed(file: str, text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    # Besides TOMLDecodeError, tomllib raises a plain ValueError (an integer of more than 4300 digits) and
    # RecursionError (some hundred nested arrays).
    except (ValueError, RecursionError) as error:
        found = re.fullmatch(r"(.*) \(at (?:line (\d+), column \d+|end of document)\)", str(error), re.DOTALL)
        reason, line = found.groups() if found else (str(error), "0")
        last_line = text.rstrip().count("\n") + 1
        raise ConfigError(file, int(line or last_line), "", "", f"valid TOML ({reason})") from error
