"""What fetch and push have done, as data: for callers, for ``--json`` and for the manifest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from cpstage.archive.contents import Contents, contents_document
from cpstage.archive.formats import Format
from cpstage.job import Artifact, Job
from cpstage.store.encryption import Upload
from cpstage.store.object import ObjectInfo

PushStatus = Literal["pushed", "planned", "skipped"]


@dataclass(frozen=True)
class Staged:
    """One input artifact.

    Attributes:
        artifact: The job's artifact.
        path: Where it is, or would be, staged.
        status: ``staged`` now; ``unchanged`` since an earlier fetch, or ``modified`` by somebody
            since; or ``planned`` by a dry run.
        info: What S3 says of the object.
        format: The archive format, or None for a file that is kept as it is.
        contents: What came out of it; None where nothing was unpacked.
        verified: What proves that the bytes are those that were uploaded.
        envelope: What the envelope says of itself that the artifact was sealed in, if it was.
    """

    artifact: Artifact
    path: Path
    status: Literal["staged", "unchanged", "modified", "planned"]
    info: ObjectInfo
    format: Format | None = None
    contents: Contents | None = None
    verified: tuple[str, ...] = ()
    envelope: Mapping[str, Any] | None = None

    def document(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        info = self.info
        return {
            "name": self.artifact.name,
            "path": str(self.path),
            "status": self.status,
            "location": location_document(self.artifact),
            "revision": self.artifact.revision,
            "version_id": info.version_id,
            "etag": info.etag,
            "size": info.size,
            "checksum": str(info.checksum) if info.checksum else None,
            "encryption": info.encryption,
            "kms_key_id": info.kms_key_id,
            "envelope": self.envelope,
            "format": self.format,
            **contents_document(self.contents),
            "verified": list(self.verified),
        }


@dataclass(frozen=True)
class FetchResult:
    """What a fetch has done: the inputs it was asked for, and where outputs go.

    Attributes:
        retries: How many requests to S3 and KMS had to be made again.
    """

    job: Job
    inputs: tuple[Staged, ...]
    outputs: dict[str, Path]
    retries: int = 0

    def document(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {
            "job_id": self.job.id,
            "inputs": [staged.document() for staged in self.inputs],
            "outputs": {name: str(path) for name, path in self.outputs.items()},
            "retries": self.retries,
        }


@dataclass(frozen=True)
class Pushed:
    """One output artifact.

    Attributes:
        artifact: The job's artifact.
        source: The directory or file that it is made of.
        status: ``pushed`` now, ``planned`` by a dry run, or ``skipped`` since it is empty.
        format: The archive format, or ``raw`` for a file that goes up as it is.
        files: How many files it holds.
        unpacked_size: How many bytes they have together.
        upload: What S3 says of the upload.
        envelope: What the envelope says of itself that it is sealed in, if it is.
    """

    artifact: Artifact
    source: Path
    status: PushStatus
    format: Format | Literal["raw"]
    files: int
    unpacked_size: int
    upload: Upload | None = None
    envelope: Mapping[str, Any] | None = None

    def document(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        upload = self.upload
        return {
            "name": self.artifact.name,
            "source": str(self.source),
            "status": self.status,
            "location": location_document(self.artifact),
            "format": self.format,
            "files": self.files,
            "unpacked_size": self.unpacked_size,
            "size": upload.size if upload else None,
            "version_id": upload.version_id if upload else None,
            "etag": upload.etag if upload else None,
            "checksum": str(upload.checksum) if upload else None,
            "encryption": upload.encryption if upload else None,
            "kms_key_id": upload.kms_key_id if upload else None,
            "envelope": self.envelope,
        }


@dataclass(frozen=True)
class PushResult:
    """What a push has done: every output artifact of the job.

    Attributes:
        retries: How many requests to S3 and KMS had to be made again.
    """

    job: Job
    outputs: tuple[Pushed, ...]
    retries: int = 0

    def document(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {
            "job_id": self.job.id,
            "outputs": [pushed.document() for pushed in self.outputs],
            "retries": self.retries,
        }


def location_document(artifact: Artifact) -> dict[str, str]:
    """Return an artifact's location as JSON has it."""
    return {"bucket": artifact.location.bucket, "key": artifact.location.key}
