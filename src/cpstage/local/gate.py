"""The gate: every request comes through here, and everything AWS would refuse is refused.

It proves who is calling, asks whether they may, hands the request to the job-worker API or to
moto, and records every call, the refused ones too.

Callers prove themselves by Signature Version 4: botocore signs the request once more, and the two
signatures are compared. The rules are those of "Signature Version 4 signing process" (IAM User
Guide) and "Authenticating Requests" (S3 API Reference), for signatures in the Authorization header
and in the query. The chunk signatures inside an aws-chunked body are not checked, only the seed
signature.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import re
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlencode

from botocore.auth import S3SigV4Auth, S3SigV4QueryAuth, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.compat import HTTPHeaders
from botocore.credentials import Credentials
from botocore.utils import percent_encode

from cpstage.local.backend import Backend
from cpstage.local.control import Call, Record
from cpstage.local.history_api import HISTORY_OPERATIONS, HistoryAPI
from cpstage.local.identities import ACCOUNT, Identities, Identity
from cpstage.local.job_api import JobWorkerAPI
from cpstage.local.rules import (
    SSE,
    SSE_BUCKET_KEY,
    SSE_KEY,
    KMSRules,
    S3Gate,
    S3Request,
    understand,
)
from cpstage.local.wire import Refusal, Reply, Request, refuse, require

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


_LOG = logging.getLogger(__name__)
_TARGETS = {"CodePipeline_20150709": "codepipeline", "TrentService": "kms"}


@dataclass(frozen=True)
class _Asked:
    """The service, operation and resource of a request."""

    service: str
    action: str
    s3: S3Request = field(default_factory=lambda: S3Request(""))
    document: dict[str, Any] = field(default_factory=dict, repr=False)

    def named(self, member: str) -> str | None:
        """Return a member of the JSON document, if it is a string."""
        value = self.document.get(member)
        return value if isinstance(value, str) else None


class Gate:
    """Answers every request to the local AWS."""

    def __init__(
        self,
        identities: Identities,
        backend: Backend,
        api: JobWorkerAPI,
        history: HistoryAPI,
        record: Record,
    ) -> None:
        self._identities = identities
        self._backend = backend
        self._api = api
        self._history = history
        self._record = record
        self._kms = KMSRules(backend)
        self._s3 = S3Gate(backend, self._kms)

    def answer(self, request: Request) -> Reply:
        """Answer a request, and record it."""
        claim: Claim | None = None
        asked = _ask(request, None)
        try:
            claim = read_claim(request)
            asked = _ask(request, claim)
            reply = self._serve(request, asked, claim)
        except Refusal as refusal:
            reply = refusal.reply(asked.service, request.method)
        except Exception:
            _LOG.exception("the local AWS failed on %s %s", request.method, request.path)
            failure = Refusal(500, "InternalError", "The local AWS failed; see its log.")
            reply = failure.reply(asked.service, request.method)
        self._record.add(self._call(request, asked, claim, reply))
        return reply

    def _serve(self, request: Request, asked: _Asked, claim: Claim | None) -> Reply:
        if claim is None:
            refuse("anonymous", asked.service)
        identity = self._authenticate(request, claim, asked.service)
        region = claim.region
        if asked.service == "s3":
            return self._s3.answer(request, asked.s3, identity, region)
        if asked.service == "kms":
            return self._serve_kms(request, asked, identity, region)
        if (asked.service, asked.action) == ("sts", "GetCallerIdentity"):
            return _caller_identity(identity)  # which takes no permission
        require(identity, asked.service, f"{asked.service}:{asked.action}", "*")
        if asked.service == "codepipeline":
            api = self._history if asked.action in HISTORY_OPERATIONS else self._api
            return api.answer(asked.action, request.body, region)
        if asked.service not in ("iam", "sts"):
            refuse("denied", asked.service, f"The local AWS has no {asked.service}.")
        return self._backend.answer(request, asked.service, region)

    def _authenticate(self, request: Request, claim: Claim, service: str) -> Identity:
        identity = self._identities.find(claim.access_key)
        if identity is None or (identity.token is not None and claim.token is None):
            refuse("unknown key", service)
        if identity.token != claim.token:
            refuse("wrong token", service)
        try:
            prove(request, claim, identity.secret, datetime.now(timezone.utc))
        except BadSignature:
            refuse("wrong signature", service)
        except ClockSkew:
            refuse("clock skew", service)
        if not identity.spend_request():
            refuse("expired", service)
        return identity

    def _serve_kms(self, request: Request, asked: _Asked, identity: Identity, region: str) -> Reply:
        key = self._kms.named_key(asked.document, region)
        require(identity, "kms", f"kms:{asked.action}", key or "*")
        if key is not None:
            self._kms.check_call(asked.action, key, region)
            request = self._kms.for_moto(request, asked.action, asked.document, key)
        return self._backend.answer(request, "kms", region)

    def _call(self, request: Request, asked: _Asked, claim: Claim | None, reply: Reply) -> Call:
        identity = self._identities.find(claim.access_key) if claim else None
        stranger = "unknown" if claim else "anonymous"
        s3 = asked.service == "s3"
        return Call(
            sequence=0,
            service=asked.service,
            action=asked.action,
            identity=identity.name if identity else stranger,
            session=identity.session if identity else None,
            job_id=asked.named("jobId") or (identity.job_id if identity else None),
            bucket=asked.s3.bucket,
            key=asked.s3.key,
            server_side_encryption=request.headers.get(SSE) if s3 else None,
            kms_key_id=request.headers.get(SSE_KEY) if s3 else asked.named("KeyId"),
            bucket_key=request.headers.get(SSE_BUCKET_KEY) == "true",
            byte_range=request.headers.get("range"),
            status=reply.status,
            error=reply.error or _error_of(reply),
        )


def _ask(request: Request, claim: Claim | None) -> _Asked:
    """Return the call of a request; the service is that of the signature, or else guessed."""
    prefix, _, operation = request.headers.get("x-amz-target", "").partition(".")
    form = parse_qs(request.body.decode("latin-1")) if _is_form(request) else {}
    action = form.get("Action", [""])[0]
    guess = _TARGETS.get(prefix, "sts" if action else "s3")
    service = claim.service if claim else guess
    if service == "s3":
        s3 = understand(request)
        return _Asked(service, s3.operation, s3)
    if operation:
        return _Asked(service, operation, document=_json_object(request.body))
    return _Asked(service, action or request.method)


def _is_form(request: Request) -> bool:
    return request.headers.get("content-type", "").startswith("application/x-www-form-urlencoded")


def _json_object(body: bytes) -> dict[str, Any]:
    try:
        document = json.loads(body)
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}


def _error_of(reply: Reply) -> str | None:
    """Return the error code that moto put into an answer."""
    if reply.status < 400:
        return None
    code = _json_object(reply.body).get("__type")
    if code is not None:
        return str(code).rpartition("#")[2]
    _, found, rest = reply.body.partition(b"<Code>")
    return rest.partition(b"</Code>")[0].decode() if found else str(reply.status)


def _caller_identity(identity: Identity) -> Reply:
    body = (
        '<GetCallerIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">'
        f"<GetCallerIdentityResult><Arn>{identity.arn}</Arn>"
        f"<UserId>{identity.access_key}</UserId><Account>{ACCOUNT}</Account>"
        "</GetCallerIdentityResult><ResponseMetadata><RequestId>local</RequestId>"
        "</ResponseMetadata></GetCallerIdentityResponse>"
    )
    return Reply(200, (("Content-Type", "text/xml"),), body.encode())
