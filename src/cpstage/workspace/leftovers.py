"""Directories that are locked while they are in use, and what is left of those when a process died.

A directory is locked (flock(2), on the directory itself) as long as its process lives. One that is
there and not locked was left by a process that was killed; an age says nothing. On file systems
that cannot lock a directory, nothing can be known, and nothing is removed.

Hidden staging beside a target that has no workspace (``.cpstage-staging-*``) is removed when it is
done, else by the next process that stages in the same directory. What belongs to another user is
never touched.

The workspace of a job of a worker is locked by its worker and by the process of the job. A note in
it says how the job ended, as soon as that is known::

    no note                      the job was not done
    {"succeeded": true}          it was done and reported
    {"kept": true}               it is kept for people to look at, and was named in an event
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from cpstage._posix import O_CLOEXEC, O_DIRECTORY, O_NOFOLLOW
from cpstage.errors import CpstageError
from cpstage.filesystem.removal import remove_tree
from cpstage.filesystem.tree import local_failures
from cpstage.workspace.publishing import Journal
from cpstage.workspace.statefile import read_json, write_json

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


def note_ending(workspace: Path, **facts: Any) -> None:
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
                    note_ending(workspace, **found, kept=True)
            except OSError:  # it is in use, or the file system has no locks
                continue
            finally:
                os.close(lock)
