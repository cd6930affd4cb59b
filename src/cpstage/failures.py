"""What a failure on the way to AWS, or there, means: rows of the exit-code table.

This is the one place that says what a code of AWS means to whoever runs cpstage: denied, missing,
busy, out of date. What is tried again is settled before, in :mod:`cpstage.aws`. It knows nothing of
the call that failed beyond the words it is given.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from cpstage.aws.message import NetworkError, SetupError, UnsendableError
from cpstage.aws.s3_api import MOVED
from cpstage.aws.service import ServiceError
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

_CALLER_HINT = "check which identity the AWS CLI's 'aws sts get-caller-identity' shows"
CALLER_EXPIRED_HINT = "renew them (for example with 'aws sso login') and run the command again"
"""What to do about the caller's own credentials."""

SESSION_EXPIRED_HINT = "the job's session credentials expire faster than they can be renewed"
"""What to do about a job's own credentials, which renew themselves before this is ever said."""

_REQUEST_EXPIRED = "RequestExpired"
"""The credentials may be good for longer, but what they signed is not."""

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
    ({"NoSuchKey", "NoSuchBucket", "NoSuchVersion", "NotFound", "404"}, ObjectNotFound, None),
    ({"PreconditionFailed", "412"}, ObjectChanged, None),
    ({"InvalidJobStateException", "InvalidNonceException"}, OutOfSync, None),
    (MOVED, ConfigurationError, "give the region of the pipeline with --region"),
)
"""Codes that mean the same whoever called, and whatever for."""

_INVALID = {"InvalidRequest", "InvalidArgument", "ParamValidation", "ValidationException"}

_NETWORK_HINT = "check the network, the region, the proxy and --endpoint-url"
_BUSY_HINT = "AWS is busy or broken: try again later"
_LOCAL_CREDENTIALS_HINT = "check the AWS credentials of this shell or profile"
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
    expired_hint: str = CALLER_EXPIRED_HINT,
    key_hint: str = "check the state of the KMS key",
) -> Iterator[None]:
    """Turn what fails inside, on the way to AWS or there, into one of our errors.

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
        raise _service_failure(error, doing, (denied_hint, expired_hint, key_hint)) from error
    except NetworkError as error:
        raise ServiceUnavailable(f"cannot {doing}: {error}", hint=_NETWORK_HINT) from error
    except SetupError as error:
        raise ConfigurationError(f"cannot {doing}: {error}", hint=error.hint) from error
    except UnsendableError:
        raise ServiceUnavailable(
            f"cannot {doing}: the request could not be sent",
            hint="check the credentials for stray line breaks",
        ) from None
    except Exception as error:
        # By their names: botocore is loaded only where it is asked for settings.
        kinds = {kind.__name__ for kind in type(error).__mro__}
        if "ClientError" in kinds:
            raise _refused_credentials(error, doing) from None  # which may quote a token
        if "BotoCoreError" not in kinds:
            raise
        raise _settings_failure(error, kinds, doing) from error


def _service_failure(error: ServiceError, doing: str, hints: tuple[str, str, str]) -> CpstageError:
    """Translate the answer of a service that refuses."""
    denied_hint, expired_hint, key_hint = hints
    code = error.code
    what = f"cannot {doing}: {code}: {error.message}".rstrip(".")
    result: CpstageError
    if error.is_expired or code == _REQUEST_EXPIRED:
        result = AccessDenied(what, hint=expired_hint)
    elif code in _SKEWED:
        result = AccessDenied(what, hint=_clock_hint(error.headers.get("date")))
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
    elif code in _INVALID:
        result = ConfigurationError(what, hint="check the value that the message names")
    else:
        result = ServiceUnavailable(what)
    return result


def _refused_credentials(error: Any, doing: str) -> CpstageError:
    """Translate the answer of a service that botocore has asked for the caller's credentials.

    What it says of a wrong signature has all that was signed in it, a session token too: so of its
    words only those are told that say who may not do what.
    """
    refused, about = error.response.get("Error", {}), error.response.get("ResponseMetadata", {})
    code, words = str(refused.get("Code", "")), str(refused.get("Message", ""))
    why = f"{code}: {words}" if code.startswith("AccessDenied") else code
    what = f"cannot {doing}: {error.operation_name} was refused: {why}".rstrip(".")
    if ServiceError(int(about.get("HTTPStatusCode", 0)), code, words, {}).may_pass:
        return ServiceUnavailable(what, hint=_BUSY_HINT)
    return AccessDenied(what, hint=_LOCAL_CREDENTIALS_HINT)


def _settings_failure(error: Exception, kinds: set[str], doing: str) -> CpstageError:
    """Translate what botocore says of the caller's settings and credentials."""
    what = f"cannot {doing}: {error}".rstrip(".: ")
    if kinds.intersection(_LOCAL_CREDENTIALS):
        return AccessDenied(what, hint=_LOCAL_CREDENTIALS_HINT)
    if kinds.intersection(_NETWORK):
        return ServiceUnavailable(what, hint=_NETWORK_HINT)
    return ConfigurationError(what, hint="check the options and the AWS configuration")


def _clock_hint(stamp: str | None) -> str:
    """Say how far this machine's clock is off, where the answer carries a date."""
    off = seconds_off(stamp)
    if off is None:
        return "set the clock of this machine"
    return f"the clock of this machine is off by {off:+.0f} s: set it"


def seconds_off(stamp: str | None) -> float | None:
    """Return how far this machine's clock is ahead of the Date header of an answer.

    Args:
        stamp: The header; where there is none, or none of a date, nothing is known.
    """
    from datetime import datetime, timezone
    from email.utils import parsedate_to_datetime

    try:
        return (datetime.now(timezone.utc) - parsedate_to_datetime(stamp or "")).total_seconds()
    except (TypeError, ValueError):
        return None
