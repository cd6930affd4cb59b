"""Failures of AWS calls: what botocore raises, and the row of the exit-code table each belongs to.

Two steps. :func:`translated` turns an exception of botocore into one of the few kinds below, with
secrets masked; retries decide by these kinds. :func:`aws_failures` turns what is left after the
retries into a :class:`~cpstage.errors.CpstageError` with a hint. Nothing else decides what a code
of AWS means.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from botocore import exceptions as boto
from botocore.parsers import ResponseParserError
from urllib3 import exceptions as http

from cpstage.errors import (
    AccessDenied,
    ConfigurationError,
    CpstageError,
    NotFound,
    ObjectChanged,
    ObjectNotFound,
    OutOfSync,
    ServiceUnavailable,
)
from cpstage.masking import Secret, masked

CALLER_EXPIRED_HINT = "renew them (for example with 'aws sso login') and run the command again"
"""What to do about the caller's own credentials."""

SESSION_EXPIRED_HINT = "the job's session credentials expire faster than they can be refreshed"
"""What to do about a job's own credentials, which are refreshed before this is ever said."""

_CALLER_HINT = "check which identity the AWS CLI's 'aws sts get-caller-identity' shows"
_LOCAL_CREDENTIALS_HINT = "check the AWS credentials of this shell or profile"
_NO_KEYS_HINT = "set AWS_PROFILE or --profile, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
_NETWORK_HINT = "check the network, the region, the proxy and --endpoint-url"
_BUSY_HINT = "AWS is busy or broken: try again later"
_PROXY_HINT = "check HTTP_PROXY, HTTPS_PROXY and NO_PROXY"
_SETTINGS_HINT = "check the options and the AWS configuration"

EXPIRED = {"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired"}
_REQUEST_EXPIRED = "RequestExpired"
"""The credentials may be good for longer, but the signature is not."""

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
"""What arrived differs from what was sent."""

_DENIED = {
    "403",
    "AccessDenied",
    "AccessDeniedException",
    "AllAccessDisabled",
    "Forbidden",
    "InvalidClientTokenException",
    "NotAuthorized",
    "OptInRequired",
}
_NO_IDENTITY = {
    "AuthFailure",
    "IncompleteSignature",
    "InvalidAccessKeyId",
    "InvalidClientTokenId",
    "InvalidSignatureException",
    "InvalidToken",
    "MissingAuthenticationToken",
    "MissingAuthenticationTokenException",
    "SignatureDoesNotMatch",
    "UnrecognizedClientException",
}
"""The credentials are good for nothing, whatever the call."""

_SKEWED = {"RequestTimeTooSkewed", "RequestInTheFuture"}
_SKEWED_MESSAGE = re.compile("Signature (expired|not yet current)")
"""What CodePipeline and KMS say under the code InvalidSignatureException."""

MOVED = {
    "301",
    "307",
    "AuthorizationHeaderMalformed",
    "IllegalLocationConstraintException",
    "PermanentRedirect",
    "TemporaryRedirect",
}
"""What S3 answers for a bucket in another region."""

_ROWS: tuple[tuple[set[str], type[CpstageError], str | None], ...] = (
    (
        {"JobNotFoundException", "InvalidJobException"},
        NotFound,
        "check the job id and the region; a finished job is gone",
    ),
    (
        {"ActionTypeNotFoundException"},
        ConfigurationError,
        "create the action type, or check category, provider, version and region",
    ),
    (
        {"NoSuchBucket"},
        ConfigurationError,
        "the pipeline's artifact bucket does not exist: create it, or change the pipeline",
    ),
    ({"NoSuchKey", "NoSuchVersion", "NotFound", "404"}, ObjectNotFound, None),
    (
        {"InvalidObjectState"},
        ObjectNotFound,
        "the object is archived to Glacier: restore it, or release the change again",
    ),
    ({"PreconditionFailed", "412"}, ObjectChanged, None),
    ({"InvalidJobStateException", "InvalidNonceException"}, OutOfSync, None),
    (MOVED, ConfigurationError, "give the region of the pipeline with --region"),
)
"""Codes that mean the same whoever called, and whatever for."""

_UNPARSED = (AttributeError, KeyError, TypeError, ValueError)
"""What botocore's parsers raise for an answer that is well-formed, and of another shape."""

_CODE = re.compile(r"[A-Za-z0-9._]{1,100}")
_REQUEST_ID = re.compile(r"[A-Za-z0-9+/=_-]{1,128}")
_LONGEST_MESSAGE = 500

_OTHER_NAME = {62, 64}
"""X509_V_ERR_HOSTNAME_MISMATCH and X509_V_ERR_IP_ADDRESS_MISMATCH of OpenSSL."""

_DAMAGED_RECORD = re.compile("BAD_RECORD_MAC|DECRYPTION_FAILED")
_LOGIN = re.compile(r"//[^/\s\"']*@")
_REFUSED_TUNNEL = re.compile(r"Tunnel connection failed: [0-9]{3}")


class CallFailed(Exception):
    """A call of AWS failed.

    Attributes:
        also: What it may have left in AWS, to be named in the message.
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


class ServiceError(CallFailed):
    """A service refused a request.

    Attributes:
        status: The HTTP status.
        code: The service's own code; the status where the answer has none.
        message: What the service says, secrets masked.
        request_id: AWS's id of the request, where the answer has one.
        date: The Date header of the answer, where it has one.
        retries: How often botocore itself sent the request again.
    """

    def __init__(  # noqa: PLR0917 (an answer has six parts)
        self,
        status: int,
        code: str,
        message: str,
        request_id: str | None = None,
        date: str | None = None,
        retries: int = 0,
    ) -> None:
        super().__init__(f"{code}: {message}")
        self.status = status
        self.code = code
        self.message = message
        self.request_id = request_id
        self.date = date
        self.retries = retries

    @property
    def may_pass(self) -> bool:
        """Whether the same request may be answered the next time."""
        busy = self.status >= 500 or self.status == 429
        return busy or self.code in _BUSY or self.code in _DAMAGED

    @property
    def is_expired(self) -> bool:
        """Whether the token has expired."""
        return self.code in EXPIRED


class UnreadableAnswer(ServiceError):
    """An answer with a good status that lacks what the operation returns.

    A proxy's login page is one, and so is an answer that was cut between two headers.
    """

    def __init__(self, status: int, what: str, request_id: str | None = None) -> None:
        super().__init__(status, "UnreadableAnswer", what, request_id)

    @property
    def may_pass(self) -> bool:
        """Whether the same request may be answered the next time."""
        return True


class CredentialsRefused(Exception):
    """A service that botocore asked for the caller's credentials refused them.

    Attributes:
        busy: Whether the service may give them the next time.
    """

    def __init__(self, message: str, *, busy: bool) -> None:
        super().__init__(message)
        self.busy = busy


def translated(  # noqa: PLR0911 (one return for each kind)
    error: Exception, operation: str, secrets: Iterable[Secret] = (), ca_bundle: str | None = None
) -> Exception:
    """Return the meaning of an exception of a boto3 call; an unknown exception is returned itself.

    Args:
        error: What botocore or urllib3 raised.
        operation: The operation that was called, such as ``GetObject``.
        secrets: Values that the service may quote.
        ca_bundle: The configured file of CA certificates, to name it.
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
        return UnreadableAnswer(200, "the answer cannot be read")
    return error


def _service_error(error: boto.ClientError, secrets: Iterable[Secret]) -> Exception:
    said: Mapping[str, Any] = error.response
    about, refused = said.get("ResponseMetadata", {}), said.get("Error", {})
    headers = about.get("HTTPHeaders", {})
    status = int(about.get("HTTPStatusCode", 0))
    if status == 407:
        return NetworkError("the proxy refuses the request: 407 Proxy Authentication Required")
    hidden = [*secrets]
    code = str(refused.get("Code", ""))
    code = code if _CODE.fullmatch(masked(code, hidden)) else str(status)
    message = masked(str(refused.get("Message", "")) or "no message", hidden)[:_LONGEST_MESSAGE]
    request_id = str(about.get("RequestId") or "")
    shown = request_id if _REQUEST_ID.fullmatch(masked(request_id, hidden)) else None
    retries = int(about.get("RetryAttempts", 0))
    return ServiceError(status, code, message, shown, headers.get("date"), retries)


def _refused_credentials(error: boto.ClientError) -> CredentialsRefused:
    """Translate the answer of a service that botocore asked for the caller's credentials.

    What STS says of a wrong signature repeats all that was signed, a session token too. Only the
    words of AccessDenied, which name who may not do what, are shown.
    """
    refused, about = error.response.get("Error", {}), error.response.get("ResponseMetadata", {})
    code, words = str(refused.get("Code", "")), str(refused.get("Message", ""))
    why = f"{code}: {words}" if code.startswith("AccessDenied") else code
    busy = ServiceError(int(about.get("HTTPStatusCode", 0)), code, words).may_pass
    return CredentialsRefused(f"{error.operation_name} was refused: {why}".rstrip("."), busy=busy)


def _tls_failure(error: boto.SSLError, ca_bundle: str | None) -> Exception:
    """Tell a connection that broke, which may pass, from a handshake that cannot succeed."""
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
    if ca_bundle and (not reason or _is_about_certificates(reason)):
        hint = "check --ca-bundle, AWS_CA_BUNDLE and the profile's ca_bundle"
        return SetupError(f"the CA certificates in {ca_bundle} cannot be used", hint)
    what = f"no TLS connection to {origin}: {reason or 'the handshake failed'}"
    return SetupError(what, "check --endpoint-url and the proxy; AWS needs TLS 1.2 or newer")


def _is_passing_tls(cause: BaseException) -> bool:
    broke = (ssl.SSLEOFError, ssl.SSLZeroReturnError, ConnectionError, TimeoutError)
    if isinstance(cause, broke):
        return True
    return isinstance(cause, ssl.SSLError) and bool(_DAMAGED_RECORD.search(cause.reason or ""))


def _is_about_certificates(reason: str) -> bool:
    return "CERTIFICATE_OR_CRL" in reason or "PEM" in reason or "NO_START_LINE" in reason


def _unsent(error: boto.HTTPClientError) -> Exception:
    """Translate what botocore has no class for; texts of these may quote a header or a password."""
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


def _network_text(error: BaseException) -> str:
    """Return what botocore says of the network, without the login of a URL."""
    return _LOGIN.sub("//", f"{error}{_system_reason(error)}")


def _system_reason(error: BaseException) -> str:
    """Return what the system says of a failure, to stand behind botocore's own words."""
    for cause in _causes(error):
        tunnel = _REFUSED_TUNNEL.search(str(cause)) if isinstance(cause, OSError) else None
        if tunnel:
            return f" ({tunnel[0]})"
        if isinstance(cause, OSError) and cause.strerror:
            return f" ({cause.strerror})"
    return ""


@contextmanager
def aws_failures(
    doing: str,
    *,
    denied_hint: str = _CALLER_HINT,
    expired_hint: str = CALLER_EXPIRED_HINT,
    key_hint: str = "check the state of the KMS key",
) -> Iterator[None]:
    """Turn what fails inside, on the way to AWS or there, into a CpstageError.

    Args:
        doing: What the call does and to what, as in "cannot <doing>".
        denied_hint: What to do when the call is denied, such as the permission that is missing.
        expired_hint: What to do when the credentials of the call have expired.
        key_hint: What to do when the KMS key cannot be used.

    Raises:
        CpstageError: The row of the exit-code table that the failure belongs to.
    """
    try:
        yield
    except ServiceError as error:
        raise _refusal(error, doing, (denied_hint, expired_hint, key_hint)) from error
    except NetworkError as error:
        what = f"cannot {doing}: {error}{error.also}"
        raise ServiceUnavailable(what, hint=_NETWORK_HINT) from error
    except SetupError as error:
        what = f"cannot {doing}: {error}{error.also}"
        raise ConfigurationError(what, hint=error.hint) from error
    except CredentialsRefused as error:
        what = f"cannot {doing}: {error}"
        if error.busy:
            raise ServiceUnavailable(what, hint=_BUSY_HINT) from error
        raise AccessDenied(what, hint=_LOCAL_CREDENTIALS_HINT) from error
    except boto.BotoCoreError as error:
        raise _settings_failure(error, doing) from None


def _refusal(error: ServiceError, doing: str, hints: tuple[str, str, str]) -> CpstageError:
    """Give the refusal of a service its class and its hint."""
    denied_hint, expired_hint, key_hint = hints
    code = error.code
    what = refusal_text(error, doing)
    result: CpstageError
    if code in _SKEWED or _SKEWED_MESSAGE.match(error.message):
        result = AccessDenied(what, hint=_clock_hint(error.date))
    elif error.is_expired or code == _REQUEST_EXPIRED:
        result = AccessDenied(what, hint=expired_hint)
    elif code.startswith("KMS."):
        result = AccessDenied(what, hint=key_hint)
    elif code in _NO_IDENTITY:
        result = AccessDenied(what, hint=_CALLER_HINT)
    elif code in _DENIED:
        result = AccessDenied(what, hint=denied_hint)
    elif row := next((row for row in _ROWS if code in row[0]), None):
        result = row[1](what, hint=row[2])
    elif error.may_pass:
        result = ServiceUnavailable(what, hint=_BUSY_HINT)
    else:
        result = ConfigurationError(what, hint="AWS refused the request for the reason it names")
    return result


def refusal_text(error: ServiceError, doing: str) -> str:
    """Return the line about a refusal: what failed, why, and AWS's request id."""
    request = f" (request ID {error.request_id})" if error.request_id else ""
    return f"cannot {doing}: {error.code}: {error.message}".rstrip(".") + request + error.also


_LOCAL_CREDENTIALS = (
    boto.CredentialRetrievalError,
    boto.MetadataRetrievalError,
    boto.NoAuthTokenError,
    boto.PartialCredentialsError,
    boto.RefreshWithMFAUnsupportedError,
    boto.SSOError,
    boto.TokenRetrievalError,
    boto.UnknownCredentialError,
)


def _settings_failure(error: boto.BotoCoreError, doing: str) -> CpstageError:
    """Translate what botocore says of the caller's settings and credentials."""
    if isinstance(error, boto.NoCredentialsError):
        return AccessDenied(f"cannot {doing}: no AWS credentials were found", hint=_NO_KEYS_HINT)
    said = error.kwargs.get("report") if isinstance(error, boto.ParamValidationError) else error
    what = f"cannot {doing}: {said}".rstrip(".: ")
    if isinstance(error, _LOCAL_CREDENTIALS) or type(error).__name__.startswith("Login"):
        return AccessDenied(what, hint=_LOCAL_CREDENTIALS_HINT)
    if isinstance(error, (boto.HTTPClientError, boto.ConnectionError)):
        return ServiceUnavailable(what, hint=_NETWORK_HINT)
    return ConfigurationError(what, hint=_SETTINGS_HINT)


def _clock_hint(stamp: str | None) -> str:
    """Say how far this machine's clock is off, where the answer carries a date."""
    off = seconds_off(stamp)
    if off is None:
        return "set the clock of this machine"
    return f"the clock of this machine is off by {off:+.0f} s: set it"


def seconds_off(stamp: str | None) -> float | None:
    """Return how many seconds this machine's clock is ahead of the Date header of an answer.

    Args:
        stamp: The header; the result is None where the header is missing or malformed.
    """
    from datetime import datetime, timezone
    from email.utils import parsedate_to_datetime

    try:
        return (datetime.now(timezone.utc) - parsedate_to_datetime(stamp or "")).total_seconds()
    except (TypeError, ValueError):
        return None
