"""The pipeline's jobs on top of moto: bucket, KMS key, session credentials, job-worker API."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cpstage.local.api import JobWorkerAPI
from cpstage.local.backend import Backend
from cpstage.local.identities import ACCOUNT, Identities
from cpstage.local.jobs import REDELIVER_SECONDS, Book, JobState
from cpstage.local.new_job import SESSION_ACTIONS, NewJob, TakesJobs
from cpstage.local.pipeline import Pipeline, action_type, check_status
from cpstage.local.sessions import Sessions

if TYPE_CHECKING:
    from collections.abc import Iterable


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
    """

    key_arn: str

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
