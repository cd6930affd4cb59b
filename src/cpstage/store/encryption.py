"""SSE-KMS: what is asked of S3 for an upload, and what S3 says it did.

An upload always asks for ``aws:kms``: the policy of CodePipeline's own buckets denies anything
else. It names a key only where the job has one; without, S3 takes the key of the bucket or its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cpstage.errors import AccessDenied
from cpstage.job import EncryptionKey, S3Location
from cpstage.store.checksum import Checksum

SSE = "x-amz-server-side-encryption"
KMS_KEY_ID = f"{SSE}-aws-kms-key-id"
_BUCKET_KEY = f"{SSE}-bucket-key-enabled"
"""Headers of requests and of answers."""


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

    _NOTED = ("etag", "x-amz-version-id", SSE, KMS_KEY_ID)

    def __init__(self, key: EncryptionKey | None, *, bucket_key: bool) -> None:
        self._key_id = key.kms_key_id if key else None
        self._bucket_key = bucket_key
        self._noted: dict[str, str] = {}

    def headers(self) -> dict[str, str]:
        """Ask for SSE-KMS always, and name a key only where the job has one."""
        asked = {SSE: "aws:kms"}
        if self._key_id:
            asked[KMS_KEY_ID] = self._key_id
        if self._bucket_key:
            asked[_BUCKET_KEY] = "true"
        return asked

    def note(self, headers: Mapping[str, str]) -> None:
        """Take note of an answer of S3."""
        self._noted.update({name: headers[name] for name in self._NOTED if headers.get(name)})

    def check(self, location: S3Location, size: int, checksum: Checksum) -> Upload:
        """Hold S3's answers against what was asked for.

        Raises:
            AccessDenied: The object lies in the bucket otherwise than it should.
        """
        encryption = self._noted.get(SSE)
        used = self._noted.get(KMS_KEY_ID)
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
        etag, version_id = self._noted.get("etag", ""), self._noted.get("x-amz-version-id")
        return Upload(location, size, etag, version_id, encryption, used, checksum)


def _same_key(asked: str, used: str | None) -> bool:
    """Compare a key id, key ARN or alias with the key ARN that S3 names.

    An alias cannot be resolved without a permission that sessions do not have: it is taken for
    the key that S3 found by it.
    """
    return "alias/" in asked or asked in (used, (used or "").rpartition("/")[2])
