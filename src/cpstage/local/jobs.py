"""The book of jobs: what each job holds, how far it is, and what was reported of it.

It follows the life of a job in the CodePipeline API Reference: Queued, Dispatched by a poll,
InProgress once acknowledged with the nonce of that poll, and Succeeded or Failed by a result. A job
that is dispatched and not acknowledged for a while goes to another poll, with another nonce.
It knows nothing of HTTP, S3 or permissions.
"""

from __future__ import annotations

import secrets
import threading
import time
import uuid
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

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
        """Tell whether there is such an action type."""
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
