"""An artifact opened for random access, for commands that look into it without staging it.

The object in S3 is read where a command needs it. An encrypted one is decrypted as a whole into a
temporary file first, since every frame has to be authenticated before a byte of it is shown. A
local archive is opened in the same way, with the file in the place of the object.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from tempfile import gettempdir
from typing import Any

from cpstage._posix import require_posix
from cpstage.archive.blob import Blob, BytesBlob, FileBlob, ReadAhead
from cpstage.archive.formats import Format
from cpstage.aws.config import AwsConfig
from cpstage.aws.job_session import JobSession, ObjectInfo
from cpstage.encryption.header import Header
from cpstage.errors import AccessDenied, ArtifactRejected, LocalIOError, NotFound, local_failures
from cpstage.job import Artifact, ArtifactName, S3Location
from cpstage.progress import Progress
from cpstage.transfer.artifact import (
    DecryptionKeys,
    archive_format,
    begin_checksum,
    decrypted,
    identify,
    job_keys,
    naming,
    read_head,
    refuse_s3_client,
)
from cpstage.transfer.options import Unpacking

_OUTPUT_HINT = "the credentials of a job may usually write its outputs but not read them"
_ROOM_HINT = "free some space, or set TMPDIR to a directory with enough space"


class Counted:
    """A blob that counts the bytes that are read.

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


@dataclass(frozen=True)
class OpenArtifact:
    """An artifact's object, open for random access.

    Attributes:
        artifact: The job's artifact.
        info: What S3 says of the object.
        format: The archive format; None for any other file.
        blob: The bytes; the plaintext, where the object was decrypted.
        counted: The object, with the number of bytes that were read.
        envelope: The header of the encrypted message as JSON has it.
        decrypted: Whether the message was decrypted.
    """

    artifact: Artifact
    info: ObjectInfo
    format: Format | None
    blob: Blob
    counted: Counted
    envelope: Mapping[str, Any] | None = None
    decrypted: bool = False


@contextmanager
def open_artifact(
    session: JobSession, artifact: Artifact, options: Unpacking, progress: Progress
) -> Iterator[OpenArtifact]:
    """Ask S3 about an artifact's object, and read its start; decrypt all of an encrypted one.

    Args:
        session: The job's session.
        artifact: The artifact.
        options: Whether archives and encrypted messages are opened, and with which keys.
        progress: Is told of messages that are decrypted.

    Raises:
        ObjectNotFound, AccessDenied, ServiceUnavailable: As S3 and KMS say.
        ArtifactRejected: It cannot be decrypted, or lacks the format that its name announces.
        LocalIOError: The disk is too small for the plaintext.
    """
    info = _head_object(session, artifact)
    refuse_s3_client(artifact, info.metadata, options)
    counted = Counted(session.store.open(artifact, info))
    hints = {"name": artifact.location.key, "content_type": info.content_type}
    with naming(artifact.title):
        head = read_head(counted)
        found = identify(head, options, **hints)
    if found.header is None or options.envelopes == "keep":
        blob = BytesBlob(head) if len(head) == info.size else counted
        yield OpenArtifact(artifact, info, found.format, blob, counted, found.message)
        return
    keys = job_keys(session.job, artifact, session.kms, options)
    with open_message(
        artifact, info, counted, found.header, keys=keys, options=options, progress=progress
    ) as opened:
        yield opened


@contextmanager
def open_message(
    artifact: Artifact,
    info: ObjectInfo,
    message: Counted,
    header: Header,
    *,
    keys: DecryptionKeys,
    options: Unpacking,
    progress: Progress,
) -> Iterator[OpenArtifact]:
    """Decrypt an encrypted message, and give random access to its plaintext.

    Args:
        artifact: The artifact.
        info: What S3 says of the object.
        message: The encrypted message.
        header: Its header.
        keys: What decrypts it.
        options: Whether archives are opened.
        progress: Is told of the bytes that are decrypted.

    Raises:
        ArtifactRejected, AccessDenied, ServiceUnavailable, LocalIOError: As :func:`open_artifact`.
    """
    with _decrypted_object(artifact, info, message, keys, progress) as plain:
        with naming(artifact.title):
            plain_format = archive_format(
                read_head(plain),
                options,
                name=artifact.location.key,
                content_type=info.content_type,
            )
        said = header.document()
        yield OpenArtifact(artifact, info, plain_format, plain, message, said, decrypted=True)


def _head_object(session: JobSession, artifact: Artifact) -> ObjectInfo:
    try:
        return session.store.head(artifact)
    except AccessDenied as error:
        job = session.job
        if job.read_with == "caller" or artifact in job.input_artifacts:
            raise
        raise AccessDenied(error.message, hint=_OUTPUT_HINT) from error


@contextmanager
def _decrypted_object(
    artifact: Artifact, info: ObjectInfo, message: Blob, keys: DecryptionKeys, progress: Progress
) -> Iterator[FileBlob]:
    checksum = begin_checksum(artifact, info)
    with ExitStack() as stack:
        with (
            naming(artifact.title),
            progress.phase(f"{artifact.name}: decrypting", info.size) as advance,
            ReadAhead(message, advance, checksum) as stream,
        ):
            plain = stack.enter_context(decrypted(stream, keys, _temporary_directory(info.size)))
            stream.finish()
        yield plain


def _temporary_directory(size: int) -> Path:
    """Return the directory for temporary files, with room for so many bytes."""
    require_posix()
    try:
        directory = Path(gettempdir())
    except OSError as error:
        raise LocalIOError("there is no directory for temporary files", hint=_ROOM_HINT) from error
    free = shutil.disk_usage(directory).free
    if size > free:
        raise LocalIOError(
            f"cannot decrypt {size:,} bytes in {directory}: it has {free:,} bytes left",
            hint=_ROOM_HINT,
        )
    return directory


class FileLocation(S3Location):
    """A local file in the place of an S3 location; the key is its path."""

    def __str__(self) -> str:
        return self.key


@contextmanager
def open_archive(
    file: Path | str, options: Unpacking, config: AwsConfig, progress: Progress
) -> Iterator[OpenArtifact]:
    """Open a local archive as an artifact; decrypt all of an encrypted message.

    Args:
        file: The archive, or any other file.
        options: Whether archives and encrypted messages are opened, and with which keys.
        config: How to reach KMS, with the caller's own credentials.
        progress: Is told of messages that are decrypted.

    Raises:
        NotFound: The file does not exist.
        ArtifactRejected: It is not a regular file, cannot be decrypted, or lacks the format that
            its name announces.
        LocalIOError: It cannot be read, or the disk is too small for the plaintext.
    """
    path = Path(file)
    artifact = Artifact(ArtifactName(path.name), FileLocation("", str(path)))
    with local_failures(path, "read"):
        if not path.exists():
            raise NotFound(f"{path} does not exist", hint="give an archive")
        if not path.is_file():
            raise ArtifactRejected(f"{path} is not a regular file", hint="give an archive")
    blob = FileBlob(path)
    try:
        counted = Counted(blob)
        with naming(str(path)):
            found = identify(read_head(counted), options, name=path.name, content_type="")
        info = ObjectInfo(blob.size, "", None, "", None, None)
        if found.header is None or options.envelopes == "keep":
            yield OpenArtifact(artifact, info, found.format, counted, counted, found.message)
            return
        kms = cache(partial(config.kms, None))  # a client for each region
        keys = DecryptionKeys(
            kms,
            key_ids=options.key_ids,
            requires_commitment=options.requires_commitment,
            context=options.context,
        )
        with open_message(
            artifact, info, counted, found.header, keys=keys, options=options, progress=progress
        ) as opened:
            yield opened
    finally:
        blob.close()
