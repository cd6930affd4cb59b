"""SSE-KMS: what is asked of S3 for an upload, and what S3 says it did.

An upload always asks for ``aws:kms``: the policy of CodePipeline's own buckets denies anything
else. It names a key only where the job has one; without, S3 takes the key of the bucket or its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cpstage.aws.client import Answer
from cpstage.errors import AccessDenied
from cpstage.job import EncryptionKey, S3Location
from cpstage.store.checksum import Checksum


@dataclass(frozen=True)
class Upload:
    """What S3 says it did with an upload.

    Attributes:
        checksum: What S3 was given to hold the object's bytes against.
    """

    location: S3Location
    size: int
    etag: str
    version_id: str | None
    encryption: str
    kms_key_id: str | None
    checksum: Checksum


class SseKms:
    """The encryption of one upload: what is asked for, and what all answers to it say.

    Of a large upload, S3 says how it encrypts with each part; other stores say so with nothing
    else.

    Args:
        key: The job's key, if it has one.
        bucket_key: Whether S3 is to use a Bucket Key, which saves calls to KMS.
    """

    _NOTED = ("ETag", "VersionId", "ServerSideEncryption", "SSEKMSKeyId")

    def __init__(self, key: EncryptionKey | None, *, bucket_key: bool) -> None:
        self._key_id = key.kms_key_id if key else None
        self._bucket_key = bucket_key
        self._noted: dict[str, str] = {}

    def members(self) -> dict[str, Any]:
        """Return the members of a request: always SSE-KMS, and a key only where the job has one."""
        asked: dict[str, Any] = {"ServerSideEncryption": "aws:kms"}
        if self._key_id:
            asked["SSEKMSKeyId"] = self._key_id
        if self._bucket_key:
            asked["BucketKeyEnabled"] = True
        return asked

    def note(self, answer: Answer) -> None:
        """Keep what an answer of S3 says of the object."""
        self._noted.update({name: answer[name] for name in self._NOTED if answer.get(name)})

    def check(self, location: S3Location, size: int, checksum: Checksum) -> Upload:
        """Hold S3's answers against what was asked for.

        Raises:
            AccessDenied: The object lies in the bucket otherwise than it should.
        """
        encryption = self._noted.get("ServerSideEncryption")
        used = self._noted.get("SSEKMSKeyId")
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
        etag, version_id = self._noted.get("ETag", ""), self._noted.get("VersionId")
        return Upload(location, size, etag, version_id, encryption, used, checksum)


def _same_key(asked: str, used: str | None) -> bool:
    """Compare a key id, key ARN or alias with the key ARN that S3 names.

    An alias cannot be resolved without a permission that sessions do not have: it is taken for
    the key that S3 found by it.
    """
    return "alias/" in asked or asked in (used, (used or "").rpartition("/")[2])
