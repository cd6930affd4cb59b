"""unpack() and pack() on local archives, without a job.

The directory or archive is created as a whole, or nothing changes. Encrypted archives use KMS with
the caller's own AWS credentials.
"""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any

from cpstage._posix import require_posix
from cpstage.archive.blob import FileBlob
from cpstage.archive.formats import Format, format_of_name, other_format
from cpstage.archive.members import Contents, contents_document
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
    refuse_text,
)
from cpstage.filesystem.files import require_replaceable
from cpstage.filesystem.tree import RelativePath, Tree
from cpstage.progress import Progress, Silence
from cpstage.transfer.artifact import (
    NOT_STAGED,
    Extracted,
    Source,
    callers_keys,
    extract,
    identify,
    naming,
    read_head,
)
from cpstage.transfer.options import Packing, Unpacking
from cpstage.workspace.publishing import Move, journal_in, staging_in, sweep

_LOGGER = logging.getLogger("cpstage")


@dataclass(frozen=True)
class Unpacked:
    """The result of :func:`unpack`.

    Attributes:
        format: The archive format, or None for an encrypted message that was kept.
        envelope: The header of the encrypted message as JSON has it.
        notes: What differs from the archive.
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
        config: The configuration of the KMS client, with the caller's own credentials.
        progress: Shows all phases.

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
    if not os.path.lexists(file):
        raise NotFound(f"{file} does not exist", hint="give an archive")
    if not file.is_file():
        raise ArtifactRejected(f"{file} is not a regular file", hint="give an archive")
    with closing(FileBlob(file)) as blob, _staging_for(target) as staging:
        keys = partial(callers_keys, config or AwsConfig(), how)
        source = Source(
            file.name, str(file), lambda: file.name, blob, keys, file.name, doing="unpacking"
        )
        root = staging / "tree"
        root.mkdir()
        done = _extract(source, root, how, progress or Silence())
        _publish(staging, root, target)
    return Unpacked(file, target, done.format, done.contents, done.envelope, done.notes)


def _require_archive(source: Source, how: Unpacking) -> None:
    """Raise ArtifactRejected for what a fetch would keep as a file, with a note about that."""
    head = read_head(source.blob)
    with naming(source.title, is_local=True):
        found = identify(head, how, name=source.hint, content_type=source.content_type)
    if found.header is None and found.format is None:
        other = other_format(head)
        what = f"is in the format {other}, and" if other else "is"
        message = f"{source.title} {what} not a zip, tar or tar.gz archive"
        raise ArtifactRejected(message, hint=NOT_STAGED)


def _extract(source: Source, root: Path, how: Unpacking, progress: Progress) -> Extracted:
    _require_archive(source, how)
    with Tree(root) as tree, Unpacker(tree, how, progress) as unpacker:
        extracted = extract(source, unpacker, how, root.parent, progress)
        with naming(source.title):
            unpacker.finish()
    return extracted


def _staging_for(target: Path) -> AbstractContextManager[Path]:
    """Make a hidden directory from which a rename leads to the target; it is gone at the end."""
    with local_failures(target):
        # An existing directory is not replaced: it may be the current directory of a process.
        parent = target if target.is_dir() else target.absolute().parent
        sweep(parent)
        if os.path.lexists(target) and not target.is_dir():
            raise WorkspaceUnavailable(f"{target} is not a directory", hint="give another --into")
        if target.is_dir() and any(target.iterdir()):
            raise WorkspaceUnavailable(f"{target} is not empty", hint="give another --into")
        parent.mkdir(parents=True, exist_ok=True)
    return staging_in(parent, target)


def _publish(staging: Path, root: Path, target: Path) -> None:
    """Put a tree in its place: in one step, or entry by entry into a directory that is there."""
    with local_failures(target):
        if not target.is_dir():
            root.rename(target)
            return
        directory = target.resolve()
        moves = [Move(inside, directory / inside.name) for inside in sorted(root.iterdir())]
        # Only a directory that its owner may write to can be moved into another one (rename(2)).
        modes: dict[Path, int] = {}
        for staged, place in moves:
            mode = staged.lstat().st_mode
            if stat.S_ISDIR(mode) and not mode & stat.S_IWUSR:
                modes[place] = stat.S_IMODE(mode)
                staged.chmod(modes[place] | stat.S_IWUSR)
    journal_in(staging).publish(moves, replace=False)
    for path, mode in modes.items():
        with local_failures(path):
            path.chmod(mode)


@dataclass(frozen=True)
class MessageEncryption:
    """How :func:`pack` encrypts an archive with the AWS Encryption SDK.

    Attributes:
        key_ids: KMS keys to encrypt under, each of which can decrypt.
        context: The pairs of its encryption context.
    """

    key_ids: Sequence[str]
    context: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse a single string in place of a list."""
        refuse_text("key_ids", self.key_ids)


@dataclass(frozen=True)
class Packed:
    """The result of :func:`pack`.

    Attributes:
        source: The directory.
        path: The archive.
        unpacked_size: How many bytes the files have together.
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
        encryption: The keys to encrypt it under; None leaves the archive unencrypted.
        overwrite: Whether a file in its place is replaced.
        config: The configuration of the KMS client, with the caller's own credentials.
        progress: Shows all phases.

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
    with local_failures(source, "read"):
        if not os.path.lexists(source):
            raise NotFound(f"{source} does not exist", hint="give a directory")
        if not source.is_dir():
            raise ConfigurationError(f"{source} is not a directory", hint="give one to pack")
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
    *(".rar", ".7z", ".xz", ".txz", ".bz2", ".tbz", ".tbz2", ".zst", ".tzst", ".lz4", ".lz"),
    *(".lzma", ".gz", ".Z", ".cpio", ".ar", ".iso", ".cab", ".arj"),
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
