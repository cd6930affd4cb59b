"""unpack() and pack() on local archives, without a job.

The directory or archive is there whole in the end, or what was in its place still is. Encrypted
archives use KMS with the caller's own AWS credentials.
"""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any

from cpstage._posix import require_posix
from cpstage.archive.blob import FileBlob
from cpstage.archive.formats import Format, format_of_name, other_format
from cpstage.archive.members import Contents, contents_document, unsafe_links_document
from cpstage.archive.pack import Packer
from cpstage.archive.packing_list import ratio_note
from cpstage.archive.unpack import Unpacker
from cpstage.aws.config import AwsConfig
from cpstage.encryption.header import Header
from cpstage.errors import (
    ArtifactRejected,
    ConfigurationError,
    NotFound,
    WorkspaceUnavailable,
    local_failures,
)
from cpstage.filesystem.tree import RelativePath, Tree, require_replaceable
from cpstage.progress import Progress, Silence
from cpstage.transfer.artifact import (
    DecryptionKeys,
    Extracted,
    Source,
    extract,
    naming,
    read_head,
)
from cpstage.transfer.options import Packing, Unpacking
from cpstage.workspace.publishing import Move, journal_in, staging_in, sweep

_LOGGER = logging.getLogger("cpstage")


@dataclass(frozen=True)
class Unpacked:
    """What :func:`unpack` has done.

    Attributes:
        archive: The file.
        path: The directory.
        format: The archive format, or None for an encrypted message that was kept.
        contents: What came out of it.
        envelope: The header of the encrypted message as JSON has it.
        notes: What is not as the archive had it.
    """

    archive: Path
    path: Path
    format: Format | None
    contents: Contents | None
    envelope: Mapping[str, Any] | None
    notes: tuple[str, ...] = ()

    def document(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {
            "archive": str(self.archive),
            "path": str(self.path),
            "format": self.format,
            "envelope": self.envelope,
            **contents_document(self.contents),
            "unsafe_links": unsafe_links_document(self.contents),
            "notes": list(self.notes),
        }


def unpack(
    archive: Path | str,
    into: Path | str,
    *,
    unpacking: Unpacking | None = None,
    config: AwsConfig | None = None,
    progress: Progress | None = None,
) -> Unpacked:
    """Unpack an archive into a directory that is not there yet, or is empty.

    Args:
        archive: A zip, tar or tar.gz, or an encrypted message that contains one.
        into: The directory.
        unpacking: Limits, and the keys that may decrypt.
        config: How to reach KMS, with the caller's own credentials.
        progress: Is told of all phases.

    Raises:
        ConfigurationError: This system is not POSIX.
        NotFound: The file does not exist.
        ArtifactRejected: It is not an archive, is unsafe, damaged, over a limit, or cannot be
            decrypted; the directory is as it was.
        WorkspaceUnavailable: The directory is not empty, or cannot be written to.
        AccessDenied, ServiceUnavailable: As KMS says.
        LocalIOError: The archive cannot be read, or the disk is full.
    """
    require_posix()
    file, target, how = Path(archive), Path(into), unpacking or Unpacking()
    with _opened(file) as blob, _staging_for(target) as staging:
        kms = cache(partial((config or AwsConfig()).kms, None))  # a client for each region
        keys = partial(
            DecryptionKeys,
            kms,
            key_ids=how.key_ids,
            requires_commitment=how.requires_commitment,
            context=how.context,
        )
        source = Source(
            file.name, str(file), lambda: file.name, blob, keys, file.name, doing="unpacking"
        )
        root = staging / "tree"
        root.mkdir()
        extracted = _extract(source, root, staging, how, progress or Silence())
        _publish(staging, root, target)
    what = (extracted.format, extracted.contents, extracted.envelope, extracted.notes)
    return Unpacked(file, target, *what)


def _extract(
    source: Source, root: Path, staging: Path, how: Unpacking, progress: Progress
) -> Extracted:
    with Tree(root) as tree, Unpacker(tree, how, progress) as unpacker:
        extracted = extract(source, unpacker, how, staging, progress)
        if extracted.format is None and extracted.envelope is None:
            other = other_format(read_head(source.blob))
            what = f"is in the format {other}, and" if other else "is"
            raise ArtifactRejected(f"{source.title} {what} not a zip, tar or tar.gz archive")
        with naming(source.title):
            unpacker.finish()
    return extracted


@contextmanager
def _opened(file: Path) -> Iterator[FileBlob]:
    if not os.path.lexists(file):
        raise NotFound(f"{file} does not exist", hint="give an archive")
    if not file.is_file():
        raise ArtifactRejected(f"{file} is not a regular file", hint="give an archive")
    blob = FileBlob(file)
    try:
        yield blob
    finally:
        blob.close()


@contextmanager
def _staging_for(target: Path) -> Iterator[Path]:
    """Make a hidden directory from which a rename leads to the target; it is gone at the end."""
    with local_failures(target):
        # A directory that is there stays the same one: it may be somebody's current directory.
        parent = target if target.is_dir() else target.absolute().parent
        sweep(parent)
        if os.path.lexists(target) and not target.is_dir():
            raise WorkspaceUnavailable(f"{target} is not a directory", hint="give another --into")
        if target.is_dir() and any(target.iterdir()):
            raise WorkspaceUnavailable(f"{target} is not empty", hint="give another --into")
        parent.mkdir(parents=True, exist_ok=True)
    with staging_in(parent, target) as staging:
        yield staging


def _publish(staging: Path, root: Path, target: Path) -> None:
    """Put a tree in its place: in one step, or entry by entry into a directory that is there."""
    with local_failures(target):
        if not target.is_dir():
            root.rename(target)
            return
        place = target.resolve()
        moves = [Move(inside, place / inside.name) for inside in sorted(root.iterdir())]
        # Only a directory that its owner may write to can be moved into another one (rename(2)).
        modes = {
            move.target: mode
            for move in moves
            if not move.staged.is_symlink()
            and stat.S_ISDIR(mode := move.staged.lstat().st_mode)
            and not mode & stat.S_IWUSR
        }
        for move in moves:
            if move.target in modes:
                move.staged.chmod(stat.S_IMODE(modes[move.target]) | stat.S_IWUSR)
    journal_in(staging).publish(moves, replace=False)
    for path, mode in modes.items():
        with local_failures(path):
            path.chmod(stat.S_IMODE(mode))


@dataclass(frozen=True)
class MessageEncryption:
    """How :func:`pack` encrypts an archive with the AWS Encryption SDK.

    Attributes:
        key_ids: KMS keys to encrypt under, each of which can decrypt.
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
        envelope: The header of the encrypted message as JSON has it.
        notes: What was left out, or differs from the directory.
    """

    source: Path
    path: Path
    format: Format
    files: int
    unpacked_size: int
    size: int
    envelope: Mapping[str, Any] | None
    notes: tuple[str, ...] = ()

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
            "notes": list(self.notes),
        }


def pack(
    directory: Path | str,
    output: Path | str,
    *,
    packing: Packing | None = None,
    encryption: MessageEncryption | None = None,
    overwrite: bool = False,
    config: AwsConfig | None = None,
    progress: Progress | None = None,
) -> Packed:
    """Pack a directory into an archive.

    Args:
        directory: What to pack.
        output: The archive; its suffix decides the format where ``packing`` leaves it open.
        packing: How to pack.
        encryption: The keys to encrypt it under; None leaves it as it is packed.
        overwrite: Whether a file in its place is replaced.
        config: How to reach KMS, with the caller's own credentials.
        progress: Is told of all phases.

    Raises:
        NotFound: The directory does not exist.
        ConfigurationError: A directory cannot have the format, or this system is not POSIX.
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
    require_replaceable(target)
    sweep(target.absolute().parent)
    with Packer(how) as packer:
        with shown.phase(f"{target.name}: listing", None, "entries") as listed:
            entries = packer.list_entries(source, found, listed, archive=target.resolve())
        with shown.phase(f"{target.name}: packing", entries.size) as packed:
            chunks = packer.pack(entries, found, packed)
            written, header = _write(chunks, target, encryption, config or AwsConfig())
    envelope = header.document() if header else None
    for note in ratio_note(entries.size, written):
        _LOGGER.warning("%s: %s", source, note)
        entries.notes.append(note)
    sizes = (entries.files, entries.size, written)
    return Packed(source, target, found, *sizes, envelope, tuple(entries.notes))


_OTHER_SUFFIXES = {
    *(
        ".rar",
        ".7z",
        ".xz",
        ".txz",
        ".bz2",
        ".tbz",
        ".tbz2",
        ".zst",
        ".tzst",
        ".lz4",
        ".lz",
        ".lzma",
    ),
    *(".gz", ".Z", ".cpio", ".ar", ".iso", ".cab", ".arj"),
}
"""Suffixes of formats that are not written."""


def _format(how: Packing, target: Path) -> Format:
    if how.format == "raw":
        raise ConfigurationError("a directory cannot be packed raw", hint="give another --format")
    by_name = format_of_name(target.name)
    found = how.format if how.format != "auto" else by_name or "zip"
    if by_name != found and (by_name or target.suffix in _OTHER_SUFFIXES):
        raise ConfigurationError(
            f"{target.name} is not the name of a {found} archive",
            hint="give an --output that ends in .zip, .tar, .tar.gz or .tgz, or another --format",
        )
    return found


def _require_directory(source: Path) -> None:
    with local_failures(source, "read"):
        if not os.path.lexists(source):
            raise NotFound(f"{source} does not exist", hint="give a directory")
        if not source.is_dir():
            raise ConfigurationError(f"{source} is not a directory", hint="give one to pack")


def _write(
    chunks: Iterator[bytes], target: Path, encryption: MessageEncryption | None, config: AwsConfig
) -> tuple[int, Header | None]:
    """Write an archive beside its place, and move it there when it is whole."""
    header = None
    if encryption:
        from cpstage.encryption.messages import encrypt

        kms = cache(partial(config.kms, None))  # a client for each region
        message = encrypt(chunks, key_ids=encryption.key_ids, context=encryption.context, kms=kms)
        chunks, header = message.chunks, message.header
    with staging_in(target.absolute().parent, target) as staging:
        with Tree(staging) as tree:
            size = tree.write_file(RelativePath("packed"), chunks)
        with local_failures(target):
            (staging / "packed").rename(target)
    return size, header
