"""A job's artifact, opened to be looked into: what it is, and no more of its bytes than is wanted.

Nothing is staged here. What is sealed in an envelope is opened first, all of it, into a file for
temporary data that has no name: nothing of it is looked at before it is known to be authentic.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import gettempdir
from typing import Any

from cpstage._posix import require_posix
from cpstage.archive.blob import Blob, BytesBlob, FileBlob, ReadAhead
from cpstage.archive.formats import Format
from cpstage.errors import AccessDenied, LocalIOError
from cpstage.job import Artifact, Job
from cpstage.progress import Progress
from cpstage.selection import choose
from cpstage.session import JobSession
from cpstage.store.checksum import Checksum
from cpstage.store.object import ObjectInfo
from cpstage.transfer.intake import (
    archive_format,
    naming,
    read_head,
    refuse_s3_client,
    sealed_header,
)
from cpstage.transfer.opening import Keys, job_keys, opened_envelope
from cpstage.transfer.terms import Unpacking

_OUTPUT_HINT = "the session of a job may usually write its outputs and not read them"
_ROOM_HINT = "free some space, or set TMPDIR to a directory that has some"


class Counted:
    """A blob that counts what is read of it.

    Args:
        blob: The blob.
    """

    def __init__(self, blob: Blob) -> None:
        self._blob = blob
        self._lock = threading.Lock()
        self.size = blob.size
        self.bytes_read = 0

    def read(self, offset: int, length: int) -> bytes:
        """Return the bytes ``[offset, offset + length)``."""
        with self._lock:
            self.bytes_read += length
        return self._blob.read(offset, length)


class Slice:
    """A part of a blob as a blob of its own.

    Args:
        blob: The whole.
        start: Where the part begins.
        size: How long it is.
    """

    def __init__(self, blob: Blob, start: int, size: int) -> None:
        self._blob = blob
        self._start = start
        self.size = size

    def read(self, offset: int, length: int) -> bytes:
        """Return the bytes ``[offset, offset + length)`` of the part."""
        return self._blob.read(self._start + offset, length)


@dataclass(frozen=True)
class Remote:
    """An artifact's object.

    Attributes:
        artifact: The job's artifact.
        info: What S3 says of the object.
        format: The archive format, or None for a file that is none.
        blob: Its bytes; those of the plaintext, where it was sealed.
        counted: What has been read of the object.
        envelope: What the envelope says of itself that it is sealed in, if it is.
        opened: Whether that was opened.
    """

    artifact: Artifact
    info: ObjectInfo
    format: Format | None
    blob: Blob
    counted: Counted
    envelope: Mapping[str, Any] | None = None
    opened: bool = False

    @property
    def checksum(self) -> Checksum | None:
        """The checksum that all of its bytes have, if it is known and can be computed."""
        return None if self.opened else self.info.checksum


def find_artifacts(job: Job, globs: Sequence[str]) -> list[Artifact]:
    """Return the job's inputs and outputs of some names; without a name, all inputs.

    Raises:
        UsageError: A name or glob matches nothing.
    """
    if not globs:
        return [*job.input_artifacts]
    return choose([*job.input_artifacts, *job.output_artifacts], globs, "artifact of the job")


@contextmanager
def open_remote(
    session: JobSession, artifact: Artifact, how: Unpacking, progress: Progress
) -> Iterator[Remote]:
    """Look at an artifact's object, and read its start; of what is sealed all, and open it.

    Args:
        session: The job's session.
        artifact: The artifact.
        how: Whether an archive is to be looked into, and what may open an envelope.
        progress: Is told of envelopes that are opened.

    Raises:
        ObjectNotFound, AccessDenied, ServiceUnavailable: As S3 and KMS say.
        ArtifactRejected: It cannot be opened, or is not what its name or Content-Type promises.
        LocalIOError: There is no room for the plaintext of an envelope.
    """
    info = _look_at(session, artifact)
    counted = Counted(session.store.open(artifact, info))
    head = read_head(counted)
    refuse_s3_client(artifact, info.metadata, how)
    with naming(artifact.title):
        header = sealed_header(head, how)
        envelope = header.document() if header else None
    if envelope is None or how.envelopes == "keep":
        blob = BytesBlob(head) if len(head) == info.size else counted
        found = None if envelope else _format(artifact, info, head, how)
        yield Remote(artifact, info, found, blob, counted, envelope)
        return
    keys = job_keys(session.job, artifact, session.kms, how)
    with _opened(artifact, info, counted, keys, progress) as plain:
        found = _format(artifact, info, read_head(plain), how)
        yield Remote(artifact, info, found, plain, counted, envelope, opened=True)


def _look_at(session: JobSession, artifact: Artifact) -> ObjectInfo:
    try:
        return session.store.look_at(artifact)
    except AccessDenied as error:
        if artifact in session.job.input_artifacts:
            raise
        raise AccessDenied(error.message, hint=_OUTPUT_HINT) from error


@contextmanager
def _opened(
    artifact: Artifact, info: ObjectInfo, message: Blob, keys: Keys, progress: Progress
) -> Iterator[FileBlob]:
    """Open an envelope; its plaintext is there when all of it is authentic, and not before."""
    checksum = info.checksum.begin() if info.checksum else None
    with ExitStack() as stack:
        with (
            naming(artifact.title),
            progress.phase(f"{artifact.name}: opening", info.size) as advance,
            ReadAhead(message, advance, checksum) as stream,
        ):
            plain = stack.enter_context(opened_envelope(stream, keys, _room_for(info.size)))
            stream.finish()
        yield plain


def _format(artifact: Artifact, info: ObjectInfo, head: bytes, how: Unpacking) -> Format | None:
    with naming(artifact.title):
        return archive_format(head, how, hint=artifact.location.key, content_type=info.content_type)


def _room_for(size: int) -> Path:
    """Return the directory for temporary files."""
    require_posix()
    try:
        directory = Path(gettempdir())
    except OSError as error:
        raise LocalIOError("there is no directory for temporary files", hint=_ROOM_HINT) from error
    free = shutil.disk_usage(directory).free
    if size > free:
        raise LocalIOError(
            f"{size:,} bytes are to be opened in {directory}, which has {free:,} left",
            hint=_ROOM_HINT,
        )
    return directory
