"""The control endpoint: how another process asks the local AWS for jobs and for its record.

Under `/_cpstage/`, beside the AWS APIs, JSON both ways. A web page in a browser cannot drive it:
it must send a header that a page may not send across origins, and a loopback Host, which a
rebound DNS name is not.

A client of a local AWS that runs in another process.

It needs nothing but the standard library, and speaks to the control endpoint only.

The record of who called what.

It knows neither identities nor requests: a call is a row of names and numbers, never a secret.
"""

from __future__ import annotations

import json
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

from cpstage.local.jobs import Book, NewJob, TakesJobs
from cpstage.local.wire import Reply, Request

PREFIX = "/_cpstage/"
HEADER = "x-cpstage-local"
_LOOPBACK_NAMES = frozenset({"127.0.0.1", "localhost"})


class Control:
    """Answers the requests under `/_cpstage/`.

    Args:
        book: The book of jobs.
        record: The record of calls.
        submit: Makes a job and returns its id.
    """

    def __init__(self, book: Book, record: Record, submit: Callable[[NewJob], str]) -> None:
        self._book = book
        self._record = record
        self._submit = submit

    def answer(self, request: Request) -> Reply:
        """Answer `GET record`, `POST jobs` and `GET jobs/<id>`."""
        host = request.headers.get("host", "").partition(":")[0]
        if host not in _LOOPBACK_NAMES or request.headers.get(HEADER) != "1":
            return _reply({"message": f"Send {HEADER}: 1 from this machine"}, 403)
        resource, _, job_id = request.path.removeprefix(PREFIX).partition("/")
        if (request.method, resource, job_id) == ("GET", "record", ""):
            return _reply([asdict(call) for call in self._record.calls()])
        if (request.method, resource, job_id) == ("POST", "jobs", ""):
            return self._add_job(request.body)
        job = self._book.find(job_id) if resource == "jobs" else None
        if request.method == "GET" and job is not None:
            return _reply(job.to_json())
        return _reply({"message": "There is nothing here"}, 404)

    def _add_job(self, body: bytes) -> Reply:
        try:
            job_id = self._submit(NewJob.from_json(json.loads(body)))
        except (TypeError, ValueError, AttributeError) as error:
            return _reply({"message": f"not a description of a job: {error}"}, 400)
        return _reply({"job_id": job_id})


def _reply(document: object, status: int = 200) -> Reply:
    return Reply.of_json(document, status, "application/json")


class LocalAWSClient(TakesJobs):
    """Adds jobs to a running local AWS, and reads their results.

    Args:
        endpoint_url: Where the local AWS listens.
        timeout: Seconds to wait for an answer.
    """

    def __init__(self, endpoint_url: str, timeout: float = 120.0) -> None:
        if not endpoint_url.startswith("http://"):
            raise ValueError(f"A local AWS is at http://127.0.0.1:PORT, not at {endpoint_url}")
        self._base = endpoint_url.rstrip("/") + "/_cpstage/"
        self._timeout = timeout
        # A proxy from the environment has no business between two processes of one machine.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def submit(self, job: NewJob) -> str:
        """Make a job of a description, and return its id.

        Raises:
            ConnectionError: No local AWS listens there.
            ValueError: It would not have the job.
        """
        return str(self._ask("jobs", job.to_json())["job_id"])

    def job(self, job_id: str) -> dict[str, Any]:
        """Return a job as it stands, as a JSON document.

        Raises:
            ConnectionError: No local AWS listens there.
            ValueError: It has no such job.
        """
        document: dict[str, Any] = self._ask(f"jobs/{job_id}")
        return document

    def calls(self) -> list[Call]:
        """Return the record of who called what.

        Raises:
            ConnectionError: No local AWS listens there.
        """
        return [Call(**call) for call in self._ask("record")]

    def _ask(self, resource: str, document: Any = None) -> Any:
        request = urllib.request.Request(  # noqa: S310 (the scheme is http, checked above)
            self._base + resource,
            data=None if document is None else json.dumps(document).encode(),
            headers={"X-Cpstage-Local": "1", "Content-Type": "application/json"},
        )
        try:
            with self._opener.open(request, timeout=self._timeout) as reply:
                return json.load(reply)
        except urllib.error.HTTPError as error:
            with error:
                try:
                    message = json.load(error)["message"]
                except (ValueError, KeyError, TypeError):
                    raise ConnectionError(f"{self._base} is not a local AWS") from error
            raise ValueError(message) from error
        except TimeoutError as error:
            raise ConnectionError(f"The local AWS at {self._base} does not answer") from error
        except urllib.error.URLError as error:
            why = getattr(error.reason, "strerror", None) or error.reason
            raise ConnectionError(f"No local AWS listens at {self._base}: {why}") from error


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
