"""What goes into an archive: a list that is cut into units of work, and the pool that packs them.

A unit is a batch of small files, or a part of a large file. How the list is cut depends on the list
alone, and so does every byte of an archive: the number of threads or processes, and which of them
packs which unit, make no difference. The results come in the order of the list.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Generic, TypeVar

from cpstage._deflate import deflated_piece, inflater
from cpstage.archive.options import (
    MOST_DEPTH,
    RATIO_FREE,
    ZIP_RECORD_BYTES,
    ZIP_RECORD_ROOM,
    Limits,
)
from cpstage.archive.workers import Processes, in_order, is_worth_forking
from cpstage.filesystem.walk import Entry

UNIT_SIZE = 1 << 20
"""Bytes of the files of a batch, at most, and of a part of a larger file."""

AHEAD = 3
"""Units that may be done or under way besides one for each thread. More are no faster, since
the consumer has buffers too."""

_ENTRY = 4 << 10
"""An entry without data takes about as long as these many bytes."""

_MANY = 50_000
"""Entries of a list whose memory counts: those that follow are kept deflated, in a fifth of it."""


@dataclass(frozen=True, eq=False)
class Batch:
    """Small entries that are worked on together, in the order of the list.

    Attributes:
        packed: The entries, as plain tuples, pickled.
        size: How many bytes their files have together.
        count: How many there are.
        is_deflated: Whether ``packed`` was deflated.
    """

    packed: bytes
    size: int
    count: int
    is_deflated: bool = False

    @property
    def entries(self) -> list[Entry]:
        """The entries."""
        pickled = inflater().decompress(self.packed) if self.is_deflated else self.packed
        return [*map(Entry._make, pickle.loads(pickled))]  # noqa: S301 (our own bytes)


@dataclass(frozen=True)
class FilePart:
    """A part of a large file.

    Attributes:
        entry: The file.
        offset: Where in it the part begins.
        size: How many bytes it has.
    """

    entry: Entry
    offset: int
    size: int

    @property
    def is_first(self) -> bool:
        """Whether the file begins with it."""
        return self.offset == 0

    @property
    def is_last(self) -> bool:
        """Whether the file ends with it."""
        return self.offset + self.size == self.entry.size


Begin = Callable[[Batch], object]
"""Begins to pack a batch while more is still being listed."""


class PackingList:
    """What goes into an archive.

    Most of it is kept as the bytes that a child process is given: as objects, 100,000 entries would
    take 45 MB, and be copied into each child as they are looked at.

    Args:
        entries: All entries, in their order.
        begin: Is given each batch as soon as it is full.

    Attributes:
        files: How many files there are.
        directories: How many directories.
        size: How many bytes the files have together.
        depth: Components of the longest path, counted by its slashes.
        name_size: Characters of all paths together.
        mtimes: The oldest and the newest mtime, in nanoseconds since the epoch.
        notes: What was left out, or differs from the directory.
    """

    def __init__(self, entries: Iterable[Entry], begin: Begin = lambda _: None) -> None:
        self.files = self.directories = self.size = self._count = 0
        self.depth = self.name_size = 0
        self.mtimes: tuple[int, ...] = ()
        self.notes: list[str] = []
        self._cut: list[Batch | Entry] = []
        batch: list[Entry] = []
        size = 0
        for entry in entries:
            if batch and size + entry.size + len(batch) * _ENTRY > UNIT_SIZE:
                full = self._batch(batch, size)
                self._cut.append(full)
                begin(full)
                batch, size = [], 0
            if entry.size > UNIT_SIZE:
                self._note([entry], entry.size)
                self._cut.append(entry)
            else:
                batch.append(entry)
                size += entry.size
        if batch:
            self._cut.append(self._batch(batch, size))

    def _batch(self, entries: Sequence[Entry], size: int) -> Batch:
        self._note(entries, size)
        # Plain tuples: named ones take three times as long.
        pickled = pickle.dumps([*map(tuple, entries)])
        if self._count <= _MANY:
            return Batch(pickled, size, len(entries))
        return Batch(deflated_piece(pickled, 1, last=True), size, len(entries), is_deflated=True)

    def _note(self, entries: Sequence[Entry], size: int) -> None:
        self._count += len(entries)
        self.size += size
        kinds = [entry.kind for entry in entries]
        self.files += kinds.count("file")
        self.directories += kinds.count("directory")
        self.name_size += sum([len(entry.path) for entry in entries])
        mtimes = [*self.mtimes, *[entry.mtime_ns for entry in entries]]
        self.mtimes = (min(mtimes), max(mtimes))
        self.depth = max(self.depth, *[1 + entry.path.count("/") for entry in entries])

    def units(self) -> Iterator[Batch | FilePart]:
        """Return the whole list as units, in its order."""
        for one in self._cut:
            if isinstance(one, Batch):
                yield one
            else:
                yield from _parts(one)

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Entry]:
        for one in self._cut:
            if isinstance(one, Batch):
                yield from one.entries
            else:
                yield one


_DEFAULTS = Limits()


def limit_notes(entries: PackingList, archive_format: str) -> list[str]:
    """Return why ``fetch`` would refuse an archive under its default limits, a line each.

    Args:
        entries: What goes into the archive.
        archive_format: Its format; a raw file has no limits.
    """
    headers = entries.name_size + len(entries) * (ZIP_RECORD_BYTES - ZIP_RECORD_ROOM)
    found = [
        ("size", entries.size, _DEFAULTS.size, "bytes"),
        ("entries", len(entries), _DEFAULTS.entries, "entries"),
        ("depth", entries.depth, _DEFAULTS.depth, "components in a path"),
        ("header", headers if archive_format == "zip" else 0, _DEFAULTS.header, "bytes of names"),
    ]
    if archive_format == "raw":
        return []
    return [_limit_note(name, value, unit) for name, value, limit, unit in found if value > limit]


def ratio_note(unpacked: int, packed: int) -> list[str]:
    """Return why ``fetch`` would refuse an archive for its ratio, in a list of one line or none."""
    if unpacked <= max(RATIO_FREE, packed * _DEFAULTS.ratio):
        return []
    return [_limit_note("ratio", -(-unpacked // packed), "extracted bytes per compressed byte")]


def _limit_note(name: str, value: int, unit: str) -> str:
    if name == "depth" and value > MOST_DEPTH:
        return f"fetch refuses this archive ({value:,} {unit}): it takes {MOST_DEPTH} at most"
    return (
        f"fetch refuses this archive under its default limits ({value:,} {unit}): "
        f"fetch it with --max-{name} {value}"
    )


def _parts(entry: Entry) -> Iterator[FilePart]:
    for offset in range(0, entry.size, UNIT_SIZE):
        yield FilePart(entry, offset, min(UNIT_SIZE, entry.size - offset))


_MOST_EARLY = 32
"""Batches that may be packed before the list is complete; each has 1 MiB of files at most."""

Packed = TypeVar("Packed")


class PackingPool(Generic[Packed]):
    """Packs the units of lists; of one that is not complete yet, the first batches.

    It is a context, which ends with no process at work.

    Args:
        pack: Reads and packs a unit; what it changes in memory may not be seen here.
        count: How many threads or processes.
    """

    def __init__(self, pack: Callable[[Batch | FilePart], Packed], count: int) -> None:
        self._pack = pack
        self._count = count
        self._listed = 0
        self._stack = ExitStack()
        self._processes: Processes | None = None
        self._begun: dict[Batch, int] = {}

    def __enter__(self) -> PackingPool[Packed]:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def begin(self, batch: Batch) -> None:
        """Take a batch of a list that is not complete yet, and pack it, once there are many files.

        To list them takes one processor; this gives the others something to do.

        Raises:
            LocalIOError: A process was killed.
        """
        self._listed += batch.count
        processes = self._expect(self._listed)
        if processes and len(self._begun) < _MOST_EARLY:
            self._begun[batch] = processes.send(pickle.dumps(batch))

    def packed(self, entries: PackingList) -> Generator[Packed, None, None]:
        """Pack all units of a list, and yield the result of each, in their order.

        Raises:
            LocalIOError: A file cannot be read, or changed since it was listed.
        """
        processes = self._expect(len(entries))
        if processes:
            return self._by_processes(entries.units(), processes)
        return in_order(self._pack, entries.units(), threads=self._count, ahead=self._count + AHEAD)

    def _by_processes(
        self, units: Iterable[Batch | FilePart], processes: Processes
    ) -> Generator[Packed, None, None]:
        def sent(unit: Batch | FilePart) -> int:
            begun = self._begun.pop(unit, None) if isinstance(unit, Batch) else None
            return processes.send(pickle.dumps(unit)) if begun is None else begun

        for packed in processes.in_order(map(sent, units)):
            yield pickle.loads(packed)  # noqa: S301 (our own child's)

    def _expect(self, entries: int) -> Processes | None:
        """Return the processes, which are started once they are worth it for so many entries."""
        if self._processes is None and is_worth_forking(entries):
            self._processes = self._stack.enter_context(Processes(self._work, self._count))
        return self._processes

    def _work(self, note: bytes, _: bytes | memoryview) -> bytes:
        return pickle.dumps(self._pack(pickle.loads(note)))  # noqa: S301 (our own parent's)
