"""One object in S3: what S3 says of it, and its bytes by ranged reads.

Every read is of the version that was looked at first, and one that is cut in the middle is made
again. This module knows nothing of what is in the object.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cpstage.checksum import Checksum, full_object_checksum
from cpstage.failures import SESSION_EXPIRED_HINT, aws_failures
from cpstage.job import Artifact
from cpstage.retries import Retries

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


@dataclass(frozen=True)
class ObjectInfo:
    """What S3 says of an object.

    Attributes:
        size: In bytes.
        etag: The entity tag, with its quotes.
        version_id: None where the bucket has no versions.
        content_type: As the uploader wrote it.
        encryption: ``aws:kms``, ``AES256`` or None: how S3 keeps it.
        kms_key_id: The ARN of the key, for ``aws:kms``.
        checksum: The checksum of the whole object that S3 keeps, if it does.
        metadata: The uploader's own, names in lower case without ``x-amz-meta-``.
    """

    size: int
    etag: str
    version_id: str | None
    content_type: str
    encryption: str | None
    kms_key_id: str | None
    checksum: Checksum | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)


class S3Object:
    """An object as a blob: every read is a ranged GET of the version that was looked at first.

    Args:
        client: A client with the job's session credentials.
        artifact: Whose object it is.
        info: What S3 said of it.
        retries: How long to go on when the network fails.
    """

    def __init__(
        self, client: S3Client, artifact: Artifact, info: ObjectInfo, retries: Retries
    ) -> None:
        self._client = client
        self._retries = retries
        self.artifact = artifact
        self.info = info

    @property
    def size(self) -> int:
        """How many bytes it has."""
        return self.info.size

    def read(self, offset: int, length: int) -> bytes:
        """Return the bytes ``[offset, offset + length)``.

        Raises:
            OutOfSync: The object was replaced since it was opened.
            AccessDenied, ObjectNotFound, ServiceUnavailable: As S3 says.
        """
        if not length:
            return b""
        from botocore.exceptions import (
            IncompleteReadError,
            ReadTimeoutError,
            ResponseStreamingError,
        )

        cut = (IncompleteReadError, ReadTimeoutError, ResponseStreamingError)
        what = f"bytes {offset:,} to {offset + length:,} of {self.artifact.location}"
        with reading(self.artifact, self.info.kms_key_id):
            return self._retries(lambda: self._get(offset, length), cut, what)

    def _get(self, offset: int, length: int) -> bytes:
        from botocore.exceptions import IncompleteReadError

        location = self.artifact.location
        answer = self._client.get_object(
            Bucket=location.bucket,
            Key=location.key,
            Range=f"bytes={offset}-{offset + length - 1}",
            IfMatch=self.info.etag,
        )
        data = answer["Body"].read()
        if len(data) != length:
            raise IncompleteReadError(actual_bytes=len(data), expected_bytes=length)
        return data


def object_info(answer: Any) -> ObjectInfo:
    """Return what the answer to a HeadObject says."""
    return ObjectInfo(
        size=answer["ContentLength"],
        etag=answer.get("ETag", ""),
        version_id=answer.get("VersionId"),
        content_type=answer.get("ContentType", ""),
        encryption=answer.get("ServerSideEncryption"),
        kms_key_id=answer.get("SSEKMSKeyId"),
        checksum=full_object_checksum(answer),
        metadata=answer.get("Metadata", {}),
    )


def reading(artifact: Artifact, kms_key_id: str | None = None) -> AbstractContextManager[None]:
    """Turn failures to read an object into our errors, naming it and its key."""
    key = f"its key {kms_key_id}" if kms_key_id else "its key"
    return aws_failures(
        f"read artifact {artifact.name} at {artifact.location}",
        denied_hint=f"the job's session needs s3:GetObject on it and kms:Decrypt on {key}; a "
        "missing object is also denied to who may not list the bucket",
        expired_hint=SESSION_EXPIRED_HINT,
        key_hint=f"check that {key} is enabled and lies in the bucket's region",
    )
