"""The exit code, failure type and hint of each failed AWS call.

:func:`failure_of` turns the errors of a call, and what botocore says of the caller's settings,
into a :class:`~cpstage.errors.CpstageError`. This module alone decides what an error code of AWS
means for a user; retries are decided before, by :mod:`cpstage.aws.errors`. It is loaded when a call
has failed.
"""

from __future__ import annotations

import os
import re
from typing import NamedTuple

from botocore import exceptions as boto

from cpstage.aws.errors import (
    CALLER_EXPIRED_HINT,
    SIGNATURE_HINT,
    CredentialsRefused,
    ServiceError,
    SetupError,
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
)

_CALLER_HINT = "check which identity the AWS CLI's 'aws sts get-caller-identity' shows"
_LOCAL_CREDENTIALS_HINT = "check the AWS credentials of this shell or profile"
_NO_KEYS_HINT = "set AWS_PROFILE or --profile, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
_NETWORK_HINT = "check the network, the region, the proxy and --endpoint-url"
_BUSY_HINT = "AWS is busy or broken: try again later"
_KEY_HINT = "check the state of the KMS key"
_SETTINGS_HINT = "check the options and the AWS configuration"

_CRT_HINT = "install cpstage[crt]"

_CUSTOMER_KEY_HINT = (
    "the object is encrypted with a customer key (SSE-C), which a job does not carry: upload it "
    "with SSE-KMS"
)
_POLICY_HINT = (
    "the resource's policy denies the request explicitly: ask the owner for its condition"
)

_REQUEST_EXPIRED = "RequestExpired"
"""The credentials may be good for longer, but the signature is not."""

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

_EXPLICIT_DENY = re.compile(r"explicit deny in an? ((?:[\w-]+ ){1,3}(?:policy|boundary))")
_CUSTOMER_KEY_MESSAGE = re.compile("stored using a form of Server Side Encryption")
"""What S3 says, under the code InvalidRequest, of a GET without the customer's key."""

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
"""Codes with one meaning for all callers and operations."""


class Hints(NamedTuple):
    """What to do about the refusals of one call; None for the usual.

    Attributes:
        denied: The call is denied, such as the permission that is missing.
        policy: The policy of the bucket denies it explicitly.
        expired: The credentials of the call have expired.
        key: The KMS key cannot be used.
    """

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
    """Return the row of the exit-code table that a failed call belongs to, with its hint.

    Args:
        error: What :func:`cpstage.aws.errors.aws_failures` caught.
        doing: What the call does and to what, as in "cannot <doing>".
        hints: What to do about refusals.
    """
    if isinstance(error, ServiceError):
        return _refusal(error, doing, hints)
    if isinstance(error, boto.BotoCoreError):
        return _settings_failure(error, doing)
    what = f"cannot {doing}: {error}{getattr(error, 'also', '')}"
    if isinstance(error, SetupError):
        return ConfigurationError(what, hint=error.hint)
    if isinstance(error, CredentialsRefused) and not error.busy:
        return AccessDenied(what, hint=_LOCAL_CREDENTIALS_HINT)
    busy = isinstance(error, CredentialsRefused)
    return ServiceUnavailable(what, hint=_BUSY_HINT if busy else _NETWORK_HINT)


def _refusal(error: ServiceError, doing: str, hints: Hints) -> CpstageError:
    """Return the error for the refusal of a service, with its hint."""
    code = error.code
    what = error.text(doing)
    result: CpstageError
    if code in _SKEWED or _SKEWED_MESSAGE.match(error.message):
        result = AccessDenied(what, hint=_clock_hint(error.date))
    elif error.is_expired or code == _REQUEST_EXPIRED:
        result = AccessDenied(what, hint=hints.expired or CALLER_EXPIRED_HINT)
    elif code.startswith("KMS.") and not error.may_pass:
        result = AccessDenied(what, hint=hints.key or _KEY_HINT)
    elif _CUSTOMER_KEY_MESSAGE.search(error.message):
        result = AccessDenied(what, hint=_CUSTOMER_KEY_HINT)
    elif code in _NO_IDENTITY:
        result = AccessDenied(what, hint=_CALLER_HINT)
    elif code in _DENIED:
        result = AccessDenied(what, hint=hints.for_denial(error.message))
    elif row := next((row for row in _ROWS if code in row[0]), None):
        result = row[1](what, hint=row[2])
    elif error.may_pass:
        result = ServiceUnavailable(what, hint=_BUSY_HINT)
    else:
        result = ConfigurationError(what, hint="AWS refused the request for the reason it names")
    return result


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
    (boto.UnknownSignatureVersionError, SIGNATURE_HINT),
)


def _settings_failure(error: boto.BotoCoreError, doing: str) -> CpstageError:
    """Translate what botocore says of the caller's settings and credentials."""
    if isinstance(error, boto.NoCredentialsError):
        return AccessDenied(f"cannot {doing}: no AWS credentials were found", hint=_NO_KEYS_HINT)
    said = error.kwargs.get("report") if isinstance(error, boto.ParamValidationError) else error
    # A container's metadata service is quoted with all that it answers.
    text = re.sub("(from container metadata): .*", r"\1", str(said), flags=re.DOTALL)
    what = f"cannot {doing}: {text}".rstrip(".: ")
    if isinstance(error, _LOCAL_CREDENTIALS) or type(error).__name__.startswith("Login"):
        return AccessDenied(what, hint=_LOCAL_CREDENTIALS_HINT)
    if isinstance(error, (boto.HTTPClientError, boto.ConnectionError)):
        return ServiceUnavailable(what, hint=_NETWORK_HINT)
    if needs := _needs_crt(error):
        return ConfigurationError(f"cannot {doing}: {needs} requires awscrt", hint=_CRT_HINT)
    hint = next((one for kind, one in _WRONG_SETTINGS if isinstance(error, kind)), None)
    return ConfigurationError(what, hint=hint or settings_hint(str(said)))


def _needs_crt(error: boto.BotoCoreError) -> str | None:
    """Return what botocore can only do with awscrt; None for other errors."""
    if isinstance(error, boto.MissingDependencyException):
        found = re.search("Using (.*?) requires", str(error))
        return found[1] if found else "the request"
    version = str(error.kwargs.get("signature_version"))
    is_unknown = isinstance(error, boto.UnknownSignatureVersionError)
    return f"signature version {version}" if is_unknown and "v4a" in version else None


def settings_hint(why: str, other: str = _SETTINGS_HINT) -> str:
    """Return the hint for a setting whose value botocore quotes, often without its name.

    Args:
        why: The text of botocore.
        other: The hint where no variable has a value that the text quotes.
    """
    if "endpoint url" in why.lower() or "invalid endpoint" in why.lower() or "IPv6" in why:
        return "check --endpoint-url and AWS_ENDPOINT_URL"
    values = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    named = [
        name
        for name, value in values.items()
        if value and re.search(rf"(?<!\w){re.escape(value)}(?!\w)", why)
    ]
    return f"check {' and '.join(sorted(named))}" if named else other


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
