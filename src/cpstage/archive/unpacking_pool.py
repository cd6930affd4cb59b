"""Writing the files of archives in worker processes or threads, and finishing their directories.

An archive of many small files is written by processes: those of a zip get the packed bytes of
neighbours, those of a tar the files as they came out of its stream. Others are written by threads
(zip) or by the caller (tar). All raise :class:`WorkspaceUnavailable` or
:class:`LocalIOError` for a file that cannot be written.
"""

from __future__ import annotations

import pickle
from collections import deque
from collections.abc import Iterable
from itertools import islice
from operator import attrgetter

from cpstage.archive.workers import Processes, in_order, is_worth_forking, thread_count
from cpstage.archive.zip_format import ZipEntry
from cpstage.archive.zip_reader import EntryGroup, unpacked
from cpstage.filesystem.tree import FILE_MODE, RelativePath, Tree
from cpstage.progress import Advance, counted

_FIELDS = attrgetter(*ZipEntry.__slots__)

_SMALL = 64 << 10
"""Bytes of a file of a tar that is sent to a process at most."""

_BATCH_BYTES, _BATCH_FILES = 256 << 10, 256
"""What is sent at once: whichever is reached first."""

_SLICE = 256
"""Directories that a process finishes at once: milliseconds of work."""

_SUM_BYTES = 64
"""Room for a sum of hashes of 32 bytes each."""


Directory = tuple[RelativePath, int, int | None]
"""A directory, and the mode and mtime that it gets when nothing more is created in it."""

_Head = tuple[RelativePath, int, int | None, int]
"""Of a file that is sent to a process: its path, mode and mtime in the archive, and its size."""


class UnpackingPool:
    """Writes files below a tree; when it is closed, nothing is at work.

    Args:
        tree: An empty directory, hidden from others.
        now: The mtime of all files, if they are not to have those of the archive.
    """

    def __init__(self, tree: Tree, now: int | None) -> None:
        self._tree = tree
        self._now = now
        self._count = thread_count()
        self._processes: Processes | None = None
        self._heads: list[_Head] = []
        self._contents: list[bytes] = []
        self._gathered = 0
        self._under_way: deque[int] = deque()

    def close(self) -> None:
        """End the processes."""
        if self._processes:
            self._processes.close()

    def expect(self, files: int) -> None:
        """Start the processes if so many files are worth it: one set for all archives."""
        if self._processes is None and is_worth_forking(files):
            self._processes = Processes(self._work, self._count)

    def time(self, mtime_ns: int | None) -> int | None:
        """Return the mtime that something with an mtime in the archive gets."""
        return mtime_ns if self._now is None else self._now

    def write_groups(self, groups: Iterable[EntryGroup]) -> None:
        """Write entries of a zip; raise ArtifactRejected where the data of one is damaged."""
        written: Iterable[object]
        if self._processes is None:
            count = self._count
            written = in_order(self._write_group, groups, threads=count, ahead=count + 1)
        else:
            send = self._processes.send
            written = self._processes.in_order(send(_note(one), one.data) for one in groups)
        deque(written, 0)

    def write_entry(self, entry: ZipEntry, chunks: Iterable[bytes | memoryview]) -> None:
        """Write a file to its place; the bytes of others are checked alone.

        A directory is made with the first file in it, or when it is finished.
        """
        if entry.kind == "file" and entry.place:
            self.write_file(entry.place, chunks, entry.mode, entry.mtime)
        else:
            deque(chunks, 0)

    def write_file(
        self,
        path: RelativePath,
        chunks: Iterable[bytes | memoryview],
        mode: int,
        mtime_ns: int | None,
    ) -> int:
        """Write a file with the mode and mtime of its archive, and return its size in bytes."""
        mtime = self.time(mtime_ns)
        return self._tree.write_file(path, chunks, mode=mode or FILE_MODE, mtime_ns=mtime)

    def takes_file(self, size: int) -> bool:
        """Whether a file of a tar is one for the processes, by its size in bytes."""
        return self._processes is not None and size <= _SMALL

    def send_file(
        self, path: RelativePath, content: bytes, mode: int, mtime_ns: int | None
    ) -> None:
        """Let a process write a file, which is there after :meth:`settle`."""
        self._heads.append((path, mode, mtime_ns, len(content)))
        self._contents.append(content)
        self._gathered += len(content)
        if self._gathered >= _BATCH_BYTES or len(self._heads) >= _BATCH_FILES:
            self._send_files()

    def settle(self) -> None:
        """Wait until all files are there."""
        if self._processes is None:
            return
        self._send_files()
        while self._under_way:
            self._processes.result(self._under_way.popleft())

    def finish(
        self, directories: list[Directory], *, hashes: bool, advance: Advance | None = None
    ) -> int:
        """Give directories their permission bits and mtimes; return the sum of their hashes."""
        if self._processes is None:
            return self.finish_here(counted(directories, advance), hashes=hashes)
        send = self._processes.send
        # Told as they are sent: what is under way at a time is milliseconds of work.
        left = iter(counted(directories, advance))
        slices = iter(lambda: [*islice(left, _SLICE)], [])
        sent = (send(pickle.dumps(("finish", some, hashes))) for some in slices)
        return sum(int.from_bytes(one, "big") for one in self._processes.in_order(sent))

    def finish_here(self, directories: Iterable[Directory], *, hashes: bool) -> int:
        """Do so one by one, in the order given."""
        finish = self._tree.finish_directory
        return sum(finish(path, mode, time, hashes=hashes) for path, mode, time in directories)

    def _send_files(self) -> None:
        if not (self._processes and self._heads):
            return
        note = pickle.dumps(("files", self._heads))
        self._under_way.append(self._processes.send(note, b"".join(self._contents)))
        self._heads, self._contents, self._gathered = [], [], 0
        if len(self._under_way) >= self._processes.most_ahead:
            self._processes.result(self._under_way.popleft())

    def _work(self, note: bytes, data: memoryview | bytes) -> bytes:
        """Do in a worker process what it was sent."""
        task, *arguments = pickle.loads(note)  # noqa: S301 (our own parent's)
        if task == "finish":
            directories, hashes = arguments
            return self.finish_here(directories, hashes=hashes).to_bytes(_SUM_BYTES, "big")
        (sent,) = arguments
        if task == "files":
            self._write_files(sent, memoryview(data))
        else:
            self._write_group(EntryGroup([ZipEntry(*one) for one in sent], memoryview(data)))
        return b""

    def _write_files(self, heads: Iterable[_Head], data: memoryview) -> None:
        start = 0
        for path, mode, mtime_ns, size in heads:
            self.write_file(path, (data[start : start + size],), mode, mtime_ns)
            start += size

    def _write_group(self, group: EntryGroup) -> None:
        for entry, slot in group.slots():
            self.write_entry(entry, unpacked(entry, slot))


def _note(group: EntryGroup) -> bytes:
    """Return the message by which a worker process writes a group."""
    # Plain tuples are pickled in a third of the time that objects take.
    return pickle.dumps(("write", [*map(_FIELDS, group.entries)]))
