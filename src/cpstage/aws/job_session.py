"""A job's artifacts in S3 and its KMS keys, used with the job's session credentials.

:class:`JobSession` makes the clients, and refreshes the credentials through GetJobDetails. The
artifacts of a past execution are read in the same way, with the caller's own credentials.
:class:`Store` reads and uploads artifacts.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import cached_property, partial
from itertools import chain
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from cpstage._deflate import crc32_of
from cpstage.aws.client import (
    CALLER_EXPIRED_HINT,
    SESSION_EXPIRED_HINT,
    Answer,
    AwsClient,
    NetworkError,
    Retries,
    ServiceError,
    aws_failures,
)
from cpstage.aws.codepipeline import get_job
from cpstage.aws.config import DEFAULT_MAX_AGE, AwsConfig
from cpstage.aws.s3 import S3, Checksum, ObjectInfo, Pieces, crc32_checksum, length_of, object_info
from cpstage.errors import CpstageError, NotFound, OutOfSync, require_type
from cpstage.job import Artifact, ArtifactSet, EncryptionKey, Job, ReadWith, SessionCredentials
from cpstage.job.model import MASK

if TYPE_CHECKING:
    from cpstage.aws.uploads import InFlight, StorageOptions, Upload

# A fetch uploads nothing: what uploads is imported where it is used.

_LOGGER = logging.getLogger("cpstage")

_SPARE_SECONDS = 60.0
"""Before the time at which credentials expire, where that is known."""

_TRY_AGAIN_SECONDS = 30.0
"""After a refresh ahead of time has failed; the old credentials may well last a while longer."""


class JobCredentials:
    """A job's session credentials, with which the clients of a job sign.

    CodePipeline issues them without an expiry date, and a large transfer outlives them. They are
    refreshed when they reach a certain age, and when AWS says that they have expired. botocore's
    ``RefreshableCredentials`` need an expiry date, and botocore retries no ExpiredToken.

    Any number of threads refresh them once per expiry: a thread whose token has expired refreshes
    only if that token is still the current one.

    Args:
        first: The credentials that came with the job.
        refresh: Requests new ones. Its errors reach the caller of whatever needed them.
        max_age: Seconds after which they are refreshed ahead of time.
        clock: Seconds that never go back.

    Attributes:
        current: What requests are signed with now, however old it is.
    """

    def __init__(
        self,
        first: SessionCredentials,
        refresh: Callable[[], SessionCredentials],
        max_age: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._refresh = refresh
        self._max_age = max_age
        self._clock = clock
        self._lock = threading.Lock()
        self._use(first)

    def __repr__(self) -> str:
        return f"JobCredentials({MASK})"

    def before_sign(self, request: Any, **_: Any) -> None:
        """Make botocore sign a request with these credentials, and with no others."""
        request.context.setdefault("signing", {})["request_credentials"] = self

    def get_frozen_credentials(self) -> SessionCredentials:
        """Return the credentials for the next request; botocore calls this for each."""
        if self._clock() >= self._old_at:
            with self._lock:
                if self._clock() >= self._old_at:
                    self._refresh_ahead_of_time()
        return self.current

    def refresh_after(self, token: str | None) -> None:
        """Refresh, unless another thread has done so since a request was signed with this token."""
        with self._lock:
            if token == self.current.token:
                self._use(self._refresh())

    def _refresh_ahead_of_time(self) -> None:
        """Refresh; when that fails, go on with the old ones, until AWS refuses them."""
        try:
            self._use(self._refresh())
        except CpstageError as error:
            _LOGGER.info("cannot refresh the job's session ahead of time: %s", error.message)
            self._old_at = self._clock() + min(_TRY_AGAIN_SECONDS, self._max_age)

    def _use(self, new: SessionCredentials) -> None:
        self.current = new
        lasts = self._max_age - (new.age_seconds or 0.0)
        if new.expires_at is not None:
            left = (new.expires_at - datetime.now(timezone.utc)).total_seconds()
            lasts = min(lasts, left - _SPARE_SECONDS)
        self._old_at = self._clock() + lasts


class JobSession:
    """The services that a job's session credentials give access to.

    Args:
        job: The job, with its credentials; or a past execution, read with the caller's.
        config: The configuration of the clients; the caller's credentials refresh the job's.
        max_age: Seconds after which the credentials are refreshed ahead of time.
    """

    def __init__(
        self, job: ArtifactSet, config: AwsConfig, max_age: float = DEFAULT_MAX_AGE
    ) -> None:
        require_type("config", config, AwsConfig)
        self.job = job
        self.retries = Retries(config.timeout)
        self._config = config
        self._max_age = max_age
        self._clients: dict[tuple[str, str | None], AwsClient] = {}
        self._lock = threading.Lock()
        """One thread makes a client: boto3's sessions cannot be shared."""

    def __enter__(self) -> JobSession:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Interrupt pending requests if the block failed."""
        if kind is not None:
            for client in [*self._clients.values()]:
                client.interrupt()

    @cached_property
    def _credentials(self) -> JobCredentials | None:
        """The job's credentials; None for a past execution, which the caller's own read.

        Raises:
            AccessDenied: The job carries none; a job without artifacts needs none.
        """
        if not isinstance(self.job, Job):
            return None
        refresh = partial(self._refresh, self.job)
        return JobCredentials(self.job.require_credentials(), refresh, self._max_age)

    @property
    def store(self) -> Store:
        """The job's artifacts in S3."""
        artifacts = (*self.job.input_artifacts, *self.job.output_artifacts)
        names = {(one.location.bucket, one.location.key): one.name for one in artifacts}
        s3 = S3(self._client("s3", None), names)
        return Store(s3, self.job.encryption_key, self.job.read_with)

    def kms(self, region: str | None) -> AwsClient:
        """Return the KMS client of a region; None is the pipeline's region."""
        return self._client("kms", region)

    def _client(self, service: Literal["s3", "kms"], region: str | None) -> AwsClient:
        key, where = (service, region), region or self.job.region
        make = self._config.s3 if service == "s3" else self._config.kms
        with self._lock:
            if key not in self._clients:
                self._clients[key] = make(self._credentials, where, self.retries)
            return self._clients[key]

    def _refresh(self, job: Job) -> SessionCredentials:
        """Request new credentials with the caller's credentials.

        Raises:
            OutOfSync: The job is no longer in progress.
            AccessDenied, ServiceUnavailable, ConfigurationError: The refresh failed.
        """
        try:
            new = get_job(job.id, client_token=job.client_token, config=self._config)
            return new.require_credentials()
        except NotFound as error:
            raise OutOfSync(
                f"the session of job {job.id} has expired, and the job is no longer in progress: "
                f"{error.message}",
                hint="release the change again",
            ) from error
        except CpstageError as error:
            raise type(error)(
                f"the session of job {job.id} has expired and cannot be refreshed: {error.message}",
                hint=error.hint,
            ) from error


_MOST_HEADS = 3
"""A session may expire between a GET and a HEAD."""


class UploadCheck(NamedTuple):
    """The result of a multipart upload that was created and aborted to test the permission.

    ``left`` is why the abort failed; the upload is then still open, without parts.
    """

    kms_key_id: str | None
    left: str | None


@dataclass(frozen=True)
class Store:
    """A job's artifacts in S3; ``key`` encrypts the outputs, or the bucket's default key does."""

    s3: S3
    key: EncryptionKey | None
    read_with: ReadWith

    def head(self, artifact: Artifact) -> ObjectInfo:
        """Return size, version and encryption of an artifact's object (HeadObject).

        Raises:
            ObjectNotFound: The object does not exist.
            AccessDenied: The session or the key's policy does not allow reading it.
            ServiceUnavailable: S3 could not be reached.
        """
        bucket, key = artifact.location.bucket, artifact.location.key
        tries = 0
        while True:
            tries += 1
            try:
                with reading(artifact, read_with=self.read_with):
                    return object_info(self.s3.head_object(bucket, key, checksum=True))
            except CpstageError as error:
                cause = error.__cause__
                is_told = isinstance(cause, NetworkError) or getattr(cause, "may_pass", True)
                if is_told or tries == _MOST_HEADS:
                    raise
            # The answer to a HEAD has no body and therefore no error code. A GET of one byte has
            # one, and refreshes expired credentials.
            with reading(artifact, self._key_of(artifact), self.read_with):
                self._read_byte(bucket, key)

    def _read_byte(self, bucket: str, key: str) -> None:
        """Read the first byte of an object, which may be empty."""
        try:
            self.s3.get_range(bucket, key, 0, 1)
        except ServiceError as error:
            if error.code != "InvalidRange":
                raise

    def _key_of(self, artifact: Artifact) -> str | None:
        """Return the key of an object that cannot be read: HEAD without checksum needs no key."""
        try:
            with reading(artifact):
                answer = self.s3.head_object(artifact.location.bucket, artifact.location.key)
                return object_info(answer).kms_key_id
        except CpstageError:
            return None

    def open(self, artifact: Artifact, info: ObjectInfo) -> S3Object:
        """Return the object of an earlier HEAD as a blob; no byte is read yet."""
        return S3Object(self.s3, artifact, info, self.read_with)

    def upload(
        self,
        chunks: Iterator[bytes],
        artifact: Artifact,
        *,
        content_type: str,
        size_bound: int,
        in_flight: InFlight,
        options: StorageOptions | None = None,
        uploaded: Callable[[int], object] = lambda _: None,
    ) -> Upload:
        """Upload a stream under the job's KMS key, and check what S3 says it encrypted.

        Args:
            chunks: The bytes. An exception of the iterator aborts the upload.
            artifact: The artifact, with its location.
            content_type: The media type of the object.
            size_bound: An upper bound of the size in bytes, which sets the size of a part.
            in_flight: Says how many parts to send at the same time.
            options: How S3 is to store the object.
            uploaded: Is called with the number of bytes that were uploaded.

        Raises:
            AccessDenied: The session, the bucket's policy or the key's does not allow it, or S3
                encrypted it differently than requested.
            ServiceUnavailable: S3 could not be reached.
        """
        from cpstage.aws.uploads import MultipartUpload, StorageCheck, StorageOptions, in_parts

        location, options = artifact.location, options or StorageOptions()
        stored = StorageCheck(self.key, options)
        members = {
            "Bucket": location.bucket,
            "Key": location.key,
            "ContentType": content_type,
            **stored.members(),
        }
        parts = in_parts(chunks, size_bound)
        with _writing(artifact, self.key, options):
            first, second = next(parts, ()), next(parts, None)
            if second is None:
                checksum, length = crc32_checksum(crc32_of(first)), length_of(first)
                stored.record(self._put(first, checksum, members))
                uploaded(length)
                return stored.check(location, length, checksum)

            upload = MultipartUpload(self.s3, members, stored.record, uploaded, in_flight)
            size, checksum = upload.send(chain((first, second), parts))
        return stored.check(location, size, checksum)

    def _put(self, body: Pieces, checksum: Checksum, members: Mapping[str, Any]) -> Answer:
        try:
            return self.s3.put_object(body, checksum.value, members)
        except (NetworkError, ServiceError) as error:
            from cpstage.aws.uploads import may_be_applied

            if may_be_applied(error):
                error.also = "; the object may have been stored"
            raise

    def begin_upload(self, artifact: Artifact) -> UploadCheck:
        """Create a multipart upload and abort it, to test whether the job may upload.

        Raises:
            AccessDenied, ServiceUnavailable: As :meth:`upload`.
        """
        from cpstage.aws.uploads import ABORT_SECONDS, StorageCheck, StorageOptions

        location, options = artifact.location, StorageOptions()
        members = StorageCheck(self.key, options).members()
        with _writing(artifact, self.key, options):
            upload, answer = self.s3.create_multipart_upload(
                {"Bucket": location.bucket, "Key": location.key, **members}
            )
        left = None
        try:
            with aws_failures(f"abort an upload to {location}"):
                self.s3.abort_multipart_upload(upload, ABORT_SECONDS)
        except CpstageError as error:
            left = error.message
        return UploadCheck(answer.get("SSEKMSKeyId"), left)


def _writing(
    artifact: Artifact, key: EncryptionKey | None, options: StorageOptions
) -> AbstractContextManager[None]:
    used = key.kms_key_id if key and key.kms_key_id else "the bucket's default key"
    return aws_failures(
        f"upload artifact {artifact.name} to {artifact.location} under {used}",
        denied_hint=f"the job's session needs {options.permissions()} on it, and "
        "kms:GenerateDataKey and kms:Decrypt on the key",
        policy_hint="the bucket's policy denies this upload explicitly: it may require "
        "--acl bucket-owner-full-control, --tagging or --sse aws:kms:dsse of 'cpstage push', or "
        "another network",
        expired_hint=SESSION_EXPIRED_HINT,
        key_hint="check that the key is enabled and lies in the bucket's region",
    )


@dataclass(frozen=True)
class S3Object:
    """An object as a blob: every read is a ranged GET with ``If-Match`` on the ETag of the HEAD."""

    s3: S3
    artifact: Artifact
    info: ObjectInfo
    read_with: ReadWith

    @property
    def size(self) -> int:
        """The size in bytes."""
        return self.info.size

    def read(self, offset: int, length: int) -> bytes:
        """Return the bytes ``[offset, offset + length)``.

        Raises:
            ObjectChanged: The object was replaced since the HEAD.
            AccessDenied, ObjectNotFound, ServiceUnavailable: As S3 says.
        """
        if not length:
            return b""
        location = self.artifact.location
        with reading(self.artifact, self.info.kms_key_id, self.read_with):
            return self.s3.get_range(location.bucket, location.key, offset, length, self.info.etag)


def reading(
    artifact: Artifact, kms_key_id: str | None = None, read_with: ReadWith = "job"
) -> AbstractContextManager[None]:
    """Translate failures to read an object, naming the object, its key and who reads."""
    key = f"its key {kms_key_id}" if kms_key_id else "its key"
    who = "the job's session" if read_with == "job" else "the caller"
    return aws_failures(
        f"read {artifact.title}",
        denied_hint=f"{who} needs s3:GetObject on it and kms:Decrypt on {key}; a "
        "missing object is also reported as denied without s3:ListBucket",
        policy_hint="the bucket's policy denies it explicitly: it may allow only some networks, "
        "such as a VPC endpoint",
        expired_hint=SESSION_EXPIRED_HINT if read_with == "job" else CALLER_EXPIRED_HINT,
        key_hint=f"check that {key} is enabled and lies in the bucket's region",
    )
