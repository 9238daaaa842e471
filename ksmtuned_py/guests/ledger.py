"""Which guests were switched off, kept over restarts: a guest must not stay off without anybody who knows of it."""

import json
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from ksmtuned_py.door import Door
from ksmtuned_py.errors import Garbage, KsmtunedError
from ksmtuned_py.runtime import read_file, replace_file

Key = tuple[int, int]
BOOT_ID = "proc/sys/kernel/random/boot_id"


class Ledger:
    """One file, which holds for one boot of one host: a process is its PID and its start, counted from the boot."""

    def __init__(self, path: Path, door: Door) -> None:
        self._path = path
        self._boot = f"{door.root} {(door.read_if_there(BOOT_ID) or '').strip()}"

    def read(self) -> frozenset[Key]:
        """The guests that were switched off and not on again; Garbage, or OSError where they cannot be read."""
        try:
            found: dict[str, Any] = json.loads(read_file(self._path))
            keys = frozenset((int(pid), int(start)) for pid, start in found["switched_off"])
            return keys if found["boot"] == self._boot else frozenset()
        except FileNotFoundError:
            return frozenset()
        except (ValueError, LookupError, TypeError) as error:
            raise Garbage(str(self._path), str(error), "the guests that were switched off") from error

    def peek(self) -> frozenset[Key]:
        """The same for who only looks; none where it is not ours to read."""
        with suppress(OSError, KsmtunedError):
            return self.read()
        return frozenset()

    def write(self, keys: Iterable[Key]) -> None:
        """From now on it is these; raises OSError."""
        replace_file(self._path, json.dumps({"boot": self._boot, "switched_off": sorted(keys)}).encode())
