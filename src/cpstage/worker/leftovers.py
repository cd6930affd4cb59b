"""Workspaces that a worker left when it was killed: found by their locks, removed or named once.

The workspace of a job is locked (flock(2), on the directory itself) as long as its worker or the
process of the job lives. A note in it says how the job ended, as soon as that is known::

    no note                      the job was not done
    {"succeeded": true}          it was done and reported
    {"kept": true}               it is kept for people to look at, and was named in an event
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from cpstage._posix import O_CLOEXEC, O_DIRECTORY, O_NOFOLLOW
from cpstage.errors import CpstageError
from cpstage.filesystem.removal import remove_tree
from cpstage.workspace.statefile import read_json, write_json

_DIRECTORY = os.O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC
_NOTE = "ended.json"
_JOB_ID = re.compile(r"[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}")
"""What a build cannot take away from a workspace: its name."""


@contextmanager
def locked_workspace(workspace: Path) -> Iterator[int]:
    """Lock the workspace of a job, and yield the descriptor that holds the lock.

    Raises:
        OSError: It cannot be opened. A file system without locks locks nothing.
    """
    import fcntl

    descriptor = os.open(workspace, _DIRECTORY)
    try:
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield descriptor
    finally:
        os.close(descriptor)


def note(workspace: Path, **facts: Any) -> None:
    """Note how a job ended; where that cannot be written, its workspace is named as left."""
    with suppress(CpstageError, OSError):
        write_json(workspace / ".cpstage" / _NOTE, facts)


def remove_secrets(workspace: Path) -> list[str]:
    """Remove the files that a command got, and with them the job's secrets; return what is left.

    The process of a job does so itself, unless it was killed.
    """
    return remove_tree(workspace / ".cpstage" / "run")


def left_workspaces(root: Path, *, keeps_success: bool) -> Iterator[tuple[Path, list[str]]]:
    """Remove what ended well, and yield the workspaces that are left.

    Args:
        root: The directory of the workspaces.
        keeps_success: Whether workspaces of jobs that ended well are kept.

    Yields:
        Each workspace that was not named before, with what could not be removed of it.
    """
    import fcntl

    with suppress(OSError):
        names = sorted(os.listdir(root))
        for workspace in (root / name for name in names if _JOB_ID.fullmatch(name)):
            try:
                lock = os.open(workspace, _DIRECTORY)
            except OSError:
                continue
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                found = read_json(workspace / ".cpstage" / _NOTE)
                if found.get("kept"):
                    continue
                removed = found.get("succeeded") is True and not keeps_success
                left = remove_tree(workspace) if removed else remove_secrets(workspace)
                if os.path.lexists(workspace):
                    yield workspace, left
                    note(workspace, **found, kept=True)
            except OSError:  # it is in use, or the file system has no locks
                continue
            finally:
                os.close(lock)
