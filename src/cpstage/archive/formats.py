"""The format of an artifact: magic bytes decide, the key's suffix and Content-Type are hints.

Keys of CodePipeline's outputs have no extension, and Content-Type is what an earlier action wrote.
"""

from __future__ import annotations

import zlib
from contextlib import suppress
from typing import Literal

from cpstage.archive.tar_headers import BLOCK, RECORD_BYTES, has_checksum
from cpstage.errors import ArtifactRejected

Format = Literal["zip", "tar", "tar.gz"]

HEAD_BYTES = 4096
"""Bytes of the start that :func:`recognise` needs."""

UNCHANGED_HINT = "check the action that made it, or fetch it unchanged with --no-unpack"
"""For an object that is not what its name or its start says."""

CONTENT_TYPES: dict[Format, str] = {
    "zip": "application/zip",
    "tar": "application/tar",
    "tar.gz": "application/gzip",
}
"""The media types that the CodePipeline plugin for Jenkins writes, and other actions read."""

_FULL_CLONE_KEYS = (b"ConnectionArn", b"FullRepositoryName", b"CommitId")

_OTHER_MAGICS: dict[bytes, str] = {
    b"\xfd7zXZ\0": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"BZh": "bzip2",
    b"\x04\x22\x4d\x18": "lz4",
    b"7z\xbc\xaf\x27\x1c": "7z",
    b"Rar!\x1a\x07": "rar",
    **dict.fromkeys((b"070707", b"070701", b"070702", b"\xc7\x71"), "cpio"),
    b"!<arch>\n": "ar",
    b"\x1f\x9d": "compress (.Z)",
}
"""The first bytes of formats that are not unpacked."""

_SUFFIXES: dict[str, Format] = {".zip": "zip", ".tar": "tar", ".tar.gz": "tar.gz", ".tgz": "tar.gz"}
_HINTING_TYPES: dict[str, Format] = {
    "application/zip": "zip",
    "application/x-zip-compressed": "zip",
    "application/tar": "tar",
    "application/x-tar": "tar",
}


def recognise(head: bytes, *, name: str = "", content_type: str = "") -> Format | None:
    """Return the format of an archive; None for any other file.

    Args:
        head: The first :data:`HEAD_BYTES` of it, or all where there are fewer.
        name: The key or file name.
        content_type: The Content-Type of the object.

    Raises:
        ArtifactRejected: The name or Content-Type announces an archive and the bytes are not one,
            or the bytes begin as gzip and are damaged.
    """
    hint = format_of_name(name) or _HINTING_TYPES.get(content_type.partition(";")[0].strip())
    found = _by_magic(head, is_named=hint in ("tar", "tar.gz"))
    if found is not None:
        return found
    if hint and (inside := _gzip_around(head)):
        raise ArtifactRejected(
            f"{name or 'the artifact'} is gzip around a {inside} archive",
            hint="the uploader left Content-Encoding: gzip on it: upload the archive itself, or "
            "decompress it with gunzip",
        )
    if hint == "zip" and head:
        # Anything may stand before a zip (a self-extractor does): its directory is at the end.
        return "zip"
    if hint == "tar" and _is_empty_tar(head, BLOCK):
        return "tar"
    if hint is not None:
        other = other_format(head)
        kind = "empty" if not head else f"{other}" if other else f"not a {hint} archive"
        raise ArtifactRejected(
            f"{name or 'the artifact'} is {kind}, though its name or Content-Type says {hint}",
            hint=UNCHANGED_HINT,
        )
    return None


def format_of_name(name: str) -> Format | None:
    """Return the format that the suffix of a file name stands for."""
    lowered = name.lower()
    return next((kind for suffix, kind in _SUFFIXES.items() if lowered.endswith(suffix)), None)


def other_format(head: bytes) -> str | None:
    """Return the name of a format that is recognised by its magic bytes and not unpacked."""
    for magic, name in _OTHER_MAGICS.items():
        if head.startswith(magic):
            return name
    if inside := _gzip_around(head):
        return f"gzip-compressed {inside}"
    if head.lstrip().startswith(b"{") and all(key in head for key in _FULL_CLONE_KEYS):
        return "CodePipeline's full-clone JSON"
    return None


def not_unpacked(head: bytes) -> str:
    """Return a note about an object that is kept as a file because of what it is, or nothing."""
    if not head:
        return "the object is empty (zero bytes) and was kept as a file"
    found = other_format(head)
    if found == "CodePipeline's full-clone JSON":
        return (
            "the object is CodePipeline's reference for a full clone and holds no source: choose "
            "the CODE_ZIP output format, or clone the repository that it names"
        )
    if found:
        return (
            f"the object is a {found} file, which cpstage does not unpack, and was kept as a file"
        )
    return ""


def _by_magic(head: bytes, *, is_named: bool) -> Format | None:
    # APPNOTE 4.3.7 and 4.3.16: a local file header, or the EOCD of an empty archive.
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return "zip"
    if _is_tar(head):
        return "tar"
    # RFC 1952, 2.3: the magic, and deflate as the only method there is.
    if head.startswith(b"\x1f\x8b\x08"):
        inflated = _inflate_start(head)
        if _is_tar(inflated) or (
            _is_empty_tar(inflated, BLOCK if is_named else 2 * BLOCK)
            and (is_named or len(inflated) <= RECORD_BYTES)
        ):
            return "tar.gz"
    return None


def _gzip_around(head: bytes) -> Format | None:
    """Return the format of an archive that gzip compressed once too often; None for others.

    A web client undoes ``Content-Encoding: gzip``. What reads the object itself does not.
    """
    if not head.startswith(b"\x1f\x8b\x08"):
        return None
    with suppress(ArtifactRejected):  # of gzip that is damaged
        inside = _by_magic(_inflate_start(head), is_named=False)
        return inside if inside in ("zip", "tar.gz") else None
    return None


def _is_tar(head: bytes) -> bool:
    """Check the checksum of the first header, which v7 tar has too."""
    return len(head) >= BLOCK and has_checksum(head[:BLOCK])


def _is_empty_tar(head: bytes, least: int) -> bool:
    """Whether there are end blocks and nothing else, at least so many bytes."""
    return len(head) >= least and not any(head)


def _inflate_start(head: bytes) -> bytes:
    """Inflate the start of a gzip stream; of zeros, up to one byte more than a record of tar."""
    stream = zlib.decompressobj(wbits=31)
    try:
        inflated = stream.decompress(head, HEAD_BYTES)
    except zlib.error as error:
        raise ArtifactRejected(
            f"the artifact begins as gzip and is damaged: {error}",
            hint=UNCHANGED_HINT,
        ) from error
    with suppress(zlib.error):  # damage behind the start is found, and named, when it is unpacked
        while not any(inflated) and len(inflated) <= RECORD_BYTES:
            rest = stream.unused_data if stream.eof else stream.unconsumed_tail
            if stream.eof:
                stream = zlib.decompressobj(wbits=31)
            if not rest.strip(b"\0"):
                break
            inflated += stream.decompress(rest, RECORD_BYTES + 1 - len(inflated))
    return inflated
