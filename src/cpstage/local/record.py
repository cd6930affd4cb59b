"""The record of who called what.

It knows neither identities nor requests: a call is a row of names and numbers, never a secret.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Call:
    """One request that the local AWS received, answered or refused.

    Attributes:
        sequence: Its place in the record, from 1, in the order of the answers.
        service: `s3`, `kms`, `sts`, `iam` or `codepipeline`.
        action: The API's name of the operation, such as `GetObject`.
        identity: `caller`, `admin`, `job:<id>`, another user's name, `anonymous` or `unknown`.
        session: Which of the job's sessions signed it, from 1.
        job_id: The job that the call names, or whose session signed it.
        bucket: The S3 bucket.
        key: The S3 object key, decoded.
        server_side_encryption: `x-amz-server-side-encryption`, as the client sent it.
        kms_key_id: The KMS key id, as the client sent it.
        bucket_key: Whether the client asked S3 to use a Bucket Key.
        byte_range: `Range`, as the client sent it.
        status: The HTTP status of the answer.
        error: The error code of the answer.
    """

    sequence: int
    service: str
    action: str
    identity: str
    session: int | None = None
    job_id: str | None = None
    bucket: str | None = None
    key: str | None = None
    server_side_encryption: str | None = None
    kms_key_id: str | None = None
    bucket_key: bool = False
    byte_range: str | None = None
    status: int = 0
    error: str | None = None


class Record:
    """Every call so far, safe to read while calls come in."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._calls: list[Call] = []

    def add(self, call: Call) -> None:
        """Add a call, and number it."""
        with self._lock:
            self._calls.append(replace(call, sequence=len(self._calls) + 1))

    def calls(self) -> list[Call]:
        """Return the calls so far."""
        with self._lock:
            return list(self._calls)
