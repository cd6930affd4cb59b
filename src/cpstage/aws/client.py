"""A boto3 client as cpstage calls it: retried, refreshed, checked, logged, and stopped at once.

:meth:`AwsClient.call` sends every request to AWS: one operation of the API reference, repeated
where that helps.

One :class:`Retries` serves all requests of a command. The time limit counts from the last progress,
which is any request that succeeded: a transfer does not fail because it is long. Delays have full
jitter, so that many workers that were interrupted together do not come back together. botocore's
own retries do not serve: a signal cannot wake them, they count attempts only, and they do not
resume a body. They are used where the caller has configured them (``AWS_MAX_ATTEMPTS``,
``AWS_RETRY_MODE``, the profile, a session's default config).

CodePipeline issues a job's credentials without an expiry date, and a large transfer outlives them.
They are refreshed when they reach a certain age, and when AWS says that they have expired.
botocore's ``RefreshableCredentials`` need an expiry date, and botocore retries no ExpiredToken. So
the clients of a job sign with :class:`JobCredentials`.
"""

from __future__ import annotations

import logging
import math
import random
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from botocore import xform_name

from cpstage.aws.errors import NetworkError, ServiceError, UnreadableAnswer, translated
from cpstage.errors import CpstageError, Reportable
from cpstage.job import SessionCredentials
from cpstage.job.document import MaskedDict, reveal, secrets_in
from cpstage.job.model import MASK, Secret

if TYPE_CHECKING:
    from cpstage.aws.sessions import Connections

_LOGGER = logging.getLogger("cpstage")

_MOST_REFRESHES = 10
"""Refreshes for one call: credentials that expire faster than a request are useless."""

_FIRST_DELAY, _LONGEST_DELAY, _MOST_DOUBLINGS = 0.1, 10.0, 10

_MOST_TRIES = 7
"""Of a request that fails before its answer begins: some six seconds, if the time allows."""

_SPARE_SECONDS = 60.0
"""Before the time at which credentials expire, where that is known."""

_TRY_AGAIN_SECONDS = 30.0
"""After a refresh ahead of time has failed; the old credentials may well last a while longer."""

Answer = Mapping[str, Any]
"""The members of an answer, as botocore parses them."""

Check = Callable[[Answer], "str | None"]
"""Returns what an answer lacks; None for a complete answer."""


def has(*members: str) -> Check:
    """Return a check that an answer has some members; botocore checks their types."""

    def check(answer: Answer) -> str | None:
        missing = [name for name in members if answer.get(name) in (None, "")]
        return f"the answer has no {missing[0]}" if missing else None

    return check


class Retries:
    """The time limit of retries, in seconds since the last progress, and their number.

    Attributes:
        stopped: When set, no request is sent any more, and none waits for a retry.
    """

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._progress = -math.inf
        self._lock = threading.Lock()
        self.stopped = threading.Event()
        self.count = 0

    def progressed(self) -> None:
        """Count the time anew: a request succeeded, or bytes arrived."""
        self._progress = time.monotonic()

    def wait(self, failures: int, began: float, most: float) -> bool:
        """Wait before a retry; return False if the request must not be retried.

        Args:
            failures: How often the request has failed.
            began: When it was first sent (``time.monotonic``).
            most: How often it may be sent.
        """
        left = max(self._progress, began) + self._timeout - time.monotonic()
        if failures >= most or left <= 0:
            return False
        bound = min(_LONGEST_DELAY, _FIRST_DELAY * 2 ** min(failures, _MOST_DOUBLINGS))
        delay = random.uniform(0, bound)  # noqa: S311 (it hides nothing)
        if delay >= left or self.stopped.wait(delay):
            return False
        with self._lock:
            self.count += 1
        return True


def most_tries(error: BaseException | None) -> float:
    """Return how often to send a request that fails this way; infinity until the time limit."""
    if isinstance(error, NetworkError):
        return math.inf if error.began else _MOST_TRIES
    return _MOST_TRIES if isinstance(error, ServiceError) and error.may_pass else 0


class JobCredentials:
    """A job's session credentials.

    Any number of threads refresh them once per expiry: a thread whose token has expired refreshes
    only if that token is still the current one.

    Args:
        first: The credentials that came with the job.
        refresh: Requests new ones. Its errors reach the caller of whatever needed them.
        max_age: Seconds after which they are refreshed ahead of time.
        clock: Seconds that never go back.

    Attributes:
        current: What requests are signed with now, however old it is.
    """

    def __init__(
        self,
        first: SessionCredentials,
        refresh: Callable[[], SessionCredentials],
        max_age: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._refresh = refresh
        self._max_age = max_age
        self._clock = clock
        self._lock = threading.Lock()
        self._use(first)

    def __repr__(self) -> str:
        return f"JobCredentials({MASK})"

    def before_sign(self, request: Any, **_: Any) -> None:
        """Make botocore sign a request with these credentials, and with no others."""
        request.context.setdefault("signing", {})["request_credentials"] = self

    def get_frozen_credentials(self) -> SessionCredentials:
        """Return the credentials for the next request; botocore calls this for each."""
        if self._clock() >= self._old_at:
            with self._lock:
                if self._clock() >= self._old_at:
                    self._refresh_ahead_of_time()
        return self.current

    def refresh_after(self, token: str | None) -> None:
        """Refresh, unless another thread has done so since a request was signed with this token."""
        with self._lock:
            if token == self.current.token:
                self._use(self._refresh())

    def _refresh_ahead_of_time(self) -> None:
        """Refresh; when that fails, go on with the old ones, until AWS refuses them."""
        try:
            self._use(self._refresh())
        except CpstageError as error:
            _LOGGER.info("cannot refresh the job's session ahead of time: %s", error.message)
            self._old_at = self._clock() + min(_TRY_AGAIN_SECONDS, self._max_age)

    def _use(self, new: SessionCredentials) -> None:
        self.current = new
        lasts = self._max_age - (new.age_seconds or 0.0)
        if new.expires_at is not None:
            left = (new.expires_at - datetime.now(timezone.utc)).total_seconds()
            lasts = min(lasts, left - _SPARE_SECONDS)
        self._old_at = self._clock() + lasts


@dataclass(repr=False, eq=False)
class AwsClient:
    """Calls operations of one service.

    Attributes:
        boto3_client: The client itself, for ``botocore.stub.Stubber`` and event handlers.
        secrets: Returns what the service may quote of the caller's credentials.
        credentials: The job's, for a client that signs with them.
        retries_itself: Whether botocore retries, since the caller has configured that.
        ca_bundle: The configured file of CA certificates, to name it.
    """

    boto3_client: Any
    connections: Connections
    retries: Retries
    secrets: Callable[[], list[Secret]]
    credentials: JobCredentials | None
    retries_itself: bool
    ca_bundle: str | None

    def __post_init__(self) -> None:
        if self.credentials:
            self.boto3_client.meta.events.register("before-sign", self.credentials.before_sign)

    @property
    def region(self) -> str:
        """The region that requests are sent to."""
        return str(self.boto3_client.meta.region_name)

    @property
    def endpoint_url(self) -> str:
        """Where requests are sent to."""
        return str(self.boto3_client.meta.endpoint_url)

    def interrupt(self) -> None:
        """Interrupt pending requests, and retry none."""
        self.retries.stopped.set()
        self.connections.end()

    def call(
        self,
        operation: str,
        parameters: Mapping[str, Any],
        *,
        about: str = "",
        check: Check = lambda _: None,
        retries: Retries | None = None,
    ) -> MaskedDict:
        """Call an operation, and return the members of its answer.

        Args:
            operation: As the API reference names it, such as ``GetObject``.
            parameters: Its members; a :class:`~cpstage.Secret` is sent in plain, and
                masked in what the service says. A ``Body`` with ``seek`` is sent from its start.
            about: What the call is about, for the log.
            check: Says what a good answer lacks; such a request is retried.
            retries: The time limit, where it is not that of all other calls.

        Raises:
            ServiceError: The service refuses.
            NetworkError, SetupError: AWS did not answer.
            CredentialsRefused, botocore.exceptions.BotoCoreError: The caller's credentials or
                settings cannot be used.
        """
        retries = retries or self.retries
        service = self.boto3_client.meta.service_model.service_name
        record = _Record(f"{service}.{operation} {about}".rstrip())
        failures, refreshes = 0, 0
        try:
            while True:
                signed_with = self.credentials.current if self.credentials else None
                answer, failure = self._try(operation, parameters, signed_with, check, retries)
                record.note(answer, failure)
                if failure is None:
                    retries.progressed()
                    return answer
                if self.credentials and signed_with and getattr(failure, "is_expired", False):
                    refreshes += 1
                    if refreshes > _MOST_REFRESHES:
                        raise failure
                    self.credentials.refresh_after(signed_with.token)
                    continue
                failures += 1
                most = 0 if self.retries_itself else most_tries(failure)
                if not retries.wait(failures, record.began, most):
                    raise failure
                record.retries += 1
                _LOGGER.info("%s: trying again: %s", record.what, failure)
        finally:
            record.log()

    def _try(
        self,
        operation: str,
        parameters: Mapping[str, Any],
        signed_with: SessionCredentials | None,
        check: Check,
        retries: Retries,
    ) -> tuple[MaskedDict, Exception | None]:
        """Send a request once; return the answer, or the failure.

        The failure comes without botocore's frames and exceptions: they hold tokens.
        """
        if retries.stopped.is_set():
            return MaskedDict(), NetworkError("the request was interrupted")
        body = parameters.get("Body")
        if body is not None and hasattr(body, "seek"):
            body.seek(0)
        method = getattr(self.boto3_client, xform_name(operation))
        try:
            answer = MaskedDict(method(**reveal(parameters)))
        except Reportable as error:  # of a signal, or of credentials that cannot be refreshed
            raise error.with_traceback(None) from None
        except Exception as error:
            hidden = [*secrets_in({**parameters}), *self.secrets()]
            hidden += signed_with.secrets() if signed_with else []
            failure = translated(error, operation, hidden, self.ca_bundle)
            failure.__traceback__ = failure.__context__ = failure.__cause__ = None
            return MaskedDict(), failure
        lacks = check(answer)
        if lacks:
            about = answer.get("ResponseMetadata", {})
            status, request_id = about.get("HTTPStatusCode", 0), about.get("RequestId")
            if hasattr(answer.get("Body"), "close"):
                answer["Body"].close()
            return MaskedDict(), UnreadableAnswer(status, lacks, request_id)
        return answer, None


@dataclass
class _Record:
    """One call for the log: its status, its retries and its time."""

    what: str
    began: float = field(default_factory=time.monotonic)
    status: int | str = "none"
    retries: int = 0
    request_id: str | None = None

    def note(self, answer: Answer, failure: Exception | None) -> None:
        about = answer.get("ResponseMetadata", {})
        self.retries += int(about.get("RetryAttempts", 0))
        if isinstance(failure, ServiceError):
            self.status, self.request_id = failure.status, failure.request_id
        elif failure is None:
            self.status = about.get("HTTPStatusCode", 200)
            self.request_id = about.get("RequestId")

    def log(self) -> None:
        milliseconds = (time.monotonic() - self.began) * 1000
        request = f", request ID {self.request_id}" if self.request_id else ""
        line = "%s: status %s, %s retries, %.0f ms%s"
        _LOGGER.info(line, self.what, self.status, self.retries, milliseconds, request)
