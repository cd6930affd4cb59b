"""Reading zip (PKWARE APPNOTE 6.3.10), on the standard library's decoder.

``zipfile`` parses and inflates; what a member may be is decided here, and what may be written,
in the plan.
"""

from __future__ import annotations

import lzma
import stat
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

from cpstage.archive.member import CHUNK, Member, MemberKind
from cpstage.archive.names import refused
from cpstage.errors import ArtifactRejected

_METHODS = {
    zipfile.ZIP_STORED,
    zipfile.ZIP_DEFLATED,
    zipfile.ZIP_BZIP2,
    zipfile.ZIP_LZMA,
}
_ENCRYPTED = 0x1 | 0x40 | 0x2000
"""General purpose bits 0, 6 and 13: encrypted, strongly, or with a masked directory."""

_UNIX_HOSTS = {3, 19}
"""APPNOTE 4.4.2.2: UNIX and OS X, whose external attributes hold a mode."""

_DECODER_ERRORS = (
    zipfile.BadZipFile,
    lzma.LZMAError,
    zlib.error,
    EOFError,
    NotImplementedError,
    OSError,  # bz2's complaint about damaged data, and a seek to an offset that cannot be
    OverflowError,
    RuntimeError,
    UnicodeError,
    ValueError,
)


@contextmanager
def zip_members(file: IO[bytes]) -> Iterator[list[Member]]:
    """Open a zip archive and list its members in the order of their data.

    Raises:
        ArtifactRejected: It is no zip or is damaged, or a member is encrypted, packed with an
            unknown method, or no file, directory or link.
    """
    with _decoding("the archive"):
        archive = zipfile.ZipFile(file)
    with archive:
        infos = sorted(archive.infolist(), key=lambda info: info.header_offset)
        yield [_member(archive, info) for info in infos]


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Member:
    name = _name(info)
    if info.flag_bits & _ENCRYPTED:
        raise refused(name, "is encrypted, which is not supported")
    if info.compress_type not in _METHODS:
        raise refused(name, f"is unsupported: method {info.compress_type}")
    mode = info.external_attr >> 16 if info.create_system in _UNIX_HOSTS else 0
    return Member(
        name=name,
        kind=_kind(name, mode),
        chunks=lambda: _data(archive, info, name),
        size=info.file_size,
        executable=bool(mode & stat.S_IXUSR),
    )


def _name(info: zipfile.ZipInfo) -> str:
    """Undo the decoder's guess for names without the UTF-8 flag, as Info-ZIP does on POSIX."""
    name = info.orig_filename
    if info.flag_bits & 0x800 or info.create_system not in _UNIX_HOSTS:
        return name
    try:
        return name.encode("cp437").decode()
    except UnicodeError:
        return name


def _kind(name: str, mode: int) -> MemberKind:
    kind = stat.S_IFMT(mode)
    if kind == stat.S_IFLNK:
        return "link"
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise refused(name, "is neither a file, a directory nor a link")
    return "directory" if name.endswith("/") or kind == stat.S_IFDIR else "file"


def _data(archive: zipfile.ZipFile, info: zipfile.ZipInfo, name: str) -> Iterator[bytes]:
    with _decoding(f"the entry {name!r}"), archive.open(info) as file:
        while chunk := file.read(CHUNK):
            yield chunk


@contextmanager
def _decoding(what: str) -> Iterator[None]:
    try:
        yield
    except _DECODER_ERRORS as error:
        raise ArtifactRejected(f"{what} is damaged, or no zip: {error}") from error
