"""Signature Version 4, from the receiving side.

Follows "Signature Version 4 signing process" of the IAM User Guide and "Authenticating Requests"
of the S3 API Reference, for signatures in the Authorization header and in the query. It knows no
identities: it reads who a request claims to come from, and proves the claim against a secret.
The chunk signatures inside an aws-chunked body are not proved, only the seed signature.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from urllib.parse import quote, unquote

from cpstage.local.wire import Refusal, Request

ALGORITHM = "AWS4-HMAC-SHA256"
_CLOCK_SKEW = timedelta(minutes=15)
_SPACES = re.compile(r"\s+")
_HEX_DIGEST = re.compile(r"[0-9a-f]{64}")


class BadSignature(Exception):
    """The signature does not belong to the request."""


class ClockSkew(Exception):
    """The request was signed more than 15 minutes away from now."""


@dataclass(frozen=True)
class Claim:
    """Who a request says it comes from, and its proof.

    Attributes:
        access_key: The access key id.
        token: The session token, if any.
        timestamp: When it was signed, as sent (`20150830T123600Z`).
        date: The date of the credential scope.
        region: The region of the credential scope.
        service: The service of the credential scope.
        signed_headers: Names of the headers that the signature covers.
        signature: The signature, in hex.
        lifetime: Seconds for which a presigned URL holds; None for a signature in a header.
    """

    access_key: str
    token: str | None = field(repr=False)
    timestamp: str
    date: str
    region: str
    service: str
    signed_headers: tuple[str, ...]
    signature: str = field(repr=False)
    lifetime: int | None = None


def read_claim(request: Request) -> Claim | None:
    """Read the claim out of a request.

    Returns:
        The claim, or None if the request is not signed at all.

    Raises:
        Refusal: Signed in another way than Signature Version 4, or not legibly.
    """
    authorization = request.headers.get("authorization")
    if authorization is not None:
        algorithm, _, rest = authorization.partition(" ")
        members = dict(part.strip().partition("=")[::2] for part in rest.split(","))
        members["Token"] = request.headers.get("x-amz-security-token", "")
        members["Date"] = request.headers.get("x-amz-date", "")
    elif request.parameter("X-Amz-Algorithm") is not None:
        algorithm = request.parameter("X-Amz-Algorithm") or ""
        members = {
            name: request.parameter(f"X-Amz-{parameter}") or ""
            for name, parameter in (
                ("Credential", "Credential"),
                ("SignedHeaders", "SignedHeaders"),
                ("Signature", "Signature"),
                ("Token", "Security-Token"),
                ("Date", "Date"),
                ("Expires", "Expires"),
            )
        }
    elif request.parameter("AWSAccessKeyId") is not None:
        algorithm, members = "AWS", {}
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
        if terminator != "aws4_request" or not members["Date"].startswith(date):
            raise ValueError
        return Claim(
            access_key=access_key,
            token=members["Token"] or None,
            timestamp=members["Date"],
            date=date,
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
    """Prove a claim against the secret of the identity it names.

    Raises:
        BadSignature: The signature is not this request's, or leaves out a header it must cover.
        ClockSkew: Signed too far from now.
        Refusal: The presigned URL ran out, or the body is not the one that was signed.
    """
    covered = {_as_sent(name) for name in claim.signed_headers}
    amz = {name for name in request.headers if name.startswith("x-amz-")}
    if "host" not in covered or not amz <= covered | {"x-amz-content-sha256"}:
        raise BadSignature
    payload_hash = _payload_hash(request, claim)
    string_to_sign = "\n".join(
        (
            ALGORITHM,
            claim.timestamp,
            f"{claim.date}/{claim.region}/{claim.service}/aws4_request",
            hashlib.sha256(_canonical_request(request, claim, payload_hash)).hexdigest(),
        )
    )
    key = f"AWS4{secret}".encode()
    for part in (claim.date, claim.region, claim.service, "aws4_request", string_to_sign):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    if not hmac.compare_digest(key.hex(), claim.signature):
        raise BadSignature
    _check_time(claim, now)
    _check_body(request, payload_hash)


def _payload_hash(request: Request, claim: Claim) -> str:
    sent = request.headers.get("x-amz-content-sha256")
    if sent is not None:
        return sent
    if claim.lifetime is not None and claim.service == "s3":
        return "UNSIGNED-PAYLOAD"
    return hashlib.sha256(request.body).hexdigest()


def _canonical_request(request: Request, claim: Claim, payload_hash: str) -> bytes:
    # S3 signs the path encoded once; every other service encodes the encoded path again.
    path = unquote(request.path) if claim.service == "s3" else request.path
    query = sorted(
        f"{quote(name, safe='-_.~')}={quote(value, safe='-_.~')}"
        for name, value in request.query
        if name != "X-Amz-Signature"
    )
    lines = [request.method, quote(path, safe="/-_.~"), "&".join(query)]
    # The server hands header values over as Latin-1; the signer saw their bytes as UTF-8.
    encoded = "\n".join(lines).encode() + b"\n"
    for name in claim.signed_headers:
        value = _SPACES.sub(" ", request.headers.get(_as_sent(name), "").strip())
        encoded += name.encode() + b":" + value.encode("latin-1") + b"\n"
    return encoded + b"\n" + ";".join(claim.signed_headers).encode() + b"\n" + payload_hash.encode()


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


def _check_body(request: Request, payload_hash: str) -> None:
    if not _HEX_DIGEST.fullmatch(payload_hash):
        return
    if hashlib.sha256(request.body).hexdigest() != payload_hash:
        message = "The provided 'x-amz-content-sha256' header does not match what was computed."
        raise Refusal(400, "XAmzContentSHA256Mismatch", message)
