"""Reading tar and tar.gz: the members of a stream, in its order (POSIX.1-2017, pax; GNU tar).

A damaged header is never taken for the end of the archive: that is a block of zeros, and nothing
but zeros after it. Where readers of tar understand an archive differently it is refused: data of
links and directories, names that are given twice, and bytes behind the end of a name. What may be
written, and where, is not decided here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import IO

from cpstage.archive.gzip_reader import Damaged, Forward, inflated
from cpstage.archive.members import CHUNK, Member, MemberKind
from cpstage.archive.options import Budget, Limits
from cpstage.archive.paths import refused, text_of
from cpstage.archive.tar_headers import (
    BLOCK,
    GNU,
    SPARSE,
    SPARSE_NAME,
    Header,
    Record,
    Sparse,
    decimal,
    is_about_holes,
    number,
    read_header,
    read_records,
    sparse_of_header,
    sparse_of_records,
    text,
)
from cpstage.archive.workers import ahead
from cpstage.errors import ArtifactRejected

_READ = 256 << 10
_AHEAD = 2
"""Blocks of inflated data that may wait."""

_ZEROS = bytes(BLOCK)
_OWNER_EXECUTES = 0o100

_KINDS: dict[bytes, MemberKind] = {
    b"0": "file",
    b"\0": "file",
    b"7": "file",
    SPARSE: "file",
    b"5": "directory",
    b"2": "link",
    b"1": "hard link",
}
_LONG_NAME, _LONG_LINK, _PAX, _SOLARIS_PAX, _GLOBAL_PAX = b"L", b"K", b"x", b"X", b"g"
_MAY_PRECEDE: dict[bytes, tuple[bytes, ...]] = {
    _LONG_NAME: (_LONG_LINK,),
    _LONG_LINK: (_LONG_NAME,),
    _PAX: (),
    _SOLARIS_PAX: (),
    _GLOBAL_PAX: (),
}
"""The extended headers, and which of them may stand before it for the same member."""

_UNSUPPORTED = {
    b"3": "a character device",
    b"4": "a block device",
    b"6": "a fifo",
    b"D": "a directory of an incremental backup",
    b"M": "a part of an archive in several volumes",
    b"N": "a list of long names",
    b"V": "the label of a volume",
}
_PATH, _LINK_PATH, _SIZE = b"path", b"linkpath", b"size"
_VOLUME_OFFSET = b"GNU.volume.offset"


@contextmanager
def tar_members(
    file: IO[bytes],
    *,
    compressed: bool,
    drained: Callable[[int], object],
    check_header: Callable[[int], object] | None = None,
) -> Iterator[Iterator[Member]]:
    """Open a tar archive; whoever takes the last member has had it read and verified to its end.

    Args:
        file: The archive; it is read forwards only.
        compressed: Whether it is tar.gz.
        drained: Is told of bytes that came out of the stream and are no data of a file: extended
            headers, and what follows the last member.
        check_header: Is asked whether an extended header may be so long, before it is read.

    Raises:
        ArtifactRejected: It is no tar or is damaged or cut off, or a member is no file,
            directory or link.
    """
    check = check_header or Budget(Limits(), packed=0).check_header
    blocks = iter(partial(file.read, _READ), b"")
    if not compressed:
        yield _TarReader(blocks, drained, check).members()
        return
    with ahead(inflated(Forward(blocks)), _AHEAD) as uncompressed:
        yield _TarReader(uncompressed, drained, check).members()


class _TarReader:
    """The members of a tar stream.

    Args:
        blocks: The stream.
        drained: As :func:`tar_members` has it.
        check_header: The same.
    """

    def __init__(
        self,
        blocks: Iterator[bytes],
        drained: Callable[[int], object],
        check_header: Callable[[int], object],
    ) -> None:
        self._stream = Forward(self._checked(blocks))
        self._drained = drained
        self._check_header = check_header
        self._name: str | None = None
        self._left = self._map_length = 0
        self._extended: dict[bytes, dict[bytes, bytes]] = {}

    def members(self) -> Iterator[Member]:
        """Read member by member; what is left of the data of one is passed over."""
        try:
            while (block := self._stream.read(BLOCK)) != _ZEROS:
                header = read_header(block)
                if header.kind in _MAY_PRECEDE:
                    self._extend(header)
                    continue
                member, padding = self._member(header, block)
                yield member
                if self._left:
                    self._drained(sum(map(len, self._pieces(self._left))))
                self._stream.read(padding)
            if self._extended:
                raise Damaged("an extended header is not followed by a member")
        except Damaged as error:
            raise self._damaged(error) from error
        self._drain()

    def _drain(self) -> None:
        """Read what follows the end marker, to the end of the stream."""
        while piece := self._stream.some(CHUNK):
            self._drained(len(piece))
            if piece.strip(b"\0"):
                raise ArtifactRejected("there is data after the end of the archive")

    def _extend(self, header: Header) -> None:
        """Read an extended header, which says more of the member after it, or of all."""
        size = number(header.size, "size of an extended header")
        for before in self._extended:
            if before not in _MAY_PRECEDE[header.kind]:
                raise Damaged(f"an extended header of type {header.kind!r} follows {before!r}")
        self._check_header(size)
        self._left = size
        body = b"".join(self._pieces(size))
        padding = self._stream.read(-size % BLOCK)
        self._drained(BLOCK + size + len(padding))
        if header.kind == _GLOBAL_PAX:
            _check_global(read_records(body))
        elif header.kind in (_PAX, _SOLARIS_PAX):
            self._extended[header.kind] = dict(read_records(body))
        elif b"\0" in (body[-1:], padding[:1]):
            key = _PATH if header.kind == _LONG_NAME else _LINK_PATH
            self._extended[header.kind] = {key: text(body)}
        else:
            # GNU tar would read on, to the next zero.
            raise Damaged("a long name has no end")

    def _member(self, header: Header, block: bytes) -> tuple[Member, int]:
        """Return the member that a header begins, and how much padding follows its data."""
        extended, self._extended = self._extended, {}
        overrides = {key: value for one in extended.values() for key, value in one.items()}
        path = overrides.get(SPARSE_NAME, overrides.get(_PATH))
        self._name = name = text_of(header.path if path is None else path)
        kind = _kind(header, name)
        stored = number(header.size, "size")
        if _SIZE in overrides:
            stored = decimal(overrides[_SIZE], "size")
        self._left, padding = stored, -stored % BLOCK
        executable = bool(number(header.mode, "mode") & _OWNER_EXECUTES)
        has_map = header.kind == SPARSE or any(map(is_about_holes, overrides))
        if kind == "file" and has_map:
            holes = self._sparse(header, block, overrides)
            content = partial(holes.content, self._pieces)
            return Member(name, kind, content, holes.size, executable), padding
        if kind == "file":
            return Member(name, kind, self._data, stored, executable), padding
        if stored or has_map:
            raise refused(name, f"is a {kind} with data")
        leads = kind != "directory"
        target = text_of(overrides.get(_LINK_PATH, text(header.link))) if leads else ""
        return Member(name, kind, self._data, target=target), 0

    def _sparse(self, header: Header, block: bytes, overrides: dict[bytes, bytes]) -> Sparse:
        """Read the map of a sparse file, which counts as a header."""
        self._map_length = 0
        if header.kind != SPARSE:
            found = sparse_of_records(overrides, self._map_in_data)
        elif any(map(is_about_holes, overrides)):
            raise Damaged("a sparse file has two maps")
        else:
            found = sparse_of_header(block, self._map_block)
        found.check(self._left)
        return found

    def _map_block(self) -> bytes:
        self._map_length += BLOCK
        self._check_header(self._map_length)
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

    def _data(self) -> Iterator[bytes]:
        return self._pieces(self._left)

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


def _kind(header: Header, name: str) -> MemberKind:
    """Return what a member is; one whose name ends as a directory's is one (v7 and BSD)."""
    kind = _KINDS.get(header.kind)
    if kind is None or (header.kind == SPARSE and header.magic != GNU):
        what = _UNSUPPORTED.get(header.kind, "of an unknown type")
        raise refused(name, f"is {what} ({header.kind!r}), which is not supported")
    return "directory" if kind == "file" and name.endswith("/") else kind


def _check_global(records: list[Record]) -> None:
    """Check that a global header says nothing that the members after it could differ on."""
    for key, _ in records:
        if key in (_PATH, _LINK_PATH, _SIZE, _VOLUME_OFFSET) or is_about_holes(key):
            raise Damaged(f"a global header sets {key!r}")
