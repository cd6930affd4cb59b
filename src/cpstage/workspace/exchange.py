"""Swap two paths of one file system in one step, where the system can.

Linux has ``renameat2`` with ``RENAME_EXCHANGE`` (renameat2(2)), which Python does not offer.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from cpstage._posix import NOT_OFFERED

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


def exchange(first: Path, second: Path) -> bool:
    """Swap what stands at two paths, and tell whether the system, or its file system, can do that.

    Raises:
        OSError: It can, and failed; neither was changed.
    """
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
    if code in NOT_OFFERED:
        return False
    raise OSError(code, os.strerror(code), str(second))
