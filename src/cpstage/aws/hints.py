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
    extra_hint,
)

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
    (boto.UnknownSignatureVersionError, SIGNATURE_HINT),
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
