"""Signature Version 4, from the receiving side.

botocore signs the request once more, and the two signatures are compared. The rules are those of
"Signature Version 4 signing process" (IAM User Guide) and "Authenticating Requests" (S3 API
Reference), for signatures in the Authorization header and in the query. The chunk signatures
inside an aws-chunked body are not checked, only the seed signature.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from urllib.parse import quote, unquote, urlencode

from botocore.auth import S3SigV4Auth, S3SigV4QueryAuth, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.compat import HTTPHeaders
from botocore.credentials import Credentials
from botocore.utils import percent_encode

from cpstage.local.wire import Refusal, Request

ALGORITHM = "AWS4-HMAC-SHA256"
_QUERY = ("Credential", "SignedHeaders", "Signature", "Security-Token", "Date", "Expires")
_CLOCK_SKEW = timedelta(minutes=15)
_HEX_DIGEST = re.compile(r"[0-9a-f]{64}")


class BadSignature(Exception):
    """The signature does not belong to the request."""


class ClockSkew(Exception):
    """The request was signed more than 15 minutes away from now."""


@dataclass(frozen=True)
class Claim:
    """The identity that a request claims, and the proof.

    Attributes:
        access_key: The access key id.
        token: The session token, if any.
        timestamp: When the request was signed, as sent (`20150830T123600Z`).
        region: The region of the credential scope.
        service: The service of the credential scope.
        signed_headers: Names of the headers that the signature covers.
        signature: The signature, in hex.
        lifetime: Seconds for which a presigned URL is valid; None for a signature in a header.
    """

    access_key: str
    token: str | None = field(repr=False)
    timestamp: str
    region: str
    service: str
    signed_headers: tuple[str, ...]
    signature: str = field(repr=False)
    lifetime: int | None = None


def read_claim(request: Request) -> Claim | None:
    """Read the claim of a request.

    Returns:
        The claim, or None if the request is not signed.

    Raises:
        Refusal: The signature is malformed, or is not Signature Version 4.
    """
    authorization = request.headers.get("authorization")
    if authorization is not None:
        algorithm, _, rest = authorization.partition(" ")
        members = dict(part.strip().partition("=")[::2] for part in rest.split(","))
        members["Security-Token"] = request.headers.get("x-amz-security-token", "")
        members["Date"] = request.headers.get("x-amz-date", "")
    elif {"X-Amz-Algorithm", "AWSAccessKeyId"} & {name for name, _ in request.query}:
        algorithm = request.parameter("X-Amz-Algorithm") or "AWS"  # Signature Version 2
        members = {name: request.parameter(f"X-Amz-{name}") or "" for name in _QUERY}
    else:
        return None
    if algorithm != ALGORITHM:
        message = (
            "The authorization mechanism you have provided is not supported. "
            f"Please use {ALGORITHM}."
        )
        raise Refusal(400, "InvalidRequest", message)
    return _claim(members)


def _claim(members: dict[str, str]) -> Claim:
    try:
        access_key, date, region, service, terminator = members["Credential"].rsplit("/", 4)
        if terminator != "aws4_request" or members["Date"][:8] != date:
            raise ValueError
        return Claim(
            access_key=access_key,
            token=members["Security-Token"] or None,
            timestamp=members["Date"],
            region=region,
            service=service,
            signed_headers=tuple(members["SignedHeaders"].split(";")),
            signature=members["Signature"],
            lifetime=int(members["Expires"]) if "Expires" in members else None,
        )
    except (KeyError, ValueError):
        message = "The authorization header is malformed; the Credential is mal-formed."
        raise Refusal(400, "AuthorizationHeaderMalformed", message) from None


def prove(request: Request, claim: Claim, secret: str, now: datetime) -> None:
    """Check a claim against the secret of the identity that it names.

    Raises:
        BadSignature: The signature is another request's, or leaves out a header it must cover.
        ClockSkew: The request was signed too far from now.
        Refusal: The presigned URL expired, or the body is not the one that was signed.
    """
    covered = {_as_sent(name) for name in claim.signed_headers} | {"x-amz-content-sha256"}
    required = {name for name in request.headers if name.startswith("x-amz-")} | {"host"}
    if not required <= covered:
        raise BadSignature
    if not hmac.compare_digest(_sign(request, claim, secret), claim.signature.encode()):
        raise BadSignature
    _check_time(claim, now)
    _check_body(request)


class _ClaimSigner(SigV4Auth):
    """Signs the headers that the claim names, where botocore has its own rule for them."""

    def headers_to_sign(self, request: AWSRequest) -> HTTPHeaders:
        chosen = HTTPHeaders()
        for name in request.context["signed_headers"]:
            chosen[name] = request.headers.get(_as_sent(name), "")
        return chosen


class _S3Signer(_ClaimSigner, S3SigV4Auth): ...


class _S3QuerySigner(_ClaimSigner, S3SigV4QueryAuth): ...


def _sign(request: Request, claim: Claim, secret: str) -> bytes:
    """Return the signature that the request must have, in hex."""
    signer, path = _ClaimSigner, request.path
    if claim.service == "s3":
        signer = _S3Signer if claim.lifetime is None else _S3QuerySigner
        # S3 signs the path encoded in one way, however the client has encoded it.
        path = percent_encode(unquote(path), safe="/~")
    # The server decodes header values as Latin-1; the client signed their bytes as UTF-8.
    headers = {k: v.encode("latin-1").decode(errors="replace") for k, v in request.headers.items()}
    query = urlencode([p for p in request.query if p[0] != "X-Amz-Signature"], quote_via=quote)
    signed = AWSRequest(request.method, f"http://local{path}?{query}", headers, request.body)
    signed.context.update(timestamp=claim.timestamp, signed_headers=claim.signed_headers)
    auth = signer(Credentials(claim.access_key, secret), claim.service, claim.region)
    text = auth.string_to_sign(signed, auth.canonical_request(signed))
    return auth.signature(text, signed).encode()


def _as_sent(name: str) -> str:
    # WSGI folds "_" and "-" in header names, which matters for user metadata only.
    return name.replace("_", "-")


def _check_time(claim: Claim, now: datetime) -> None:
    try:
        signed = datetime.strptime(claim.timestamp, "%Y%m%dT%H%M%SZ").replace(tzinfo=timezone.utc)
    except ValueError:
        raise ClockSkew from None
    if claim.lifetime is None:
        if abs(now - signed) > _CLOCK_SKEW:
            raise ClockSkew
    elif signed - _CLOCK_SKEW > now or now > signed + timedelta(seconds=claim.lifetime):
        raise Refusal(403, "AccessDenied", "Request has expired")


def _check_body(request: Request) -> None:
    """Compare the body with the digest that was signed; S3 has values that are not digests."""
    signed = request.headers.get("x-amz-content-sha256", "")
    if _HEX_DIGEST.fullmatch(signed) and hashlib.sha256(request.body).hexdigest() != signed:
        message = "The provided 'x-amz-content-sha256' header does not match what was computed."
        raise Refusal(400, "XAmzContentSHA256Mismatch", message)
