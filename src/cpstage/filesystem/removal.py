"""Removing directory trees that a build may have changed, by directory descriptors.

Such a tree may hold symlinks to other places, directories without permissions, more levels than a
path or the interpreter's stack can hold, and files of other owners. Every directory is opened
below its parent's descriptor with ``O_NOFOLLOW``, and only what was opened that way is made
writable. What cannot be removed is returned by name.

``shutil.rmtree`` recurses before Python 3.13, gives up at directories without permissions, and
does not say what it left.
"""

from __future__ import annotations

import errno
import logging
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from cpstage._posix import DIRECTORY, O_CLOEXEC, O_DIRECTORY, O_NOFOLLOW, O_PATH
from cpstage.errors import local_reason

_LOGGER = logging.getLogger("cpstage")

_DEEPEST = 32
"""Levels whose directories are open at the same time; ulimit(1) often allows 1,024 descriptors."""

_MOST_NAMED = 5
"""Leftovers that one removal names; a container can leave thousands of files of root."""

_NOT_EMPTY = {errno.ENOTEMPTY, errno.EEXIST}
_MOST_ATTEMPTS = 100
"""Times that a directory is emptied into which another thread or process still writes."""

_LONGEST_NAME = 200
"""Characters of a path in a message."""


def remove_tree(tree: Path) -> list[str]:
    """Remove a tree of ours, and log a warning that names what cannot be removed.

    The tree is a directory, or anything else, which is unlinked; it may be absent. Neither the tree
    nor its parent directory may be a symlink to a directory: it is not followed.

    Returns:
        What is still there, each path with the reason: the first five of them.
    """
    removal = _Removal(tree)
    try:
        removal.run()
    except OSError as error:
        removal.note([], error)
    if removal.left:
        _LOGGER.warning("warning: cannot remove %s", "; ".join(removal.left))
    return removal.left


@contextmanager
def removed_at_end(tree: Path, *, unless: Callable[[], bool] = lambda: False) -> Iterator[None]:
    """Remove a tree at the end of the context, in which it is made, unless it is still needed.

    A signal may come between its making and its use, or in its removal, which then begins again.
    """

    def remove() -> None:
        # Removing what is not there would make its parent writable.
        if os.path.lexists(tree) and not unless():
            remove_tree(tree)

    is_removed = False
    try:
        try:
            yield
        finally:
            remove()
            is_removed = True
    except BaseException:
        if not is_removed:
            remove()
        raise


def make_writable(directory: Path) -> None:
    """Give the owner of a directory all permissions; leave a symlink or another user's alone."""
    with suppress(OSError):
        status = directory.lstat()
        if stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_IRWXU != stat.S_IRWXU:
            os.close(_open_writable(directory))


@dataclass
class _Level:
    """A directory that is being emptied: its descriptor, its name, and what is left to do in it."""

    descriptor: int
    name: str
    names: list[str]
    noted_before: int
    attempts: int = 1


class _Removal:
    """One removal: a stack of open directories, and what could not be removed."""

    def __init__(self, tree: Path) -> None:
        self._tree = tree
        self._levels: list[_Level] = []
        self._noted = 0
        self._lifted = 0
        self._device = 0
        self.left: list[str] = []

    def run(self) -> None:
        """Remove the tree; raise OSError if the directory that it is in cannot be opened."""
        try:
            parent = _open_writable(self._tree.parent)
        except FileNotFoundError:
            return
        try:
            self._device = os.fstat(parent).st_dev
            self._remove(self._tree.name, parent)
            while self._levels:
                level = self._levels[-1]
                if level.names:
                    self._remove(level.names.pop(), level.descriptor)
                else:
                    self._leave(parent)
        finally:
            for level in self._levels:
                os.close(level.descriptor)
            os.close(parent)

    def note(self, names: list[str], error: OSError) -> None:
        """Note that something could not be removed; what is gone already was not."""
        if error.errno == errno.ENOENT:
            return
        self._noted += 1
        if self._noted <= _MOST_NAMED:
            path = str(self._tree.joinpath(*names))
            cut = path if len(path) <= _LONGEST_NAME else f"{path[:_LONGEST_NAME]}..."
            self.left.append(f"{cut}: {local_reason(error)}")

    def _remove(self, name: str, parent: int) -> None:
        """Remove one entry, or begin to empty it where it is a directory."""
        try:
            status = os.lstat(name, dir_fd=parent)
            if not stat.S_ISDIR(status.st_mode):
                os.unlink(name, dir_fd=parent)
            elif status.st_dev != self._device:
                raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))  # something is mounted there
            elif len(self._levels) >= _DEEPEST:
                self._lift(name, parent)
            else:
                self._enter(name, parent)
        except OSError as error:
            self.note(self._names(name), error)

    def _enter(self, name: str, parent: int) -> None:
        descriptor = _open_writable(name, parent)
        try:
            names = os.listdir(descriptor)
        except OSError:
            os.close(descriptor)
            raise
        self._levels.append(_Level(descriptor, name, names, self._noted))

    def _lift(self, name: str, parent: int) -> None:
        """Move a directory that is too deep to the top of the tree, to be emptied there."""
        os.close(_open_writable(name, parent))  # its parent is an entry of it, which changes
        top = self._levels[0]
        self._lifted += 1
        lifted = f".cpstage-lifted-{os.urandom(4).hex()}-{self._lifted}"
        os.rename(name, lifted, src_dir_fd=parent, dst_dir_fd=top.descriptor)
        top.names.append(lifted)

    def _leave(self, parent: int) -> None:
        """Remove a directory that was emptied; empty it again where something was added since."""
        level = self._levels[-1]
        above = self._levels[-2].descriptor if len(self._levels) > 1 else parent
        try:
            os.rmdir(level.name, dir_fd=above)
        except OSError as error:
            if self._noted == level.noted_before:  # else there is a known reason
                if error.errno in _NOT_EMPTY and level.attempts < _MOST_ATTEMPTS:
                    level.attempts += 1
                    level.names = os.listdir(level.descriptor)
                    return
                self.note(self._names(level.name)[:-1], error)
        os.close(self._levels.pop().descriptor)

    def _names(self, name: str) -> list[str]:
        """Return the names that lead from the tree to an entry of the innermost directory."""
        return [level.name for level in self._levels[1:]] + ([name] if self._levels else [])


def _open_writable(path: Path | str, parent: int | None = None) -> int:
    """Open a directory, and give its owner all permissions; raise OSError if it stays closed."""
    try:
        descriptor = os.open(path, DIRECTORY, dir_fd=parent)
    except PermissionError:
        _open_up(path, parent)
        descriptor = os.open(path, DIRECTORY, dir_fd=parent)
    mode = os.fstat(descriptor).st_mode
    if mode & stat.S_IRWXU != stat.S_IRWXU:
        with suppress(OSError):  # it is another owner's
            os.fchmod(descriptor, stat.S_IMODE(mode) | stat.S_IRWXU)
    return descriptor


def _open_up(path: Path | str, parent: int | None) -> None:
    """Give the owner of an unreadable directory all permissions; raise OSError for a symlink."""
    if os.chmod in os.supports_follow_symlinks:
        os.chmod(path, stat.S_IRWXU, dir_fd=parent, follow_symlinks=False)
        return
    # Linux: a descriptor that needs no permission of the directory itself (open(2), O_PATH).
    descriptor = os.open(path, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC, dir_fd=parent)
    try:
        Path(f"/proc/self/fd/{descriptor}").chmod(stat.S_IRWXU)
    finally:
        os.close(descriptor)
