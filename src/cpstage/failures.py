"""What a failure of an AWS call means: botocore's exceptions as rows of the exit-code table.

This is the one place that reads AWS error codes. It knows which codes mean denied, missing,
busy or out of date; it knows nothing of the call that failed beyond the words it is given.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from cpstage.errors import (
    AccessDenied,
    ArtifactRejected,
    ConfigurationError,
    CpstageError,
    NotFound,
    ObjectChanged,
    ObjectNotFound,
    OutOfSync,
    ServiceUnavailable,
)

_CALLER_HINT = "check which identity the AWS CLI's 'aws sts get-caller-identity' shows"
_CALLER_EXPIRED_HINT = "renew them (for example with 'aws sso login') and run the command again"

SESSION_EXPIRED_HINT = "the job's session credentials expire faster than they can be renewed"
"""What to do about a job's own credentials, which renew themselves before this is ever said."""

_EXPIRED = {"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired", "RequestExpired"}
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
"""The credentials are not good for anything, whatever the call."""

_SKEWED = {"RequestTimeTooSkewed", "RequestInTheFuture"}
_NO_JOB = {"JobNotFoundException", "InvalidJobException"}
_NO_OBJECT = {"NoSuchKey", "NoSuchBucket", "NoSuchVersion", "NotFound", "404"}
_CHANGED = {"PreconditionFailed", "412"}
_OUT_OF_SYNC = {"InvalidJobStateException", "InvalidNonceException"}
_WRONG_REGION = {
    "301",
    "AuthorizationHeaderMalformed",
    "IllegalLocationConstraintException",
    "PermanentRedirect",
}
_BUSY = {
    "BandwidthLimitExceeded",
    "ConcurrentModificationException",
    "LimitExceededException",
    "PriorRequestNotComplete",
    "RequestLimitExceeded",
    "RequestThrottled",
    "RequestThrottledException",
    "RequestTimeout",
    "SlowDown",
    "Throttling",
    "ThrottlingException",
    "TooManyRequestsException",
}
_LONGEST_MESSAGE = 500
"""A proxy may answer with a whole page."""

_INVALID = {"InvalidRequest", "InvalidArgument", "ParamValidation", "ValidationException"}

_LOCAL_CONFIGURATION = (
    "ConfigNotFound",
    "ConfigParseError",
    "EndpointProviderError",
    "InvalidConfigError",
    "InvalidProxiesConfigError",
    "ParamValidationError",
    "ProfileNotFound",
    "UnknownEndpointError",
    "ValidationError",
)
_LOCAL_CREDENTIALS = (
    "CredentialRetrievalError",
    "LoginError",
    "MetadataRetrievalError",
    "NoAuthTokenError",
    "PartialCredentialsError",
    "RefreshWithMFAUnsupportedError",
    "SSOError",
    "TokenRetrievalError",
    "UnknownCredentialError",
)
_NETWORK = ("ConnectionError", "HTTPClientError", "IncompleteReadError", "ResponseStreamingError")


@contextmanager
def aws_failures(
    doing: str,
    *,
    denied_hint: str = _CALLER_HINT,
    expired_hint: str = _CALLER_EXPIRED_HINT,
    key_hint: str = "check the state of the KMS key",
    secret: str | None = None,
) -> Iterator[None]:
    """Turn what botocore raises inside into one of our errors.

    Args:
        doing: What the call does and to what, as in "cannot <doing>".
        denied_hint: What to do when the call is denied, such as the permission that is missing.
        expired_hint: What to do when the credentials of the call have expired.
        key_hint: What to do when the KMS key cannot be used.
        secret: A value that the service may quote back, and nobody may see.

    Raises:
        CpstageError: The row of the exit-code table that the failure belongs to.
    """
    from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError

    try:
        yield
    except ClientError as error:
        failure = _service_failure(error, doing, (denied_hint, expired_hint, key_hint))
        if not secret or secret not in failure.message:
            raise failure from error
        masked = type(failure)(failure.message.replace(secret, "********"), hint=failure.hint)
        raise masked from None
    except BotoCoreError as error:
        if type(error) is HTTPClientError:
            # It wraps whatever stopped the sending, and that may quote a header with a token.
            raise _unsent(doing) from None
        raise _client_failure(error, doing) from error


def _service_failure(error: Any, doing: str, hints: tuple[str, str, str]) -> CpstageError:
    """Translate an answer of the service (``botocore.exceptions.ClientError``)."""
    denied_hint, expired_hint, key_hint = hints
    answer = error.response
    code = str(answer.get("Error", {}).get("Code", ""))
    status = answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    text = (answer.get("Error", {}).get("Message") or "no message")[:_LONGEST_MESSAGE]
    what = f"cannot {doing}: {code}: {text}".rstrip(".")
    result: CpstageError
    if code in _EXPIRED:
        result = AccessDenied(what, hint=expired_hint)
    elif code in _SKEWED:
        result = AccessDenied(what, hint=_clock_hint(answer))
    elif code.startswith("KMS."):
        result = AccessDenied(what, hint=key_hint)
    elif code in _NO_IDENTITY:
        result = AccessDenied(what, hint=_CALLER_HINT)
    elif code in _DENIED:
        result = AccessDenied(what, hint=denied_hint)
    elif code in _NO_JOB:
        result = NotFound(what, hint="check the job id and the region; a finished job is gone")
    elif code in _NO_OBJECT:
        result = ObjectNotFound(what)
    elif code in _CHANGED | _OUT_OF_SYNC:
        result = ObjectChanged(what) if code in _CHANGED else OutOfSync(what)
    elif code in _WRONG_REGION:
        result = ConfigurationError(what, hint="give the region of the pipeline with --region")
    elif code in _BUSY or status >= 500:
        result = ServiceUnavailable(what, hint="AWS is busy or broken: try again later")
    elif code in _INVALID:
        result = ConfigurationError(what, hint="check the value that the message names")
    else:
        result = ServiceUnavailable(what)
    return result


def _unsent(doing: str) -> CpstageError:
    return ServiceUnavailable(
        f"cannot {doing}: the request could not be sent",
        hint="check the credentials for stray line breaks, and the network",
    )


def _client_failure(error: Exception, doing: str) -> CpstageError:
    """Translate what stopped the call before the service answered it."""
    kinds = {kind.__name__ for kind in type(error).__mro__}
    what = f"cannot {doing}: {error}".rstrip(".")
    result: CpstageError
    if "NoCredentialsError" in kinds:
        result = AccessDenied(
            f"cannot {doing}: no AWS credentials were found",
            hint="set AWS_PROFILE or --profile, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
        )
    elif "NoRegionError" in kinds:
        result = ConfigurationError(what, hint="give --region, or set AWS_REGION")
    elif kinds.intersection(_LOCAL_CREDENTIALS):
        result = AccessDenied(what, hint="check the AWS credentials of this shell or profile")
    elif "FlexibleChecksumError" in kinds:
        hint = "something on the way changed it: run the command again"
        result = ArtifactRejected(what, hint=hint)
    elif "SSLError" in kinds:
        result = ConfigurationError(what, hint="trust the certificate with --ca-bundle FILE")
    elif kinds.intersection(_NETWORK):
        result = ServiceUnavailable(what, hint="check the network, the proxy and --endpoint-url")
    elif kinds.intersection(_LOCAL_CONFIGURATION) or type(error).__name__.startswith("Invalid"):
        result = ConfigurationError(what, hint="check the options and the AWS configuration")
    else:
        result = ServiceUnavailable(what)
    return result


def _clock_hint(answer: Any) -> str:
    """Say how far this machine's clock is off, where the answer carries a date."""
    from datetime import datetime, timezone
    from email.utils import parsedate_to_datetime

    stamp = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date")
    try:
        offset = datetime.now(timezone.utc) - parsedate_to_datetime(stamp or "")
    except (TypeError, ValueError):
        return "set the clock of this machine"
    return f"the clock of this machine is off by {offset.total_seconds():+.0f} s: set it"
