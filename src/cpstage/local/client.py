"""Descriptions of jobs, executions and calls, and the client of a local AWS in another process.

This module needs only the standard library.
"""

from __future__ import annotations

import base64
import json
import urllib.error
import urllib.request
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, asdict, dataclass, field
from typing import Any, Concatenate, ParamSpec, TypeVar

CONTROL_PREFIX = "/_cpstage/"
CONTROL_HEADER = "X-Cpstage-Local"
"""What a request to the control endpoint must have: a web page may not send it across origins."""

SESSION_ACTIONS = frozenset(
    {
        "s3:GetObject",
        "s3:GetObjectVersion",
        "s3:PutObject",
        "s3:AbortMultipartUpload",
        "s3:ListMultipartUploadParts",
        "kms:Decrypt",
        "kms:DescribeKey",
        "kms:GenerateDataKey",
        "kms:GenerateDataKeyWithoutPlaintext",
    }
)
"""What a job's session may do: the `s3:Get…` on its inputs, the other `s3:` actions on its
outputs, the `kms:` actions on its key. Adding `s3:ListBucket` allows it on the job's bucket, and
then a missing object is 404 NoSuchKey, where it is 403 AccessDenied without."""

_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Input:
    """One input artifact: an object that an earlier action left in the bucket.

    Attributes:
        name: The artifact's name.
        body: The object's bytes; None for an object that is not there.
        suffix: What its key ends in, `.zip` or nothing.
        content_type: Its Content-Type; S3's default if None.
        key: The object key; one like those of CodePipeline if None.
        bucket: Its bucket; the job's if None.
        revision: The artifact's revision.
        kms_key_id: The KMS key that encrypts it; the job's if None.
    """

    name: str
    body: bytes | None = field(default=b"", repr=False)
    suffix: str = ".zip"
    content_type: str | None = None
    key: str | None = None
    bucket: str | None = None
    revision: str | None = None
    kms_key_id: str | None = None


@dataclass(frozen=True)
class Output:
    """One output artifact; key and bucket as those of an :class:`Input`."""

    name: str
    key: str | None = None
    bucket: str | None = None


@dataclass(frozen=True)
class NewJob:
    """The description of a job.

    Attributes:
        inputs: The input artifacts.
        outputs: The output artifacts, or their names.
        configuration: The action's configuration.
        encryption_key: The job's `encryptionKey`: `default` for the pipeline's KMS key, another
            key's id, the whole member, or None for a job without.
        status: `InProgress`, as after AcknowledgeJob; `Queued` for a job to be polled for.
        third_party: Whether it is a third-party job.
        continuation_token: The token that an earlier job of the action left.
        category: The action type's category; provider and version follow.
        bucket: The bucket of its artifacts; the pipeline's if None.
        session_seconds: Lifetime of its session credentials; the local AWS's if None.
        session_requests: How many requests a session is good for; any number if None.
        session_actions: What its sessions may do; the local AWS's if None.
    """

    inputs: Sequence[Input] = ()
    outputs: Sequence[str | Output] = ()
    _: KW_ONLY
    configuration: Mapping[str, str] | None = field(default=None, repr=False)
    encryption_key: str | Mapping[str, str] | None = "default"
    status: str = "InProgress"
    third_party: bool = False
    continuation_token: str | None = None
    pipeline: str = "sample-pipeline"
    stage: str = "Build"
    action: str = "BuildWithCpstage"
    category: str = "Build"
    provider: str = "CpstageLocal"
    version: str = "1"
    bucket: str | None = None
    session_seconds: float | None = None
    session_requests: int | None = None
    session_actions: frozenset[str] | None = None

    def to_json(self) -> dict[str, Any]:
        """Return it as a JSON document, bodies in base64."""
        document = asdict(self)
        for item in document["inputs"]:
            if item["body"] is not None:
                item["body"] = base64.b64encode(item["body"]).decode("ascii")
        if self.session_actions is not None:
            document["session_actions"] = sorted(self.session_actions)
        return document

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> NewJob:
        """Read it back from a JSON document.

        Raises:
            TypeError: The document has a member that a job does not have.
            ValueError: A body is not base64.
        """
        members = dict(document)
        members["inputs"] = [
            Input(**{**item, "body": _decode(item.get("body", ""))})
            for item in members.get("inputs", ())
        ]
        members["outputs"] = [
            item if isinstance(item, str) else Output(**item) for item in members.get("outputs", ())
        ]
        if members.get("session_actions") is not None:
            members["session_actions"] = frozenset(members["session_actions"])
        return cls(**members)


def _decode(body: str | None) -> bytes | None:
    return None if body is None else base64.b64decode(body, validate=True)


def _takes_what(
    make: Callable[_Parameters, object],  # noqa: ARG001 (for its type)
) -> Callable[[Callable[..., _Result]], Callable[Concatenate[Any, _Parameters], _Result]]:
    """Give a method the parameters of another callable, for type checkers."""
    return lambda method: method


class TakesJobs(ABC):
    """Whatever jobs can be added to: the local AWS itself, or a client of it elsewhere."""

    @abstractmethod
    def submit(self, job: NewJob) -> str:
        """Make a job of a description, put its inputs into the bucket, and return its id.

        Raises:
            ValueError: The description names an unknown status, bucket or key.
        """

    @_takes_what(NewJob)
    def add_job(self, *arguments: Any, **members: Any) -> str:
        """Add a job, and return its id; arguments as the attributes of :class:`NewJob`."""
        return self.submit(NewJob(*arguments, **members))


@dataclass(frozen=True)
class ActionRun:
    """One attempt of an action in a past execution.

    Attributes:
        name: The action's name.
        stage: The stage's name.
        inputs: Input artifacts, by the names that earlier actions of the execution gave them.
        outputs: Output artifacts; one with ``body=None`` has lost its object.
        status: ``InProgress``, ``Abandoned``, ``Succeeded`` or ``Failed``.
        action_type: Category, owner, provider and version.
        configuration: The action's configuration.
        region: The action's region; the pipeline's if None.
        seconds: How long it took.
        error: Code and message of its failure.
        external_id: The id that the provider gave it.
        external_url: Where the provider shows it.
        summary: What the provider said of it.
    """

    name: str
    stage: str = "Build"
    inputs: tuple[str, ...] = ()
    outputs: tuple[Input, ...] = ()
    status: str = "Succeeded"
    action_type: tuple[str, str, str, str] = ("Build", "AWS", "CodeBuild", "1")
    configuration: Mapping[str, str] = field(default_factory=dict, repr=False)
    region: str | None = None
    seconds: float = 60.0
    error: tuple[str, str] | None = None
    external_id: str | None = None
    external_url: str | None = None
    summary: str | None = None


@dataclass(frozen=True)
class Revision:
    """A source revision of an execution."""

    action: str
    id: str
    summary: str = ""
    url: str = ""


@dataclass(frozen=True)
class Call:
    """One request that the local AWS received, answered or refused; never a secret.

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


class LocalAWSClient(TakesJobs):
    """Adds jobs to a running local AWS, and reads their results.

    Args:
        endpoint_url: Where the local AWS listens.
        timeout: Seconds to wait for an answer.

    Every method raises ConnectionError if no local AWS listens there, and ValueError if the local
    AWS refuses the request or has no such job.
    """

    def __init__(self, endpoint_url: str, timeout: float = 120.0) -> None:
        if not endpoint_url.startswith("http://"):
            raise ValueError(f"A local AWS is at http://127.0.0.1:PORT, not at {endpoint_url}")
        self._base = endpoint_url.rstrip("/") + CONTROL_PREFIX
        self._timeout = timeout
        # A proxy from the environment has no business between two processes of one machine.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def submit(self, job: NewJob) -> str:
        """Make a job of a description, and return its id."""
        return str(self._ask("jobs", job.to_json())["job_id"])

    def job(self, job_id: str) -> dict[str, Any]:
        """Return the current state of a job, as a JSON document."""
        document: dict[str, Any] = self._ask(f"jobs/{job_id}")
        return document

    def calls(self) -> list[Call]:
        """Return the record of who called what."""
        return [Call(**call) for call in self._ask("record")]

    def _ask(self, resource: str, document: Any = None) -> Any:
        request = urllib.request.Request(  # noqa: S310 (the scheme is http, checked above)
            self._base + resource,
            data=None if document is None else json.dumps(document).encode(),
            headers={CONTROL_HEADER: "1", "Content-Type": "application/json"},
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
