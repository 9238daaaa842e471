"""Lists every system call that a guest runs for us, with the known arguments, for judging its seccomp filters."""

import os
import socket

from ksmtuned_py.scanner.remap.foothold.area import AREA_BYTES, CODE_BYTES
from ksmtuned_py.scanner.remap.processors.architecture import NR
from ksmtuned_py.scanner.remap.refuse.eligibility import ADVICE
from ksmtuned_py.scanner.remap.refuse.seccomp import Call

ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
"""AUDIT_ARCH_*, by machine."""
NATIVE = ARCHITECTURES.get(os.uname().machine, 0)
_MINUS_1 = 2**64 - 1
_READ_WRITE, _READ_EXEC = 3, 5
_SHARED, _PRIVATE, _FIXED, _ANONYMOUS, _NORESERVE = 1, 2, 0x10, 0x20, 0x4000


def _calls() -> dict[str, list[tuple[int | None, ...]]]:
    private = [_PRIVATE | reserve for reserve in (0, _NORESERVE)]
    anonymous = [(None, None, _READ_WRITE, flags | _ANONYMOUS, _MINUS_1, 0) for flags in private]
    fixed = [(None, None, _READ_WRITE, flags | _ANONYMOUS | _FIXED, _MINUS_1, 0) for flags in private]
    return {
        "mmap": [
            *anonymous,
            *fixed,
            *((None, None, _READ_WRITE, flags | _FIXED) for flags in private),
            (0, AREA_BYTES, _READ_EXEC, _SHARED, None, 0),
        ],
        "mprotect": [(None, AREA_BYTES - CODE_BYTES, _READ_WRITE)],
        "munmap": [()],
        "mremap": [(None, None, None, 3)],
        "mincore": [()],
        "mbind": [()],
        "madvise": [(None, None, advice) for advice in ADVICE.values()],
        "pread64": [()],
        "socketpair": [(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC, 0)],
        "recvmsg": [(None, None, socket.MSG_CMSG_CLOEXEC)],
        "recvfrom": [(None, None, 1, 0, 0, 0)],
        "sendto": [(None, None, 1, socket.MSG_NOSIGNAL, 0, 0)],
        "close": [()],
        "futex": [(None, 0, 1, 0), (None, 1, 0x7FFFFFFF)],
        "rt_sigprocmask": [(how, None, 0, 8) for how in (0, 2)],
        "rt_sigpending": [(None, 8)],
        "restart_syscall": [()],
        "rt_sigreturn": [()],
    }


CALLS = tuple(Call(name, NR[name], known) for name, variants in _calls().items() if name in NR for known in variants)
