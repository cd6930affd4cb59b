"""The locks of a workspace, which tell which run is in it.

One run at a time is in a workspace. The lock is the kernel's (flock(2)): it ends with its process,
so that nothing has to be guessed about what a killed run has left. A file beside it names the
holder, and is written as soon as the lock is acquired. A run that finds it locked without a holder,
or with one that has ended, has come between the two steps, and looks again for a short time.
filelock does not serve: it does not tell a lock that another run has from one that the system
refuses, so flock(2) has to be called again for the message, and its 21 modules take a thirtieth of
a start.

The workspace of a worker's job is locked as a directory, by its worker and by the process of the
job. One that is not locked was left by a process that was killed; an age says nothing. On file
systems that cannot lock a directory, nothing can be known, and nothing is removed. A note in it
says how the job ended, as soon as that is known::

    no note                      the job was not done
    {"succeeded": true}          it was done and reported
    {"kept": true}               it is kept for people to look at, and was named in an event
"""

from __future__ import annotations

import errno
import os
import re
import socket
import stat
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from cpstage._posix import DIRECTORY, NOT_OFFERED, O_CLOEXEC, O_NOFOLLOW
from cpstage.errors import (
    CpstageError,
    LocalIOError,
    WorkspaceInUse,
    WorkspaceUnavailable,
    local_failures,
    local_reason,
)
from cpstage.filesystem.removal import remove_tree
from cpstage.workspace.state import read_json, write_json

with suppress(ImportError):  # Windows, where this module can be imported
    import fcntl

_NO_LOCKS = {errno.ENOLCK, errno.EOPNOTSUPP} | NOT_OFFERED
"""Errors of a file system without flock(2)."""

_POLL = 0.05
_NAMING_SECONDS = 3.0
_NAMING_POLL = 0.02

_NOTE = "ended.json"
_JOB_ID = re.compile(r"[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}")
"""The name of a workspace, which a build cannot change."""


class HeldLock:
    """A lock that this process holds, as long as the file is the one that it has locked."""

    def __init__(self, place: Path, file: Path) -> None:
        self._place = place
        self._file = file
        self._identity = _identity(file)

    def check(self) -> None:
        """Raise WorkspaceUnavailable if the lock was removed or replaced: others may be in."""
        if self._identity is None or _identity(self._file) != self._identity:
            raise WorkspaceUnavailable(
                f"the lock {self._file} was removed or replaced while {self._place} was in use: "
                "another run may have been in it",
                hint="let the build leave .cpstage/ alone, and run it again",
            )


@contextmanager
def locked(
    place: Path,
    lock_file: Path,
    holder: Path,
    wait: float,
    job_id: str | None = None,
    *,
    make: Callable[[], object] = lambda: None,
) -> Iterator[HeldLock]:
    """Keep other runs out of a place; wait some seconds for one that is in it.

    The file ``holder`` names this process, and the job that it works on. ``make`` makes the
    directories of both files, which a run that is waited for may remove.

    Raises:
        WorkspaceInUse: Another run is in it.
        WorkspaceUnavailable: It cannot be locked.
        LocalIOError: The disk failed.
    """
    descriptor = _acquire(lock_file, wait, holder, place, make)
    try:
        held = HeldLock(place, lock_file)
        write_json(holder, _this_process(job_id))
        yield held
    finally:
        # What was done stands; the lock ends with the process in any case.
        with suppress(OSError):
            holder.unlink()
        with suppress(OSError):  # a forked process may have the descriptor as well
            fcntl.flock(descriptor, fcntl.LOCK_UN)
        with suppress(OSError):
            os.close(descriptor)


def require_locks(place: Path, state: Path) -> None:
    """Check that a directory can be written to, and that its file system has locks.

    Nothing is left in it: a temporary file is a probe that no kill leaves behind.

    Raises:
        WorkspaceUnavailable: It cannot be written to or locked; the message names the place.
        LocalIOError: The disk is full, or failed.
    """
    with local_failures(state, "write to"):
        probe = tempfile.TemporaryFile(dir=state)  # noqa: SIM115 (closed below, with other errors)
    with probe:
        _flock(probe.fileno(), place)


@contextmanager
def left_by_others(*lock_files: Path) -> Iterator[bool]:
    """Keep other runs out where none is in; the context's value is whether none is."""
    with ExitStack() as stack:
        yield all(_is_free(one, stack) for one in lock_files)


def _is_free(lock_file: Path, stack: ExitStack) -> bool:
    """Whether no run has a lock, which is held until a stack is closed."""
    try:
        descriptor = os.open(lock_file, os.O_RDWR | O_NOFOLLOW | O_CLOEXEC)
        stack.callback(os.close, descriptor)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # it is not there, or no run can lock it
        return True
    return True


def _acquire(
    lock_file: Path, wait: float, holder: Path, place: Path, make: Callable[[], object]
) -> int:
    until = time.monotonic() + wait
    while (descriptor := _try(lock_file, place)) is None:
        late = time.monotonic() - until
        if late < 0:
            time.sleep(min(_POLL, -late))
            make()
            continue
        found = read_json(holder)
        if _is_there(found) or late >= _NAMING_SECONDS:
            whom = "another run, whose process is unknown"
            if "pid" in found:
                whom = f"process {found['pid']} on {found.get('host')} since {found.get('since')}"
            in_use = WorkspaceInUse(
                f"the workspace {place} is in use by {whom}",
                hint="wait for that run with --wait, or give another --workspace",
            )
            in_use.job_id = found.get("job_id")
            raise in_use
        time.sleep(_NAMING_POLL)
        make()
    return descriptor


def _try(lock_file: Path, place: Path) -> int | None:
    """Acquire the lock, and return its descriptor; None if another run has it."""
    with local_failures(lock_file, "lock"):
        _require_own_file(lock_file)
        flags = os.O_RDWR | os.O_CREAT | O_NOFOLLOW | O_CLOEXEC
        try:
            descriptor = os.open(lock_file, flags, 0o600)
        except FileNotFoundError:  # a run that failed has removed its new workspace
            return None
    is_ours = False
    try:
        # A run that failed may have removed its new workspace, and the lock with it, meanwhile.
        is_ours = _flock(descriptor, place) and _identity(lock_file) == _identity(descriptor)
    finally:
        if not is_ours:
            os.close(descriptor)
    return descriptor if is_ours else None


def _require_own_file(lock_file: Path) -> None:
    """Check that the lock is a regular file, no symlink or the like, or absent; make it usable."""
    try:
        status = lock_file.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
        raise WorkspaceUnavailable(
            f"the lock {lock_file} is not a regular file with one name", hint="remove it"
        )
    if status.st_mode & 0o600 != 0o600:
        with suppress(OSError):  # it is another owner's
            lock_file.chmod(0o600)


def _flock(descriptor: int, place: Path) -> bool:
    """Lock an open file; return False if another run has locked it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        message = f"cannot lock {place}: {local_reason(error)}"
        if error.errno not in _NO_LOCKS:
            raise LocalIOError(message) from error
        hint = "its file system has no locks (flock): give a --workspace on another one"
        raise WorkspaceUnavailable(message, hint=hint) from error
    return True


def _identity(file: Path | int) -> tuple[int, int] | None:
    """Return the device and inode of a file, by path or descriptor; None if it does not exist."""
    try:
        status = os.fstat(file) if isinstance(file, int) else file.lstat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _this_process(job_id: str | None) -> dict[str, Any]:
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    named = {"job_id": job_id} if job_id else {}
    return {"pid": os.getpid(), "host": socket.gethostname(), "since": now, **named}


def _is_there(holder: Mapping[str, Any]) -> bool:
    """Whether the named holder may be alive: a holder on another host counts as alive."""
    pid = holder.get("pid")
    if not isinstance(pid, int) or pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return holder.get("host") != socket.gethostname()
    except OSError:  # a process of another user
        return True
    return True


@contextmanager
def locked_directory(directory: Path) -> Iterator[int]:
    """Lock a directory itself; the value is the descriptor that holds the lock.

    Raises:
        OSError: It cannot be opened, it is in use, or the file system has no locks.
    """
    descriptor = os.open(directory, DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield descriptor
    finally:
        os.close(descriptor)


def lock_new_directory(directory: Path) -> int:
    """Lock a directory just made, where the file system can; return the lock's descriptor.

    A process that looks for what killed processes left may have it, and is waited for.
    """
    descriptor = os.open(directory, DIRECTORY)
    with suppress(OSError):  # then no other process can lock it, either
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    return descriptor


def note_ending(workspace: Path, **facts: Any) -> None:
    """Note how a job ended; where that cannot be written, its workspace is named as left."""
    with suppress(CpstageError, OSError):
        write_json(workspace / ".cpstage" / _NOTE, facts)


def remove_secrets(workspace: Path) -> list[str]:
    """Remove the files of a command, secrets included; return what is left."""
    return remove_tree(workspace / ".cpstage" / "run")


def left_workspaces(root: Path, *, keeps_success: bool) -> Iterator[tuple[Path, list[str]]]:
    """Remove what killed workers left in a root and what ended well, if that is not kept.

    Yields:
        Each other workspace that was not named before, with what could not be removed of it.
    """
    names: list[str] = []
    with suppress(OSError):
        names = sorted(os.listdir(root))
    for workspace in (root / name for name in names if _JOB_ID.fullmatch(name)):
        with suppress(OSError), locked_directory(workspace):
            found = read_json(workspace / ".cpstage" / _NOTE)
            if found.get("kept"):
                continue
            removed = found.get("succeeded") is True and not keeps_success
            left = remove_tree(workspace) if removed else remove_secrets(workspace)
            if os.path.lexists(workspace):
                yield workspace, left
                note_ending(workspace, **found, kept=True)
