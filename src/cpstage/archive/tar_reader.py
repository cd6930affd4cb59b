"""Reading tar and tar.gz: the members of a stream, in its order (POSIX.1-2017, pax; GNU tar).

A damaged header never counts as the end of the archive: that is a block of zeros, and nothing
but zeros after it. Where readers of tar understand an archive differently it is refused: data of
links and directories, names that are given twice, and bytes behind the end of a name. What may be
written, and where, is not decided here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import IO

from cpstage._deflate import Damaged, Forward, inflated
from cpstage.archive.members import CHUNK, Member, MemberKind, text_of
from cpstage.archive.options import Budget
from cpstage.archive.paths import refused
from cpstage.archive.tar_headers import (
    BLOCK,
    EXTENDED,
    GNU,
    RECORD_BYTES,
    SKIPPED,
    SPARSE,
    SPARSE_NAME,
    PaxRecord,
    Sparse,
    TarHeader,
    count_members,
    decimal,
    has_checksum,
    is_about_holes,
    mode_of_field,
    mtime_of_field,
    mtime_of_record,
    number,
    read_header,
    read_records,
    sparse_of_header,
    sparse_of_records,
    text,
    with_map,
)
from cpstage.archive.workers import ahead
from cpstage.errors import ArtifactRejected

_READ = 256 << 10
_AHEAD = 2
"""Blocks of inflated data that may wait."""

_ZEROS = bytes(BLOCK)

_BLANKS = b"\0\t\n\r "

_FREE_RECORDS, _RECORDS_PER_MEMBER = 250_000, 32
"""Records of pax headers, and pieces of sparse files, that an archive may have: reading one takes
about 2 µs."""

_COUNTED_FROM, _WINDOW = 10_000, 32 << 20
"""After so many members, those in so many bytes are counted before the next one is extracted: an
archive over the limit of entries is refused before most of its files have been written."""

_KINDS: dict[bytes, MemberKind] = {
    b"0": "file",
    b"\0": "file",
    b"7": "file",
    SPARSE: "file",
    b"5": "directory",
    b"2": "link",
    b"1": "hard link",
    b"D": "directory",
}
_WITH_LISTS = (b"D", b"V", b"A")
"""Types whose data are not a file, such as the names in a directory of an incremental backup."""

_LONG_NAME, _LONG_LINK, _PAX, _GLOBAL_PAX = b"L", b"K", b"x", b"g"
_MAY_PRECEDE = {_LONG_NAME: _LONG_LINK, _LONG_LINK: _LONG_NAME}
"""Which extended header may stand before another for the same member; all others are alone."""

_UNSUPPORTED = {
    b"3": "a character device",
    b"4": "a block device",
    b"6": "a fifo",
    b"M": "a part of an archive in several volumes",
    b"N": "a list of long names",
}
_PATH, _LINK_PATH, _SIZE, _MTIME = b"path", b"linkpath", b"size", b"mtime"
_ONLY_MTIME = re.compile(rb"([1-9]\d?) mtime=([0-9.]+)\n")
_VOLUME_OFFSET = b"GNU.volume.offset"


@contextmanager
def tar_members(
    file: IO[bytes],
    *,
    compressed: bool,
    budget: Budget,
    note: Callable[[str], object] = lambda _: None,
    is_tolerant: bool = False,
) -> Iterator[Iterator[Member]]:
    """Open a tar archive. It is verified to its end after its last member.

    Args:
        file: The archive; it is read forwards only.
        compressed: Whether it is tar.gz.
        budget: Counts headers, data that is passed over, and what follows the last member. The
            caller counts members and their data.
        note: Is called with a line about each unusual thing that is accepted.
        is_tolerant: Whether a member that cannot be unpacked, such as a device, gets a ``fault``
            instead of an error.

    Raises:
        ArtifactRejected: It is not a tar, is damaged or cut off, or a member is not a file,
            directory or link.
    """
    blocks = iter(partial(file.read, _READ), b"")
    if not compressed:
        yield _TarReader(blocks, budget, note, is_tolerant).members()
        return
    with ahead(inflated(Forward(blocks)), _AHEAD) as uncompressed:
        yield _TarReader(uncompressed, budget, note, is_tolerant).members()


class _TarReader:
    """The members of a tar stream; see :func:`tar_members`."""

    def __init__(
        self,
        blocks: Iterator[bytes],
        budget: Budget,
        note: Callable[[str], object],
        is_tolerant: bool,
    ) -> None:
        self._stream = Forward(self._checked(blocks))
        self._budget = budget
        self._drained = budget.spend_bytes
        self._note = note
        self._is_tolerant = is_tolerant
        self._counted = _COUNTED_FROM
        self._members = self._records = 0
        self._name: str | None = None
        self._mtime: int | None = None
        self._left = self._map_length = 0
        self._extended: list[bytes] = []
        self._overrides: dict[bytes, bytes] = {}

    def members(self) -> Iterator[Member]:
        """Read member by member; what is left of the data of one is passed over."""
        is_due = False
        try:
            while block := self._stream.read(BLOCK):
                if block == _ZEROS:
                    break
                header = read_header(block)
                is_due = header.kind in EXTENDED
                if is_due:
                    self._extend(header)
                    continue
                self._members += 1
                member, padding = self._described(header, block)
                if header.kind not in SKIPPED:
                    yield member
                if self._left:
                    self._drained(sum(map(len, self._pieces(self._left))))
                if len(self._stream.read(padding)) < padding:
                    raise Damaged("it is cut off")
                if self._members >= self._counted:
                    self._count_ahead()
            # git writes a global header before an empty tree too, and then the end.
            if self._extended or (is_due and not block):
                raise Damaged("an extended header is not followed by a member")
        except Damaged as error:
            raise self._damaged(error) from error
        if block:
            self._drain()
        else:
            self._note("the tar has no end-of-archive blocks; its writer may have been left open")

    def _count_ahead(self) -> None:
        """Count members that follow, before they are extracted."""
        following = count_members(self._stream.window(_WINDOW))
        self._budget.expect_entries(following)
        self._counted = self._members + max(following, _COUNTED_FROM)

    def _drain(self) -> None:
        """Read what follows the first block of zeros, to the end of the stream."""
        stream = self._stream
        second = stream.read(BLOCK)
        rest = stream.read(-stream.position % RECORD_BYTES) if second == _ZEROS else b""
        # The second block of old versions of plexus-archiver ends with a newline.
        garbage = second.strip(_BLANKS) or any(
            has_checksum(rest[at : at + BLOCK]) for at in range(0, len(rest) - BLOCK + 1, BLOCK)
        )
        has_more = bool((second + rest).strip(b"\0"))
        self._drained(len(second) + len(rest))
        while not garbage and (piece := stream.some(CHUNK)):
            self._drained(len(piece))
            garbage = piece.strip(_BLANKS)
            has_more = has_more or bool(piece.strip(b"\0"))
        if garbage:
            raise ArtifactRejected("there is data after the end of the archive")
        if has_more:
            self._note("bytes after the end of the tar were ignored")

    def _extend(self, header: TarHeader) -> None:
        """Read an extended header, which says more of the member after it, or of all."""
        size = number(header.size, "size of an extended header")
        for before in self._extended:
            if before != _MAY_PRECEDE.get(header.kind):
                raise Damaged(f"an extended header of type {header.kind!r} follows {before!r}")
        self._budget.check_header(size)
        if header.kind == _PAX and size <= BLOCK and self._extend_by_mtime(size):
            return
        self._left = size
        body = b"".join(self._pieces(size))
        padding = self._stream.read(-size % BLOCK)
        if len(padding) < -size % BLOCK:
            raise Damaged("it is cut off")
        self._drained(BLOCK + size + len(padding))
        if header.kind in _MAY_PRECEDE:
            if b"\0" not in (body[-1:], padding[:1]):
                # GNU tar would read on, to the next zero.
                raise Damaged("a long name has no end")
            self._overrides[_PATH if header.kind == _LONG_NAME else _LINK_PATH] = text(body)
            self._extended.append(header.kind)
            return
        records = read_records(body)
        self._spend_records(len(records))
        if header.kind == _GLOBAL_PAX:
            _check_global(records)
            self._mtime = mtime_of_record(dict(records).get(_MTIME, b""))
        else:
            self._overrides.update(with_map(records))
            self._extended.append(header.kind)

    def _extend_by_mtime(self, size: int) -> bool:
        """Read a pax header if it has an mtime only, as most of those of small files."""
        block = self._stream.glance(BLOCK)
        found = _ONLY_MTIME.fullmatch(block, 0, size)
        if not found or int(found[1]) != size or len(block) < BLOCK:
            return False
        self._stream.read(BLOCK)
        self._drained(2 * BLOCK)
        self._spend_records(1)
        self._overrides[_MTIME] = found[2]
        self._extended.append(_PAX)
        return True

    def _spend_records(self, count: int) -> None:
        """Count records of pax headers and pieces of sparse files, which cost time and no space."""
        self._records += count
        if self._records > _FREE_RECORDS + _RECORDS_PER_MEMBER * self._members:
            what = "records in pax headers and sparse files"
            raise Damaged(f"it has over {_FREE_RECORDS:,} {what}")

    def _described(self, header: TarHeader, block: bytes) -> tuple[Member, int]:
        """Return the member that a header begins; a refused one as a file, where tolerated."""
        overrides, self._overrides, self._extended = self._overrides, {}, []
        try:
            return self._member(header, block, overrides)
        except ArtifactRejected as error:
            if not self._is_tolerant:
                raise
            name = text_of(overrides.get(_PATH, header.path))
            size = number(header.size, "size")
            if _SIZE in overrides:
                size = decimal(overrides[_SIZE], "size")
            self._left = size
            return Member(name, "file", self._data, size, fault=error.message), -size % BLOCK

    def _member(
        self, header: TarHeader, block: bytes, overrides: dict[bytes, bytes]
    ) -> tuple[Member, int]:
        """Return the member that a header begins, and how much padding follows its data."""
        path = overrides.get(SPARSE_NAME, overrides.get(_PATH))
        self._name = name = text_of(header.path if path is None else path)
        kind = _kind(header, name)
        # Like GNU tar and bsdtar, ignore the size of what has no data.
        has_list = header.kind in _WITH_LISTS
        is_sizeless = kind == "hard link" or (kind == "directory" and not has_list)
        stored = number(header.size, "size")
        if is_sizeless:
            stored = 0
        elif _SIZE in overrides:
            stored = decimal(overrides[_SIZE], "size")
        self._left, padding = stored, -stored % BLOCK
        mode = mode_of_field(header.mode)
        mtime = mtime_of_record(overrides[_MTIME]) if _MTIME in overrides else self._mtime
        if mtime is None:
            mtime = mtime_of_field(header.mtime)
        has_map = header.kind == SPARSE or any(map(is_about_holes, overrides))
        if kind == "file":
            if not has_map:
                return Member(name, kind, self._data, stored, mode, mtime), padding
            holes = self._sparse(header, block, overrides)
            content = partial(holes.content, self._pieces)
            return Member(name, kind, content, holes.size, mode, mtime), padding
        if (stored and not has_list) or has_map:
            raise refused(name, f"is a {kind} with data")
        leads = kind != "directory"
        target = text_of(overrides.get(_LINK_PATH, text(header.link))) if leads else ""
        return Member(name, kind, self._data, 0, mode, mtime, target), padding

    def _sparse(self, header: TarHeader, block: bytes, overrides: dict[bytes, bytes]) -> Sparse:
        """Read the map of a sparse file, which counts as a header."""
        self._map_length = 0
        if header.kind != SPARSE:
            found = sparse_of_records(overrides, self._map_in_data)
        elif any(map(is_about_holes, overrides)):
            raise Damaged("a sparse file has two maps")
        else:
            found = sparse_of_header(block, self._map_block)
        self._spend_records(len(found.extents))
        found.check(self._left)
        return found

    def _map_block(self) -> bytes:
        self._map_length += BLOCK
        self._budget.check_header(self._map_length)
        block = self._stream.read(BLOCK)
        if len(block) < BLOCK:
            raise Damaged("it is cut off")
        self._drained(BLOCK)
        return block

    def _map_in_data(self) -> bytes:
        if self._left < BLOCK:
            raise Damaged("the map of a sparse file is longer than its data")
        self._left -= BLOCK
        return self._map_block()

    def _data(self) -> Iterable[bytes]:
        if self._left > CHUNK:
            return self._pieces(self._left)
        data = self._stream.read(self._left)  # a generator for each small file would be a tenth
        if len(data) < self._left:
            raise self._damaged("it is cut off")
        self._left = 0
        return (data,)

    def _pieces(self, count: int) -> Iterator[bytes]:
        """Read data of the current member."""
        while count:
            piece = self._stream.some(min(count, CHUNK))
            if not piece:
                raise self._damaged("it is cut off")
            count -= len(piece)
            self._left -= len(piece)
            yield piece

    def _checked(self, blocks: Iterator[bytes]) -> Iterator[bytes]:
        """Say of damage to what holds the stream where in the archive it is."""
        try:
            yield from blocks
        except Damaged as error:
            raise self._damaged(error) from error

    def _damaged(self, why: object) -> ArtifactRejected:
        where = "" if self._name is None else f" in or after the entry {self._name!r}"
        return ArtifactRejected(f"the archive is damaged{where}: {why}")


def _kind(header: TarHeader, name: str) -> MemberKind:
    """Return what a member is; one whose name ends as a directory's is one (v7 and BSD)."""
    if header.kind in SKIPPED:
        return "directory"
    kind = _KINDS.get(header.kind)
    if kind is None or (header.kind == SPARSE and header.magic != GNU):
        what = _UNSUPPORTED.get(header.kind, "of an unknown type")
        raise refused(name, f"is {what} ({header.kind!r}), which is not supported")
    return "directory" if kind == "file" and name.endswith("/") else kind


def _check_global(records: list[PaxRecord]) -> None:
    """Check that a global header says nothing that the members after it could differ on."""
    for key, _ in records:
        if key in (_PATH, _LINK_PATH, _SIZE, _VOLUME_OFFSET) or is_about_holes(key):
            raise Damaged(f"a global header sets {key!r}")
