"""One AWS service: requests that are signed, sent, and sent again where that helps.

One policy for all of them. A token that has expired is renewed, and the request signed again. What
may pass (a connection that broke, a busy service, bytes that were damaged on the way) is tried
again with growing delays, within the time that the command has for it. Everything else is a
:class:`ServiceError` with the service's own code. This module knows no operation.
"""

from __future__ import annotations

import hashlib
import logging
import math
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any, Protocol

from cpstage._version import __version__
from cpstage.aws.masking import masked, secrets_of
from cpstage.aws.message import Answer, Body, NetworkError, Request, UnsendableError, length_of
from cpstage.aws.origin import Origin
from cpstage.aws.sigv4 import UNSIGNED_PAYLOAD, Keys, signed_headers
from cpstage.aws.transport import Transport
from cpstage.retries import Retries

_LOGGER = logging.getLogger("cpstage")

_EXPIRED = {"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired"}
_BUSY = {
    "BandwidthLimitExceeded",
    "InternalError",
    "LimitExceededException",
    "PriorRequestNotComplete",
    "ProvisionedThroughputExceededException",
    "RequestLimitExceeded",
    "RequestThrottled",
    "RequestThrottledException",
    "RequestTimeout",
    "RequestTimeoutException",
    "SlowDown",
    "Throttling",
    "ThrottlingException",
    "TooManyRequestsException",
}
_DAMAGED = {"BadDigest", "InvalidDigest", "XAmzContentSHA256Mismatch"}
"""What arrived is not what was sent."""

_UNREADABLE = "UnreadableAnswer"
"""Our own code, for an answer that is none of AWS's."""

_MOST_TRIES = 7
"""Of a request that fails before its answer begins: some six seconds, if the time allows."""

_MOST_RENEWALS = 10
"""For one request: a session that expires faster than a request can be sent will not get there."""

_MOST_GUESSED_RENEWALS = 2
"""For one request that is refused without a word, which may have any other reason."""

_CODE = re.compile(r"[A-Za-z0-9._]{1,100}")
_LONGEST_MESSAGE = 500


class Credentials(Protocol):
    """What signs the requests of a service."""

    def get_frozen_credentials(self) -> Any:
        """Return what to sign the next request with (:class:`~cpstage.aws.sigv4.Keys`)."""


class Renewing(Credentials, Protocol):
    """Credentials that can be renewed when they turn out to have expired."""

    def renew_after(self, token: str | None) -> None:
        """Renew, unless somebody has done it since a request was signed with this token."""


@dataclass(frozen=True)
class Endpoint:
    """Where a service is.

    Attributes:
        origin: Scheme, host and port.
        path: What comes before the path of every request.
        region: What requests are signed for.
    """

    origin: Origin
    path: str
    region: str


class ServiceError(Exception):
    """A service refused a request, or answered what is no answer.

    Attributes:
        status: The HTTP status.
        code: The service's own code; the status where the answer has none.
        message: What the service says, without any secret of the request.
        headers: Of the answer, names in lower case.
    """

    def __init__(self, status: int, code: str, message: str, headers: Mapping[str, str]) -> None:
        super().__init__(f"{code}: {message}")
        self.status = status
        self.code = code
        self.message = message
        self.headers = headers

    @property
    def may_pass(self) -> bool:
        """Whether the same request may be answered the next time."""
        busy = self.status >= 500 or self.status == 429
        return busy or self.code in _BUSY or self.code in _DAMAGED or self.code == _UNREADABLE

    @property
    def is_expired(self) -> bool:
        """Whether it says that the token has expired.

        The answer to a HEAD has no body, and says 400 only; so does one from another region, which
        names it in a header.
        """
        if self.code == "400":
            return "x-amz-bucket-region" not in self.headers
        return self.code in _EXPIRED


class UnreadableAnswer(ServiceError):
    """An answer that cannot be read, whatever its status."""

    def __init__(self, answer: Answer, what: str) -> None:
        super().__init__(answer.status, _UNREADABLE, what, answer.headers)


Explain = Callable[[Answer], tuple[str, str]]
"""Reads the code and the message out of an answer that refuses."""


@dataclass(frozen=True)
class Call:
    """One operation of a service, as a request.

    Attributes:
        operation: Its name, for the log.
        target: Path and query, percent-encoded, the query's parameters in order.
        length: How many bytes the body of a good answer has to have; None takes any.
        secrets: Values that the service may quote back, and nobody may see.
        check: Complains of a good answer that cannot be read.
        refuses: Tells whether an answer with a good status is a refusal after all.
    """

    operation: str
    method: str
    target: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Body = field(default=(), repr=False)
    length: int | None = None
    secrets: Sequence[str] = field(default=(), repr=False)
    check: Callable[[Answer], object] = field(default=lambda _: None, repr=False)
    refuses: Callable[[Answer], bool] = field(default=lambda _: False, repr=False)


class Service:
    """Sends the requests of one service.

    Args:
        name: Its signing name.
        transport: What sends.
        credentials: What signs; None sends unsigned requests.
        retries: How long to go on when something fails that may pass.
        explain: How the service says why it refuses.
        renew: Renews the credentials after a token has expired, if they can be.
    """

    def __init__(
        self,
        name: str,
        transport: Transport,
        credentials: Credentials | None,
        retries: Retries,
        explain: Explain,
        *,
        renew: Callable[[str | None], object] | None = None,
    ) -> None:
        self._name = name
        self._transport = transport
        self._credentials = credentials
        self._retries = retries
        self._explain = explain
        self._renew = renew

    def interrupt(self) -> None:
        """Break off what is under way, and try nothing of it again."""
        self._retries.stop()
        self._transport.interrupt()

    def send(self, call: Call, endpoint: Endpoint, retries: Retries | None = None) -> Answer:
        """Send a request, again and again where that may help, and return the good answer.

        Args:
            call: The request.
            endpoint: Where to.
            retries: How long to go on, if not as long as with all others.

        Raises:
            ServiceError: The service refuses.
            NetworkError, SetupError, UnsendableError: It could not be asked.
        """
        until = retries or self._retries
        began, tries = time.monotonic(), 0
        what = f"{self._name}.{call.operation}"
        status: int | str = "none"
        received = 0

        def attempt() -> Answer:
            nonlocal tries
            tries += 1
            if until.is_stopped:
                raise NetworkError(f"the request to {endpoint.origin} was interrupted")
            return self._renewing(call, endpoint)

        try:
            answer = until(attempt, _tries, what)
            status, received = answer.status, len(answer.body)
            return answer
        except ServiceError as error:
            status = error.status
            raise
        finally:
            milliseconds = (time.monotonic() - began) * 1000
            sizes = (length_of(call.body), received)
            line = "%s: status %s, %s bytes sent, %s received, %s retries, %.0f ms"
            _LOGGER.info(line, what, status, *sizes, tries - 1, milliseconds)

    def _renewing(self, call: Call, endpoint: Endpoint) -> Answer:
        """Send a request; as often as its token has expired meanwhile, with a new one."""
        renewals = 0
        while True:
            keys: Keys | None = None
            if self._credentials is not None:
                keys = self._credentials.get_frozen_credentials()
            try:
                return self._once(call, endpoint, keys)
            except ServiceError as error:
                renewals += 1
                most = _MOST_RENEWALS if error.code in _EXPIRED else _MOST_GUESSED_RENEWALS
                if not error.is_expired or renewals > most or not (self._renew and keys):
                    raise
                self._renew(keys.token)

    def _once(self, call: Call, endpoint: Endpoint, keys: Keys | None) -> Answer:
        target = endpoint.path + call.target
        headers = {**call.headers, "User-Agent": f"cpstage/{__version__}"}
        if keys is not None:
            headers = self._signed(call, endpoint, target, headers, keys)
        request = Request(call.method, endpoint.origin, target, headers, call.body, call.length)
        answer = self._transport.exchange(request)
        good = answer.status < 300
        if good and not call.refuses(answer):
            call.check(answer)
            return answer
        code, message = self._explain(answer)
        secrets = [*call.secrets, *secrets_of(keys)]
        message = masked(message or "no message", secrets)[:_LONGEST_MESSAGE]
        status = 500 if good else answer.status
        code = code if _CODE.fullmatch(masked(code, secrets)) else str(status)
        raise ServiceError(status, code, message, answer.headers)

    def _signed(
        self, call: Call, endpoint: Endpoint, target: str, headers: Mapping[str, str], keys: Keys
    ) -> dict[str, str]:
        tls = endpoint.origin.scheme == "https"
        digest = UNSIGNED_PAYLOAD
        if self._name != "s3" or not tls:  # S3 takes it; TLS and a checksum protect the bytes
            digest = _digest(call.body)
        try:
            return signed_headers(
                call.method,
                endpoint.origin.authority,
                target,
                headers,
                digest,
                keys=keys,
                region=endpoint.region,
                service=self._name,
                now=datetime.now(timezone.utc),
            )
        except UnicodeEncodeError:  # it would quote the secret
            raise UnsendableError from None


def _digest(body: Body) -> str:
    digest = hashlib.sha256()
    for piece in body:
        digest.update(piece)
    return digest.hexdigest()


def _tries(error: Exception) -> float:
    """Return how often a request is made that fails this way; as long as there is time for inf."""
    if isinstance(error, NetworkError):
        return math.inf if error.began else _MOST_TRIES
    return _MOST_TRIES if isinstance(error, ServiceError) and error.may_pass else 0
