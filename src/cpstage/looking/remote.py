"""A job's artifact, opened to be looked into: what it is, and no more of its bytes than is wanted.

Nothing is staged here, and nothing is written. What is sealed in an envelope cannot be looked into:
it has to be opened as a whole, which is what fetch does.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass

from cpstage.archive import HEAD_BYTES, Blob, BytesBlob, Format, recognise
from cpstage.envelope import HEAD_BYTES as ENVELOPE_HEAD_BYTES
from cpstage.envelope import S3_CLIENT_HINT, read_header, s3_client_object
from cpstage.errors import AccessDenied, ArtifactRejected
from cpstage.job import Artifact, Job
from cpstage.selection import choose
from cpstage.store.artifacts import Store
from cpstage.store.object import ObjectInfo
from cpstage.transfer.intake import naming

_OUTPUT_HINT = "the session of a job may usually write its outputs and not read them"


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
        blob: Its bytes.
        counted: What has been read of it.
    """

    artifact: Artifact
    info: ObjectInfo
    format: Format | None
    blob: Blob
    counted: Counted

    @property
    def title(self) -> str:
        """What to call it in messages."""
        return f"artifact {self.artifact.name} at {self.artifact.location}"


def find_artifacts(job: Job, globs: Sequence[str]) -> list[Artifact]:
    """Return the job's inputs and outputs of some names; without a name, all inputs.

    Raises:
        UsageError: A name or glob matches nothing.
    """
    if not globs:
        return [*job.input_artifacts]
    return choose([*job.input_artifacts, *job.output_artifacts], globs, "artifact of the job")


def open_remote(job: Job, store: Store, artifact: Artifact) -> Remote:
    """Look at an artifact's object, and read its start.

    Raises:
        ObjectNotFound, AccessDenied, ServiceUnavailable: As S3 says, naming the artifact.
        ArtifactRejected: It is encrypted, or is not what its name or Content-Type promises.
    """
    try:
        info = store.look_at(artifact)
    except AccessDenied as error:
        if artifact in job.input_artifacts:
            raise
        raise AccessDenied(error.message, hint=_OUTPUT_HINT) from error
    counted = Counted(store.open(artifact, info))
    head = counted.read(0, min(ENVELOPE_HEAD_BYTES, info.size))
    blob = BytesBlob(head) if len(head) == info.size else counted
    with naming(f"artifact {artifact.name} at {artifact.location}"):
        what = s3_client_object(info.metadata)
        if what:
            raise ArtifactRejected(f"it is {what}", hint=S3_CLIENT_HINT)
        if read_header(head) is not None:
            raise ArtifactRejected(
                "it is sealed in an envelope, which is opened as a whole",
                hint="cpstage fetch opens it",
            )
        found = recognise(
            head[:HEAD_BYTES], name=artifact.location.key, content_type=info.content_type
        )
    return Remote(artifact, info, found, blob, counted)
