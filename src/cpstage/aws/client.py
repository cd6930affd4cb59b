"""A boto3 client as cpstage calls it: retried, refreshed, checked, logged, and stopped at once.

:meth:`AwsClient.call` sends every request to AWS: one operation of the API reference, repeated
where that helps. It raises few kinds of errors, by which retries are decided. After the retries,
:func:`aws_failures` gives an error its exit code and its hint. What tells the kinds apart, and what
they mean to a user, is in :mod:`cpstage.aws.errors`, which is loaded when a request has failed.

One :class:`Retries` serves all requests of a command. The time limit counts from the last progress,
which is any request that succeeded: a transfer does not fail because it is long. Delays have full
jitter, so that many workers that were interrupted together do not come back together. botocore's
own retries do not serve: a signal cannot wake them, they count attempts only, and they do not
resume a body. They are used where the caller has configured them (``AWS_MAX_ATTEMPTS``,
``AWS_RETRY_MODE``, the profile, a session's default config).
"""

from __future__ import annotations

import logging
import math
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from botocore import xform_name
from botocore.exceptions import BotoCoreError

from cpstage.errors import Reportable
from cpstage.job import SessionCredentials
from cpstage.job.document import MaskedDict, reveal, secrets_in
from cpstage.job.model import Secret

if TYPE_CHECKING:
    from cpstage.aws.job_session import JobCredentials
    from cpstage.aws.sessions import Connections

_LOGGER = logging.getLogger("cpstage")

_MOST_REFRESHES = 10
"""Refreshes for one call: credentials that expire faster than a request are useless."""

_FIRST_DELAY, _LONGEST_DELAY, _MOST_DOUBLINGS = 0.1, 10.0, 10

_MOST_TRIES = 7
"""Of a request that fails before its answer begins: some six seconds, if the time allows."""

CALLER_EXPIRED_HINT = "renew them (for example with 'aws sso login') and run the command again"
"""For the caller's own credentials."""

SESSION_EXPIRED_HINT = "the job's session credentials expire faster than they can be refreshed"
"""For a job's credentials, which are refreshed before anybody reads this."""

_EXPIRED = {"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired"}
_UNREADABLE = "UnreadableAnswer"
_BUSY = {
    _UNREADABLE,
    *("BandwidthLimitExceeded", "DependencyTimeoutException", "InternalError"),
    *("KMSInternalException", "KeyUnavailableException", "LimitExceededException"),
    *("PriorRequestNotComplete", "ProvisionedThroughputExceededException", "RequestLimitExceeded"),
    *("RequestThrottled", "RequestThrottledException", "RequestTimeout", "RequestTimeoutException"),
    *("SlowDown", "Throttling", "ThrottlingException", "TooManyRequestsException"),
}
_DAMAGED = {"BadDigest", "InvalidDigest", "XAmzContentSHA256Mismatch"}
"""The received bytes differ from the sent bytes."""


class CallFailed(Exception):
    """A call of AWS failed.

    Attributes:
        also: Text for the message: what the call may have left in AWS.
    """

    also: str = ""


class NetworkError(CallFailed):
    """A request had no complete answer.

    Attributes:
        began: Whether the answer had begun: then it was cut.
    """

    def __init__(self, message: str, *, began: bool = False) -> None:
        super().__init__(message)
        self.began = began


class SetupError(CallFailed):
    """A setting of the caller prevents the request: certificates, TLS, or a proxy.

    Attributes:
        hint: What to do about it.
    """

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


@dataclass(eq=False)
class ServiceError(CallFailed):
    """A service refused a request.

    Attributes:
        code: The service's own code; the status where the answer has none.
        message: The service's message, secrets masked.
        request_id: AWS's ID of the request, where the answer has one.
        date: The Date header of the answer, where it has one.
        retries: How often botocore itself sent the request again.
    """

    status: int
    code: str
    message: str
    request_id: str | None = None
    date: str | None = None
    retries: int = 0

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"

    def text(self, doing: str) -> str:
        """Return one line about the refusal: what failed, why, and AWS's request ID."""
        request = f" (request ID {self.request_id})" if self.request_id else ""
        return f"cannot {doing}: {self.code}: {self.message}".rstrip(".") + request + self.also

    @property
    def may_pass(self) -> bool:
        """Whether the same request may be answered the next time.

        S3 reports errors of KMS under KMS's own code and a prefix: ``KMS.ThrottlingException``.
        """
        busy = self.status >= 500 or self.status == 429
        return busy or self.code.removeprefix("KMS.") in _BUSY or self.code in _DAMAGED

    @property
    def is_expired(self) -> bool:
        """Whether the token has expired."""
        return self.code in _EXPIRED


class UnreadableAnswer(ServiceError):
    """An answer with a good status that lacks members, such as a proxy's login page."""

    def __init__(self, status: int, what: str, request_id: str | None = None) -> None:
        super().__init__(status, _UNREADABLE, what, request_id)


class CredentialsRefused(Exception):
    """A service that botocore asked for the caller's credentials refused them.

    Attributes:
        busy: Whether the service may give them the next time.
    """

    def __init__(self, message: str, *, busy: bool) -> None:
        super().__init__(message)
        self.busy = busy


@contextmanager
def aws_failures(
    doing: str,
    *,
    denied_hint: str | None = None,
    policy_hint: str | None = None,
    expired_hint: str | None = None,
    key_hint: str | None = None,
) -> Iterator[None]:
    """Turn a failure of the calls inside into a CpstageError, with a hint for its cause.

    Args:
        doing: What the call does and to what, as in "cannot <doing>".
        denied_hint: For a denied call, such as the permission that is missing.
        policy_hint: For a call that the bucket's policy denies explicitly.
        expired_hint: For expired credentials of the call.
        key_hint: For a KMS key that cannot be used.

    Raises:
        CpstageError: The error of the exit-code table.
    """
    try:
        yield
    except (CallFailed, CredentialsRefused, BotoCoreError) as error:
        from cpstage.aws.errors import Hints, failure_of

        hints = Hints(denied_hint, policy_hint, expired_hint, key_hint)
        cause = None if isinstance(error, BotoCoreError) else error
        raise failure_of(error, doing, hints) from cause


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
            parameters: Its members; a :class:`~cpstage.job.Secret` is sent in plain, and
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
            from cpstage.aws.errors import translated

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
