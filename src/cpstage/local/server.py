"""The embedded local AWS: its parts put together, started and stopped."""

from __future__ import annotations

import threading
from collections.abc import Iterable

from cpstage.local.api import OPERATIONS, JobWorkerAPI
from cpstage.local.backend import Backend
from cpstage.local.control import PREFIX, Control
from cpstage.local.gate import Gate
from cpstage.local.http_server import LOOPBACK, LoopbackServer
from cpstage.local.identities import ACCOUNT, Identities, Identity, Statement
from cpstage.local.jobs import REDELIVER_SECONDS, Book, JobState
from cpstage.local.new_job import SESSION_ACTIONS, NewJob, TakesJobs
from cpstage.local.pipeline import Pipeline, action_type, check_status
from cpstage.local.record import Call, Record
from cpstage.local.sessions import Sessions
from cpstage.local.wire import Reply, Request

CALLER_ACTIONS = frozenset(f"codepipeline:{name}" for name in OPERATIONS)
"""What the caller may do: the job-worker API. Nothing on S3 or KMS."""

_RUNNING = threading.Lock()


class LocalAWS(TakesJobs):
    """S3, KMS, STS, IAM and the CodePipeline job-worker API on a loopback port.

    Use it as a context manager, or call `start` and `stop`. Its state lives in this process and
    is gone when it stops. One process can hold one at a time, because moto's state is the
    process's; many processes can each have their own.

    Args:
        region: The pipeline's region.
        port: The port on 127.0.0.1; 0 for a free one.
        session_seconds: Life of the session credentials that come with a job.
        session_actions: What they may do, unless a job says otherwise.
        caller_actions: What the caller may do.
        redeliver_seconds: How long a dispatched job waits for its acknowledgement before it goes
            to another poll.
    """

    def __init__(
        self,
        region: str = "us-east-1",
        port: int = 0,
        session_seconds: float = 3600.0,
        session_actions: Iterable[str] = SESSION_ACTIONS,
        caller_actions: Iterable[str] = CALLER_ACTIONS,
        *,
        redeliver_seconds: float = REDELIVER_SECONDS,
    ) -> None:
        self.region = region
        self.bucket = f"codepipeline-{region}-{ACCOUNT}"
        self._port = port
        self._session_seconds = session_seconds
        self._session_actions = frozenset(session_actions)
        self._caller_actions = frozenset(caller_actions)
        self._redeliver_seconds = redeliver_seconds
        self._server: LoopbackServer | None = None

    def start(self) -> None:
        """Start with an empty account, the pipeline's bucket and its key.

        Raises:
            OSError: The port is taken.
            RuntimeError: This process has a local AWS running already.
        """
        if not _RUNNING.acquire(blocking=False):
            raise RuntimeError("This process has a local AWS running already; stop that first")
        try:
            self._build()
            self._server = LoopbackServer(self._port, self._answer)
        except BaseException:
            _RUNNING.release()
            raise

    def _build(self) -> None:
        self._backend = Backend()
        self._book = Book(self._redeliver_seconds)
        self._record = Record()
        self._identities = Identities()
        everything = frozenset("*")
        self._admin = self._identities.add_user("admin", [Statement(everything, everything)])
        self._caller = self._identities.add_user(
            "caller", [Statement(self._caller_actions, everything)]
        )
        sessions = Sessions(self._book, self._identities, self._backend, self.region)
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
        api = JobWorkerAPI(self._book, sessions.issue, self.region)
        self._gate = Gate(self._identities, self._backend, api, self._record)
        self._control = Control(self._book, self._record, self.submit)

    def _answer(self, request: Request) -> Reply:
        ours = request.path.startswith(PREFIX)
        return self._control.answer(request) if ours else self._gate.answer(request)

    def stop(self) -> None:
        """Stop listening; safe to call twice."""
        if self._server is not None:
            self._server.stop()
            self._server = None
            _RUNNING.release()

    def __enter__(self) -> LocalAWS:
        """Start it."""
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop it."""
        self.stop()

    @property
    def endpoint_url(self) -> str:
        """The URL to give to AWS tools as `--endpoint-url`."""
        if self._server is None:
            raise RuntimeError("The local AWS is not running")
        return f"http://{LOOPBACK}:{self._server.port}"

    @property
    def environment(self) -> dict[str, str]:
        """The variables that make AWS tools the caller: a job worker without rights on S3."""
        return self._environment(self._caller)

    @property
    def admin_environment(self) -> dict[str, str]:
        """The variables that make AWS tools the administrator, who may do everything."""
        return self._environment(self._admin)

    def add_user(self, name: str, actions: Iterable[str]) -> dict[str, str]:
        """Make another identity, and return the variables that make AWS tools that one.

        Args:
            name: How the record will call it.
            actions: What it may do, on every resource, such as `codepipeline:GetJobDetails`.
        """
        statement = Statement(frozenset(actions), frozenset("*"))
        return self._environment(self._identities.add_user(name, [statement]))

    def add_bucket(self, name: str, region: str) -> None:
        """Make another versioned bucket, in any region."""
        self._backend.create_bucket(name, region)

    def submit(self, job: NewJob) -> str:
        """Make a job of a description, put its inputs into the bucket, and return its id.

        Raises:
            ValueError: It names a status, bucket or key that there is not.
        """
        return self._pipeline.submit(job)

    def job(self, job_id: str) -> JobState:
        """Return a job as it stands.

        Raises:
            KeyError: There is no such job.
        """
        job = self._book.find(job_id)
        if job is None:
            raise KeyError(job_id)
        return job

    def set_status(self, job_id: str, status: str) -> None:
        """Put a job into another status, as time-outs and stopped pipelines do."""
        check_status(status)
        self._book.change(job_id, status=status)

    def expire_sessions(self, job_id: str) -> None:
        """End all session credentials that a job has been given so far."""
        self._identities.expire(job_id)

    def calls(self) -> list[Call]:
        """Return the record of who called what."""
        return self._record.calls()

    def _environment(self, identity: Identity) -> dict[str, str]:
        return {
            "AWS_ENDPOINT_URL": self.endpoint_url,
            "AWS_ACCESS_KEY_ID": identity.access_key,
            "AWS_SECRET_ACCESS_KEY": identity.secret,
            "AWS_REGION": self.region,
            "AWS_DEFAULT_REGION": self.region,
            "AWS_EC2_METADATA_DISABLED": "true",
            # A proxy is of no use on the way to this machine itself.
            "NO_PROXY": LOOPBACK,
        }
