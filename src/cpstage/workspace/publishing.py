"""Publishing: what was staged is renamed into its places, all of it or none.

Several renames are not one step, and a process can be killed between any two of them. So a journal
is written before the first, and removed after the last::

    no journal     nothing has begun yet, or all is done
    a journal      some of its moves are done, and they are to be rolled back

To remove the journal is the one step from old to new. Before it, a run that fails rolls back what
was moved; what a killed process moved is rolled back by the next one that has the place to itself.
Of each move there are few states, which need no record, since what was staged is known by its
inode:

    =============  =============  ==============  =====================================
    staged         target         replaced        which means
    =============  =============  ==============  =====================================
    new            old, or none                   not begun, or rolled back already
    new            none           old             begun, where the system cannot swap
    old, or none   new                            done
    none           new            old             done, where the system cannot swap
    =============  =============  ==============  =====================================

Rolling back is done in single renames from one of these states to another, so it may be stopped as
well, and done again. The journal is on the disk before the first rename, and file systems keep the
order of renames: after a loss of power, too, there is the old to go back to. What was written last
of all may be lost then, as with any program that does not wait for the disk after each file.

Two paths are swapped in one step by renameat2(2) with ``RENAME_EXCHANGE`` on Linux.

A target outside a workspace has hidden staging beside it (``.cpstage-staging-*``), a directory that
is locked as long as its process lives. It is removed when it is done, else by the next process that
stages in the same directory. What belongs to another user is never touched.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from cpstage._posix import NOT_OFFERED
from cpstage.errors import CpstageError, WorkspaceUnavailable, local_failures
from cpstage.filesystem.removal import make_writable, remove_tree, removed_at_end
from cpstage.workspace.lock import lock_new_directory, locked_directory
from cpstage.workspace.state import read_json, unfinished, write_json_durably

_STAGING = ".cpstage-staging-"


class Move(NamedTuple):
    """Something staged, and the place that it is for."""

    staged: Path
    target: Path

    @property
    def replaced(self) -> Path:
        """Where the old is kept, if it could not be swapped for the new."""
        return self.staged.with_name(f"{self.staged.name}.replaced")


class Journal(NamedTuple):
    """Publishes below one directory, and rolls back what is incomplete.

    Attributes:
        path: The file to keep the journal in, on the same file system.
        root: The directory, locked and without links in its path, that all moves lie below.
    """

    path: Path
    root: Path

    @property
    def is_open(self) -> bool:
        """Whether something has begun and is not done: what was staged for it is still needed."""
        try:
            return _is_there(self.path)
        except OSError:  # what is staged may be all that there is of the old
            return True

    def publish(self, moves: Sequence[Move], *, replace: bool = True) -> None:
        """Rename what was staged into its places: all of it, or none.

        With ``replace``, what stands in a place is swapped for the new; else it is an error.

        Raises:
            WorkspaceUnavailable: A place cannot be written to, or is not free.
            LocalIOError: The disk is full, or failed.
        """
        try:
            self._begin(moves)
            for move in moves:
                with local_failures(move.target, "publish"):
                    move.target.parent.mkdir(exist_ok=True)
                    _make_movable(move)
                    _put(move, replace=replace)
            with local_failures(self.path, "remove"):
                self.path.unlink()
        except BaseException:
            self.roll_back()
            raise

    def roll_back(self) -> None:
        """Undo what the journal says has begun, if there is a journal.

        Raises:
            WorkspaceUnavailable: The journal is damaged, or a place cannot be written to.
            LocalIOError: The disk failed.
        """
        with local_failures(self.path, "remove"):
            unfinished(self.path).unlink(missing_ok=True)
        if not self.is_open:
            return
        begun, made = self._read()
        for move, inode in reversed(begun):
            with local_failures(move.target, "restore"):
                _make_movable(move)
                _roll_back(move, inode)
        for directory in made:
            with suppress(OSError):  # it is not empty any more, or was never made
                directory.rmdir()
        with local_failures(self.path, "remove"):
            self.path.unlink()

    def _begin(self, moves: Sequence[Move]) -> None:
        """Write down all that is to be done."""
        parents = dict.fromkeys(move.target.parent for move in moves)
        with local_failures(self.root, "look at"):
            made = [self._name(one) for one in parents if not _is_there(one)]
        document = {"moves": [self._entry(move) for move in moves], "made": made}
        write_json_durably(self.path, document)

    def _entry(self, move: Move) -> dict[str, Any]:
        with local_failures(move.staged, "look at"):
            inode = move.staged.lstat().st_ino
        return {"staged": self._name(move.staged), "target": self._name(move.target), "is": inode}

    def _read(self) -> tuple[list[tuple[Move, int]], list[Path]]:
        """Read what was to be done; the journal may be corrupt or edited."""
        try:
            document = read_json(self.path)
            begun = [(self._move(one), int(one["is"])) for one in document["moves"]]
            return begun, [self._place(name) for name in document["made"]]
        except (KeyError, TypeError, ValueError) as error:
            raise WorkspaceUnavailable(
                f"{self.path}, which a run that was killed has left, is damaged",
                hint="look at what is there, remove that file, and run the command again",
            ) from error

    def _move(self, entry: Any) -> Move:
        """Read a move; what was staged lies beside the journal, and its target is not around it."""
        move = Move(self._place(entry["staged"]), self._place(entry["target"]))
        above = move.staged.parents
        if self.path.parent not in above or move.target in above:
            raise ValueError
        return move

    def _name(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()

    def _place(self, name: str) -> Path:
        """Return the path of a name, which leads neither out of the root nor through a link."""
        place = self.root / name
        parts = PurePosixPath(name).parts
        if b"\0" in os.fsencode(name):  # which fails for other names that no file can have
            raise ValueError
        if not parts or {"/", ".."} & set(parts) or not _is_direct(self.root, parts):
            raise ValueError
        return place


def _is_direct(root: Path, parts: Sequence[str]) -> bool:
    """Whether a path below a root can exist, and leads through directories only."""
    place = root.joinpath(*parts)
    try:
        for one in (place, *map(root.joinpath, parts)):  # a directory of it may be missing
            with suppress(FileNotFoundError, NotADirectoryError):
                one.lstat()
        return place.parent.resolve() == place.parent
    except RuntimeError:  # what Python before 3.13 says of links in a circle
        return False
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENAMETOOLONG):
            return False
        raise


def _make_movable(move: Move) -> None:
    """Give the owner back the permissions that a rename needs, and that a build may have taken.

    A directory that gets another parent is written to, as its entry ``..`` changes.
    """
    for directory in (move.target.parent, move.target, move.staged.parent, move.staged):
        make_writable(directory)


def _put(move: Move, *, replace: bool) -> None:
    if _is_there(move.target):
        if not replace:
            raise WorkspaceUnavailable(
                f"{move.target} was created concurrently", hint="move it elsewhere, and try again"
            )
        if exchange(move.staged, move.target):
            return
        move.target.rename(move.replaced)
    move.staged.rename(move.target)


def _roll_back(move: Move, inode: int) -> None:
    """Undo a move, if it got so far."""
    move.staged.parent.mkdir(parents=True, exist_ok=True)  # a person may have cleared up by hand
    if _is_there(move.target):
        found = move.target.lstat()
        if (found.st_dev, found.st_ino) == (move.staged.parent.stat().st_dev, inode):
            if _is_there(move.staged):
                if exchange(move.staged, move.target):
                    return
                move.staged.rename(move.replaced)
            move.target.rename(move.staged)
    if _is_there(move.replaced) and not _is_there(move.target):
        move.replaced.rename(move.target)


def _is_there(path: Path) -> bool:
    """Whether something has this name; raise OSError where ``os.path.lexists`` only says no."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:  # what was to be replaced may have the longest name
            raise
        return False
    return True


_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


def exchange(first: Path, second: Path) -> bool:
    """Swap what stands at two paths; return whether the system and its file system can do that.

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


@contextmanager
def staging_in(directory: Path, target: Path) -> Iterator[Path]:
    """Make a hidden directory for what is to be renamed to a target; remove it at the end.

    Raises:
        WorkspaceUnavailable, LocalIOError: It cannot be made.
    """
    with local_failures(target):
        staging = directory.resolve() / f"{_STAGING}{os.urandom(8).hex()}"
    journal = journal_in(staging)
    with ExitStack() as stack, removed_at_end(staging, unless=lambda: journal.is_open):
        with local_failures(target):
            stack.callback(_close, _make_staging(staging))
        yield staging


def journal_in(staging: Path) -> Journal:
    """Return the journal of what is published out of staging into the directory around it."""
    return Journal(staging / "journal.json", staging.parent)


def sweep(directory: Path) -> None:
    """Remove the staging that killed processes left, and roll back what they had half published."""
    names: list[str] = []
    with suppress(OSError):  # a directory that is missing or unreadable has no staging
        names = [name for name in os.listdir(directory) if name.startswith(_STAGING)]
    for staging in (directory.resolve() / name for name in names):
        # It may be gone, no directory, closed to us, or in use; what cannot be rolled back stays.
        with suppress(OSError, CpstageError), locked_directory(staging) as lock:
            if os.fstat(lock).st_uid == os.geteuid():
                journal_in(staging).roll_back()
                remove_tree(staging)


def _close(lock: int) -> None:
    with suppress(OSError):  # what was done stands
        os.close(lock)


def _make_staging(staging: Path) -> int:
    """Make a directory, and return the descriptor that holds its lock."""
    while True:
        staging.mkdir(mode=0o700)
        try:
            staging.chmod(0o700)  # the umask may take that away
            lock = lock_new_directory(staging)
        except FileNotFoundError:
            continue  # swept before it was locked
        if os.path.lexists(staging):
            return lock
        os.close(lock)  # swept meanwhile
