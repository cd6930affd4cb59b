"""One run at a time in a directory: a lock that tells who holds it.

The lock is the kernel's (flock(2)): it ends with its process, however that ends, so that nothing
has to be guessed about what a killed run has left. Who holds it stands in a file beside it, which
is written as soon as the lock is taken. Who finds the lock taken and nobody named, or one who is no
longer there, has come at the very moment between the two, and looks again for a short time.
"""

from __future__ import annotations

import os
import socket
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cpstage.errors import WorkspaceInUse, WorkspaceUnavailable, local_reason
from cpstage.filesystem import local_failures
from cpstage.workspace.statefile import read_json, write_json

if TYPE_CHECKING:
    from filelock import FileLock

_NAMING_SECONDS = 3.0
_NAMING_POLL = 0.02


@contextmanager
def locked(
    place: Path, lock_file: Path, holder: Path, wait: float, job_id: str | None = None
) -> Iterator[None]:
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
    from filelock import FileLock

    require_locks(place, lock_file.parent)
    with local_failures(lock_file):
        lock = FileLock(lock_file, mode=0o600)
        _acquire(lock, wait, holder, place)
    try:
        write_json(holder, _this_process(job_id))
        yield
    finally:
        with suppress(OSError):
            holder.unlink()
        lock.release()


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
    import fcntl

    with local_failures(state):
        probe = tempfile.TemporaryFile(dir=state)  # noqa: SIM115 (closed below, with other errors)
    with probe:
        try:
            fcntl.flock(probe, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise WorkspaceUnavailable(
                f"cannot lock {place}: {local_reason(error)}",
                hint="its file system has no locks (flock): give a --workspace on another one",
            ) from error


def _acquire(lock: FileLock, wait: float, holder: Path, place: Path) -> None:
    from filelock import Timeout

    naming_until = time.monotonic() + wait + _NAMING_SECONDS
    while True:
        try:
            lock.acquire(timeout=wait)
        except Timeout as error:
            found = read_json(holder)
            if not _is_there(found) and time.monotonic() < naming_until:
                wait = _NAMING_POLL
                continue
            taken = WorkspaceInUse(
                f"the workspace {place} is in use by {_describe(found)}",
                hint="wait for that run with --wait, or give another --workspace",
            )
            taken.job_id = found.get("job_id")
            raise taken from error
        return


def _this_process(job_id: str | None) -> dict[str, Any]:
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    known = {"pid": os.getpid(), "host": socket.gethostname(), "since": now}
    return {**known, "job_id": job_id} if job_id else known


def _is_there(holder: Mapping[str, Any]) -> bool:
    """Tell whether somebody is named who may be there: those of other hosts are believed."""
    pid = holder.get("pid")
    if not isinstance(pid, int) or pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return holder.get("host") != socket.gethostname()
    except OSError:  # it is somebody else's
        return True
    return True


def _describe(holder: Mapping[str, Any]) -> str:
    if "pid" not in holder:
        return "another run, which does not say who it is"
    return f"process {holder['pid']} on {holder.get('host')} since {holder.get('since')}"
