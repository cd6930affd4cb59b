"""What each AWS protocol calls the same refusal.

The codes are those of "Common error types" in each service's API reference and of "Error
responses" in the S3 API Reference: S3 answers 403 AccessDenied where a JSON service answers
400 AccessDeniedException.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

from cpstage.local.wire import JSON_SERVICES, QUERY_SERVICES, Refusal

if TYPE_CHECKING:
    from cpstage.local.identities import Identity

# Each fault as S3, the JSON services and the Query services word it, and its message.
_FAULTS: dict[str, tuple[tuple[int, str], tuple[int, str], tuple[int, str], str]] = {
    "anonymous": (
        (403, "AccessDenied"),
        (400, "MissingAuthenticationTokenException"),
        (403, "MissingAuthenticationToken"),
        "Access Denied: the request is not signed.",
    ),
    "unknown key": (
        (403, "InvalidAccessKeyId"),
        (400, "UnrecognizedClientException"),
        (403, "InvalidClientTokenId"),
        "The AWS access key id you provided does not exist in our records.",
    ),
    "wrong token": (
        (400, "InvalidToken"),
        (400, "UnrecognizedClientException"),
        (403, "InvalidClientTokenId"),
        "The provided token is malformed or otherwise not valid.",
    ),
    "wrong signature": (
        (403, "SignatureDoesNotMatch"),
        (400, "InvalidSignatureException"),
        (403, "SignatureDoesNotMatch"),
        "The request signature we calculated does not match the signature you provided.",
    ),
    "clock skew": (
        (403, "RequestTimeTooSkewed"),
        (400, "InvalidSignatureException"),
        (403, "SignatureDoesNotMatch"),
        "The difference between the request time and the current time is too large.",
    ),
    "expired": (
        (400, "ExpiredToken"),
        (400, "ExpiredTokenException"),
        (403, "ExpiredToken"),
        "The provided token has expired.",
    ),
    "denied": (
        (403, "AccessDenied"),
        (400, "AccessDeniedException"),
        (403, "AccessDenied"),
        "Access Denied",
    ),
}


def refuse(fault: str, service: str, message: str | None = None) -> NoReturn:
    """Refuse a request as its service would.

    Raises:
        Refusal: Always.
    """
    s3, json, query, words = _FAULTS[fault]
    status, code = json if service in JSON_SERVICES else query if service in QUERY_SERVICES else s3
    raise Refusal(status, code, message or words)


def require(identity: Identity, service: str, action: str, resource: str) -> None:
    """Refuse an action that the identity is not allowed.

    Raises:
        Refusal: No statement of the identity allows the action on the resource.
    """
    if not identity.allows(action, resource):
        refuse("denied", service, identity.denial(action, resource))
