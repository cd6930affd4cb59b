"""Unpacking: an archive on the disk into a directory.

Plan, stage, verify, publish holds here too: the directory is there whole, or as it was.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cpstage._posix import require_posix
from cpstage.archive.blob import FileBlob
from cpstage.archive.contents import Contents, contents_document
from cpstage.archive.unpack import Unpacker
from cpstage.aws.config import Connection
from cpstage.errors import ArtifactRejected, NotFound, WorkspaceUnavailable
from cpstage.progress import Progress, Silence
from cpstage.transfer.artifact import DecryptionKeys, Extracted, Source, extract, naming
from cpstage.transfer.options import Unpacking
from cpstage.tree import Tree, local_failures
from cpstage.workspace.publishing import Move
from cpstage.workspace.staging import journal_in, staging_in, sweep

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from cpstage.archive.formats import Format


@dataclass(frozen=True)
class Unpacked:
    """What :func:`unpack` has done.

    Attributes:
        archive: The file.
        path: The directory.
        format: The archive format, or None for an envelope that was kept as the file it is.
        contents: What came out of it.
        envelope: What the envelope says of itself that it was sealed in, if it was.
    """

    archive: Path
    path: Path
    format: Format | None
    contents: Contents | None
    envelope: Mapping[str, Any] | None

    def document(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {
            "archive": str(self.archive),
            "path": str(self.path),
            "format": self.format,
            "envelope": self.envelope,
            **contents_document(self.contents),
        }


def unpack(
    archive: Path | str,
    into: Path | str,
    *,
    unpacking: Unpacking | None = None,
    connection: Connection | None = None,
    progress: Progress | None = None,
) -> Unpacked:
    """Unpack an archive into a directory that is not there yet, or is empty.

    Args:
        archive: A zip, tar or tar.gz, sealed in an envelope or not.
        into: The directory.
        unpacking: Limits, and what may open an envelope.
        connection: How to reach KMS, with the caller's own credentials.
        progress: Is told of all phases.

    Raises:
        ConfigurationError: This system is not POSIX.
        NotFound: There is no such file.
        ArtifactRejected: It is no archive, or is unsafe, damaged, over a limit, or cannot be
            opened; the directory is as it was.
        WorkspaceUnavailable: The directory is not empty, or cannot be written to.
        AccessDenied, ServiceUnavailable: As KMS says.
        LocalIOError: The archive cannot be read, or the disk is full.
    """
    require_posix()
    file, target, how = Path(archive), Path(into), unpacking or Unpacking()
    with _opened(file) as blob, _staging_for(target) as staging:
        kms = cache(partial((connection or Connection()).kms, None))  # a client for each region
        keys = DecryptionKeys(
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
        taken = _extract(source, root, staging, how, progress or Silence())
        _publish(staging, root, target)
    return Unpacked(file, target, taken.format, taken.contents, taken.envelope)


def _extract(
    source: Source, root: Path, staging: Path, how: Unpacking, progress: Progress
) -> Extracted:
    with Tree(root) as tree:
        unpacker = Unpacker(tree, how.limits)
        taken = extract(source, unpacker, how, staging, progress)
        if taken.format is None and taken.envelope is None:
            raise ArtifactRejected(f"{source.title} is no zip, tar or tar.gz")
        with naming(source.title):
            unpacker.finish()
    return taken


@contextmanager
def _opened(file: Path) -> Iterator[FileBlob]:
    if not os.path.lexists(file):
        raise NotFound(f"there is no {file}")
    if not file.is_file():
        raise ArtifactRejected(f"{file} is no regular file", hint="give an archive")
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
            raise WorkspaceUnavailable(f"{target} is no directory", hint="give another --into")
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
    journal_in(staging).publish(moves, replace=False)
