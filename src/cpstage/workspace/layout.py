"""The workspace: layout, lock, hidden staging, publishing, and the manifest.

::

    WORKSPACE/
      in/<artifact>/     whole, or absent
      out/<artifact>/    where the job's results are put
      made/<artifact>/   an output of a past execution: whole, or absent
      .cpstage/          0700
        lock             held by the run that is at work; holder.json says which that is
        staging/         what is not verified yet; swept by the next run
        journal.json     there while things are published
        run.lock, run/   held by the run of a command, and the files of the command
        job.json, manifest.json

Nothing in ``in/`` exists before every byte of it has been verified. Then all that was staged, and
the manifest with it, is published in one go, or not at all (see
:mod:`cpstage.workspace.publishing`).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

from cpstage._posix import require_posix
from cpstage.errors import (
    CpstageError,
    LocalIOError,
    WorkspaceUnavailable,
    local_failures,
    reportable,
)
from cpstage.filesystem.removal import make_writable, remove_tree, removed_at_end
from cpstage.filesystem.tree import boot_id
from cpstage.workspace.lock import HeldLock, left_by_others, locked
from cpstage.workspace.publishing import Journal, Move
from cpstage.workspace.state import read_json, write_json

Outputs = Literal["refuse", "replace", "keep"]
"""What a fetch does with an ``out/`` that holds the outputs of another job."""


class Workspace:
    """A directory that a job's artifacts are staged in.

    Args:
        path: The directory; it is made (0700) by the first command that needs it.

    Raises:
        ConfigurationError: This system is not POSIX.
        WorkspaceUnavailable, LocalIOError: The path cannot be resolved.
    """

    def __init__(self, path: Path | str) -> None:
        require_posix()
        try:
            self.root = Path(path).resolve()
        except RuntimeError as error:  # what Python before 3.13 says of links in a circle
            raise WorkspaceUnavailable(
                f"the links of {path} lead in a circle", hint="give another --workspace"
            ) from error
        except FileNotFoundError as error:  # the current directory was removed
            raise reportable(error) from error
        self.inputs = self.root / "in"
        self.outputs = self.root / "out"
        self.made = self.root / "made"
        self._state = self.root / ".cpstage"
        self.handed = self._state / "run"
        self._manifest = self._state / "manifest.json"
        self._journal = Journal(self._state / "journal.json", self.root)
        self._lock: HeldLock | None = None

    def input(self, name: str) -> Path:
        """Return the directory of an input artifact."""
        return self.inputs / name

    def output(self, name: str) -> Path:
        """Return the directory of an output artifact."""
        return self.outputs / name

    def create(self) -> None:
        """Make the directory (0700), unless it exists.

        Raises:
            WorkspaceUnavailable, LocalIOError: It cannot be made.
        """
        with local_failures(self.root, "create"):
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)

    @contextmanager
    def locked(self, wait: float = 0) -> Iterator[None]:
        """Keep other runs out, after waiting for one some seconds; clear up after killed ones.

        Raises:
            WorkspaceUnavailable: Another run is in it, or it cannot be created or written to.
        """
        with self._held("lock", "holder.json", wait) as held:
            # No other run uses what is there while this one holds the lock.
            self._journal.roll_back()
            remove_tree(self._state / "staging")
            self._lock = held
            try:
                yield
            finally:
                self._lock = None

    @contextmanager
    def occupied(self, job_id: str, wait: float = 0) -> Iterator[HeldLock]:
        """Keep every other run of a command out, as :meth:`locked` does with fetches.

        Raises:
            WorkspaceInUse: Another run is in it; the error names its job.
        """
        with self._held("run.lock", "runner.json", wait, job_id) as held:
            remove_tree(self.handed)
            yield held

    @contextmanager
    def _held(
        self, name: str, holder_name: str, wait: float, job_id: str | None = None
    ) -> Iterator[HeldLock]:
        made = [one for one in (self.root, *self.root.parents) if not os.path.lexists(one)]
        self._make()
        file, holder = self._state / name, self._state / holder_name
        try:
            with locked(self.root, file, holder, wait, job_id, make=self._make) as held:
                yield held
        except BaseException:
            if made:
                self._remove_new(made)
            raise

    def _make(self) -> None:
        """Make the directory with ``.cpstage/``; a run that failed may have removed its new one."""
        self.create()
        self._refuse_links()
        if self._state.is_dir():  # else it is a directory that is not a workspace yet
            make_writable(self.root)
        with local_failures(self._state, "create"):
            self._state.mkdir(mode=0o700, exist_ok=True)
        with suppress(OSError):
            self._state.chmod(0o700)

    def _remove_new(self, made: Sequence[Path]) -> None:
        """Remove the directories that a failed run has made, unless they are in use."""
        with left_by_others(self._state / "lock", self._state / "run.lock") as is_left:
            if is_left and not (os.path.lexists(self.inputs) or os.path.lexists(self.outputs)):
                remove_tree(self._state)
                with suppress(OSError):  # another process has put something there
                    for directory in made:
                        directory.rmdir()

    @contextmanager
    def staging(self) -> Iterator[Path]:
        """Make a hidden directory on the same file system, which is gone at the end."""
        parent = self._state / "staging"
        staging = parent / os.urandom(8).hex()
        with removed_at_end(staging, unless=lambda: self._journal.is_open):
            with local_failures(parent, "create a directory in"):
                parent.mkdir(mode=0o700, exist_ok=True)
                staging.mkdir(mode=0o700)
            yield staging

    def leftovers(self) -> list[Path]:
        """Return what earlier runs left in ``.cpstage/`` that this user cannot remove."""
        places = (self._state / "staging", self.handed)
        found = [path for place in places if place.is_dir() for path in place.rglob("*")]
        return [one for one in found if one.lstat().st_uid != os.geteuid()][:5]

    def require_free(self, inputs: Sequence[Path]) -> None:
        """Raise WorkspaceUnavailable if something stands where inputs are to be published."""
        for target in inputs:
            if _is_occupied(target):
                raise WorkspaceUnavailable(
                    f"{target} exists already with other contents",
                    hint="repeat the options of the fetch that made it, or give --replace",
                )

    def require_outputs(self, outputs: Sequence[Path]) -> None:
        """Raise WorkspaceUnavailable if something stands where directories of outputs belong."""
        for target in (self.inputs, self.outputs, *outputs):
            _require_directory(target)

    def require_made(self) -> None:
        """Raise WorkspaceUnavailable if something stands where ``made/`` belongs."""
        _require_directory(self.made, takes_links=False)

    def outputs_owner(self) -> str | None:
        """Return the ID of the job that ``out/`` was made for; None where the manifest has none."""
        owner = self._recorded().get("outputs_job_id")
        return owner if isinstance(owner, str) else None

    def claim_outputs(self, job_id: str) -> None:
        """Record whose ``out/`` is, where a build has removed the manifest that says it."""
        with suppress(CpstageError, OSError):
            self._state.mkdir(mode=0o700, exist_ok=True)
            if not os.path.lexists(self._manifest):
                write_json(self._manifest, {"version": 1, "outputs_job_id": job_id})

    def has_outputs(self) -> bool:
        """Whether there is anything in ``out/`` but empty directories.

        Raises:
            WorkspaceUnavailable, LocalIOError: It cannot be read.
        """
        with local_failures(self.outputs, "read"):
            return any(
                one.is_symlink() or not one.is_dir() or any(one.iterdir())
                for one in self._outputs()
            )

    def _outputs(self) -> list[Path]:
        with local_failures(self.outputs, "read"):
            return [*self.outputs.iterdir()] if self.outputs.is_dir() else []

    def require_own_outputs(self, job_id: str) -> None:
        """Check that what is in ``out/`` was not made for another job.

        Raises:
            WorkspaceUnavailable, LocalIOError: It was, or cannot be read.
        """
        owner = self.outputs_owner()
        if owner not in (None, job_id) and self.has_outputs():
            raise WorkspaceUnavailable(
                f"{self.outputs} holds the outputs of job {owner}, not of job {job_id}",
                hint="run 'cpstage fetch' for this job: --replace empties it, --keep-out keeps it",
            )

    def outputs_to_replace(
        self, job_id: str, declared: Collection[str], choice: Outputs, warn: Callable[[str], object]
    ) -> bool:
        """Return whether a fetch of a job with some outputs replaces ``out/`` by an empty one.

        Raises:
            WorkspaceUnavailable: It holds the outputs of another job, and is to be neither
                replaced nor kept.
            LocalIOError: It cannot be read.
        """
        owner = self.outputs_owner()
        if owner == job_id:
            return False
        if not self.has_outputs():
            return choice != "keep" and any(one.name not in declared for one in self._outputs())
        if choice == "replace":
            return True
        whose = f"the outputs of job {owner}" if owner else "files that no fetch has recorded"
        if choice == "keep" or not os.path.lexists(self._manifest):
            warn(f"{self.outputs} is kept, with {whose}")
            return False
        raise WorkspaceUnavailable(
            f"{self.outputs} holds {whose}",
            hint="give --replace to put an empty one in its place, or --keep-out to keep it for "
            "this job",
        )

    def require_space(self, size: int) -> None:
        """Raise LocalIOError if a number of bytes would not fit on the disk."""
        free = shutil.disk_usage(self.root).free
        if size > free:
            raise LocalIOError(
                f"{size:,} bytes are to be staged in {self.root}, which has {free:,} left",
                hint="free some space, or give another --workspace",
            )

    def publish(self, moves: Sequence[Move]) -> None:
        """Publish as :meth:`Journal.publish` does, if the lock is still held."""
        if self._lock:
            self._lock.check()
        self._journal.publish(moves)

    def output_moves(
        self, outputs: Sequence[Path], staging: Path, *, replace: bool = False
    ) -> list[Move]:
        """Make the directories of the outputs in staging, and return the moves that publish them.

        With ``replace``, an empty ``out/`` takes the place of all that is there.
        """
        if replace:
            new = staging / f"{self.outputs.name}.outputs"
            with local_failures(new, "create"):
                new.mkdir()
                for target in outputs:
                    (new / target.name).mkdir()
            return [Move(new, self.outputs)]
        missing = [target for target in outputs if not target.is_dir()]
        moves = [Move(staging / f"{target.name}.output", target) for target in missing]
        for move in moves:
            with local_failures(move.staged, "create"):
                move.staged.mkdir()
        return moves

    def record_moves(
        self, job: Mapping[str, Any], artifacts: Mapping[str, Any], staging: Path
    ) -> list[Move]:
        """Return the moves that record the job's public facts and what is staged for it."""
        manifest = {
            "version": 1,
            "boot_id": boot_id(),
            "outputs_job_id": job["id"],
            "artifacts": artifacts,
        }
        documents = {"job.json": job, "manifest.json": manifest}
        for name, document in documents.items():
            write_json(staging / name, document)
        return [Move(staging / name, self._state / name) for name in documents]

    def manifest(self) -> dict[str, Any]:
        """Return what was staged before, by artifact; what is damaged counts as nothing."""
        found = self._recorded().get("artifacts")
        entries = found if isinstance(found, dict) else {}
        return {name: entry for name, entry in entries.items() if isinstance(entry, dict)}

    def record(self) -> dict[str, Any]:
        """Return the public facts of the job that was staged last, or an empty document.

        Raises:
            WorkspaceUnavailable: They are there, and this user may not read them.
        """
        return read_json(self._state / "job.json", refuse_denied=True)

    def was_written_in_this_boot(self) -> bool:
        """Whether the manifest was written since the last boot, as far as it says.

        What was written before may have lost data to a loss of power (fsync(2)).
        """
        return self._recorded().get("boot_id") == boot_id()

    def _recorded(self) -> dict[str, Any]:
        return read_json(self._manifest, refuse_denied=True)

    def _refuse_links(self) -> None:
        """Refuse links in the layout: they would lead writes and renames elsewhere."""
        ours = (self._state, self._state / "staging", self.handed)
        for directory in (self.inputs, self.outputs, *ours):
            with local_failures(directory, "look at"):
                is_link = directory.is_symlink()
            if is_link:
                raise WorkspaceUnavailable(
                    f"{directory} is a symbolic link", hint="replace it by a directory"
                )


def _require_directory(target: Path, *, takes_links: bool = True) -> None:
    """Check that a directory, or a symlink to one, is there, or can be made."""
    with local_failures(target, "look at"):
        is_directory = target.is_dir() and (takes_links or not target.is_symlink())
        if os.path.lexists(target) and not is_directory:
            raise WorkspaceUnavailable(
                f"{target} is in the way of a directory", hint="move it elsewhere"
            )


def _is_occupied(target: Path) -> bool:
    """Whether something stands there; an empty directory is as good as nothing."""
    if target.is_dir() and not target.is_symlink():
        with local_failures(target, "read"):
            return any(target.iterdir())
    return os.path.lexists(target)
