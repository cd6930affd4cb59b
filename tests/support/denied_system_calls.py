"""A kernel that lacks a system call: run a command which is told so whenever it makes it (seccomp).

python denying.py renameat2 ENOSYS command argument...
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
import sys
from pathlib import Path

import pytest

_NUMBERS = {
    "x86_64": {"flock": 73, "fsync": 74, "renameat2": 316},
    "aarch64": {"flock": 32, "fsync": 82, "renameat2": 276},
}
_LOAD_WORD, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x15, 0x06
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _MODE_FILTER = 38, 22, 2


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_void_p)]


can_deny = pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() not in _NUMBERS,
    reason="system calls are denied by their numbers on Linux, x86_64 and aarch64",
)


def without(call: str, code: str) -> list[str]:
    """What to begin a command line with, so that a system call fails with an error."""
    return [sys.executable, str(Path(__file__).resolve()), call, code]


def deny(call: str, code: str) -> None:
    """Let a system call fail with an error from now on, in this process and what it becomes."""
    number = _NUMBERS[platform.machine()][call]
    instructions = [
        (_LOAD_WORD, 0, 0, 0),  # the number of the call
        (_JUMP_IF_EQUAL, 0, 1, number),
        (_RETURN, 0, 0, _ERRNO | getattr(errno, code)),
        (_RETURN, 0, 0, _ALLOW),
    ]
    raw = b"".join(struct.pack("HBBI", *one) for one in instructions)
    buffer = ctypes.create_string_buffer(raw, len(raw))
    program = _Program(len(instructions), ctypes.addressof(buffer))
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    for arguments in (
        (_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0),
        (_PR_SET_SECCOMP, _MODE_FILTER, ctypes.byref(program), 0, 0),
    ):
        if prctl(*arguments):
            raise OSError(ctypes.get_errno(), "prctl")


if __name__ == "__main__":
    _, call, code, *command = sys.argv
    deny(call, code)
    os.execvp(command[0], command)
