"""Hidden staging beside a target that has no workspace: ``.cpstage-staging-*``.

Each is locked (flock(2), on the directory itself) as long as its process lives, and removed when it
is done. What is there and not locked was left by a process that was killed, and is swept by the
next one that stages in the same directory; an age says nothing, and what belongs to another user is
never touched. On file systems that cannot lock a directory, nothing can be known, and nothing is
swept.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cpstage._posix import O_CLOEXEC, O_DIRECTORY, O_NOFOLLOW
from cpstage.errors import CpstageError
from cpstage.filesystem.removal import remove_tree
from cpstage.filesystem.tree import local_failures
from cpstage.workspace.publishing import Journal

_PREFIX = ".cpstage-staging-"
_DIRECTORY = os.O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC


@contextmanager
def staging_in(directory: Path, target: Path) -> Iterator[Path]:
    """Make a hidden directory that a rename leads out of; it is gone at the end.

    Args:
        directory: Where to make it.
        target: What it is for, and what is named when it cannot be made.

    Raises:
        WorkspaceUnavailable, LocalIOError: It cannot be made.
    """
    with local_failures(target):
        staging, lock = _make(directory)
    try:
        yield staging
    finally:
        if not journal_in(staging).is_open:
            remove_tree(staging)
        with suppress(OSError):  # what was done stands
            os.close(lock)


def journal_in(staging: Path) -> Journal:
    """Return the journal of what is published out of staging into the directory around it."""
    return Journal(staging / "journal.json", staging.parent)


def sweep(directory: Path) -> None:
    """Remove the staging that killed processes left, and take back what they had half published."""
    with suppress(OSError):  # a directory that is missing or unreadable has no staging
        names = [name for name in os.listdir(directory) if name.startswith(_PREFIX)]
        for staging in (directory.resolve() / name for name in names):
            _sweep_one(staging)


def _make(directory: Path) -> tuple[Path, int]:
    import fcntl

    while True:
        staging = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=directory.resolve()))
        try:
            lock = os.open(staging, _DIRECTORY)
        except FileNotFoundError:
            continue  # swept before it was locked
        with suppress(OSError):  # then no other process can lock it, either
            fcntl.flock(lock, fcntl.LOCK_EX)
        if os.path.lexists(staging):
            return staging, lock
        os.close(lock)  # swept meanwhile


def _sweep_one(staging: Path) -> None:
    import fcntl

    try:
        lock = os.open(staging, _DIRECTORY)
    except OSError:  # gone, no directory, or closed to us
        return
    try:
        if os.fstat(lock).st_uid == os.geteuid():
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            journal_in(staging).take_back()
            remove_tree(staging)
    except (OSError, CpstageError):
        return  # in use, or unknown: what cannot be taken back is left alone
    finally:
        os.close(lock)
