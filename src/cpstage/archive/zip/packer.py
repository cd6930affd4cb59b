"""Reading and deflating what goes into a zip, by processes where there are many files.

What comes of a portion depends on it alone. Where in the archive that will be is not known here.
"""

from __future__ import annotations

import pickle
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from typing import NamedTuple, TypeAlias

from cpstage.archive.compression import deflated, deflated_piece
from cpstage.archive.flow.forked import Work, forked, is_worth_forking
from cpstage.archive.portions import AHEAD, Block, Group
from cpstage.archive.zip.fields import DEFLATED, STORED
from cpstage.archive.zip.headers import record, small_headers
from cpstage.deflate import crc32
from cpstage.walk import Entry, read

_MOST_EARLY = 24 << 20
"""Bytes that may be packed, and kept, before the list is complete and anybody takes them."""


class PackedGroup(NamedTuple):
    """Small entries.

    Attributes:
        entries: How many.
        data: Their local headers and data.
        directory: Their directory headers, with offsets from the start of the group.
    """

    entries: int
    data: bytes
    directory: bytes


class PackedBlock(NamedTuple):
    """A part of a large file, and the CRC-32 of what it was."""

    data: bytes
    crc: int


Packed: TypeAlias = "PackedGroup | PackedBlock"


class ZipPacker:
    """Reads and deflates portions, by child processes where there are many files.

    With 20,000 files on two processors, two threads took no less time than one.

    Args:
        level: How hard to deflate, from 0 (not at all) to 9.
        count: How many processes.
    """

    def __init__(self, level: int, count: int) -> None:
        self._level = level
        self._count = count
        self._processes = ExitStack()
        self._do: Work | None = None
        self._threads = ThreadPoolExecutor(count, thread_name_prefix="cpstage-early")
        self._entries = self._early = 0
        self._begun: dict[Group, Future[Packed]] = {}
        self._under_way: deque[Future[Packed]] = deque()

    def __enter__(self) -> ZipPacker:
        return self

    def __exit__(self, *_: object) -> None:
        self._threads.shutdown(cancel_futures=True)
        self._processes.close()

    def begin(self, group: Group) -> None:
        """Pack a group of a list that is not complete yet, once there are many files.

        To list them takes one processor; this gives the others something to do.
        """
        self._entries += group.count
        self.expect(self._entries)
        if self._do is None:
            return
        while self._under_way and self._under_way[0].done():
            self._early += len(self._under_way.popleft().result().data)
        if len(self._under_way) < self._count + AHEAD and self._early < _MOST_EARLY:
            begun = self._begun[group] = self._threads.submit(self._pack, group)
            self._under_way.append(begun)

    def expect(self, entries: int) -> None:
        """Start the processes, if they are worth it for so many entries."""
        if self._do is None and is_worth_forking(entries):
            self._do = self._processes.enter_context(forked(self._pack_as_child, self._count))

    def __call__(self, portion: Group | Block) -> Packed:
        """Pack a portion, or wait until it is packed.

        Raises:
            LocalIOError: A file cannot be read, or changed since it was listed.
        """
        begun = self._begun.pop(portion, None) if isinstance(portion, Group) else None
        return begun.result() if begun else self._pack(portion)

    def _pack(self, portion: Group | Block) -> Packed:
        if self._do is None:
            return _packed(portion, self._level)
        packed: Packed = pickle.loads(self._do(pickle.dumps(portion), b""))  # noqa: S301 (our own child's)
        return packed

    def _pack_as_child(self, note: bytes, _: bytes | memoryview) -> bytes:
        return pickle.dumps(_packed(pickle.loads(note), self._level))  # noqa: S301 (our own parent's)


def _packed(portion: Group | Block, level: int) -> Packed:
    if isinstance(portion, Group):
        return _packed_group(portion, level)
    data = read(portion.entry, portion.offset, portion.size)
    packed = deflated_piece(data, level, last=portion.is_last)
    return PackedBlock(packed, crc32(data))


def _packed_group(group: Group, level: int) -> PackedGroup:
    pieces: list[bytes] = []
    directory = []
    offset = 0
    for entry in group.entries:
        data = _content(entry)
        packed = deflated(data, level) if entry.kind == "file" else None
        method, body = (STORED, data) if packed is None else (DEFLATED, packed)
        described = record(entry, method, crc32(data), len(body), len(data))
        local, header = small_headers(described, offset)
        pieces += (local, body)
        directory.append(header)
        offset += len(local) + len(body)
    return PackedGroup(len(directory), b"".join(pieces), b"".join(directory))


def _content(entry: Entry) -> bytes:
    return read(entry, 0, entry.size) if entry.kind == "file" else entry.target.encode()
