"""The jobs of the local pipeline on top of moto: their state, artifacts and session credentials.

The statuses of a job follow the CodePipeline API Reference: Queued, Dispatched by a poll,
InProgress after an acknowledgement with the nonce of that poll, Succeeded or Failed by a result.

The pipeline stores the input objects encrypted, under keys like those of CodePipeline. The session
credentials of a job may read its input objects, write its output objects and use its key.
"""

from __future__ import annotations

import secrets
import string
import threading
import time
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, NamedTuple

from cpstage.local.access import ACCOUNT, Identities, Identity, Statement
from cpstage.local.backend import MANAGED_KEY, Backend
from cpstage.local.client import SESSION_ACTIONS, Input, NewJob, Output, TakesJobs

REDELIVER_SECONDS = 60.0
"""How long a dispatched job waits for its acknowledgement before another poll returns it."""

OPEN = frozenset({"Created", "Queued", "Dispatched", "InProgress"})
_STATUSES = OPEN | {"TimedOut", "Succeeded", "Failed"}
_KEY_ALPHABET = string.ascii_letters + string.digits


class ActionType(NamedTuple):
    """The action type that a job belongs to and a worker polls for."""

    category: str
    owner: str
    provider: str
    version: str


@dataclass(frozen=True)
class StoredArtifact:
    """An artifact of a job, with its place in S3."""

    name: str
    bucket: str
    key: str
    revision: str | None = None


@dataclass(frozen=True)
class JobState:
    """A job as it stands at one moment; other members are those of :class:`NewJob`.

    Attributes:
        nonce: The nonce of the last poll, for AcknowledgeJob.
        client_token: The token that calls on a third-party job must have; None for a custom one.
        dispatched_at: When a poll last returned it (`time.monotonic`).
        sessions: How many sessions have been issued.
        result: The members of the result that was put, without id and client token.
        continued_as: The id of the job that continues the action.
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
    inputs: tuple[StoredArtifact, ...]
    outputs: tuple[StoredArtifact, ...]
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
        named = {"action_type": self.action_type._asdict()}
        return {**asdict(self), **named, "session_actions": sorted(self.session_actions)}


class JobService(TakesJobs):
    """The jobs of one region; the arguments are those of :class:`LocalAWS`.

    Each change of a job is one step under a lock.

    Attributes:
        region: The pipeline's region.
        bucket: The pipeline's bucket.
        key_arn: The ARN of the pipeline's KMS key.
        stores: The artifact bucket and the KMS key of each region.
        polled_types: The action types that polls may name.
    """

    key_arn: str
    stores: dict[str, tuple[str, str]]
    polled_types: set[ActionType]

    def __init__(
        self,
        region: str,
        *,
        session_seconds: float = 3600.0,
        session_actions: Iterable[str] = SESSION_ACTIONS,
        redeliver_seconds: float = REDELIVER_SECONDS,
    ) -> None:
        self.region = region
        self.bucket = _bucket_name(region)
        self._session_seconds = session_seconds
        self._session_actions = frozenset(session_actions)
        self._redeliver_seconds = redeliver_seconds
        self._jobs_lock = threading.RLock()

    def _open(self) -> None:
        """Create the bucket, unless moto has it, and the KMS key; begin without jobs."""
        self._backend = Backend()
        self._jobs: dict[str, JobState] = {}
        self.polled_types = {_action_type(NewJob(third_party=one)) for one in (False, True)}
        self._identities = Identities()
        self.stores = {}
        _, self.key_arn = self.store_of(self.region)

    def store_of(self, region: str) -> tuple[str, str]:
        """Return the artifact bucket and the KMS key of a region; make them if missing."""
        if region not in self.stores:
            name = _bucket_name(region)
            if self._backend.bucket_region(name) is None:
                self._backend.create_bucket(name, region)
            key = self._backend.create_key(region, "The pipeline's artifacts")
            self.stores[region] = (name, key)
        return self.stores[region]

    def add_bucket(self, name: str, region: str) -> None:
        """Create another versioned bucket, in any region."""
        self._backend.create_bucket(name, region)

    def store(self, artifact: StoredArtifact, item: Input, key_arn: str) -> None:
        """Put the object of an artifact into its bucket, if it has one."""
        if item.body is not None:
            self._backend.put_object(
                artifact.bucket, artifact.key, item.body, item.content_type, key_arn
            )

    def find(self, job_id: str) -> JobState | None:
        """Return the current state of a job, or None."""
        return self._jobs.get(job_id)

    def job(self, job_id: str) -> JobState:
        """Return the current state of a job.

        Raises:
            KeyError: There is no such job.
        """
        return self._jobs[job_id]

    def set_status(self, job_id: str, status: str) -> None:
        """Change the status of a job, as time-outs and stopped pipelines do."""
        _check_status(status)
        self._change(job_id, status=status)

    def _add(self, job: JobState) -> None:
        with self._jobs_lock:
            self._jobs[job.id] = job
            self.polled_types.add(job.action_type)

    def _change(self, job_id: str, **members: Any) -> JobState:
        with self._jobs_lock:
            changed = replace(self._jobs[job_id], **members)
            self._jobs[job_id] = changed
            return changed

    def dispatch(
        self, action_type: ActionType, query: Iterable[tuple[str, str]], limit: int
    ) -> list[JobState]:
        """Return jobs to a poll, each with a new nonce; dispatched ones again after a while.

        They have the action type, and the configuration values of the query.
        """
        wanted = set(query)
        now = time.monotonic()
        with self._jobs_lock:
            matching = [
                job.id
                for job in self._jobs.values()
                if self._is_waiting(job, now)
                and job.action_type == action_type
                and wanted <= set(job.configuration.items())
            ]
            return [
                self._change(job_id, status="Dispatched", nonce=_new_nonce(), dispatched_at=now)
                for job_id in matching[:limit]
            ]

    def _is_waiting(self, job: JobState, now: float) -> bool:
        forgotten = job.dispatched_at + self._redeliver_seconds <= now
        return job.status == "Queued" or (job.status == "Dispatched" and forgotten)

    def acknowledge(self, job_id: str, nonce: str) -> str | None:
        """Start a dispatched job; return its status, or None for another nonce than the last."""
        with self._jobs_lock:
            job = self._jobs[job_id]
            if job.nonce != nonce:
                return None
            if job.status == "Dispatched":
                job = self._change(job_id, status="InProgress")
            return job.status

    def finish(self, job_id: str, status: str, result: Mapping[str, Any]) -> bool:
        """End a job in progress with a result; return False for a job that is not in progress.

        A result with a continuation token adds a new job for the same action.
        """
        with self._jobs_lock:
            job = self._jobs[job_id]
            if job.status != "InProgress":
                return False
            token = result.get("continuationToken")
            following = None
            if token is not None:
                following = str(uuid.uuid4())
                self._add(
                    replace(
                        job,
                        id=following,
                        status="Queued",
                        nonce=_new_nonce(),
                        client_token=str(uuid.uuid4()) if job.third_party else None,
                        continuation_token=token,
                        sessions=0,
                    )
                )
            self._change(job_id, status=status, result=result, continued_as=following)
            return True

    def submit(self, job: NewJob) -> str:
        """Make a job; see :meth:`TakesJobs.submit`."""
        _check_status(job.status)
        seconds, actions, key = job.session_seconds, job.session_actions, job.encryption_key
        if isinstance(key, str):
            key = {"id": self.key_arn if key == "default" else key, "type": "KMS"}
        outputs = [Output(item) if isinstance(item, str) else item for item in job.outputs]
        bucket = job.bucket or self.bucket
        state = JobState(
            id=str(uuid.uuid4()),
            status=job.status,
            nonce=_new_nonce(),
            client_id=str(uuid.uuid4()) if job.third_party else None,
            client_token=str(uuid.uuid4()) if job.third_party else None,
            action_type=_action_type(job),
            configuration=dict(job.configuration or {}),
            pipeline=job.pipeline,
            stage=job.stage,
            action=job.action,
            action_execution_id=str(uuid.uuid4()),
            pipeline_execution_id=str(uuid.uuid4()),
            inputs=tuple(place(job.pipeline, item, bucket) for item in job.inputs),
            outputs=tuple(place(job.pipeline, item, bucket) for item in outputs),
            encryption_key=key,
            continuation_token=job.continuation_token,
            session_seconds=self._session_seconds if seconds is None else seconds,
            session_requests=job.session_requests,
            session_actions=self._session_actions if actions is None else actions,
        )
        for item, artifact in zip(job.inputs, state.inputs, strict=True):
            self.store(artifact, item, self._input_key(item, artifact, state))
        self._add(state)
        return state.id

    def _input_key(self, item: Input, artifact: StoredArtifact, state: JobState) -> str:
        """Return the ARN of the key of an input's object."""
        region = self._backend.bucket_region(artifact.bucket)
        if region is None:
            raise ValueError(f"There is no bucket {artifact.bucket}; add_bucket makes one")
        if item.kms_key_id is None:
            return self._key_of(state, artifact.bucket)
        found = self._backend.find_key(item.kms_key_id, region)
        if found is None:
            raise ValueError(f"There is no key {item.kms_key_id} in {region}")
        return found[0]

    def _key_of(self, job: JobState, bucket: str) -> str:
        """Return the ARN of the key that the job's objects in a bucket are encrypted under.

        That is the AWS managed key of S3 for a job without a key, or with one that the bucket's
        region does not have.
        """
        region = self._backend.bucket_region(bucket) or self.region
        key_id = (job.encryption_key or {}).get("id")
        found = self._backend.find_key(key_id, region) if key_id else None
        return found[0] if found else self._backend.enabled_key(MANAGED_KEY, region)

    def issue_session(self, job: JobState) -> Identity:
        """Make new session credentials for a job."""
        with self._jobs_lock:
            number = self._change(job.id, sessions=self._jobs[job.id].sessions + 1).sessions
        return self._identities.add_session(
            job.id, number, self._statements(job), job.session_seconds, job.session_requests
        )

    def _statements(self, job: JobState) -> tuple[Statement, ...]:
        actions = job.session_actions
        buckets = {artifact.bucket for artifact in (*job.inputs, *job.outputs)}
        reading = frozenset(a for a in actions if a.startswith("s3:Get"))
        listing = frozenset(a for a in actions if a.startswith("s3:ListBucket"))
        keys = frozenset(a for a in actions if a.startswith("kms:"))
        writing = actions - reading - listing - keys
        return (
            Statement(reading, _objects(job.inputs)),
            Statement(writing, _objects(job.outputs)),
            Statement(listing, frozenset(f"arn:aws:s3:::{bucket}" for bucket in buckets)),
            Statement(keys, frozenset(self._key_of(job, bucket) for bucket in buckets)),
        )


def _new_nonce() -> str:
    return secrets.token_hex(8)


def _objects(artifacts: tuple[StoredArtifact, ...]) -> frozenset[str]:
    return frozenset(f"arn:aws:s3:::{artifact.bucket}/{artifact.key}" for artifact in artifacts)


def _bucket_name(region: str) -> str:
    return f"codepipeline-{region}-{ACCOUNT}"


def place(pipeline: str, item: Input | Output, bucket: str) -> StoredArtifact:
    """Return an artifact with a key like those of CodePipeline, and a bucket if it names none.

    CodePipeline cuts the pipeline's name to 20 characters in keys, the artifact's to 10.
    """
    suffix, revision = "", None
    if isinstance(item, Input):
        suffix, revision = item.suffix, item.revision
    name = "".join(secrets.choice(_KEY_ALPHABET) for _ in range(7))
    key = item.key or f"{pipeline[:20]}/{item.name[:10]}/{name}{suffix}"
    return StoredArtifact(item.name, item.bucket or bucket, key, revision)


def _action_type(job: NewJob) -> ActionType:
    owner = "ThirdParty" if job.third_party else "Custom"
    return ActionType(job.category, owner, job.provider, job.version)


def _check_status(status: str) -> None:
    if status not in _STATUSES:
        raise ValueError(f"A job cannot be {status}; it is one of {sorted(_STATUSES)}")
