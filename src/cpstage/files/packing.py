"""Packing: a directory into an archive on the disk.

The archive is there whole, or what was in its place still is.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cpstage._posix import require_posix
from cpstage.archive.formats import Format, format_of_name
from cpstage.archive.pack import Packer
from cpstage.aws.config import Connection
from cpstage.encryption.encrypt import encrypt
from cpstage.errors import ConfigurationError, NotFound, WorkspaceUnavailable
from cpstage.progress import Progress, Silence
from cpstage.transfer.options import Packing
from cpstage.tree import RelativePath, Tree, local_failures
from cpstage.workspace.staging import staging_in, sweep

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from cpstage.encryption.header import Header


@dataclass(frozen=True)
class Sealing:
    """The envelope that :func:`pack` puts an archive into.

    Attributes:
        key_ids: KMS keys to seal it under, each of which opens it.
        context: The pairs of its encryption context.
    """

    key_ids: Sequence[str]
    context: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Packed:
    """What :func:`pack` has done.

    Attributes:
        source: The directory.
        path: The archive.
        format: Its format.
        files: How many files it holds.
        unpacked_size: How many bytes they have together.
        size: How many bytes the archive has.
        envelope: What the envelope says of itself that it is sealed in, if it is.
    """

    source: Path
    path: Path
    format: Format
    files: int
    unpacked_size: int
    size: int
    envelope: Mapping[str, Any] | None

    def document(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {
            "source": str(self.source),
            "path": str(self.path),
            "format": self.format,
            "envelope": self.envelope,
            "files": self.files,
            "unpacked_size": self.unpacked_size,
            "size": self.size,
        }


def pack(
    directory: Path | str,
    output: Path | str,
    *,
    packing: Packing | None = None,
    sealing: Sealing | None = None,
    overwrite: bool = False,
    connection: Connection | None = None,
    progress: Progress | None = None,
) -> Packed:
    """Pack a directory into an archive.

    Args:
        directory: What to pack.
        output: The archive; its suffix decides the format where ``packing`` leaves it open.
        packing: How to pack.
        sealing: An envelope to seal it in.
        overwrite: Whether a file in its place is replaced.
        connection: How to reach KMS, with the caller's own credentials.
        progress: Is told of all phases.

    Raises:
        NotFound: There is no such directory.
        ConfigurationError: The format is none for a directory, or this system is not POSIX.
        ArtifactRejected: An entry cannot be packed safely.
        WorkspaceUnavailable: The archive exists already, or cannot be written.
        AccessDenied, ServiceUnavailable: As KMS says.
        LocalIOError: A file cannot be read, or changed while it was; or the disk is full.
    """
    require_posix()
    source, target, how = Path(directory), Path(output), packing or Packing()
    shown = progress or Silence()
    found = _format(how, target)
    _require_directory(source)
    if os.path.lexists(target) and (target.is_dir() or not overwrite):
        raise WorkspaceUnavailable(
            f"{target} exists already", hint="give another --output, or --overwrite to replace it"
        )
    sweep(target.absolute().parent)
    with Packer(how.level) as packer:
        with shown.phase(f"{target.name}: listing", None, "entries") as listed:
            entries = packer.list_entries(
                source, how.globs, how.symlinks, found, listed, archive=target.resolve()
            )
        with shown.phase(f"{target.name}: packing", entries.size) as packed:
            chunks = packer.pack(entries, found, packed)
            written, header = _write(chunks, target, sealing, connection or Connection())
    envelope = header.document() if header else None
    return Packed(source, target, found, entries.files, entries.size, written, envelope)


def _format(how: Packing, target: Path) -> Format:
    if how.format == "raw":
        raise ConfigurationError("a directory cannot be packed raw", hint="give another --format")
    if how.format != "auto":
        return how.format
    return format_of_name(target.name) or "zip"


def _require_directory(source: Path) -> None:
    with local_failures(source, "read"):
        if not os.path.lexists(source):
            raise NotFound(f"there is no {source}")
        if not source.is_dir():
            raise ConfigurationError(f"{source} is no directory", hint="give one to pack")


def _write(
    chunks: Iterator[bytes], target: Path, sealing: Sealing | None, connection: Connection
) -> tuple[int, Header | None]:
    """Write an archive beside its place, and move it there when it is whole."""
    header = None
    if sealing:
        kms = cache(partial(connection.kms, None))  # a client for each region
        sealed = encrypt(chunks, key_ids=sealing.key_ids, context=sealing.context, kms=kms)
        chunks, header = sealed.chunks, sealed.header
    with staging_in(target.absolute().parent, target) as staging:
        with Tree(staging) as tree:
            size = tree.write_file(RelativePath("packed"), chunks, executable=False)
        with local_failures(target):
            (staging / "packed").rename(target)
    return size, header
