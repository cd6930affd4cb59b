"""The pipeline's jobs on top of moto: bucket, KMS key, artifacts, session credentials.

The pipeline stores the input objects encrypted, under keys like those of CodePipeline. The session
credentials of a job may read its input objects, write its output objects and use its key.

`mock_jobs` adds the job-worker operations to moto's `mock_aws`, for tests within one process: moto
has CodePipeline's pipelines, but no jobs. `mock_aws` checks neither signatures nor permissions, and
session credentials do not expire; `LocalAWS` does all that.
"""

from __future__ import annotations

import secrets
import string
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from botocore import xform_name

from cpstage.local.backend import Backend
from cpstage.local.history import History
from cpstage.local.history_api import ActionTypeKey, HistoryAPI, Properties
from cpstage.local.identities import ACCOUNT, Identities, Identity, Statement
from cpstage.local.job_api import OPERATIONS, JobWorkerAPI
from cpstage.local.jobs import (
    REDELIVER_SECONDS,
    SESSION_ACTIONS,
    STATUSES,
    ActionType,
    Artifact,
    Book,
    Input,
    JobState,
    NewJob,
    Output,
    TakesJobs,
    new_nonce,
)
from cpstage.local.wire import Refusal

if TYPE_CHECKING:
    from moto.codepipeline.responses import CodePipelineResponse


class JobService(TakesJobs):
    """The jobs of one region.

    Args:
        region: The pipeline's region.
        session_seconds: Lifetime of the session credentials that come with a job.
        session_actions: Actions that these credentials allow, unless a job says otherwise.
        redeliver_seconds: How long a dispatched job waits for its acknowledgement before it goes
            to another poll.

    Attributes:
        region: The pipeline's region.
        bucket: The pipeline's bucket.
        key_arn: The ARN of the pipeline's KMS key.
        history: The past executions of pipelines.
        action_types: Action types with their properties, and whether each property is secret.
    """

    key_arn: str
    history: History
    action_types: dict[ActionTypeKey, Properties]

    def __init__(
        self,
        region: str = "us-east-1",
        *,
        session_seconds: float = 3600.0,
        session_actions: Iterable[str] = SESSION_ACTIONS,
        redeliver_seconds: float = REDELIVER_SECONDS,
    ) -> None:
        self.region = region
        self.bucket = f"codepipeline-{region}-{ACCOUNT}"
        self._session_seconds = session_seconds
        self._session_actions = frozenset(session_actions)
        self._redeliver_seconds = redeliver_seconds

    def _open(self) -> None:
        """Create the bucket, unless moto has it, and the KMS key; begin without jobs."""
        self._backend = Backend()
        self._book = Book(self._redeliver_seconds)
        self._identities = Identities()
        sessions = Sessions(self._book, self._identities, self._backend, self.region)
        if self._backend.bucket_region(self.bucket) is None:
            self._backend.create_bucket(self.bucket, self.region)
        self.key_arn = self._backend.create_key(self.region, "The pipeline's artifacts")
        for third_party in (False, True):
            self._book.add_type(action_type(NewJob(third_party=third_party)))
        self._pipeline = Pipeline(
            self._backend,
            self._book,
            sessions,
            bucket=self.bucket,
            key_arn=self.key_arn,
            session_seconds=self._session_seconds,
            session_actions=self._session_actions,
        )
        self._api = JobWorkerAPI(self._book, sessions.issue, self.region)
        self._stores = {self.region: (self.bucket, self.key_arn)}
        self.history = History(
            self.region,
            bucket_of=self._bucket_of,
            store=self._store_artifact,
            place=lambda pipeline, item, bucket: place(pipeline, item, item.bucket or bucket),
        )
        self.action_types: dict[ActionTypeKey, Properties] = {}
        self._history_api = HistoryAPI(self.history, self.action_types, lambda: self._stores)

    def _bucket_of(self, region: str) -> str:
        """Return the artifact bucket of a region, and make it where it is missing."""
        if region not in self._stores:
            name = f"codepipeline-{region}-{ACCOUNT}"
            self._backend.create_bucket(name, region)
            key = self._backend.create_key(region, "The pipeline's artifacts")
            self._stores[region] = (name, key)
        return self._stores[region][0]

    def _store_artifact(self, artifact: Artifact, region: str, item: Input) -> None:
        if item.body is None:
            return
        key = self._stores[region][1]
        self._backend.put_object(artifact.bucket, artifact.key, item.body, item.content_type, key)

    def add_bucket(self, name: str, region: str) -> None:
        """Create another versioned bucket, in any region."""
        self._backend.create_bucket(name, region)

    def submit(self, job: NewJob) -> str:
        """Make a job of a description, put its inputs into the bucket, and return its id.

        Raises:
            ValueError: The description names an unknown status, bucket or key.
        """
        return self._pipeline.submit(job)

    def job(self, job_id: str) -> JobState:
        """Return the current state of a job.

        Raises:
            KeyError: There is no such job.
        """
        job = self._book.find(job_id)
        if job is None:
            raise KeyError(job_id)
        return job

    def set_status(self, job_id: str, status: str) -> None:
        """Change the status of a job, as time-outs and stopped pipelines do."""
        check_status(status)
        self._book.change(job_id, status=status)


_KEY_ALPHABET = string.ascii_letters + string.digits


class Sessions:
    """Issues the sessions of jobs."""

    def __init__(self, book: Book, identities: Identities, backend: Backend, region: str) -> None:
        self._book = book
        self._identities = identities
        self._backend = backend
        self._region = region

    def issue(self, job: JobState) -> Identity:
        """Make new session credentials for a job."""
        number = self._book.next_session(job.id)
        return self._identities.add_session(
            job.id, number, self._statements(job), job.session_seconds, job.session_requests
        )

    def key_of(self, job: JobState, bucket: str) -> str:
        """Return the ARN of the key that the job's objects in a bucket are encrypted under.

        That is the AWS managed key of S3 for a job without a key, or with one that the bucket's
        region does not have.
        """
        region = self._backend.bucket_region(bucket) or self._region
        key_id = (job.encryption_key or {}).get("id")
        if key_id:
            found = self._backend.find_key(key_id, region)
            if found is not None:
                return found[0]
        return self._backend.managed_key(region)

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
            Statement(keys, frozenset(self.key_of(job, bucket) for bucket in buckets)),
        )


def _objects(artifacts: tuple[Artifact, ...]) -> frozenset[str]:
    return frozenset(f"arn:aws:s3:::{artifact.bucket}/{artifact.key}" for artifact in artifacts)


class Pipeline:
    """Every pipeline of the local AWS, with one bucket and one key between them.

    Args:
        backend: Where the objects go.
        book: Where the jobs are entered.
        sessions: Knows under which key a job's objects lie.
        bucket: The bucket of jobs that name none.
        key_arn: The key of jobs that ask for the default.
        session_seconds: Life of the sessions of jobs that do not say.
        session_actions: What the sessions of jobs that do not say may do.
    """

    def __init__(
        self,
        backend: Backend,
        book: Book,
        sessions: Sessions,
        *,
        bucket: str,
        key_arn: str,
        session_seconds: float,
        session_actions: frozenset[str],
    ) -> None:
        self._backend = backend
        self._book = book
        self._sessions = sessions
        self._bucket = bucket
        self._key_arn = key_arn
        self._session_seconds = session_seconds
        self._session_actions = session_actions

    def submit(self, job: NewJob) -> str:
        """Make a job of a description, put its inputs into the bucket, and return its id.

        Raises:
            ValueError: It names a status, bucket or key that there is not.
        """
        check_status(job.status)
        seconds, actions = job.session_seconds, job.session_actions
        state = JobState(
            id=str(uuid.uuid4()),
            status=job.status,
            nonce=new_nonce(),
            client_id=str(uuid.uuid4()) if job.third_party else None,
            client_token=str(uuid.uuid4()) if job.third_party else None,
            action_type=action_type(job),
            configuration=job.configuration,
            pipeline=job.pipeline,
            stage=job.stage,
            action=job.action,
            action_execution_id=str(uuid.uuid4()),
            pipeline_execution_id=str(uuid.uuid4()),
            inputs=tuple(self._place(job, item) for item in job.inputs),
            outputs=tuple(self._place(job, item) for item in job.outputs),
            encryption_key=self._encryption_key(job.encryption_key),
            continuation_token=job.continuation_token,
            session_seconds=self._session_seconds if seconds is None else seconds,
            session_requests=job.session_requests,
            session_actions=self._session_actions if actions is None else actions,
        )
        for item, artifact in zip(job.inputs, state.inputs, strict=True):
            self._store(item, artifact, state)
        self._book.add(state)
        return state.id

    def _encryption_key(self, key: str | Mapping[str, str] | None) -> Mapping[str, str] | None:
        if isinstance(key, str):
            return {"id": self._key_arn if key == "default" else key, "type": "KMS"}
        return key

    def _store(self, item: Input, artifact: Artifact, state: JobState) -> None:
        """Put the object of an input artifact into its bucket."""
        region = self._backend.bucket_region(artifact.bucket)
        if region is None:
            raise ValueError(f"There is no bucket {artifact.bucket}; add_bucket makes one")
        key = self._sessions.key_of(state, artifact.bucket)
        if item.kms_key_id is not None:
            found = self._backend.find_key(item.kms_key_id, region)
            if found is None:
                raise ValueError(f"There is no key {item.kms_key_id} in {region}")
            key = found[0]
        if item.body is not None:
            self._backend.put_object(
                artifact.bucket, artifact.key, item.body, item.content_type, key
            )

    def _place(self, job: NewJob, item: Input | Output) -> Artifact:
        return place(job.pipeline, item, item.bucket or job.bucket or self._bucket)


def place(pipeline: str, item: Input | Output, bucket: str) -> Artifact:
    """Return an artifact with a key like those of CodePipeline.

    CodePipeline cuts the pipeline's name to 20 characters in keys, the artifact's to 10.
    """
    suffix = item.suffix if isinstance(item, Input) else ""
    name = "".join(secrets.choice(_KEY_ALPHABET) for _ in range(7))
    key = item.key or f"{pipeline[:20]}/{item.name[:10]}/{name}{suffix}"
    revision = item.revision if isinstance(item, Input) else None
    return Artifact(item.name, bucket, key, revision)


def action_type(job: NewJob) -> ActionType:
    """Return the action type that a job is for."""
    owner = "ThirdParty" if job.third_party else "Custom"
    return ActionType(job.category, owner, job.provider, job.version)


def check_status(status: str) -> None:
    """Refuse an unknown JobStatus.

    Raises:
        ValueError: It is none.
    """
    if status not in STATUSES:
        raise ValueError(f"A job cannot be {status}; it is one of {sorted(STATUSES)}")


_Answer = tuple[int, dict[str, Any], str]


class MockJobs(JobService):
    """The jobs that `mock_jobs` makes moto answer for."""

    def __init__(self, region: str, redeliver_seconds: float) -> None:
        super().__init__(region, redeliver_seconds=redeliver_seconds)
        self._open()

    def methods(self) -> dict[str, Any]:
        """Return the job-worker operations as methods of moto's CodePipeline."""
        return {xform_name(operation): self._method(operation) for operation in OPERATIONS}

    def _method(self, operation: str) -> Callable[[CodePipelineResponse], _Answer]:
        def answer(call: CodePipelineResponse) -> _Answer:
            try:
                reply = self._api.answer(operation, call.body.encode(), call.region)
            except Refusal as refusal:
                reply = refusal.reply("codepipeline", call.method)
            # moto takes the status from this member of the headers.
            headers = {**dict(reply.headers), "status": reply.status}
            return reply.status, headers, reply.body.decode()

        return answer


@contextmanager
def mock_jobs(
    region: str = "us-east-1", *, redeliver_seconds: float = REDELIVER_SECONDS
) -> Iterator[MockJobs]:
    """Make moto answer the job-worker API inside `mock_aws`.

    Example::

        with mock_aws(), mock_jobs() as jobs:
            job_id = jobs.add_job([Input("Source", archive)], ["Build"])
            cpstage.fetch(cpstage.get_job(job_id), directory)
            ...
            assert jobs.job(job_id).status == "Succeeded"

    Args:
        region: The region of the jobs, and of the pipeline's bucket and KMS key.
        redeliver_seconds: How long a dispatched job waits for its acknowledgement before it goes
            to another poll.

    Yields:
        The jobs. `add_job` adds one, `job` returns the state of one.

    Raises:
        RuntimeError: `mock_aws` is not active: the calls would go to AWS.
    """
    # `LocalAWS` does without these, which take 40 ms to load.
    from unittest.mock import patch

    from moto.codepipeline.responses import CodePipelineResponse
    from moto.core.models import botocore_stubber

    if not botocore_stubber.enabled:
        raise RuntimeError("mock_aws is not active: write `with mock_aws(), mock_jobs() as jobs:`")
    jobs = MockJobs(region, redeliver_seconds)
    with patch.multiple(CodePipelineResponse, create=True, **jobs.methods()):
        yield jobs
