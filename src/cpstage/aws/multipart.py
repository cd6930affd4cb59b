"""A stream uploaded in parts, by several threads and in bounded memory (S3's multipart upload).

The whole object has one CRC-32, which S3 compares. An upload that fails, or is interrupted, removes
its parts from the bucket. This module knows nothing of what is in the stream.

SSE-KMS: what is asked of S3 for an upload, and what S3 says it did.

An upload always asks for ``aws:kms``: the policy of CodePipeline's own buckets denies anything
else. It names a key only where the job has one; without, S3 takes the key of the bucket or its own.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from cpstage._deflate import crc32_combine, crc32_of
from cpstage.aws.checksum import Checksum, crc32_checksum
from cpstage.aws.client import Answer
from cpstage.aws.errors import CallFailed, NetworkError, ServiceError
from cpstage.aws.s3 import S3, OpenUpload, Part, Pieces, length_of
from cpstage.errors import AccessDenied
from cpstage.job import EncryptionKey, S3Location

_LOGGER = logging.getLogger("cpstage")

_UPLOADERS = 4
"""Parts that are on their way at once; one more is being put together."""

_ANSWER_SECONDS = 1.5
"""How long an interrupted upload waits for the answer that names it."""

_GIVE_UP_SECONDS = 5.0
ABORT_SECONDS = 15.0
"""How long an interrupted upload waits for its threads, and for S3 to remove what it has. Nobody
who has pressed Ctrl-C waits longer."""

_Begun = tuple[OpenUpload, Answer]


@dataclass(frozen=True)
class _Sent:
    """A part that has arrived."""

    part: Part
    size: int
    crc: int


class _Beginning:
    """The request that begins an upload: what came of it is known also to who gave up waiting.

    Args:
        begin: Makes the request.

    Attributes:
        may_exist: Whether there may be an upload whose id is not known.
    """

    def __init__(self, begin: Callable[[], _Begun]) -> None:
        self._begin = begin
        self._under_way = threading.Lock()
        self._upload: OpenUpload | None = None
        self.may_exist = False

    def __call__(self) -> _Begun:
        with self._under_way:
            self.may_exist = True
            try:
                self._upload, answer = self._begin()
            except Exception as error:
                self.may_exist = may_be_applied(error)
                raise
            return self._upload, answer

    def upload_within(self, seconds: float) -> OpenUpload | None:
        """Return the upload, if it has been begun, or is within so many seconds."""
        if self._under_way.acquire(timeout=seconds):
            self._under_way.release()
        return self._upload


class _Aborting(threading.Thread):
    """Aborts an upload, in a thread of its own that nobody waits for longer than is fit.

    Attributes:
        left: What to say of the upload, as long as it may be there.
    """

    def __init__(self, s3: S3, upload: OpenUpload) -> None:
        super().__init__(name="cpstage-abort", daemon=True)
        self._s3 = s3
        self._upload = upload
        self.left = (
            f"; the multipart upload {upload.id} of s3://{upload.bucket}/{upload.key} may be left "
            "in the bucket: abort it"
        )

    def run(self) -> None:
        """Abort it."""
        with suppress(Exception):  # why the upload failed matters, not that this failed too
            try:
                self._s3.abort_multipart_upload(self._upload, ABORT_SECONDS)
            except ServiceError as error:
                if not _is_no_upload(error):
                    raise
            self.left = ""


def _is_no_upload(error: Exception) -> bool:
    return isinstance(error, ServiceError) and error.code == "NoSuchUpload"


def may_be_applied(error: BaseException) -> bool:
    """Whether the request that failed may have had its effect: its answer was lost or is none."""
    passing = isinstance(error, ServiceError) and error.may_pass
    return isinstance(error, NetworkError) or passing


class MultipartUpload:
    """One upload in parts.

    Args:
        s3: S3 with the job's session credentials.
        members: Where to, media type and encryption, as CreateMultipartUpload names them.
        noted: Is given each answer.
        uploaded: Is told of bytes as they have gone up.
    """

    def __init__(
        self,
        s3: S3,
        members: Mapping[str, Any],
        noted: Callable[[Answer], object],
        uploaded: Callable[[int], object],
    ) -> None:
        self._s3 = s3
        self._members = members
        self._noted = noted
        self._uploaded = uploaded

    def send(self, parts: Iterator[Pieces]) -> tuple[int, Checksum]:
        """Upload all parts, in their order, and make the object of them.

        Returns:
            The size of the object, and the checksum that S3 has compared.

        Raises:
            Exception: What getting a part raised, or S3's refusal; then no part is left.
        """
        pool = ThreadPoolExecutor(_UPLOADERS, thread_name_prefix="cpstage-upload")
        futures: list[Future[_Sent]] = []
        beginning = _Beginning(partial(self._s3.create_multipart_upload, self._members))
        try:
            # Not in this thread: a signal would lose the answer, and with it what to remove.
            upload, answer = pool.submit(beginning).result()
            self._noted(answer)
            sent = self._send_all(upload, parts, pool, futures)
            size, crc = 0, 0
            for one in sent:
                size += one.size
                crc = crc32_combine(crc, one.crc, one.size)
            answer = self._complete(upload, sent, size, crc32_checksum(crc))
        except BaseException as error:
            pool.shutdown(wait=False, cancel_futures=True)
            left = self._give_up(beginning, futures)
            if isinstance(error, CallFailed):
                error.also = left
            elif left:
                _LOGGER.warning("%s", left.removeprefix("; "))
            raise
        pool.shutdown()
        self._noted(answer)
        return size, crc32_checksum(crc)

    def _complete(
        self, upload: OpenUpload, sent: Sequence[_Sent], size: int, checksum: Checksum
    ) -> Answer:
        """Make the object of the parts.

        Where the answer was lost, S3 says NoSuchUpload to the next try. HeadObject tells whether
        the object is there, by its size and its checksum. A job's session may be denied that; then
        AbortMultipartUpload tells: S3 answers NoSuchUpload for an upload that was completed, and
        nobody else knows its id.
        """
        parts = [one.part for one in sent]
        try:
            return self._s3.complete_multipart_upload(upload, parts, checksum.value)
        except (ServiceError, NetworkError) as error:
            if not (may_be_applied(error) or _is_no_upload(error)):
                raise
            failure = error
        try:
            answer = self._s3.head_object(upload.bucket, upload.key, checksum=True)
            same = (answer["ContentLength"], answer.get("ChecksumCRC32")) == (size, checksum.value)
        except (ServiceError, NetworkError):
            answer, same = {}, _is_no_upload(failure) or self._is_gone(upload)
        if not same:
            raise failure
        _LOGGER.warning("the answer to CompleteMultipartUpload was lost; S3 has the object")
        return answer

    def _is_gone(self, upload: OpenUpload) -> bool:
        """Abort an upload, and return whether S3 had it no longer."""
        try:
            self._s3.abort_multipart_upload(upload, ABORT_SECONDS)
        except (ServiceError, NetworkError) as error:
            return _is_no_upload(error)
        return False

    def _send_all(
        self,
        upload: OpenUpload,
        parts: Iterator[Pieces],
        pool: ThreadPoolExecutor,
        futures: list[Future[_Sent]],
    ) -> list[_Sent]:
        under_way: deque[Future[_Sent]] = deque()
        sent = []
        for number, body in enumerate(parts, 1):
            under_way.append(pool.submit(self._send_one, upload, number, body))
            futures.append(under_way[-1])
            if len(under_way) >= _UPLOADERS:
                sent.append(under_way.popleft().result())
        return sent + [one.result() for one in under_way]

    def _send_one(self, upload: OpenUpload, number: int, body: Pieces) -> _Sent:
        crc, size = crc32_of(body), length_of(body)
        part, answer = self._s3.upload_part(upload, number, body, crc32_checksum(crc).value)
        self._noted(answer)
        self._uploaded(size)
        return _Sent(part, size, crc)

    def _give_up(self, beginning: _Beginning, futures: list[Future[_Sent]]) -> str:
        """End what is under way, and have S3 remove what has arrived.

        In this order: a part that arrives after the removal would stay. But for the first request,
        which is waited for: without its answer nobody could name the upload.

        Returns:
            What may be left in the bucket; nothing where the upload was aborted.
        """
        upload = beginning.upload_within(_ANSWER_SECONDS)
        self._s3.interrupt()
        wait_for(futures, timeout=_GIVE_UP_SECONDS)
        if upload is None:
            lost = "; a multipart upload may have been created in the bucket, without parts"
            return lost if beginning.may_exist else ""
        aborting = _Aborting(self._s3, upload)
        aborting.start()
        aborting.join(ABORT_SECONDS)
        return aborting.left


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
