"""Swap two paths of one file system, in one step where the system can.

Linux has ``renameat2`` with ``RENAME_EXCHANGE`` (renameat2(2)), which Python does not offer.
Elsewhere, and on file systems without it, three renames do the same, with a moment in which the
second path is missing.
"""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
_NOT_OFFERED = {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP}


def exchange(first: Path, second: Path) -> None:
    """Swap what stands at two paths.

    Raises:
        OSError: Neither was changed.
    """
    if not _exchanged_by_the_kernel(first, second):
        _exchange_by_renames(first, second)


def _exchanged_by_the_kernel(first: Path, second: Path) -> bool:
    if not sys.platform.startswith("linux"):
        return False
    import ctypes

    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError):
        return False
    paths = (_AT_FDCWD, os.fsencode(first), _AT_FDCWD, os.fsencode(second))
    if renameat2(*paths, _RENAME_EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in _NOT_OFFERED:
        return False
    raise OSError(code, os.strerror(code), str(second))


def _exchange_by_renames(first: Path, second: Path) -> None:
    aside = first.with_name(f"{first.name}.aside")
    second.rename(aside)
    try:
        first.rename(second)
    except OSError:
        aside.rename(second)
        raise
    aside.rename(first)
