"""One run at a time in a directory: a lock that tells who holds it.

The lock is the kernel's (flock(2)): it ends with its process, however that ends, so that nothing
has to be guessed about what a killed run has left. A file beside it names the
holder, and is written as soon as the lock is taken. A run that finds the lock taken without a
holder, or with one that has ended, has come between the two steps, and looks again for a short
time.

filelock does not serve: it does not tell a lock that another run has from one that the system
refuses, so flock(2) has to be called again for the message, and its 21 modules take a thirtieth of
a start.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from cpstage._posix import O_CLOEXEC, O_NOFOLLOW
from cpstage.errors import LocalIOError, WorkspaceInUse, WorkspaceUnavailable, local_reason
from cpstage.filesystem.tree import local_failures
from cpstage.workspace.statefile import read_json, write_json

_NO_LOCKS = {errno.EINVAL, errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}
"""What a file system without flock(2) says."""

_POLL = 0.05
_NAMING_SECONDS = 3.0
_NAMING_POLL = 0.02


class HeldLock:
    """A lock that this process has taken, as long as the file is the one that it has locked.

    Args:
        place: What is locked, as messages call it.
        file: The lock.
    """

    def __init__(self, place: Path, file: Path) -> None:
        self._place = place
        self._file = file
        self._identity = _identity(file)

    def check(self) -> None:
        """Check that the lock was not removed or replaced, which would let others in.

        Raises:
            WorkspaceUnavailable: Somebody has.
        """
        if self._identity is None or _identity(self._file) != self._identity:
            raise WorkspaceUnavailable(
                f"the lock {self._file} was removed or replaced while {self._place} was in use: "
                "another run may have been in it",
                hint="let the build leave .cpstage/ alone, and run it again",
            )


@contextmanager
def locked(
    place: Path, lock_file: Path, holder: Path, wait: float, job_id: str | None = None
) -> Iterator[HeldLock]:
    """Keep every other run out of a place.

    Args:
        place: What is locked, as messages call it.
        lock_file: The lock; its directory exists.
        holder: The file beside it that says who has it.
        wait: Seconds to wait for another run to end.
        job_id: The job that is worked on, for others to know.

    Raises:
        WorkspaceInUse: Another run is in it.
        WorkspaceUnavailable: It cannot be locked.
        LocalIOError: The disk failed.
    """
    descriptor = _acquire(lock_file, wait, holder, place)
    try:
        held = HeldLock(place, lock_file)
        write_json(holder, _this_process(job_id))
        yield held
    finally:
        # What was done stands; the lock ends with the process in any case.
        with suppress(OSError):
            holder.unlink()
        with suppress(OSError):
            _unlock(descriptor)


def _identity(file: Path | int) -> tuple[int, int] | None:
    """Return the device and inode of a file, by path or descriptor; None if it does not exist."""
    try:
        status = os.fstat(file) if isinstance(file, int) else file.lstat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _require_own_file(lock_file: Path) -> None:
    """Check that the lock is a regular file of ours, or absent, and make it usable.

    Raises:
        WorkspaceUnavailable: It is something else, such as a symlink.
        OSError: It cannot be looked at.
    """
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


def require_locks(place: Path, state: Path) -> None:
    """Check that a directory can be written to, and that its file system has locks.

    What makes do without them is left behind by a kill.

    Args:
        place: What is to be locked, as messages call it.
        state: The directory; nothing is left in it.

    Raises:
        WorkspaceUnavailable: It cannot be written to or locked.
        LocalIOError: The disk is full, or failed.
    """
    with local_failures(state, "write to"):
        probe = tempfile.TemporaryFile(dir=state)  # noqa: SIM115 (closed below, with other errors)
    with probe:
        _flock(probe.fileno(), place)


def _acquire(lock_file: Path, wait: float, holder: Path, place: Path) -> int:
    """Take the lock; return its descriptor."""
    until = time.monotonic() + wait
    while (descriptor := _try(lock_file, place)) is None:
        late = time.monotonic() - until
        if late < 0:
            time.sleep(min(_POLL, -late))
            continue
        found = read_json(holder)
        if _is_there(found) or late >= _NAMING_SECONDS:
            taken = WorkspaceInUse(
                f"the workspace {place} is in use by {_describe(found)}",
                hint="wait for that run with --wait, or give another --workspace",
            )
            taken.job_id = found.get("job_id")
            raise taken
        time.sleep(_NAMING_POLL)
    return descriptor


def _try(lock_file: Path, place: Path) -> int | None:
    """Take the lock, and return its descriptor; None if another run has it."""
    with local_failures(lock_file, "lock"):
        _require_own_file(lock_file)
        flags = os.O_RDWR | os.O_CREAT | O_NOFOLLOW | O_CLOEXEC
        descriptor = os.open(lock_file, flags, 0o600)
    taken = False
    try:
        # A run that failed may have removed its new workspace, and the lock with it, meanwhile.
        taken = _flock(descriptor, place) and _identity(lock_file) == _identity(descriptor)
    finally:
        if not taken:
            os.close(descriptor)
    return descriptor if taken else None


def _flock(descriptor: int, place: Path) -> bool:
    """Lock an open file; return False if another run has locked it.

    Raises:
        WorkspaceUnavailable: The file system has no locks.
        LocalIOError: The system refused it.
    """
    import fcntl  # which Windows lacks, where this module can be imported

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        what = f"cannot lock {place}: {local_reason(error)}"
        if error.errno not in _NO_LOCKS:
            raise LocalIOError(what) from error
        hint = "its file system has no locks (flock): give a --workspace on another one"
        raise WorkspaceUnavailable(what, hint=hint) from error
    return True


def _unlock(descriptor: int) -> None:
    """Give up the lock, and close its descriptor, which a forked process may have as well."""
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_UN)
    finally:
        os.close(descriptor)


def _this_process(job_id: str | None) -> dict[str, Any]:
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    known = {"pid": os.getpid(), "host": socket.gethostname(), "since": now}
    return {**known, "job_id": job_id} if job_id else known


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


def _describe(holder: Mapping[str, Any]) -> str:
    if "pid" not in holder:
        return "another run, whose process is unknown"
    return f"process {holder['pid']} on {holder.get('host')} since {holder.get('since')}"
