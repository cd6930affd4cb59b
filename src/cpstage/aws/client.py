"""A boto3 client as cpstage calls it: retried, refreshed, checked, logged, and stopped at once.

:meth:`AwsClient.call` is the way of every request to AWS. It sends one operation of the API
reference, again and again where that helps, and returns the members of the answer.

One :class:`Retries` serves all requests of a command. The time limit counts from the last progress,
which is any request that succeeded: a transfer does not fail because it is long. Delays have full
jitter (a random time up to a bound that doubles), so that many workers that were interrupted
together do not come back together.

A signal cannot wake botocore's own retries, which count attempts only and do not resume a body.
They are used where the caller has configured them (``AWS_MAX_ATTEMPTS``, ``AWS_RETRY_MODE``, the
profile, a session's default config).
"""

from __future__ import annotations

import logging
import math
import random
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from botocore import xform_name

from cpstage.aws.credentials import JobCredentials
from cpstage.aws.errors import NetworkError, ServiceError, UnreadableAnswer, translated
from cpstage.aws.sessions import TrackedClient
from cpstage.errors import Reportable
from cpstage.job import SessionCredentials
from cpstage.job.masking import MaskedDict, Secret, reveal, secrets_in

_LOGGER = logging.getLogger("cpstage")

_MOST_REFRESHES = 10
"""Refreshes for one call: credentials that expire faster than a request are useless."""

_FIRST_DELAY, _LONGEST_DELAY, _MOST_DOUBLINGS = 0.1, 10.0, 10

_MOST_TRIES = 7
"""Of a request that fails before its answer begins: some six seconds, if the time allows."""

Answer = Mapping[str, Any]
"""The members of an answer, as botocore parses them."""

Check = Callable[[Answer], "str | None"]
"""Returns what an answer lacks; None for a complete answer."""


def has(*members: str) -> Check:
    """Return a check that an answer has some members."""

    def check(answer: Answer) -> str | None:
        missing = [name for name in members if answer.get(name) in (None, "")]
        return f"the answer has no {missing[0]}" if missing else None

    return check


class Retries:
    """How long to go on after failures, and how often that was necessary.

    Args:
        timeout: Seconds since the last progress after which nothing is tried again.

    Attributes:
        count: How many requests were sent again.
    """

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._progress = -math.inf
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        self.count = 0

    @property
    def is_stopped(self) -> bool:
        """Whether no request is sent any more."""
        return self._stopped.is_set()

    def stop(self) -> None:
        """Send nothing again from now on, and wake all that wait."""
        self._stopped.set()

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
        if failures >= most or left <= 0 or self.is_stopped:
            return False
        bound = min(_LONGEST_DELAY, _FIRST_DELAY * 2 ** min(failures, _MOST_DOUBLINGS))
        delay = random.uniform(0, bound)  # noqa: S311 (it hides nothing)
        if delay >= left or self._stopped.wait(delay):
            return False
        with self._lock:
            self.count += 1
        return True


class AwsClient:
    """Calls operations of one service.

    Args:
        client: A boto3 client, and its connections.
        retries: How long to go on after failures.
        secrets: Returns what the service may quote of the caller's credentials.
        credentials: The job's, for a client that signs with them.
        retries_itself: Whether botocore retries, since the caller has configured that.
        ca_bundle: The configured file of CA certificates, to name it.

    Attributes:
        boto3_client: The client itself, for ``botocore.stub.Stubber`` and event handlers.
        connections: Its connections.
        retries: How long it goes on after failures.
    """

    def __init__(
        self,
        client: TrackedClient,
        retries: Retries,
        *,
        secrets: Callable[[], list[Secret]],
        credentials: JobCredentials | None = None,
        retries_itself: bool = False,
        ca_bundle: str | None = None,
    ) -> None:
        self.boto3_client = client.client
        self.connections = client.connections
        self.retries = retries
        self._secrets = secrets
        self._credentials = credentials
        self._retries_itself = retries_itself
        self._ca_bundle = ca_bundle
        if credentials:
            credentials.sign_for(self.boto3_client)

    @property
    def region(self) -> str:
        """The region that requests are sent to."""
        return str(self.boto3_client.meta.region_name)

    @property
    def endpoint_url(self) -> str:
        """Where requests are sent to."""
        return str(self.boto3_client.meta.endpoint_url)

    @property
    def is_of_a_job(self) -> bool:
        """Whether requests are signed with a job's session credentials."""
        return self._credentials is not None

    def interrupt(self) -> None:
        """Interrupt pending requests, and retry none."""
        self.retries.stop()
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
            parameters: Its members; a :class:`~cpstage.job.masking.Secret` is sent in plain, and
                masked in what the service says. A ``Body`` with ``seek`` is sent from its start.
            about: What the call is about, for the log.
            check: Says what a good answer lacks; such an answer is asked for again.
            retries: How long to go on, where not as long as with all others.

        Raises:
            ServiceError: The service refuses.
            NetworkError, SetupError: AWS did not answer.
            CredentialsRefused, botocore.exceptions.BotoCoreError: The caller's credentials or
                settings cannot be used.
        """
        until = retries or self.retries
        record = _Record(f"{self.boto3_client.meta.service_model.service_name}.{operation}", about)
        failures, refreshes = 0, 0
        try:
            while True:
                signed_with = self._credentials.current if self._credentials else None
                answer, failure = self._try(operation, parameters, signed_with, check, until)
                record.note(answer, failure)
                if failure is None:
                    until.progressed()
                    return answer
                if self._credentials and signed_with and _has_expired(failure):
                    refreshes += 1
                    if refreshes > _MOST_REFRESHES:
                        raise failure
                    self._credentials.refresh_after(signed_with.token)
                    continue
                failures += 1
                most = 0 if self._retries_itself else most_tries(failure)
                if not until.wait(failures, record.began, most):
                    raise failure
                record.retry(failure)
        finally:
            record.log()

    def _try(
        self,
        operation: str,
        parameters: Mapping[str, Any],
        signed_with: SessionCredentials | None,
        check: Check,
        until: Retries,
    ) -> tuple[MaskedDict, Exception | None]:
        """Send a request once; return the answer, or the failure.

        The failure is returned, not raised, and comes without botocore's frames and without what
        botocore raised: their variables and texts hold tokens.
        """
        if until.is_stopped:
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
            hidden = [*secrets_in({**parameters}), *self._secrets()]
            hidden += signed_with.secrets() if signed_with else []
            failure = translated(error, operation, hidden, self._ca_bundle)
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


class _Record:
    """One call for the log: its status, its retries and its time."""

    def __init__(self, what: str, about: str) -> None:
        self.began = time.monotonic()
        self._what = f"{what} {about}".rstrip()
        self._status: int | str = "none"
        self._retries = 0
        self._request_id: str | None = None

    def note(self, answer: Answer, failure: Exception | None) -> None:
        """Record the result of a try."""
        about = answer.get("ResponseMetadata", {})
        self._retries += int(about.get("RetryAttempts", 0))
        if isinstance(failure, ServiceError):
            self._status, self._request_id = failure.status, failure.request_id
        elif failure is None:
            self._status = about.get("HTTPStatusCode", 200)
            self._request_id = about.get("RequestId")

    def retry(self, failure: Exception) -> None:
        """Log a retry."""
        self._retries += 1
        _LOGGER.info("%s: trying again: %s", self._what, failure)

    def log(self) -> None:
        """Log the result of the call."""
        milliseconds = (time.monotonic() - self.began) * 1000
        request = f", request ID {self._request_id}" if self._request_id else ""
        line = "%s: status %s, %s retries, %.0f ms%s"
        _LOGGER.info(line, self._what, self._status, self._retries, milliseconds, request)


def _has_expired(failure: Exception) -> bool:
    return isinstance(failure, ServiceError) and failure.is_expired


def most_tries(error: Exception) -> float:
    """Return how often a request is sent that fails this way: infinity where only time counts."""
    if isinstance(error, NetworkError):
        return math.inf if error.began else _MOST_TRIES
    return _MOST_TRIES if isinstance(error, ServiceError) and error.may_pass else 0
