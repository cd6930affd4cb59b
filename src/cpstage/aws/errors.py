"""The errors of AWS calls: few kinds, translated from the exceptions of botocore and urllib3.

:func:`translated` masks secrets. Retries decide by these kinds. After the retries,
:func:`aws_failures` has :mod:`cpstage.aws.hints` give each error its exit code and its hint.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from traceback import walk_tb
from typing import Any
from urllib.parse import urlsplit

from botocore import exceptions as boto
from botocore.parsers import ResponseParserError
from urllib3 import exceptions as http

from cpstage.job.model import Secret, mask_queries, masked

CALLER_EXPIRED_HINT = "renew them (for example with 'aws sso login') and run the command again"
"""For the caller's own credentials."""

SESSION_EXPIRED_HINT = "the job's session credentials expire faster than they can be refreshed"
"""For a job's credentials, which are refreshed before anybody reads this."""

SIGNATURE_HINT = "check signature_version in the AWS configuration"
"""For a signature version that is unknown, or does not suit the service."""

_PROXY_HINT = "check HTTP_PROXY, HTTPS_PROXY and NO_PROXY"

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

_UNPARSED = (AttributeError, KeyError, RecursionError, TypeError, ValueError)
"""Exceptions of botocore's parsers for a well-formed answer of another shape."""

_OTHERS_REDIRECTS = {302, 303, 308}
"""Statuses that AWS never answers with (S3 redirects with 301 and 307); login pages do."""

# Patterns are compiled on first use: a command that succeeds needs none.
_CODE = r"[A-Za-z0-9._]{1,100}"
_REQUEST_ID = r"[A-Za-z0-9+/=_-]{1,128}"
_LONGEST_MESSAGE = 500

_OTHER_NAME = {62, 64}
"""X509_V_ERR_HOSTNAME_MISMATCH and X509_V_ERR_IP_ADDRESS_MISMATCH of OpenSSL."""

_BAD_CERTIFICATES = "CERTIFICATE_OR_CRL|PEM|NO_START_LINE"
_DAMAGED_RECORD = "BAD_RECORD_MAC|DECRYPTION_FAILED"
_LOGIN = r"//[^/\s\"']*@"
_REFUSED_TUNNEL = r"Tunnel connection failed: [0-9]{3}"


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
    except (CallFailed, CredentialsRefused, boto.BotoCoreError) as error:
        from cpstage.aws.hints import Hints, failure_of

        hints = Hints(denied_hint, policy_hint, expired_hint, key_hint)
        cause = None if isinstance(error, boto.BotoCoreError) else error
        raise failure_of(error, doing, hints) from cause


def translated(  # noqa: PLR0911 (one return for each kind)
    error: Exception, operation: str, secrets: Iterable[Secret] = (), ca_bundle: str | None = None
) -> Exception:
    """Return the meaning of an exception of a boto3 call; an unknown exception is returned itself.

    The service may quote the secrets. The configured file of CA certificates is named where it is
    the reason.
    """
    if isinstance(error, boto.ClientError):
        if error.operation_name != operation:
            return _refused_credentials(error)
        return _service_error(error, secrets)
    if isinstance(error, boto.SSLError):
        return _tls_failure(error, ca_bundle)
    if isinstance(error, (boto.ProxyConnectionError, boto.InvalidProxiesConfigError)):
        return NetworkError(_network_text(error))
    if isinstance(error, ResponseParserError):
        return UnreadableAnswer(200, "the answer cannot be read")
    if isinstance(error, (boto.ResponseStreamingError, boto.IncompleteReadError)):
        return NetworkError("the answer was cut", began=True)
    if isinstance(error, boto.ReadTimeoutError) and not error.kwargs.get("endpoint_url"):
        return NetworkError("Read timeout in the middle of an answer", began=True)
    if isinstance(error, (boto.ConnectionError, boto.ConnectionClosedError, boto.ReadTimeoutError)):
        return NetworkError(_network_text(error))
    if isinstance(error, boto.HTTPClientError):
        return _unsent(error)
    if isinstance(error, (http.HTTPError, OSError)):
        return NetworkError(f"the answer was cut{_system_reason(error)}", began=True)
    if isinstance(error, RuntimeError) and "expired" in str(error):
        return CredentialsRefused("the AWS credentials have expired", busy=False)
    if isinstance(error, _UNPARSED) and not isinstance(error, boto.BotoCoreError):
        return _unsigned_or_unparsed(error)
    return error


def _service_error(error: boto.ClientError, secrets: Iterable[Secret]) -> Exception:
    answer: Mapping[str, Any] = error.response
    about, refused = answer.get("ResponseMetadata", {}), answer.get("Error", {})
    headers = about.get("HTTPHeaders", {})
    status = int(about.get("HTTPStatusCode", 0))
    if status == 407:
        return NetworkError("the proxy refuses the request: 407 Proxy Authentication Required")
    # botocore takes a body that is not JSON for the message.
    is_page = status < 500 and str(refused.get("Message", "")).lstrip().startswith("<")
    if is_page or status in _OTHERS_REDIRECTS:
        return NetworkError(f"the answer is not from AWS: status {status}, as of a login page")
    hidden = [*secrets]
    code = str(refused.get("Code", ""))
    code = code if re.fullmatch(_CODE, masked(code, hidden)) else str(status)
    message = masked(str(refused.get("Message", "")) or "no message", hidden)[:_LONGEST_MESSAGE]
    request_id = str(about.get("RequestId") or "")
    shown = request_id if re.fullmatch(_REQUEST_ID, masked(request_id, hidden)) else None
    retries = int(about.get("RetryAttempts", 0))
    return ServiceError(status, code, message, shown, headers.get("date"), retries)


def _refused_credentials(error: boto.ClientError) -> CredentialsRefused:
    """Translate the answer of a service that botocore asked for the caller's credentials.

    The message of STS about a wrong signature repeats all that was signed, a session token too.
    Only messages of AccessDenied, which name the caller and the operation, are shown.
    """
    refused, about = error.response.get("Error", {}), error.response.get("ResponseMetadata", {})
    code, words = str(refused.get("Code", "")), str(refused.get("Message", ""))
    why = f"{code}: {words}" if code.startswith("AccessDenied") else code
    busy = ServiceError(int(about.get("HTTPStatusCode", 0)), code, words).may_pass
    return CredentialsRefused(f"{error.operation_name} was refused: {why}".rstrip("."), busy=busy)


def _tls_failure(error: boto.SSLError, ca_bundle: str | None) -> Exception:
    """Distinguish a broken connection, which may pass, from a handshake that cannot succeed."""
    endpoint = urlsplit(str(error.kwargs.get("endpoint_url", "")))
    origin = f"{endpoint.scheme}://{endpoint.netloc.rpartition('@')[2]}"
    causes = [*_causes(error)]
    for cause in causes:
        if isinstance(cause, ssl.SSLCertVerificationError):
            mismatch = cause.verify_code in _OTHER_NAME
            hint = "check --endpoint-url" if mismatch else "trust it with --ca-bundle FILE"
            why = cause.verify_message.rstrip(".")
            return SetupError(f"the certificate of {origin} is not trusted: {why}", hint)
        if type(cause).__name__ == "CertificateError":  # urllib3 compares names by itself
            what = f"the certificate of {origin} is for another name: {cause}"
            return SetupError(what, "check --endpoint-url")
    if any(_is_passing_tls(cause) for cause in causes):
        return NetworkError(f"the TLS connection to {origin} broke")
    reasons = [one.reason for one in causes if isinstance(one, ssl.SSLError) and one.reason]
    reason = reasons[0] if reasons else ""
    if ca_bundle and (not reason or re.search(_BAD_CERTIFICATES, reason)):
        hint = "check --ca-bundle, AWS_CA_BUNDLE and the profile's ca_bundle"
        return SetupError(f"the CA certificates in {ca_bundle} cannot be used", hint)
    what = f"no TLS connection to {origin}: {reason or 'the handshake failed'}"
    return SetupError(what, "check --endpoint-url and the proxy; AWS needs TLS 1.2 or newer")


def _is_passing_tls(cause: BaseException) -> bool:
    broke = (ssl.SSLEOFError, ssl.SSLZeroReturnError, ConnectionError, TimeoutError)
    reason = getattr(cause, "reason", None) if isinstance(cause, ssl.SSLError) else None
    return isinstance(cause, broke) or bool(re.search(_DAMAGED_RECORD, reason or ""))


def _unsent(error: boto.HTTPClientError) -> Exception:
    """Translate errors without a class in botocore; texts may quote a header or a password."""
    causes = [*_causes(error)]
    if any(isinstance(one, (http.LocationValueError, http.URLSchemeUnknown)) for one in causes):
        return SetupError("the proxy's URL cannot be used", _PROXY_HINT)
    return NetworkError(f"the request failed{_system_reason(error)}")


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception and those inside it, however botocore and urllib3 keep them."""
    pending, seen = [error], set[int]()
    while pending:
        one = pending.pop(0)
        if id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        kept = getattr(one, "kwargs", {})
        inside = [kept.get("error"), getattr(one, "reason", None), *one.args, one.__cause__]
        pending += [each for each in inside if isinstance(each, BaseException)]


def _unsigned_or_unparsed(error: Exception) -> Exception:
    """Distinguish a request that cannot be signed from an answer that cannot be read."""
    modules = {frame.f_globals.get("__name__") for frame, _ in walk_tb(error.__traceback__)}
    if "botocore.credentials" in modules:  # refreshed when the request was signed
        what = "the AWS credentials cannot be read: they are malformed"
        return CredentialsRefused(what, busy=False)
    if "botocore.signers" in modules:
        return SetupError("the request cannot be signed", SIGNATURE_HINT)
    return UnreadableAnswer(200, "the answer cannot be read")


def _network_text(error: BaseException) -> str:
    """Return botocore's message about the network, without login and query of URLs."""
    return mask_queries(re.sub(_LOGIN, "//", f"{error}{_system_reason(error)}"))


def _system_reason(error: BaseException) -> str:
    """Return the system's message for a failure, to append to botocore's."""
    for cause in _causes(error):
        tunnel = re.search(_REFUSED_TUNNEL, str(cause)) if isinstance(cause, OSError) else None
        if tunnel:
            return f" ({tunnel[0]})"
        if isinstance(cause, OSError) and cause.strerror:
            return f" ({cause.strerror})"
    return ""
