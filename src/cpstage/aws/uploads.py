"""Uploads of an object: the members of a request, its parts, and the check of the answers.

Every upload requests SSE-KMS, since the policy of CodePipeline's buckets denies anything else.
A request names a key where the job has one; otherwise S3 uses the bucket's default key.

A multipart upload sends as many parts at once as the network makes use of, in bounded memory. S3
compares the full-object CRC-32. An upload that fails or is interrupted is aborted, which removes
its parts from the bucket.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from contextlib import suppress
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, Protocol
from urllib.parse import urlencode

from cpstage._deflate import crc32_combine, crc32_of
from cpstage.aws.client import Answer, CallFailed, NetworkError, ServiceError
from cpstage.aws.s3 import S3, Checksum, OpenUpload, Pieces, crc32_checksum, length_of
from cpstage.errors import AccessDenied
from cpstage.job import EncryptionKey, S3Location

_LOGGER = logging.getLogger("cpstage")

ServerSideEncryption = Literal["aws:kms", "aws:kms:dsse"]
CannedAcl = Literal["private", "bucket-owner-read", "bucket-owner-full-control"]

_PART = 8 << 20

_SMALL = 64 << 10

_MOST_PARTS = 9_000
"""S3 accepts 10,000 parts (Amazon S3 User Guide, multipart upload limits). The reserve covers the
headers of an archive, whose size is estimated."""

_FEWEST_IN_FLIGHT = 4
"""Parts of any size that may be sent at the same time, while the next part is collected."""

_ANSWER_SECONDS = 1.5
"""Seconds that an interrupted upload waits for the answer with its upload ID."""

_GIVE_UP_SECONDS = 5.0
ABORT_SECONDS = 15.0
"""Seconds that an interrupted upload waits for its threads, and for the abort."""


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
        more = {
            "BucketKeyEnabled": self.bucket_key,
            "ACL": self.acl,
            "Tagging": urlencode(self.tags),
        }
        asked = {name: value for name, value in more.items() if value}
        return {"ServerSideEncryption": self.sse, **asked}

    def permissions(self) -> str:
        """Return the S3 actions that the upload needs, for a hint."""
        more = {"s3:PutObjectAcl": self.acl, "s3:PutObjectTagging": self.tags}
        return ", ".join(["s3:PutObject", *(action for action, asked in more.items() if asked)])


class Upload(NamedTuple):
    """The answer of S3 to an upload; S3 compared the full-object checksum."""

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
    """

    _RECORDED = ("ETag", "VersionId", "ServerSideEncryption", "SSEKMSKeyId")

    def __init__(self, key: EncryptionKey | None, options: StorageOptions) -> None:
        self._key_id = key.kms_key_id if key else None
        self._options = options
        self._recorded: dict[str, str] = {}

    def members(self) -> dict[str, Any]:
        """Return the request members for encryption, with the job's key if it has one."""
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
        # Resolving an alias needs a permission that job sessions lack: any key is accepted.
        is_alias = asked is not None and "alias/" in asked
        if asked and not is_alias and asked not in (used, (used or "").rpartition("/")[2]):
            raise AccessDenied(
                f"S3 stored {location} under the key {used}, but {asked} was requested",
                hint="remove the object from the bucket, and check the bucket's encryption",
            )
        etag, version_id = self._recorded.get("ETag", ""), self._recorded.get("VersionId")
        return Upload(location, size, etag, version_id, encryption, used, checksum)


def in_parts(chunks: Iterator[bytes], size_bound: int) -> Iterator[Pieces]:
    """Split a stream into parts of one size, set by an upper bound of the stream's bytes."""
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


class InFlight(Protocol):
    """How many parts are sent at once, as :class:`cpstage.archive.blob.InFlight` learns it.

    Attributes:
        count: How many.
        most: The bound.
    """

    count: int
    most: int

    def take(self, length: int, *, waited: bool, now: float) -> None:
        """Count a part that was sent: its bytes, whether it was waited for, and when."""


class _Sent(NamedTuple):
    """A part that S3 has stored, as CompleteMultipartUpload names it."""

    completed: Mapping[str, Any]
    size: int
    crc: int


class _Creation:
    """The CreateMultipartUpload request, whose answer a caller can still get after an interrupt.

    Attributes:
        may_exist: Whether an upload with an unknown ID may exist.
    """

    def __init__(self, of: MultipartUpload) -> None:
        self._of = of
        self._under_way = threading.Lock()
        self._upload: OpenUpload | None = None
        self.may_exist = False

    def __call__(self) -> OpenUpload:
        with self._under_way:
            self.may_exist = True
            try:
                self._upload, answer = self._of.s3.create_multipart_upload(self._of.members)
            except Exception as error:
                self.may_exist = may_be_applied(error)
                raise
            self._of.record_answer(answer)
            return self._upload

    def upload_within(self, seconds: float) -> OpenUpload | None:
        """Return the upload, after waiting for its creation at most so many seconds."""
        if self._under_way.acquire(timeout=seconds):
            self._under_way.release()
        return self._upload


def _is_no_upload(error: Exception) -> bool:
    return isinstance(error, ServiceError) and error.code == "NoSuchUpload"


def may_be_applied(error: BaseException) -> bool:
    """Whether the failed request may have taken effect: its answer was lost or unreadable."""
    passing = isinstance(error, ServiceError) and error.may_pass
    return isinstance(error, NetworkError) or passing


@dataclass(frozen=True)
class MultipartUpload:
    """One multipart upload.

    Attributes:
        members: Location, media type and encryption, named as in CreateMultipartUpload.
        record_answer: Is called with each answer of S3.
        uploaded: Is called with the number of bytes of each stored part.
        in_flight: Says how many parts to send at the same time.
    """

    s3: S3
    members: Mapping[str, Any]
    record_answer: Callable[[Answer], object]
    uploaded: Callable[[int], object]
    in_flight: InFlight

    def send(self, parts: Iterator[Pieces]) -> tuple[int, Checksum]:
        """Upload all parts, and complete the upload; return the size in bytes and the checksum.

        Raises:
            Exception: The exception of the iterator, or of S3; the upload was aborted.
        """
        pool = ThreadPoolExecutor(self.in_flight.most, thread_name_prefix="cpstage-upload")
        futures: list[Future[_Sent]] = []
        creation = _Creation(self)
        try:
            # In a thread: a signal in this one would lose the answer with the upload ID. The first
            # parts are packed meanwhile.
            created = pool.submit(creation)
            sent = self._send_all(created, parts, pool, futures)
            upload = created.result()
            size, crc = 0, 0
            for one in sent:
                size += one.size
                crc = crc32_combine(crc, one.crc, one.size)
            answer = self._complete(upload, sent, size, crc32_checksum(crc))
        except BaseException as error:
            pool.shutdown(wait=False, cancel_futures=True)
            left = self._give_up(creation, futures)
            if isinstance(error, CallFailed):
                error.also = left
            elif left:
                _LOGGER.warning("%s", left.removeprefix("; "))
            raise
        pool.shutdown()
        self.record_answer(answer)
        return size, crc32_checksum(crc)

    def _complete(
        self, upload: OpenUpload, sent: Sequence[_Sent], size: int, checksum: Checksum
    ) -> Answer:
        """Complete the upload.

        After a lost answer, the next try gets NoSuchUpload. HeadObject then shows whether the
        object exists, by its size and checksum. Where the job's session may not call HeadObject,
        AbortMultipartUpload shows it: S3 answers NoSuchUpload for a completed upload, whose ID
        only this process knows.
        """
        parts = [one.completed for one in sent]
        try:
            return self.s3.complete_multipart_upload(upload, parts, checksum.value)
        except (ServiceError, NetworkError) as error:
            if not (may_be_applied(error) or _is_no_upload(error)):
                raise
            failure = error
        try:
            answer = self.s3.head_object(upload.bucket, upload.key, checksum=True)
            same = (answer["ContentLength"], answer.get("ChecksumCRC32")) == (size, checksum.value)
        except (ServiceError, NetworkError):
            answer, same = {}, _is_no_upload(failure) or self._is_gone(upload)
        if not same:
            raise failure
        _LOGGER.warning("the answer to CompleteMultipartUpload was lost; S3 has the object")
        return answer

    def _is_gone(self, upload: OpenUpload) -> bool:
        """Abort an upload, and return whether S3 answered NoSuchUpload."""
        try:
            self.s3.abort_multipart_upload(upload, ABORT_SECONDS)
        except (ServiceError, NetworkError) as error:
            return _is_no_upload(error)
        return False

    def _send_all(
        self,
        created: Future[OpenUpload],
        parts: Iterator[Pieces],
        pool: ThreadPoolExecutor,
        futures: list[Future[_Sent]],
    ) -> list[_Sent]:
        pending: set[Future[_Sent]] = set()
        room = self.in_flight.most * _PART
        for number, body in enumerate(parts, 1):
            if created.done():
                created.result()  # to end at once if it failed
            fit = max(room // length_of(body), _FEWEST_IN_FLIGHT)
            futures.append(pool.submit(self._send_one, created, number, body))
            pending.add(futures[-1])
            if len(pending) >= min(self.in_flight.count, fit):
                waited = not any(one.done() for one in pending)
                done, pending = wait_for(pending, return_when=FIRST_COMPLETED)
                for one in done:
                    self.in_flight.take(one.result().size, waited=waited, now=time.monotonic())
        return [one.result() for one in futures]

    def _send_one(self, created: Future[OpenUpload], number: int, body: Pieces) -> _Sent:
        crc, size = crc32_of(body), length_of(body)
        checksum = crc32_checksum(crc).value
        answer = self.s3.upload_part(created.result(), number, body, checksum)
        self.record_answer(answer)
        self.uploaded(size)
        completed = {"PartNumber": number, "ETag": answer["ETag"], "ChecksumCRC32": checksum}
        return _Sent(completed, size, crc)

    def _give_up(self, creation: _Creation, futures: list[Future[_Sent]]) -> str:
        """Interrupt the part uploads, then abort the upload; say what may be left in the bucket.

        A part that arrives after the abort would stay in the bucket, hence the order. The creation
        is not interrupted at once: without its answer, the upload ID is unknown.
        """
        upload = creation.upload_within(_ANSWER_SECONDS)
        self.s3.interrupt()
        wait_for(futures, timeout=_GIVE_UP_SECONDS)
        if upload is None:
            lost = "; a multipart upload may have been created in the bucket, without parts"
            return lost if creation.may_exist else ""
        aborted = threading.Event()

        def abort() -> None:
            with suppress(Exception):  # the caller reports why the upload failed
                try:
                    self.s3.abort_multipart_upload(upload, ABORT_SECONDS)
                except ServiceError as error:
                    if not _is_no_upload(error):
                        raise
                aborted.set()

        # In a daemon thread: an unreachable S3 cannot delay the exit.
        thread = threading.Thread(target=abort, name="cpstage-abort", daemon=True)
        thread.start()
        thread.join(ABORT_SECONDS)
        if aborted.is_set():
            return ""
        where = f"{upload.id} of s3://{upload.bucket}/{upload.key}"
        return f"; the multipart upload {where} may be left in the bucket: abort it"
