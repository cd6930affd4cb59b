"""Operations on the objects of a job that its session credentials allow, and their checksums.

These are GetObject, HeadObject, PutObject and the multipart operations (Amazon S3 API Reference).
Keys are sent as they are. s3transfer, boto3's own transfer manager, does not serve: it cannot be
stopped within seconds, resumes no body, and computes no checksum over a whole object that was
uploaded in parts.

S3 sends no checksum with a range of an object, so the reader of many ranges compares the checksum
of the whole. cpstage always computes CRC32 and SHA; CRC32C and CRC64NVME need ``awscrt`` (the extra
``crt``).
"""

from __future__ import annotations

import base64
import hashlib
import io
import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from botocore.exceptions import FlexibleChecksumError

from cpstage._deflate import crc32
from cpstage.aws.client import Answer, AwsClient, Check, NetworkError, Retries, has
from cpstage.errors import ArtifactRejected

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_COMPLETION_PATIENCE = 10.0
"""Read timeouts: S3 sends blanks while it assembles many parts, which takes minutes."""

Piece = bytes | bytearray | memoryview
Pieces = Sequence[Piece]
"""A body in buffers: joining 8 MiB costs as much as sending them."""


def length_of(pieces: Pieces) -> int:
    """Return the size of a body in bytes."""
    return sum(map(len, pieces))


_ALGORITHMS = ("CRC32", "SHA256", "SHA1", "CRC64NVME", "CRC32C")


class Checksum(NamedTuple):
    """The checksum of a whole object in base64, and its algorithm, such as ``CRC64NVME``."""

    algorithm: str
    value: str

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.value}"

    def begin(self) -> RunningChecksum | None:
        """Begin to compute the checksum; return None where the algorithm is not installed."""
        if self.algorithm in ("SHA1", "SHA256"):
            return RunningChecksum(self, hashlib.new(self.algorithm.lower(), usedforsecurity=False))
        crc: Callable[[bytes, int], int] | None = crc32
        if self.algorithm != "CRC32":
            try:
                from awscrt import checksums
            except ImportError:
                return None
            crc = getattr(checksums, self.algorithm.lower(), None)
        size = 8 if "64" in self.algorithm else 4
        return RunningChecksum(self, _Crc(crc, size)) if crc else None


def crc32_checksum(crc: int) -> Checksum:
    """Return a CRC-32 as requests to S3 have it."""
    return Checksum("CRC32", base64.b64encode(crc.to_bytes(4, "big")).decode())


def full_object_checksum(answer: Mapping[str, Any]) -> Checksum | None:
    """Return the checksum of the whole object from an answer of S3, one that can be computed first.

    A composite checksum cannot be compared: it is made of the checksums of parts, whose sizes are
    unknown.
    """
    if answer.get("ChecksumType", "FULL_OBJECT") != "FULL_OBJECT":
        return None
    values = {name: answer.get(f"Checksum{name}") or "-" for name in _ALGORITHMS}
    found = [Checksum(name, value) for name, value in values.items() if "-" not in value]
    return next((one for one in found if one.begin()), found[0] if found else None)


class _Crc:
    """A CRC in the form of ``hashlib``."""

    def __init__(self, crc: Callable[[bytes, int], int], size: int) -> None:
        self._crc = crc
        self._size = size
        self._value = 0

    def update(self, data: bytes) -> None:
        self._value = self._crc(data, self._value)

    def digest(self) -> bytes:
        return self._value.to_bytes(self._size, "big")


class RunningChecksum(NamedTuple):
    """A checksum being computed over an object's bytes, by an object like those of ``hashlib``."""

    expected: Checksum
    running: Any

    def update(self, data: bytes) -> None:
        """Add the next bytes."""
        self.running.update(data)

    def verify(self) -> None:
        """Compare, after the last byte.

        Raises:
            ArtifactRejected: The checksums differ.
        """
        found = base64.b64encode(self.running.digest()).decode()
        if found != self.expected.value:
            raise ArtifactRejected(
                f"the bytes that S3 sent have the {self.expected.algorithm} {found}, and the "
                f"object has {self.expected.value}",
                hint="the network or a proxy changed them: run the command again",
            )


class ObjectInfo(NamedTuple):
    """The answer of HeadObject.

    Attributes:
        etag: The ETag, with its quotes.
        version_id: The version ID; None in a bucket without versions.
        encryption: The server-side encryption: ``aws:kms``, ``aws:kms:dsse``, ``AES256`` or None.
        kms_key_id: The ARN of the KMS key, for ``aws:kms`` and ``aws:kms:dsse``.
        checksum: The full-object checksum, where S3 has one.
        metadata: User metadata; names in lower case without ``x-amz-meta-``.
        last_modified: When the object was stored, as S3 writes it (``Last-Modified``).
        storage_class: Its storage class; S3 leaves ``STANDARD`` out.
    """

    size: int
    etag: str
    version_id: str | None
    content_type: str
    encryption: str | None
    kms_key_id: str | None
    checksum: Checksum | None = None
    metadata: Mapping[str, str] = {}
    last_modified: str | None = None
    storage_class: str = "STANDARD"

    @property
    def unverified_checksum(self) -> str | None:
        """The algorithm of the checksum, where it cannot be computed here."""
        return self.checksum.algorithm if self.checksum and not self.checksum.begin() else None


def object_info(answer: Answer) -> ObjectInfo:
    """Return the facts of a HeadObject answer."""
    return ObjectInfo(
        size=answer["ContentLength"],
        etag=answer["ETag"],
        version_id=answer.get("VersionId"),
        content_type=answer.get("ContentType", ""),
        encryption=answer.get("ServerSideEncryption"),
        kms_key_id=answer.get("SSEKMSKeyId"),
        checksum=full_object_checksum(answer),
        metadata=answer.get("Metadata", {}),
        last_modified=answer.get("LastModified"),
        storage_class=answer.get("StorageClass") or "STANDARD",
    )


class OpenUpload(NamedTuple):
    """A multipart upload that was created, and neither completed nor aborted."""

    bucket: str
    key: str
    id: str

    def members(self) -> dict[str, str]:
        """Return the members that name it."""
        return {"Bucket": self.bucket, "Key": self.key, "UploadId": self.id}


class S3:
    """Calls operations on objects; the log has the names of artifacts by bucket and key."""

    def __init__(self, client: AwsClient, names: Mapping[tuple[str, str], str] = {}) -> None:
        self._client = client
        self._names = names

    def head_object(self, bucket: str, key: str, *, checksum: bool = False) -> Answer:
        """Call HeadObject; ``checksum`` also needs kms:Decrypt."""
        mode = {"ChecksumMode": "ENABLED"} if checksum else {}
        parameters = {"Bucket": bucket, "Key": key, **mode}
        return self._call("HeadObject", parameters, has("ETag", "ContentLength"))

    def get_range(
        self, bucket: str, key: str, offset: int, length: int, etag: str | None = None
    ) -> bytes:
        """Return bytes of an object, all of which exist, if it still has the ETag.

        A body that is cut is resumed at the byte that was reached.

        Raises:
            ArtifactRejected: The bytes differ from the checksum that S3 sent with them, twice.
        """
        pieces: list[bytes] = []
        done, failures, began = 0, 0, time.monotonic()
        was_changed = False
        retries = self._client.retries
        parameters = {"Bucket": bucket, "Key": key, **({"IfMatch": etag} if etag else {})}
        while True:
            failure = self._get_into(pieces, parameters, offset + done, length - done)
            got = length_of(pieces) - done
            done += got
            if failure is None:
                return pieces[0] if len(pieces) == 1 else b"".join(pieces)
            if isinstance(failure, FlexibleChecksumError):
                if was_changed:
                    raise ArtifactRejected(
                        f"cannot read {self._title(parameters)}: the bytes that S3 sent differ "
                        f"from its checksum: {failure}",
                        hint="the object, the network or a proxy changed them: run the command "
                        "again",
                    ) from None
                was_changed, done = True, 0
                pieces.clear()
            failures = 1 if got else failures + 1
            if got:
                retries.progressed()
            if not retries.wait(failures, began, math.inf):
                raise failure

    def _get_into(
        self, pieces: list[bytes], parameters: Mapping[str, Any], offset: int, length: int
    ) -> Exception | None:
        """Read a range into a buffer; return the failure that stopped the read."""
        wanted = f"bytes={offset}-{offset + length - 1}"
        with self._client.connections.expecting(length, keeps_cut=True):
            body = self._call(
                "GetObject",
                {**parameters, "Range": wanted},
                lambda one: _not_the_range(one, offset, length),
                detail=wanted,
            )["Body"]
            try:
                piece = body.read(length)
                if piece:
                    pieces.append(piece)
                # Reading to the end returns the connection to the pool.
                is_whole = len(piece) == length and not body.read(1)
                return None if is_whole else NetworkError("the answer was cut", began=True)
            except Exception as error:
                from cpstage.aws.errors import translated

                failure = translated(error, "GetObject")
                failure.__traceback__ = failure.__context__ = None
                return failure
            finally:
                with suppress(Exception):
                    body.close()

    def put_object(self, body: Pieces, crc32: str, members: Mapping[str, Any]) -> Answer:
        """Store an object in one request; S3 compares the CRC-32 (base64)."""
        parameters = {**members, "Body": Body(body), "ChecksumCRC32": crc32}
        detail = f"{length_of(body)} bytes"
        return self._call("PutObject", parameters, has("ETag"), detail)

    def create_multipart_upload(self, members: Mapping[str, Any]) -> tuple[OpenUpload, Answer]:
        """Create a multipart upload with a full-object CRC-32."""
        checksum = {"ChecksumAlgorithm": "CRC32", "ChecksumType": "FULL_OBJECT"}
        answer = self._call("CreateMultipartUpload", {**members, **checksum}, has("UploadId"))
        upload = OpenUpload(members["Bucket"], members["Key"], answer["UploadId"])
        return upload, answer

    def upload_part(self, upload: OpenUpload, number: int, body: Pieces, crc32: str) -> Answer:
        """Send one part, with base64 of its CRC-32."""
        part = {"PartNumber": number, "Body": Body(body), "ChecksumCRC32": crc32}
        detail = f"part {number}, {length_of(body)} bytes"
        return self._call("UploadPart", {**upload.members(), **part}, has("ETag"), detail)

    def complete_multipart_upload(
        self, upload: OpenUpload, parts: Sequence[Mapping[str, Any]], crc32: str
    ) -> Answer:
        """Complete an upload; S3 compares the full-object CRC-32 (base64)."""
        parameters = {
            **upload.members(),
            "MultipartUpload": {"Parts": parts},
            "ChecksumCRC32": crc32,
            "ChecksumType": "FULL_OBJECT",
        }
        with self._client.connections.expecting(patience=_COMPLETION_PATIENCE):
            return self._call("CompleteMultipartUpload", parameters, has("ETag"))

    def abort_multipart_upload(self, upload: OpenUpload, timeout: float) -> None:
        """Abort an upload, which removes its parts; retry for at most ``timeout`` seconds."""
        retries = Retries(timeout)
        self._call("AbortMultipartUpload", upload.members(), _not_aborted, retries=retries)

    def interrupt(self) -> None:
        """Interrupt pending requests, and retry none."""
        self._client.interrupt()

    def _call(
        self,
        operation: str,
        parameters: Mapping[str, Any],
        check: Check,
        detail: str = "",
        retries: Retries | None = None,
    ) -> Answer:
        about = f"{self._title(parameters)} {detail}".rstrip()
        return self._client.call(operation, parameters, about=about, check=check, retries=retries)

    def _title(self, members: Mapping[str, Any]) -> str:
        bucket, key = members["Bucket"], members["Key"]
        name = self._names.get((bucket, key))
        return f"{f'artifact {name} at ' if name else ''}s3://{bucket}/{key}"


class Body(io.RawIOBase):
    """A body in buffers as the file object that botocore sends, without joining the buffers.

    botocore reads it to sign it, and again to send it, and goes back to its start for each try.
    """

    def __init__(self, pieces: Pieces) -> None:
        self._pieces = [memoryview(piece) for piece in pieces if len(piece)]
        self._size = length_of(self._pieces)
        self._index = self._at = self._position = 0

    def __len__(self) -> int:
        return self._size

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True: botocore rewinds the body for a retry."""
        return True

    def tell(self) -> int:
        """Return how many bytes were read."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to a byte offset."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = left = max(0, min(base + offset, self._size))
        self._index = 0
        while self._index < len(self._pieces) and left >= len(self._pieces[self._index]):
            left -= len(self._pieces[self._index])
            self._index += 1
        self._at = left
        return self._position

    def read(self, size: int | None = -1) -> bytes:
        """Return the next ``size`` bytes, fewer at the end; all bytes for -1."""
        left = self._size - self._position
        wanted = left if size is None or size < 0 else min(size, left)
        found: list[memoryview] = []
        while wanted:
            piece = self._pieces[self._index][self._at : self._at + wanted]
            found.append(piece)
            wanted -= len(piece)
            self._position += len(piece)
            self._at += len(piece)
            if self._at == len(self._pieces[self._index]):
                self._index, self._at = self._index + 1, 0
        return b"".join(found)

    def readinto(self, buffer: WriteableBuffer) -> int:
        """Fill a buffer, for the checksums of ``awscrt``."""
        view = memoryview(buffer).cast("B")
        data = self.read(len(view))
        view[: len(data)] = data
        return len(data)


def _not_aborted(answer: Answer) -> str | None:
    """Refuse a success other than 204 (S3 API reference): a proxy's page aborts nothing."""
    status = answer.get("ResponseMetadata", {}).get("HTTPStatusCode")
    return None if status == 204 else f"the answer to the abort has status {status}"


def _not_the_range(answer: Answer, offset: int, length: int) -> str | None:
    """Refuse another range, the whole object, and an answer without the members of S3."""
    lacks = has("ETag", "Body")(answer)
    status = answer.get("ResponseMetadata", {}).get("HTTPStatusCode")
    sent = str(answer.get("ContentRange") or f"bytes {offset}-{offset + length - 1}/")
    if (status == 200 and offset) or not sent.startswith(f"bytes {offset}-{offset + length - 1}/"):
        return "the answer is not the range that was asked for"
    if answer.get("ContentLength") not in (None, length):
        return f"the answer announces {answer['ContentLength']} bytes instead of {length}"
    return lacks
