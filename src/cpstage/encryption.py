"""SSE-KMS: what is asked of S3 for an upload, and what S3 says it did.

An upload always asks for ``aws:kms``: the policy of CodePipeline's own buckets denies anything
else. It names a key only where the job has one; without, S3 takes the key of the bucket or its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cpstage.errors import AccessDenied
from cpstage.job import EncryptionKey, S3Location

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


@dataclass(frozen=True)
class Upload:
    """What S3 says it did with an upload."""

    location: S3Location
    size: int
    etag: str
    version_id: str | None
    encryption: str
    kms_key_id: str | None


class SseKms:
    """The encryption of one upload: as a context, it takes part in the calls of a client.

    The transfer manager keeps S3's answers to itself, and knows nothing of Bucket Keys; the
    client's events have both. Of a large upload, S3 says how it encrypts with each part; other
    stores say so with nothing else.

    Args:
        client: The client that the upload is made with; one upload at a time.
        key: The job's key, if it has one.
        bucket_key: Whether S3 is to use a Bucket Key, which saves calls to KMS.
    """

    _ASKING = ("PutObject", "CreateMultipartUpload")
    _ANSWERING = (*_ASKING, "UploadPart", "CompleteMultipartUpload")
    _MEMBERS = ("ETag", "VersionId", "ServerSideEncryption", "SSEKMSKeyId")

    def __init__(self, client: S3Client, key: EncryptionKey | None, *, bucket_key: bool) -> None:
        self._events = client.meta.events
        self._key_id = key.kms_key_id if key else None
        self._bucket_key = bucket_key
        self._members: dict[str, str] = {}

    def __enter__(self) -> SseKms:
        for call in self._ASKING:
            self._events.register(f"before-parameter-build.s3.{call}", self._ask)
        for call in self._ANSWERING:
            self._events.register(f"after-call.s3.{call}", self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for call in self._ASKING:
            self._events.unregister(f"before-parameter-build.s3.{call}", self._ask)
        for call in self._ANSWERING:
            self._events.unregister(f"after-call.s3.{call}", self._note)

    def _ask(self, params: dict[str, Any], **_: Any) -> None:
        """Ask for SSE-KMS always, and name a key only where the job has one."""
        params["ServerSideEncryption"] = "aws:kms"
        if self._key_id:
            params["SSEKMSKeyId"] = self._key_id
        if self._bucket_key:
            params["BucketKeyEnabled"] = True

    def _note(self, parsed: dict[str, Any], **_: Any) -> None:
        self._members.update({name: parsed[name] for name in self._MEMBERS if parsed.get(name)})

    def check(self, location: S3Location, size: int) -> Upload:
        """Hold S3's answers against what was asked for.

        Raises:
            AccessDenied: The object lies in the bucket otherwise than it should.
        """
        encryption = self._members.get("ServerSideEncryption")
        used = self._members.get("SSEKMSKeyId")
        if encryption != "aws:kms":
            raise AccessDenied(
                f"S3 stored {location} with encryption {encryption or 'none'}, though asked for "
                "aws:kms",
                hint="the artifact is in the bucket: remove it, and check the bucket's policy",
            )
        asked = self._key_id
        if asked and not _same_key(asked, used):
            raise AccessDenied(
                f"S3 stored {location} under the key {used}, though asked for {asked}",
                hint="the artifact is in the bucket: remove it, and check the bucket's encryption",
            )
        etag, version_id = self._members.get("ETag", ""), self._members.get("VersionId")
        return Upload(location, size, etag, version_id, encryption, used)


def _same_key(asked: str, used: str | None) -> bool:
    """Compare a key id, key ARN or alias with the key ARN that S3 names.

    An alias cannot be resolved without a permission that sessions do not have: it is taken for
    the key that S3 found by it.
    """
    return "alias/" in asked or asked in (used, (used or "").rpartition("/")[2])
