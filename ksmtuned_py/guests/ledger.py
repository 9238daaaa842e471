"""Keeps over restarts which guests were switched off. No guest may stay off without anybody who knows of it."""

import json
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from ksmtuned_py.door import Door
from ksmtuned_py.door.boot import boot_id
from ksmtuned_py.door.runtime import read_file, replace_file
from ksmtuned_py.errors import Garbage, KsmtunedError
from ksmtuned_py.model import GuestKey


class Ledger:
    """One file, valid for one boot of one host. It names a process by its PID and its start, counted from the boot."""

    def __init__(self, path: Path, door: Door) -> None:
        self._path = path
        self._boot = f"{door.root} {boot_id(door)}"

    def read(self) -> frozenset[GuestKey]:
        """The guests that are switched off; raises Garbage, or OSError where the file cannot be read."""
        try:
            found: dict[str, Any] = json.loads(read_file(self._path))
            keys = frozenset(GuestKey(int(pid), int(start)) for pid, start in found["switched_off"])
            return keys if found["boot"] == self._boot else frozenset()
        except FileNotFoundError:
            return frozenset()
        except (ValueError, LookupError, TypeError) as error:
            raise Garbage(str(self._path), str(error), "the guests that were switched off") from error

    def peek(self) -> frozenset[GuestKey]:
        """The guests that are switched off; none where we may not read the file, or cannot understand it."""
        with suppress(OSError, KsmtunedError):
            return self.read()
        return frozenset()

    def write(self, keys: Iterable[GuestKey]) -> None:
        """Replace the guests in the file by these; raises OSError."""
        replace_file(self._path, json.dumps({"boot": self._boot, "switched_off": sorted(keys)}).encode())
