"""How an object is uploaded: its parts, the members of a request, and the check of the answers.

Every upload requests SSE-KMS, since the policy of CodePipeline's buckets denies anything else.
A request names a key where the job has one; otherwise S3 uses the bucket's default key.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, Literal, NamedTuple
from urllib.parse import urlencode

from cpstage.aws.checksum import Checksum
from cpstage.aws.client import Answer
from cpstage.aws.s3 import Pieces
from cpstage.errors import AccessDenied
from cpstage.job import EncryptionKey, S3Location

ServerSideEncryption = Literal["aws:kms", "aws:kms:dsse"]
CannedAcl = Literal["private", "bucket-owner-read", "bucket-owner-full-control"]


_PART = 8 << 20

_SMALL = 64 << 10

_MOST_PARTS = 9_000
"""S3 accepts 10,000 parts (Amazon S3 User Guide, multipart upload limits). The reserve covers the
headers of an archive, whose size is estimated."""


class StorageOptions(NamedTuple):
    """What an upload requests besides its location.

    Attributes:
        sse: SSE-KMS, or DSSE-KMS, which encrypts twice.
        bucket_key: Whether S3 uses a Bucket Key, which saves calls to KMS.
        acl: The canned ACL; None for that of the bucket.
        tags: The object's tags.
    """

    sse: ServerSideEncryption = "aws:kms"
    bucket_key: bool = False
    acl: CannedAcl | None = None
    tags: Mapping[str, str] = MappingProxyType({})

    def members(self) -> dict[str, Any]:
        """Return the members of PutObject and CreateMultipartUpload."""
        asked: dict[str, Any] = {"ServerSideEncryption": self.sse}
        if self.bucket_key:
            asked["BucketKeyEnabled"] = True
        if self.acl:
            asked["ACL"] = self.acl
        if self.tags:
            asked["Tagging"] = urlencode(self.tags)
        return asked

    def permissions(self) -> str:
        """Return the S3 actions that the upload needs, for a hint."""
        actions = ["s3:PutObject"]
        if self.acl:
            actions.append("s3:PutObjectAcl")
        if self.tags:
            actions.append("s3:PutObjectTagging")
        return ", ".join(actions)


class Upload(NamedTuple):
    """The answer of S3 to an upload.

    Attributes:
        checksum: The full-object checksum that S3 compared.
    """

    location: S3Location
    size: int
    etag: str
    version_id: str | None
    encryption: str
    kms_key_id: str | None
    checksum: Checksum


class StorageCheck:
    """Compares the answers of S3 to an upload with the requested encryption.

    S3 reports the encryption of a multipart upload with each part and with its completion; some
    compatible stores report it with the parts only.

    Args:
        key: The job's KMS key; None for the bucket's default key.
        options: What the upload requests.
    """

    _RECORDED = ("ETag", "VersionId", "ServerSideEncryption", "SSEKMSKeyId")

    def __init__(self, key: EncryptionKey | None, options: StorageOptions) -> None:
        self._key_id = key.kms_key_id if key else None
        self._options = options
        self._recorded: dict[str, str] = {}

    def members(self) -> dict[str, Any]:
        """Return the members of the request, with the job's key if it has one."""
        named = {"SSEKMSKeyId": self._key_id} if self._key_id else {}
        return {**self._options.members(), **named}

    def record(self, answer: Answer) -> None:
        """Record the ETag, version ID and encryption that an answer of S3 reports."""
        self._recorded.update({name: answer[name] for name in self._RECORDED if answer.get(name)})

    def check(self, location: S3Location, size: int, checksum: Checksum) -> Upload:
        """Compare the recorded answers with the request.

        Raises:
            AccessDenied: S3 encrypted the object differently.
        """
        encryption = self._recorded.get("ServerSideEncryption")
        used = self._recorded.get("SSEKMSKeyId")
        if encryption != self._options.sse:
            raise AccessDenied(
                f"S3 stored {location} with encryption {encryption or 'none'}, but "
                f"{self._options.sse} was requested",
                hint="remove the object from the bucket, and check the bucket's policy",
            )
        asked = self._key_id
        if asked and not _same_key(asked, used):
            raise AccessDenied(
                f"S3 stored {location} under the key {used}, but {asked} was requested",
                hint="remove the object from the bucket, and check the bucket's encryption",
            )
        etag, version_id = self._recorded.get("ETag", ""), self._recorded.get("VersionId")
        return Upload(location, size, etag, version_id, encryption, used, checksum)


def _same_key(asked: str, used: str | None) -> bool:
    """Compare a key ID, key ARN or alias with the key ARN that S3 reports.

    Resolving an alias needs a permission that job sessions lack, so an alias is accepted for any
    key.
    """
    return "alias/" in asked or asked in (used, (used or "").rpartition("/")[2])


def in_parts(chunks: Iterator[bytes], size_bound: int) -> Iterator[Pieces]:
    """Split a stream into parts of one size; the last part is shorter.

    Args:
        chunks: The bytes.
        size_bound: An upper bound of their number, which sets the size of a part.
    """
    size = max(_PART, -(-size_bound // _MOST_PARTS))
    part: list[memoryview | bytearray] = []
    have = 0
    for chunk in chunks:
        rest = memoryview(chunk)
        while have + len(rest) >= size:
            yield [*part, rest[: size - have]]
            rest = rest[size - have :]
            part, have = [], 0
        if rest:
            _append(part, rest)
            have += len(rest)
    if have:
        yield part


def _append(part: list[memoryview | bytearray], piece: memoryview) -> None:
    """Add a buffer to a part; small buffers are joined, since each costs a call to send."""
    last = part[-1] if part else None
    if len(piece) >= _SMALL:
        part.append(piece)
    elif isinstance(last, bytearray):
        last += piece
    else:
        part.append(bytearray(piece))
