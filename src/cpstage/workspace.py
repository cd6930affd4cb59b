"""The workspace: layout, lock, hidden staging, publishing by rename, and the manifest.

::

    WORKSPACE/
      in/<artifact>/     there whole, or not there
      out/<artifact>/    where the job's results are put
      .cpstage/          0700: lock, job.json, manifest.json, staging/, run/

Nothing in ``in/`` exists before every byte of it has been verified. What is staged is renamed into
its place; when that fails half way, what was moved is moved back. This module knows nothing of
AWS: it is told names and facts.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from cpstage.errors import LocalIOError, WorkspaceUnavailable
from cpstage.exchange import exchange
from cpstage.tree import local_failures, remove_tree


@dataclass(frozen=True)
class Move:
    """Something staged, and the place in the workspace that it is for."""

    staged: Path
    target: Path


class Workspace:
    """A directory that a job's artifacts are staged in.

    Args:
        path: The directory; it is made (0700) by the first command that needs it.
    """

    def __init__(self, path: Path | str) -> None:
        try:
            self.root = Path(path).resolve()
        except RuntimeError as error:  # what Python before 3.13 says of links in a circle
            raise WorkspaceUnavailable(f"the links of {path} lead in a circle") from error
        self.inputs = self.root / "in"
        self.outputs = self.root / "out"
        self._state = self.root / ".cpstage"

    def input(self, name: str) -> Path:
        """Return the directory of an input artifact."""
        return self.inputs / name

    def output(self, name: str) -> Path:
        """Return the directory of an output artifact."""
        return self.outputs / name

    def create(self) -> None:
        """Make the directory, closed to others, where it is missing.

        Raises:
            WorkspaceUnavailable, LocalIOError: It cannot be made.
        """
        with local_failures(self.root):
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)

    @contextmanager
    def locked(self, wait: float = 0) -> Iterator[None]:
        """Keep every other fetch out, and remove what killed ones left behind.

        Args:
            wait: Seconds to wait for another one to end.

        Raises:
            WorkspaceUnavailable: Another one is in it, or it cannot be created or written to.
        """
        with self._held("lock", "holder.json", wait):
            self._sweep("staging")
            yield

    @contextmanager
    def occupied(self, wait: float = 0) -> Iterator[Path]:
        """Keep every other run of a command out, as :meth:`locked` does with fetches.

        Yields:
            The place for what the command is handed; nothing is there.
        """
        with self._held("run.lock", "runner.json", wait):
            self._sweep("run")
            yield self._state / "run"

    @contextmanager
    def _held(self, name: str, holder_name: str, wait: float) -> Iterator[None]:
        from filelock import FileLock, Timeout

        self.create()
        with local_failures(self._state):
            self._state.mkdir(mode=0o700, exist_ok=True)
        self._refuse_links()
        with suppress(OSError):
            self._state.chmod(0o700)
        holder = self._state / holder_name
        lock = FileLock(self._state / name, timeout=wait, mode=0o600)
        with local_failures(self._state / name):
            try:
                lock.acquire()
            except Timeout as error:
                raise WorkspaceUnavailable(
                    f"the workspace {self.root} is in use by {_describe(_read_json(holder))}",
                    hint="wait for that run with --wait, or give another --workspace",
                ) from error
        try:
            write_json(holder, _this_process())
            yield
        finally:
            with suppress(OSError):
                holder.unlink()
            lock.release()

    @contextmanager
    def staging(self) -> Iterator[Path]:
        """Make a hidden directory on the same file system, which is gone at the end."""
        parent = self._state / "staging"
        with local_failures(parent):
            parent.mkdir(mode=0o700, exist_ok=True)
            staging = Path(tempfile.mkdtemp(dir=parent))
        try:
            yield staging
        finally:
            remove_tree(staging)

    def require_free(self, inputs: Sequence[Path]) -> None:
        """Check that nothing stands where something is to be published.

        Raises:
            WorkspaceUnavailable: Something does.
        """
        for target in inputs:
            if _is_taken(target):
                raise WorkspaceUnavailable(
                    f"{target} exists already, and is not what the job has now",
                    hint="give --replace to swap it for the new one",
                )

    def require_outputs(self, outputs: Sequence[Path]) -> None:
        """Check that the directories of the outputs are there, or can be made.

        Raises:
            WorkspaceUnavailable: Something else has the place of one, or of ``out/``.
        """
        for target in (self.inputs, self.outputs, *outputs):
            with local_failures(target, "look at"):
                taken = os.path.lexists(target) and not target.is_dir()
            if taken:
                raise WorkspaceUnavailable(
                    f"{target} is in the way of a directory", hint="move it elsewhere"
                )

    def require_space(self, size: int) -> None:
        """Check that a number of bytes would fit on the disk.

        Raises:
            LocalIOError: They would not.
        """
        free = shutil.disk_usage(self.root).free
        if size > free:
            raise LocalIOError(
                f"{size:,} bytes are to be staged in {self.root}, which has {free:,} left",
                hint="free some space, or give another --workspace",
            )

    def publish(self, moves: Sequence[Move]) -> None:
        """Rename what was staged into its places: all of it, or none.

        What stands in a place is swapped for the new in one step where the system can do that,
        and ends up in the staging directory.

        Raises:
            WorkspaceUnavailable: A place cannot be written to.
        """
        begun: list[tuple[Move, int]] = []
        try:
            for move in moves:
                with local_failures(move.target):
                    move.target.parent.mkdir(exist_ok=True)
                    begun.append((move, move.staged.lstat().st_ino))
                    _put(move)
        except BaseException:
            for move, inode in reversed(begun):
                _take_back(move, inode)
            raise

    def output_moves(self, outputs: Sequence[Path], staging: Path) -> list[Move]:
        """Return the moves that make the directories of the outputs where they are missing."""
        moves = []
        for target in outputs:
            if not target.is_dir():
                made = staging / f"{target.name}.output"
                with local_failures(made):
                    made.mkdir()
                moves.append(Move(made, target))
        return moves

    def record_moves(
        self, job: Mapping[str, Any], artifacts: Mapping[str, Any], staging: Path
    ) -> list[Move]:
        """Return the moves that record the job's public facts and what is staged now."""
        documents = {
            "job.json": job,
            "manifest.json": {"version": 1, "artifacts": artifacts},
        }
        for name, document in documents.items():
            write_json(staging / name, document)
        return [Move(staging / name, self._state / name) for name in documents]

    def manifest(self) -> dict[str, Any]:
        """Return what was staged before, by artifact; what is damaged counts as nothing."""
        found = _read_json(self._state / "manifest.json").get("artifacts")
        entries = found if isinstance(found, dict) else {}
        return {name: entry for name, entry in entries.items() if isinstance(entry, dict)}

    def record(self) -> dict[str, Any]:
        """Return the public facts of the job that was staged last; nothing where there is none."""
        return _read_json(self._state / "job.json")

    def _refuse_links(self) -> None:
        """Refuse links in the layout: they would lead writes and renames elsewhere."""
        ours = (self._state, self._state / "staging", self._state / "run")
        for directory in (self.inputs, self.outputs, *ours):
            if directory.is_symlink():
                raise WorkspaceUnavailable(
                    f"{directory} is a symbolic link", hint="replace it by a directory"
                )

    def _sweep(self, name: str) -> None:
        """Remove what is stale: whoever holds its lock knows that nobody else is using it."""
        remove_tree(self._state / name)


def write_json(path: Path, document: Mapping[str, Any]) -> None:
    """Write a file that is readable by its owner only; what was there is replaced."""
    with local_failures(path):
        path.unlink(missing_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            json.dump(document, file, indent=2)
            file.write("\n")


def _is_taken(target: Path) -> bool:
    """Tell whether something stands there; an empty directory is as good as nothing."""
    if target.is_dir() and not target.is_symlink():
        with local_failures(target):
            return any(target.iterdir())
    return os.path.lexists(target)


def _put(move: Move) -> None:
    if os.path.lexists(move.target):
        exchange(move.staged, move.target)
    else:
        move.staged.rename(move.target)


def _take_back(move: Move, inode: int) -> None:
    """Undo a move, if it got so far; what was staged is known by its inode."""
    if not os.path.lexists(move.target) or move.target.lstat().st_ino != inode:
        return
    if os.path.lexists(move.staged):
        exchange(move.staged, move.target)
    else:
        move.target.rename(move.staged)
        with suppress(OSError):
            move.target.parent.rmdir()


def _this_process() -> dict[str, Any]:
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    return {"pid": os.getpid(), "host": socket.gethostname(), "since": now}


def _describe(holder: Mapping[str, Any]) -> str:
    if "pid" not in holder:
        return "another run"
    return f"process {holder['pid']} on {holder.get('host')} since {holder.get('since')}"


def _read_json(path: Path) -> dict[str, Any]:
    """Read one of our own files; one that is missing or damaged says nothing."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, RecursionError, ValueError):
        return {}
    return document if isinstance(document, dict) else {}
