"""Reading tar and tar.gz (POSIX.1-2017 ustar and pax, GNU extensions; RFC 1952).

``tarfile`` parses the headers. Left alone it takes a damaged header for the end of the archive,
and never looks at the gzip trailer; both are mended here. Members come in the order of the
stream, and each has to be read before the next.
"""

from __future__ import annotations

import gzip
import tarfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, cast

from cpstage.archive.limits import HEADER_BYTES
from cpstage.archive.member import CHUNK, Member, MemberKind
from cpstage.archive.names import refused
from cpstage.errors import ArtifactRejected

if TYPE_CHECKING:
    from typing_extensions import Self

_KINDS: dict[bytes, MemberKind] = {
    tarfile.REGTYPE: "file",
    tarfile.AREGTYPE: "file",
    tarfile.CONTTYPE: "file",
    tarfile.GNUTYPE_SPARSE: "file",
    tarfile.DIRTYPE: "directory",
    tarfile.SYMTYPE: "link",
    tarfile.LNKTYPE: "hard link",
}
_EXTENSIONS = {
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
}
_HeaderError = tarfile.HeaderError
_EndOfArchive: type[Exception] = tarfile.EOFHeaderError  # type: ignore[attr-defined] # no stub
_DECODER_ERRORS = (
    tarfile.TarError,
    gzip.BadGzipFile,
    zlib.error,
    EOFError,
    OverflowError,
    UnicodeError,
    ValueError,
)


class _StrictTarInfo(tarfile.TarInfo):
    """A header that is whole, or an error; the parser's own reaction is to stop quietly."""

    @classmethod
    def fromtarfile(cls, tarfile: tarfile.TarFile) -> Self:
        try:
            return super().fromtarfile(tarfile)
        except _EndOfArchive:
            raise
        except _HeaderError as error:
            raise ArtifactRejected(f"the archive is damaged or cut off: {error}") from error

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        info = super().frombuf(buf, encoding, errors)
        if info.type in _EXTENSIONS and info.size > HEADER_BYTES:
            raise ArtifactRejected(
                f"the archive has an extended header of {info.size:,} bytes",
                hint=f"at most {HEADER_BYTES:,} are allowed; nothing of it was staged",
            )
        return info


@contextmanager
def tar_members(
    file: IO[bytes], *, compressed: bool, drained: Callable[[int], object]
) -> Iterator[Iterator[Member]]:
    """Open a tar archive, and read it to its end: the trailer of gzip comes after the last member.

    Args:
        file: The archive.
        compressed: Whether it is tar.gz.
        drained: Is told how many bytes came after the last member.

    Raises:
        ArtifactRejected: It is no tar or is damaged or cut off, or a member is no file,
            directory or link.
    """
    stream = cast("IO[bytes]", gzip.GzipFile(fileobj=file)) if compressed else file
    with _decoding():
        archive = tarfile.TarFile(
            fileobj=stream, tarinfo=_StrictTarInfo, encoding="utf-8", errors="surrogateescape"
        )
    with archive:
        yield _members(archive)
        with _decoding():
            while chunk := stream.read(CHUNK):
                drained(len(chunk))
                if any(chunk):
                    raise ArtifactRejected("there is data after the end of the archive")


def _members(archive: tarfile.TarFile) -> Iterator[Member]:
    if archive.firstmember is None:  # type: ignore[attr-defined] # no stub
        return  # Python 3.10 would seek to -1 for the member after none
    while True:
        with _decoding():
            info = archive.next()
        if info is None:
            return
        # The parser keeps every header it has seen; a stream of 200,000 needs none of them.
        archive.members.clear()  # type: ignore[attr-defined] # no stub
        if info.type not in _KINDS:
            raise refused(info.name, f"is of the unsupported type {info.type!r}")
        yield _member(archive, info)


def _member(archive: tarfile.TarFile, info: tarfile.TarInfo) -> Member:
    kind = _KINDS[info.type]
    return Member(
        name=info.name,
        kind=kind,
        chunks=lambda: _data(archive, info),
        size=info.size,
        executable=bool(info.mode & 0o100),
        target=info.linkname if kind == "hard link" else "",
    )


def _data(archive: tarfile.TarFile, info: tarfile.TarInfo) -> Iterator[bytes]:
    if info.issym():
        yield info.linkname.encode("utf-8", "surrogateescape")
        return
    with _decoding():
        file = archive.extractfile(info)
        while file is not None and (chunk := file.read(CHUNK)):
            yield chunk


@contextmanager
def _decoding() -> Iterator[None]:
    try:
        yield
    except _DECODER_ERRORS as error:
        raise ArtifactRejected(f"the archive is damaged or cut off: {error}") from error
