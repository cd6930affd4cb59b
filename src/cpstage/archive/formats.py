"""Which format an artifact has: magic bytes decide, the key's suffix and Content-Type are hints.

CodePipeline gives no format away: keys of outputs have no extension, and Content-Type is what an
earlier action happened to write. The bytes are the only honest source.
"""

from __future__ import annotations

import zlib
from typing import Literal

from cpstage.archive.tar_headers import BLOCK
from cpstage.errors import ArtifactRejected

Format = Literal["zip", "tar", "tar.gz"]

HEAD_BYTES = 4096
"""How much of the start :func:`recognise` wants to see."""

CONTENT_TYPES: dict[Format, str] = {
    "zip": "application/zip",
    "tar": "application/tar",
    "tar.gz": "application/gzip",
}
"""What the CodePipeline plugin for Jenkins writes, and other actions read."""

_SUFFIXES: dict[str, Format] = {
    ".zip": "zip",
    ".tar": "tar",
    ".tar.gz": "tar.gz",
    ".tgz": "tar.gz",
}
_HINTING_TYPES: dict[str, Format] = {
    "application/zip": "zip",
    "application/x-zip-compressed": "zip",
    "application/tar": "tar",
    "application/x-tar": "tar",
}


def recognise(head: bytes, *, name: str = "", content_type: str = "") -> Format | None:
    """Tell the format of an archive, or None for what is no archive.

    Args:
        head: The first :data:`HEAD_BYTES` of it, or all where there are fewer.
        name: The key or file name.
        content_type: The Content-Type of the object.

    Raises:
        ArtifactRejected: The name or Content-Type promises an archive, and the bytes are none,
            or they begin as gzip and are damaged.
    """
    found = _by_magic(head)
    if found is not None:
        return found
    hint = format_of_name(name) or _HINTING_TYPES.get(content_type.partition(";")[0].strip())
    if hint == "zip" and head:
        # Anything may stand before a zip (a self-extractor does): its directory is at the end.
        return "zip"
    if hint == "tar" and _is_empty_tar(head):
        return "tar"
    if hint is not None:
        kind = "empty" if not head else f"not a {hint} archive"
        raise ArtifactRejected(
            f"{name or 'the artifact'} is {kind}, though its name or Content-Type says {hint}",
            hint="check the action that made it, or fetch it as it is with --no-unpack",
        )
    return None


def format_of_name(name: str) -> Format | None:
    """Tell the format that the suffix of a file name stands for."""
    lowered = name.lower()
    return next((kind for suffix, kind in _SUFFIXES.items() if lowered.endswith(suffix)), None)


def _by_magic(head: bytes) -> Format | None:
    # APPNOTE 4.3.7 and 4.3.16: a local file header, or the end record of an empty archive.
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return "zip"
    if _is_tar(head):
        return "tar"
    # RFC 1952, 2.3: the magic, and deflate as the only method there is.
    if head.startswith(b"\x1f\x8b\x08"):
        inflated = _inflate_start(head)
        if _is_tar(inflated) or _is_empty_tar(inflated):
            return "tar.gz"
    return None


def _is_tar(head: bytes) -> bool:
    """Check the checksum of the first header, which v7 tar has too."""
    import tarfile  # most artifacts are zips, and need not wait for it

    try:
        tarfile.TarInfo.frombuf(head[:BLOCK], "utf-8", "surrogateescape")
    except tarfile.TarError:
        return False
    return True


def _is_empty_tar(head: bytes) -> bool:
    """Tell whether there is an end marker and nothing else; many a file begins with zeros."""
    return len(head) >= 2 * BLOCK and not any(head)


def _inflate_start(head: bytes) -> bytes:
    try:
        return zlib.decompressobj(wbits=31).decompress(head, HEAD_BYTES)
    except zlib.error as error:
        raise ArtifactRejected(
            f"the artifact begins as gzip and is damaged: {error}",
            hint="check the action that made it, or fetch it as it is with --no-unpack",
        ) from error
