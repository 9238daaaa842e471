"""A 32-bit guest for tests, put together by hand: no compiler or C library for such programs is needed."""

import os
import struct
import subprocess
from pathlib import Path
from typing import Self

from tests.support.qemu import NOBODY

TEXT, DATA, MIB = 0x08048000, 0x10000000, 1 << 20
_HEADER, _SEGMENT = struct.Struct("<16sHHIIIIIHHHHHH"), struct.Struct("<8I")
_AT = _HEADER.size + 3 * _SEGMENT.size
_READY = b"ready\n"


def _mov(register: int, value: int) -> bytes:
    """mov r32, value"""
    return bytes([0xB8 + register]) + struct.pack("<I", value)


EAX, ECX, EDX, EBX, EDI = 0, 1, 2, 3, 7
_CALL = b"\xcd\x80"


def _code(size: int) -> bytes:
    """Returns code that fills its memory with one word, gives up root's rights, says so, and waits for ever."""
    fill = b"\xfc" + _mov(EDI, DATA) + _mov(ECX, size // 4) + _mov(EAX, 0x5A5A5A5A) + b"\xf3\xab"
    ids = _mov(EAX, 208) + b"".join(_mov(register, NOBODY) for register in (EBX, ECX, EDX)) + _CALL  # setresuid32
    loop = _mov(EAX, 29) + _CALL  # pause
    tail = loop + bytes([0xEB, 256 - len(loop) - 2])
    say = [_mov(EAX, 4), _mov(EBX, 1), b"", _mov(EDX, len(_READY)), _CALL]  # write
    begin = fill + ids
    say[2] = _mov(ECX, TEXT + _AT + len(begin) + sum(map(len, say)) + 5 + len(tail))
    return begin + b"".join(say) + tail + _READY


def program(size: int) -> bytes:
    """Returns the executable file, with so many bytes of memory."""
    code = _code(size)
    ident = b"\x7fELF\x01\x01\x01" + bytes(9)
    header = _HEADER.pack(ident, 2, 3, 1, TEXT + _AT, _HEADER.size, 0, 0, _HEADER.size, _SEGMENT.size, 3, 0, 0, 0)
    text = _SEGMENT.pack(1, 0, TEXT, TEXT, _AT + len(code), _AT + len(code), 5, 4096)
    data = _SEGMENT.pack(1, 0, DATA, DATA, 0, size, 6, 4096)
    stack = _SEGMENT.pack(0x6474E551, 0, 0, 0, 0, 0, 6, 16)  # without PT_GNU_STACK all memory would be executable, too
    return header + text + data + stack + code


class Narrow:
    """Runs one such guest, in a with block."""

    def __init__(self, name: str, directory: Path, size: int) -> None:
        self.name = name
        path = directory / name
        path.write_bytes(program(size))
        path.chmod(0o755)
        self._process = subprocess.Popen([path], stdout=subprocess.PIPE)
        assert self._process.stdout
        assert os.read(self._process.stdout.fileno(), 16) == _READY

    @property
    def pid(self) -> int:
        return self._process.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()
