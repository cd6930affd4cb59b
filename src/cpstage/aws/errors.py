"""What a failed call of AWS means: its kind, and for a user its exit code, failure type and hint.

:func:`translated` turns the exceptions of botocore and urllib3 into the few kinds of errors that
:mod:`cpstage.aws.client` raises, and masks secrets. :func:`failure_of` turns these, and what
botocore says of the caller's settings, into a :class:`~cpstage.errors.CpstageError`. This module
alone decides what an error code of AWS means.
"""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import Iterable, Iterator, Mapping
from traceback import walk_tb
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from botocore import exceptions as boto
from botocore.parsers import ResponseParserError
from urllib3 import exceptions as http

from cpstage.aws.client import (
    CALLER_EXPIRED_HINT,
    CredentialsRefused,
    NetworkError,
    ServiceError,
    SetupError,
    UnreadableAnswer,
)
from cpstage.errors import (
    AccessDenied,
    ConfigurationError,
    CpstageError,
    NotFound,
    ObjectChanged,
    ObjectNotFound,
    OutOfSync,
    ServiceUnavailable,
    extra_hint,
)
from cpstage.job.model import Secret, mask_queries, masked

_PROXY_HINT = "check HTTP_PROXY, HTTPS_PROXY and NO_PROXY"

_SIGNATURE_HINT = "check signature_version in the AWS configuration"
"""For a signature version that is unknown, or does not suit the service."""

_UNPARSED = (AttributeError, KeyError, RecursionError, TypeError, ValueError)
"""Exceptions of botocore's parsers for a well-formed answer of another shape."""

_OTHERS_REDIRECTS = {302, 303, 308}
"""Statuses that AWS never answers with (S3 redirects with 301 and 307); login pages do."""

_CODE = r"[A-Za-z0-9._]{1,100}"
_REQUEST_ID = r"[A-Za-z0-9+/=_-]{1,128}"
_LONGEST_MESSAGE = 500

_OTHER_NAME = {62, 64}
"""X509_V_ERR_HOSTNAME_MISMATCH and X509_V_ERR_IP_ADDRESS_MISMATCH of OpenSSL."""

_BAD_CERTIFICATES = "CERTIFICATE_OR_CRL|PEM|NO_START_LINE"
_DAMAGED_RECORD = "BAD_RECORD_MAC|DECRYPTION_FAILED"
_LOGIN = r"//[^/\s\"']*@"
_REFUSED_TUNNEL = r"Tunnel connection failed: [0-9]{3}"


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
        return SetupError("the request cannot be signed", _SIGNATURE_HINT)
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


_CALLER_HINT = "check which identity the AWS CLI's 'aws sts get-caller-identity' shows"
_LOCAL_CREDENTIALS_HINT = "check the AWS credentials of this shell or profile"
_NO_KEYS_HINT = "set AWS_PROFILE or --profile, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
_NETWORK_HINT = "check the network, the region, the proxy and --endpoint-url"
_BUSY_HINT = "AWS is busy or broken: try again later"
_KEY_HINT = "check the state of the KMS key"
_SETTINGS_HINT = "check the options and the AWS configuration"

_CUSTOMER_KEY_HINT = (
    "the object is encrypted with a customer key (SSE-C), which a job does not carry: upload it "
    "with SSE-KMS"
)
_POLICY_HINT = (
    "the resource's policy denies the request explicitly: ask the owner for its condition"
)

_DENIED = {
    *("403", "AccessDenied", "AccessDeniedException", "AllAccessDisabled", "Forbidden"),
    *("InvalidClientTokenException", "NotAuthorized", "OptInRequired"),
}

_EXPLICIT_DENY = re.compile(r"explicit deny in an? ((?:[\w-]+ ){1,3}(?:policy|boundary))")
_CUSTOMER_KEY_MESSAGE = re.compile("stored using a form of Server Side Encryption")
"""S3's message, with the code InvalidRequest, for a GET without the customer's key."""

_SKEWED = {"RequestTimeTooSkewed", "RequestInTheFuture"}
_SKEWED_MESSAGE = re.compile("Signature (expired|not yet current)")
"""Messages of CodePipeline and KMS with the code InvalidSignatureException."""

_ROWS: tuple[tuple[set[str], type[CpstageError], str | None], ...] = (
    (
        {  # credentials that are invalid for every call
            *("AuthFailure", "IncompleteSignature", "InvalidAccessKeyId", "InvalidClientTokenId"),
            *("InvalidSignatureException", "InvalidToken", "MissingAuthenticationToken"),
            *("MissingAuthenticationTokenException", "SignatureDoesNotMatch"),
            "UnrecognizedClientException",
        },
        AccessDenied,
        _CALLER_HINT,
    ),
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
    (
        {  # S3's for a bucket in another region
            *("301", "307", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException"),
            *("PermanentRedirect", "TemporaryRedirect"),
        },
        ConfigurationError,
        "give the region of the pipeline with --region",
    ),
)
"""Codes with one meaning for all callers and operations."""


class Hints(NamedTuple):
    """Hints for the refusals of one call: arguments of ``aws_failures``."""

    denied: str | None = None
    policy: str | None = None
    expired: str | None = None
    key: str | None = None

    def for_denial(self, message: str) -> str:
        """Return the hint for a denial: AWS names the kind of policy that has an explicit deny."""
        found = _EXPLICIT_DENY.search(message)
        if not found:
            return self.denied or _CALLER_HINT
        if found[1] == "resource-based policy" and "kms:" not in message:
            return self.policy or _POLICY_HINT
        owner = "the key policy" if found[1] == "resource-based policy" else f"a {found[1]}"
        return f"{owner} denies the request explicitly, which no permission overrides: change it"


def failure_of(error: Exception, doing: str, hints: Hints) -> CpstageError:
    """Return the row of the exit-code table that a failed call belongs to, with its hint."""
    if isinstance(error, ServiceError):
        return _refusal(error, doing, hints)
    if isinstance(error, boto.BotoCoreError):
        return _settings_failure(error, doing)
    what = f"cannot {doing}: {error}{getattr(error, 'also', '')}"
    if isinstance(error, SetupError):
        return ConfigurationError(what, hint=error.hint)
    if isinstance(error, CredentialsRefused):
        if not error.busy:
            return AccessDenied(what, hint=_LOCAL_CREDENTIALS_HINT)
        return ServiceUnavailable(what, hint=_BUSY_HINT)
    return ServiceUnavailable(what, hint=_NETWORK_HINT)


def _refusal(error: ServiceError, doing: str, hints: Hints) -> CpstageError:
    """Return the error for the refusal of a service, with its hint."""
    what = error.text(doing)
    if denied := _denial_hint(error, hints):
        return AccessDenied(what, hint=denied)
    for codes, kind, hint in _ROWS:
        if error.code in codes:
            return kind(what, hint=hint)
    if error.may_pass:
        return ServiceUnavailable(what, hint=_BUSY_HINT)
    return ConfigurationError(what, hint="AWS refused the request for the reason it names")


def _denial_hint(error: ServiceError, hints: Hints) -> str | None:
    """Return the hint for a request that this caller may not make now; None for other errors."""
    code = error.code
    if code in _SKEWED or _SKEWED_MESSAGE.match(error.message):
        off = seconds_off(error.date)
        if off is None:
            return "set the clock of this machine"
        return f"the clock of this machine is off by {off:+.0f} s: set it"
    if error.is_expired or code == "RequestExpired":  # of the signature, not of the credentials
        return hints.expired or CALLER_EXPIRED_HINT
    if code.startswith("KMS.") and not error.may_pass:
        return hints.key or _KEY_HINT
    if _CUSTOMER_KEY_MESSAGE.search(error.message):
        return _CUSTOMER_KEY_HINT
    return hints.for_denial(error.message) if code in _DENIED else None


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

_WRONG_SETTINGS = (
    (boto.ProfileNotFound, "check --profile, AWS_PROFILE and ~/.aws/config"),
    (boto.InvalidRegionError, "check --region, AWS_REGION and the profile's region"),
    (boto.UnknownSignatureVersionError, _SIGNATURE_HINT),
)


def _settings_failure(error: boto.BotoCoreError, doing: str) -> CpstageError:
    """Translate botocore's errors about the caller's settings and credentials."""
    if isinstance(error, boto.NoCredentialsError):
        return AccessDenied(f"cannot {doing}: no AWS credentials were found", hint=_NO_KEYS_HINT)
    report = error.kwargs.get("report") if isinstance(error, boto.ParamValidationError) else error
    # A container's metadata service is quoted with all that it answers.
    text = re.sub("(from container metadata): .*", r"\1", str(report), flags=re.DOTALL)
    what = f"cannot {doing}: {text}".rstrip(".: ")
    if isinstance(error, _LOCAL_CREDENTIALS) or type(error).__name__.startswith("Login"):
        return AccessDenied(what, hint=_LOCAL_CREDENTIALS_HINT)
    if isinstance(error, (boto.HTTPClientError, boto.ConnectionError)):
        return ServiceUnavailable(what, hint=_NETWORK_HINT)
    if needs := _needs_crt(error):
        return ConfigurationError(
            f"cannot {doing}: {needs} requires awscrt", hint=extra_hint("crt")
        )
    hint = next((one for kind, one in _WRONG_SETTINGS if isinstance(error, kind)), None)
    return ConfigurationError(what, hint=hint or settings_hint(str(report)))


def _needs_crt(error: boto.BotoCoreError) -> str | None:
    """Return the feature that botocore has only with awscrt; None for other errors."""
    if isinstance(error, boto.MissingDependencyException):
        found = re.search("Using (.*?) requires", str(error))
        return found[1] if found else "the request"
    version = str(error.kwargs.get("signature_version"))
    is_unknown = isinstance(error, boto.UnknownSignatureVersionError)
    return f"signature version {version}" if is_unknown and "v4a" in version else None


def settings_hint(why: str, other: str = _SETTINGS_HINT) -> str:
    """Return the hint for a setting whose value botocore quotes, often without its name."""
    if "endpoint url" in why.lower() or "invalid endpoint" in why.lower() or "IPv6" in why:
        return "check --endpoint-url and AWS_ENDPOINT_URL"
    named = [
        name
        for name, value in os.environ.items()
        if name.startswith("AWS_") and value
        if re.search(rf"(?<!\w){re.escape(value)}(?!\w)", why)
    ]
    return f"check {' and '.join(sorted(named))}" if named else other


def seconds_off(stamp: str | None) -> float | None:
    """Return the seconds that this clock is ahead of a Date header; None for a malformed one."""
    from datetime import datetime, timezone
    from email.utils import parsedate_to_datetime

    try:
        return (datetime.now(timezone.utc) - parsedate_to_datetime(stamp or "")).total_seconds()
    except (TypeError, ValueError):
        return None
