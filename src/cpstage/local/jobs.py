"""The jobs of the local pipeline: their description, their state, and what was reported.

The life of a job follows the CodePipeline API Reference: Queued, Dispatched by a poll, InProgress
after an acknowledgement with the nonce of that poll, Succeeded or Failed by a result. A dispatched
job that is not acknowledged for a while is returned by another poll, with another nonce.
"""

from __future__ import annotations

import base64
import secrets
import threading
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

REDELIVER_SECONDS = 60.0
"""How long a dispatched job waits for its acknowledgement before it is anybody's again."""

OPEN = frozenset({"Created", "Queued", "Dispatched", "InProgress"})
STATUSES = OPEN | {"TimedOut", "Succeeded", "Failed"}


@dataclass(frozen=True)
class ActionType:
    """The action type that a job belongs to and a worker polls for."""

    category: str
    owner: str
    provider: str
    version: str


@dataclass(frozen=True)
class Artifact:
    """An artifact of a job, with its place in S3."""

    name: str
    bucket: str
    key: str
    revision: str | None = None


@dataclass(frozen=True)
class JobState:
    """A job as it stands at one moment.

    Attributes:
        id: The job id.
        status: The JobStatus.
        nonce: What AcknowledgeJob must give.
        client_id: Who a third-party job is for; None for a custom one.
        client_token: What every call on a third-party job must give; None for a custom one.
        action_type: The action type.
        configuration: The action's configuration.
        pipeline: The pipeline's name.
        stage: The stage's name.
        action: The action's name.
        action_execution_id: The id of this run of the action.
        pipeline_execution_id: The id of this run of the pipeline.
        inputs: The input artifacts.
        outputs: The output artifacts.
        encryption_key: The job's `encryptionKey`, if it has one.
        continuation_token: The token that an earlier job left.
        dispatched_at: When a poll last brought it (`time.monotonic`).
        session_seconds: Life of its session credentials.
        session_requests: How many requests a session is good for; any number if None.
        session_actions: What its sessions may do.
        sessions: How many sessions have been issued.
        result: The members of the result that was put, without id and client token.
        continued_as: The job that a continuation token brought about.
    """

    id: str
    status: str
    nonce: str = field(repr=False)
    client_id: str | None
    client_token: str | None = field(repr=False)
    action_type: ActionType
    configuration: Mapping[str, str] = field(repr=False)
    pipeline: str
    stage: str
    action: str
    action_execution_id: str
    pipeline_execution_id: str
    inputs: tuple[Artifact, ...]
    outputs: tuple[Artifact, ...]
    encryption_key: Mapping[str, str] | None
    continuation_token: str | None
    session_seconds: float
    session_requests: int | None
    session_actions: frozenset[str]
    dispatched_at: float = 0.0
    sessions: int = 0
    result: Mapping[str, Any] | None = None
    continued_as: str | None = None

    @property
    def third_party(self) -> bool:
        """Whether it is a third-party job."""
        return self.client_token is not None

    def to_json(self) -> dict[str, Any]:
        """Return it as a JSON document."""
        return {**asdict(self), "session_actions": sorted(self.session_actions)}


def new_nonce() -> str:
    """Return a nonce that no earlier poll gave out."""
    return secrets.token_hex(8)


class Book:
    """Every job of one local AWS, by id; each change is one step under a lock.

    Args:
        redeliver_seconds: How long a dispatched job waits for its acknowledgement.
    """

    def __init__(self, redeliver_seconds: float = REDELIVER_SECONDS) -> None:
        self._redeliver_seconds = redeliver_seconds
        self._lock = threading.RLock()
        self._jobs: dict[str, JobState] = {}
        self._types: set[ActionType] = set()

    def add(self, job: JobState) -> None:
        """Enter a job, and with it its action type."""
        with self._lock:
            self._jobs[job.id] = job
            self._types.add(job.action_type)

    def add_type(self, action_type: ActionType) -> None:
        """Make an action type known, so that polling for it finds nothing rather than fails."""
        self._types.add(action_type)

    def knows(self, action_type: ActionType) -> bool:
        """Whether there is such an action type."""
        return action_type in self._types

    def find(self, job_id: str) -> JobState | None:
        """Return a job as it stands, or None."""
        return self._jobs.get(job_id)

    def change(self, job_id: str, **members: Any) -> JobState:
        """Change members of a job, and return it as it then stands."""
        with self._lock:
            changed = replace(self._jobs[job_id], **members)
            self._jobs[job_id] = changed
            return changed

    def next_session(self, job_id: str) -> int:
        """Count one more session of a job, and return its number."""
        with self._lock:
            return self.change(job_id, sessions=self._jobs[job_id].sessions + 1).sessions

    def dispatch(
        self, action_type: ActionType, query: Iterable[tuple[str, str]], limit: int
    ) -> list[JobState]:
        """Hand queued jobs out to a poll, each with a new nonce.

        Args:
            action_type: The jobs' action type.
            query: Configuration values that the jobs must have.
            limit: How many at most.
        """
        wanted = set(query)
        now = time.monotonic()
        with self._lock:
            matching = [
                job.id
                for job in self._jobs.values()
                if self._is_waiting(job, now)
                and job.action_type == action_type
                and wanted <= set(job.configuration.items())
            ]
            return [
                self.change(job_id, status="Dispatched", nonce=new_nonce(), dispatched_at=now)
                for job_id in matching[:limit]
            ]

    def _is_waiting(self, job: JobState, now: float) -> bool:
        forgotten = job.dispatched_at + self._redeliver_seconds <= now
        return job.status == "Queued" or (job.status == "Dispatched" and forgotten)

    def acknowledge(self, job_id: str, nonce: str) -> str | None:
        """Start a dispatched job.

        Returns:
            The job's status then, or None if the nonce is not that of the last poll.
        """
        with self._lock:
            job = self._jobs[job_id]
            if job.nonce != nonce:
                return None
            if job.status == "Dispatched":
                job = self.change(job_id, status="InProgress")
            return job.status

    def finish(self, job_id: str, status: str, result: Mapping[str, Any]) -> bool:
        """End a job in progress with a result.

        A result with a continuation token brings a new job for the same action into the queue.

        Returns:
            Whether the job was in progress.
        """
        with self._lock:
            job = self._jobs[job_id]
            if job.status != "InProgress":
                return False
            token = result.get("continuationToken")
            following = None
            if token is not None:
                following = str(uuid.uuid4())
                self.add(
                    replace(
                        job,
                        id=following,
                        status="Queued",
                        nonce=new_nonce(),
                        client_token=str(uuid.uuid4()) if job.third_party else None,
                        continuation_token=token,
                        sessions=0,
                    )
                )
            self.change(job_id, status=status, result=result, continued_as=following)
            return True


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


@dataclass(frozen=True)
class Input:
    """One input artifact: an object that an earlier action left in the bucket.

    Attributes:
        name: The artifact's name.
        body: The object's bytes; None for an object that is not there.
        suffix: What its key ends in, `.zip` or nothing.
        content_type: Its Content-Type; S3's default if None.
        key: The whole object key, in place of one that CodePipeline would make up.
        bucket: The bucket it lies in; the job's if None.
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
    """One output artifact: a place in the bucket.

    Attributes:
        name: The artifact's name.
        key: The whole object key, in place of one that CodePipeline would make up.
        bucket: The bucket it is to lie in; the job's if None.
    """

    name: str
    key: str | None = None
    bucket: str | None = None


@dataclass(frozen=True)
class NewJob:
    """Everything that `add_job` takes; see there."""

    inputs: tuple[Input, ...] = ()
    outputs: tuple[Output, ...] = ()
    configuration: Mapping[str, str] = field(default_factory=dict, repr=False)
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
            TypeError: The document has a member that a job has not.
            ValueError: A body is not base64.
        """
        members = dict(document)
        members["inputs"] = tuple(
            Input(**{**item, "body": _decode(item.get("body", ""))})
            for item in members.get("inputs", ())
        )
        members["outputs"] = tuple(Output(**item) for item in members.get("outputs", ()))
        if members.get("session_actions") is not None:
            members["session_actions"] = frozenset(members["session_actions"])
        return cls(**members)


def _decode(body: str | None) -> bytes | None:
    return None if body is None else base64.b64decode(body, validate=True)


class TakesJobs(ABC):
    """Whatever jobs can be added to: the local AWS itself, or a client of it elsewhere."""

    @abstractmethod
    def submit(self, job: NewJob) -> str:
        """Make a job of a description, and return its id."""

    def add_job(
        self,
        inputs: Sequence[Input] = (),
        outputs: Sequence[str | Output] = (),
        *,
        configuration: Mapping[str, str] | None = None,
        encryption_key: str | Mapping[str, str] | None = "default",
        status: str = "InProgress",
        third_party: bool = False,
        continuation_token: str | None = None,
        pipeline: str = "sample-pipeline",
        stage: str = "Build",
        action: str = "BuildWithCpstage",
        category: str = "Build",
        provider: str = "CpstageLocal",
        version: str = "1",
        bucket: str | None = None,
        session_seconds: float | None = None,
        session_requests: int | None = None,
        session_actions: frozenset[str] | None = None,
    ) -> str:
        """Add a job, and put its input objects into the bucket.

        Args:
            inputs: The input artifacts.
            outputs: The output artifacts, or their names.
            configuration: The action's configuration.
            encryption_key: The job's `encryptionKey`: `default` for the pipeline's KMS key,
                another key's id, the whole member, or None for a job without.
            status: `InProgress`, as after AcknowledgeJob; `Queued` for a job to be polled for.
            third_party: Whether it is a third-party job.
            continuation_token: The token that an earlier job of the action left.
            pipeline: The pipeline's name.
            stage: The stage's name.
            action: The action's name.
            category: The action type's category.
            provider: The action type's provider.
            version: The action type's version.
            bucket: The bucket of its artifacts; the pipeline's if None.
            session_seconds: Life of its session credentials; the local AWS's if None.
            session_requests: How many requests a session is good for; any number if None.
            session_actions: What its sessions may do; `SESSION_ACTIONS` if None.

        Returns:
            The job id.
        """
        return self.submit(
            NewJob(
                inputs=tuple(inputs),
                outputs=tuple(Output(o) if isinstance(o, str) else o for o in outputs),
                configuration=dict(configuration or {}),
                encryption_key=encryption_key,
                status=status,
                third_party=third_party,
                continuation_token=continuation_token,
                pipeline=pipeline,
                stage=stage,
                action=action,
                category=category,
                provider=provider,
                version=version,
                bucket=bucket,
                session_seconds=session_seconds,
                session_requests=session_requests,
                session_actions=session_actions,
            )
        )
