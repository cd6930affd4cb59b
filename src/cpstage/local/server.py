"""The embedded local AWS: its parts put together, started and stopped."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from cpstage.local.api import OPERATIONS
from cpstage.local.backend import Backend
from cpstage.local.control import PREFIX, Control
from cpstage.local.gate import Gate
from cpstage.local.http_server import LOOPBACK, LoopbackServer
from cpstage.local.identities import Identity, Statement
from cpstage.local.job_service import JobService
from cpstage.local.jobs import REDELIVER_SECONDS
from cpstage.local.new_job import SESSION_ACTIONS
from cpstage.local.record import Call, Record

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cpstage.local.wire import Reply, Request

CALLER_ACTIONS = frozenset(f"codepipeline:{name}" for name in OPERATIONS)
"""What the caller may do: the job-worker API. Nothing on S3 or KMS."""

_RUNNING = threading.Lock()


class LocalAWS(JobService):
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
        super().__init__(
            region,
            session_seconds=session_seconds,
            session_actions=session_actions,
            redeliver_seconds=redeliver_seconds,
        )
        self._port = port
        self._caller_actions = frozenset(caller_actions)
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
        Backend.clear()
        self._open()
        everything = frozenset("*")
        self._admin = self._identities.add_user("admin", [Statement(everything, everything)])
        self._caller = self._identities.add_user(
            "caller", [Statement(self._caller_actions, everything)]
        )
        self._record = Record()
        self._gate = Gate(self._identities, self._backend, self._api, self._record)
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
