"""S3, and nothing but S3: objects opened for ranged reads, streams uploaded under the job's key.

One store belongs to one job and uses its session credentials. It calls GetObject, HeadObject (which
needs the same permission), PutObject and the multipart operations; none that lists a bucket or
looks at one. It knows nothing of archives.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from itertools import chain
from typing import TYPE_CHECKING, Any

from cpstage.encryption import SseKms, Upload
from cpstage.errors import CpstageError, ServiceUnavailable
from cpstage.failures import SESSION_EXPIRED_HINT, aws_failures
from cpstage.job import Artifact, EncryptionKey
from cpstage.retries import Retries
from cpstage.s3object import ObjectInfo, S3Object, object_info, reading

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from s3transfer.manager import TransferManager
    from s3transfer.subscribers import BaseSubscriber

_PART = 8 << 20
_CANCEL_SECONDS = 15.0
_MOST_PARTS = 9_000
"""S3 takes 10,000 parts (API reference, Multipart upload limits); some are kept back, since what
an archive adds to its files is only estimated."""


class Store:
    """A job's artifacts in S3.

    Args:
        client: A client with the job's session credentials.
        key: The key that the job's outputs are to be encrypted under, if it has one.
        retries: How long to go on when the network fails.
    """

    def __init__(
        self, client: S3Client, key: EncryptionKey | None, retries: Retries | None = None
    ) -> None:
        self._client = client
        self._key = key
        self._retries = retries or Retries()

    def look_at(self, artifact: Artifact) -> ObjectInfo:
        """Ask for size, version and encryption of an artifact's object.

        Raises:
            ObjectNotFound: There is none.
            AccessDenied: The session or the key's policy does not allow to read it.
            ServiceUnavailable: S3 could not be reached.
        """
        bucket, key = artifact.location.bucket, artifact.location.key
        try:
            with reading(artifact):
                answer = self._client.head_object(Bucket=bucket, Key=key, ChecksumMode="ENABLED")
        except CpstageError:
            # The answer to a HEAD has no body, and so no reason: a GET of one byte has.
            with reading(artifact, self._key_of(artifact)):
                self._client.get_object(Bucket=bucket, Key=key, Range="bytes=0-0")
            raise
        return object_info(answer)

    def _key_of(self, artifact: Artifact) -> str | None:
        """Ask for the key of an object that cannot be read; without its checksum that is free."""
        bucket, key = artifact.location.bucket, artifact.location.key
        try:
            with reading(artifact):
                return self._client.head_object(Bucket=bucket, Key=key).get("SSEKMSKeyId")
        except CpstageError:
            return None

    def open(self, artifact: Artifact, info: ObjectInfo) -> S3Object:
        """Open the object that was looked at; nothing is read yet."""
        return S3Object(self._client, artifact, info, self._retries)

    def upload(
        self,
        chunks: Iterator[bytes],
        artifact: Artifact,
        *,
        content_type: str,
        size_bound: int,
        bucket_key: bool = False,
        uploaded: Callable[[int], object] = lambda _: None,
    ) -> Upload:
        """Send a stream to an object, encrypted under the job's key, and check that it is.

        Args:
            chunks: The bytes. An error out of it ends the upload, and removes its parts.
            artifact: Where to.
            content_type: The media type of the object.
            size_bound: How many bytes there can be at most, roughly; decides the size of parts.
            bucket_key: Whether S3 is to use a Bucket Key.
            uploaded: Is told of bytes as they have gone up.

        Raises:
            AccessDenied: The session, the bucket's policy or the key's does not allow it, or S3
                did not encrypt as it was asked to.
            ServiceUnavailable: S3 could not be reached.
        """
        part = max(_PART, -(-size_bound // _MOST_PARTS))
        stream = _Stream(chunks)
        encryption = SseKms(self._client, self._key, bucket_key=bucket_key)
        with _writing(artifact, self._key), encryption:
            first = stream.read(part)
            if len(first) < part:
                self._put(first, artifact, content_type)
                uploaded(len(first))
            else:
                stream.push_back(first)
                self._put_in_parts(stream, artifact, content_type, part, uploaded)
        return encryption.check(artifact.location, stream.length)

    def _put(self, body: bytes, artifact: Artifact, content_type: str) -> None:
        """Send a small object in one request, without what it takes to send large ones."""
        location = artifact.location
        self._client.put_object(
            Bucket=location.bucket, Key=location.key, Body=body, ContentType=content_type
        )

    def _put_in_parts(
        self,
        stream: _Stream,
        artifact: Artifact,
        content_type: str,
        part: int,
        uploaded: Callable[[int], object],
    ) -> None:
        from s3transfer.manager import TransferConfig, TransferManager

        config = TransferConfig(
            multipart_threshold=part,
            multipart_chunksize=part,
            max_request_concurrency=4,
            max_in_memory_upload_chunks=4,
        )
        transfers = TransferManager(self._client, config)
        with _shut_down(transfers, stream):
            transfers.upload(
                stream,  # type: ignore[arg-type] # all that is used of it is read()
                artifact.location.bucket,
                artifact.location.key,
                {"ContentType": content_type},
                [_Subscriber(uploaded)],
            ).result()


@contextmanager
def _shut_down(transfers: TransferManager, stream: _Stream) -> Iterator[None]:
    """End a transfer manager: after a failure its parts are removed from the bucket.

    That takes answers of S3. One that does not come is waited for as long as botocore waits, which
    is longer than anybody who has pressed Ctrl-C will.
    """
    try:
        yield
    except BaseException as error:
        stream.stop()  # or it would be read to its end first
        failed = (type(error), error, error.__traceback__)
        cancelling = threading.Thread(target=lambda: transfers.__exit__(*failed), daemon=True)
        cancelling.start()
        cancelling.join(_CANCEL_SECONDS)
        raise
    transfers.shutdown()


class _Subscriber(BaseSubscriber if TYPE_CHECKING else object):  # type: ignore[misc] # loaded late
    """Hands on how many bytes the transfer manager has sent."""

    def __init__(self, uploaded: Callable[[int], object]) -> None:
        self._uploaded = uploaded

    def on_progress(self, future: object, bytes_transferred: int, **_: Any) -> None:
        del future
        self._uploaded(bytes_transferred)


class _Stream:
    """An iterator of bytes as a file that can be read once; all reads but the last are full."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._rest = memoryview(b"")
        self._stopped = False
        self.length = 0

    def read(self, length: int) -> bytes:
        """Return so many bytes; fewer at the end.

        Raises:
            ServiceUnavailable: The upload has been given up.
        """
        pieces = []
        while length:
            if self._stopped:
                raise ServiceUnavailable("the upload was given up")
            if not self._rest:
                chunk = next(self._chunks, None)
                if chunk is None:
                    break
                self._rest = memoryview(chunk)
            piece = self._rest[:length]
            pieces.append(piece)
            self._rest = self._rest[len(piece) :]
            length -= len(piece)
            self.length += len(piece)
        return b"".join(pieces)

    def stop(self) -> None:
        """Hand out nothing more, to whoever reads."""
        self._stopped = True

    def push_back(self, data: bytes) -> None:
        """Take back what was read."""
        self._chunks = chain((data, bytes(self._rest)), self._chunks)
        self._rest = memoryview(b"")
        self.length -= len(data)


def _writing(artifact: Artifact, key: EncryptionKey | None) -> AbstractContextManager[None]:
    used = key.kms_key_id if key and key.kms_key_id else "the bucket's default key"
    return aws_failures(
        f"upload artifact {artifact.name} to {artifact.location} under {used}",
        denied_hint="the job's session needs s3:PutObject on it, and kms:GenerateDataKey and "
        "kms:Decrypt on the key",
        expired_hint=SESSION_EXPIRED_HINT,
        key_hint="check that the key is enabled and lies in the bucket's region",
    )
