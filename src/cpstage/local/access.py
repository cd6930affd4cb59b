"""Access to the local AWS: requests, their signatures, what a caller may do, and refusals.

An identity is an access key with a secret and a list of statements; that of a job has a session
token and an expiry. A request that no statement allows is denied.

Callers prove themselves by Signature Version 4: botocore signs the request once more, and the two
signatures are compared. The rules are those of "Signature Version 4 signing process" (IAM User
Guide) and "Authenticating Requests" (S3 API Reference), for signatures in the Authorization header
and in the query. The chunk signatures inside an aws-chunked body are not checked, only the seed
signature.

S3 answers errors in REST XML, CodePipeline and KMS in JSON 1.1, STS and IAM in the Query protocol.
The codes are those of "Common error types" in each service's API reference and of "Error responses"
in the S3 API Reference: S3 answers 403 AccessDenied where a JSON service answers
400 AccessDeniedException.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import secrets
import time
import uuid
from base64 import b32encode, b64encode
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import NamedTuple, NoReturn
from urllib.parse import quote, unquote, urlencode
from xml.sax.saxutils import escape

from botocore.auth import S3SigV4Auth, S3SigV4QueryAuth, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.compat import HTTPHeaders
from botocore.credentials import Credentials
from botocore.utils import percent_encode
from werkzeug import wrappers
from werkzeug.wrappers import Response

ACCOUNT = "123456789012"

_JSON_TYPE = "application/x-amz-json-1.1"
JSON_SERVICES = frozenset({"codepipeline", "kms"})
_QUERY_SERVICES = frozenset({"sts", "iam"})

_ALGORITHM = "AWS4-HMAC-SHA256"
_QUERY = ("Credential", "SignedHeaders", "Signature", "Security-Token", "Date", "Expires")
_CLOCK_SKEW = timedelta(minutes=15)
_HEX_DIGEST = re.compile(r"[0-9a-f]{64}")


class Request(wrappers.Request):
    """One HTTP request."""

    max_form_memory_size = None  # an object may have the content type of a form

    @property
    def raw_path(self) -> str:
        """The path as it was sent, percent-encoding untouched."""
        return str(self.environ["RAW_URI"]).partition("?")[0]

    @property
    def unsigned_query(self) -> str:
        """The query without the signature of a presigned URL."""
        signature = {f"x-amz-{name}".lower() for name in ("Algorithm", *_QUERY)}
        pairs = self.args.items(multi=True)
        return urlencode([pair for pair in pairs if pair[0].lower() not in signature])


def json_reply(document: object, status: int = 200, content_type: str = _JSON_TYPE) -> Response:
    """Return a reply with a JSON document."""
    return Response(json.dumps(document), status, content_type=content_type)


class Refusal(Exception):
    """An error to answer with; S3's error documents may have members beyond code and message."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        headers: Mapping[str, str] | None = None,
        members: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.headers = dict(headers or {})
        self.members = dict(members or {})

    def reply(self, service: str) -> Response:
        """Return the error in the protocol of a service."""
        message, request_id = str(self), str(uuid.uuid4())
        if service in JSON_SERVICES:
            reply = json_reply({"__type": self.code, "message": message}, self.status)
            reply.headers["x-amzn-ErrorType"] = self.code
            return reply
        if service in _QUERY_SERVICES:
            details = _elements({"Type": "Sender", "Code": self.code, "Message": message})
            body = (
                f"<ErrorResponse><Error>{details}</Error>"
                f"<RequestId>{request_id}</RequestId></ErrorResponse>"
            )
            return Response(body, self.status, self.headers, content_type="text/xml")
        members = {"Code": self.code, "Message": message, **self.members, "RequestId": request_id}
        body = f'<?xml version="1.0" encoding="UTF-8"?>\n<Error>{_elements(members)}</Error>'
        headers = {**self.headers, "x-amz-request-id": request_id}
        return Response(body, self.status, headers, content_type="application/xml")


def _elements(members: Mapping[str, str]) -> str:
    return "".join(f"<{name}>{escape(value)}</{name}>" for name, value in members.items())


_FAULTS = {
    "anonymous": (
        "Access Denied: the request is not signed.",
        (403, "AccessDenied"),
        ("MissingAuthenticationTokenException", "MissingAuthenticationToken"),
    ),
    "unknown key": (
        "The AWS access key id you provided does not exist in our records.",
        (403, "InvalidAccessKeyId"),
        ("UnrecognizedClientException", "InvalidClientTokenId"),
    ),
    "wrong token": (
        "The provided token is malformed or otherwise not valid.",
        (400, "InvalidToken"),
        ("UnrecognizedClientException", "InvalidClientTokenId"),
    ),
    "wrong signature": (
        "The request signature we calculated does not match the signature you provided.",
        (403, "SignatureDoesNotMatch"),
        ("InvalidSignatureException", "SignatureDoesNotMatch"),
    ),
    "clock skew": (
        "Signature expired: the request time is too far from the current time.",
        (403, "RequestTimeTooSkewed"),
        ("InvalidSignatureException", "SignatureDoesNotMatch"),
    ),
    "expired": (
        "The provided token has expired.",
        (400, "ExpiredToken"),
        ("ExpiredTokenException", "ExpiredToken"),
    ),
    "denied": ("Access Denied", (403, "AccessDenied"), ("AccessDeniedException", "AccessDenied")),
}
"""Messages, with status and code of S3, and the codes of JSON (400) and of Query services (403)."""


def refuse(fault: str, service: str, message: str | None = None) -> NoReturn:
    """Raise a :class:`Refusal` with the status and code of a service."""
    default, (status, code), (json_code, query_code) = _FAULTS[fault]
    if service in JSON_SERVICES:
        status, code = 400, json_code
    elif service in _QUERY_SERVICES:
        status, code = 403, query_code
    raise Refusal(status, code, message or default)


class Statement(NamedTuple):
    """Allows actions on resources; `*` alone stands for every one."""

    actions: frozenset[str]
    resources: frozenset[str] = frozenset({"*"})

    def allows(self, action: str, resource: str) -> bool:
        """Whether this statement allows the action on the resource."""
        return bool({"*", action} & self.actions) and bool({"*", resource} & self.resources)


@dataclass
class Identity:
    """One access key and what it may do; only a job's session has a token, and expires.

    Attributes:
        name: Its name in the record of calls: `caller`, `admin`, `job:<id>`.
        expires_at: End of life in seconds since the epoch.
        session: Which of the job's sessions this is, from 1.
        requests: Counts the requests that a session is good for; None for any number.
    """

    name: str
    arn: str
    statements: tuple[Statement, ...]
    access_key: str
    secret: str = field(repr=False)
    token: str | None = field(default=None, repr=False)
    expires_at: float | None = None
    job_id: str | None = None
    session: int | None = None
    requests: Iterator[int] | None = field(default=None, repr=False)

    def spend_request(self) -> bool:
        """Count a request; return False if the life of the credentials is over."""
        if self.expires_at is not None and time.time() >= self.expires_at:
            return False
        return self.requests is None or next(self.requests, None) is not None

    def allows(self, action: str, resource: str) -> bool:
        """Whether any statement allows the action on the resource."""
        return any(statement.allows(action, resource) for statement in self.statements)

    def denial(self, action: str, resource: str) -> str:
        """Return AWS's message for an action that is not allowed."""
        policy = "identity-based" if self.job_id is None else "session"
        return (
            f"User: {self.arn} is not authorized to perform: {action} "
            f'on resource: "{resource}" because no {policy} policy allows the {action} action'
        )

    def require(self, action: str, resource: str) -> None:
        """Raise a :class:`Refusal` if no statement allows the action on the resource."""
        if not self.allows(action, resource):
            refuse("denied", action.partition(":")[0], self.denial(action, resource))


class Identities:
    """Every identity of one local AWS, by access key."""

    def __init__(self) -> None:
        self._by_key: dict[str, Identity] = {}

    def find(self, access_key: str) -> Identity | None:
        """Return the identity with this access key, or None."""
        return self._by_key.get(access_key)

    def add_user(self, name: str, actions: Iterable[str]) -> Identity:
        """Make an identity with a lasting key that may do some actions on every resource."""
        arn = f"arn:aws:iam::{ACCOUNT}:user/{name}"
        statements = (Statement(frozenset(actions)),)
        return self._add(Identity(name, arn, statements, _access_key("AKIA"), _secret(40)))

    def add_session(
        self,
        job_id: str,
        number: int,
        statements: tuple[Statement, ...],
        seconds: float,
        requests: int | None,
    ) -> Identity:
        """Make the session credentials of a job, which end after some seconds or requests."""
        return self._add(
            Identity(
                name=f"job:{job_id}",
                arn=f"arn:aws:sts::{ACCOUNT}:assumed-role/CodePipelineJob/{job_id}",
                statements=statements,
                access_key=_access_key("ASIA"),
                secret=_secret(40),
                token=_secret(320),
                expires_at=time.time() + seconds,
                job_id=job_id,
                session=number,
                requests=None if requests is None else iter(range(requests)),
            )
        )

    def expire(self, job_id: str) -> None:
        """End every session of a job now."""
        for identity in [*self._by_key.values()]:  # a copy: sessions are added meanwhile
            if identity.job_id == job_id:
                identity.expires_at = 0.0

    def authenticate(self, request: Request, authorization: Authorization) -> Identity:
        """Return the identity that signed a request; raise a :class:`Refusal` for any other."""
        identity = self.find(authorization.access_key)
        if identity is None or (identity.token is not None and authorization.token is None):
            refuse("unknown key", authorization.service)
        if identity.token != authorization.token:
            refuse("wrong token", authorization.service)
        authorization.prove(request, identity.secret)
        if not identity.spend_request():
            refuse("expired", authorization.service)
        return identity

    def _add(self, identity: Identity) -> Identity:
        self._by_key[identity.access_key] = identity
        return identity


def _access_key(prefix: str) -> str:
    return prefix + b32encode(secrets.token_bytes(10)).decode()


def _secret(length: int) -> str:
    return b64encode(secrets.token_bytes(length * 3 // 4)).decode()


@dataclass(frozen=True)
class Authorization:
    """The credential scope and signature of a request (Signature Version 4).

    Attributes:
        timestamp: When the request was signed, as sent (`20150830T123600Z`).
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

    @classmethod
    def read(cls, request: Request) -> Authorization | None:
        """Read the authorization of a request; None if the request is not signed.

        Raises:
            Refusal: The signature is malformed, or is not Signature Version 4.
        """
        authorization = request.headers.get("authorization")
        if authorization is not None:
            algorithm, _, rest = authorization.partition(" ")
            members = dict(part.strip().partition("=")[::2] for part in rest.split(","))
            members["Security-Token"] = request.headers.get("x-amz-security-token", "")
            members["Date"] = request.headers.get("x-amz-date", "")
        elif "X-Amz-Algorithm" in request.args or "AWSAccessKeyId" in request.args:
            algorithm = request.args.get("X-Amz-Algorithm") or "AWS"  # Signature Version 2
            members = {name: request.args.get(f"X-Amz-{name}", "") for name in _QUERY}
        else:
            return None
        if algorithm != _ALGORITHM:
            message = (
                "The authorization mechanism you have provided is not supported. "
                f"Please use {_ALGORITHM}."
            )
            raise Refusal(400, "InvalidRequest", message)
        try:
            access_key, date, region, service, terminator = members["Credential"].rsplit("/", 4)
            if terminator != "aws4_request" or members["Date"][:8] != date:
                raise ValueError
            return cls(
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

    def prove(self, request: Request, secret: str) -> None:
        """Check the signature against the secret of the identity.

        Raises:
            Refusal: The signature is another request's, does not cover a required header, or is
                more than 15 minutes off; the presigned URL expired; or the body was not signed.
        """
        covered = {_as_sent(name) for name in self.signed_headers} | {"x-amz-content-sha256"}
        sent = request.headers.keys(lower=True)
        required = {name for name in sent if name.startswith("x-amz-")} | {"host"}
        expected = self._signature_of(request, secret)
        if not (required <= covered and hmac.compare_digest(expected, self.signature.encode())):
            refuse("wrong signature", self.service)
        self._check_time()
        # S3 has values of this header that are not digests.
        signed = request.headers.get("x-amz-content-sha256", "")
        body = request.get_data()
        if _HEX_DIGEST.fullmatch(signed) and hashlib.sha256(body).hexdigest() != signed:
            message = "The provided 'x-amz-content-sha256' header does not match what was computed."
            raise Refusal(400, "XAmzContentSHA256Mismatch", message)

    def _signature_of(self, request: Request, secret: str) -> bytes:
        """Return the signature that the request must have, in hex."""
        signer, path = _HeaderSigner, request.raw_path
        if self.service == "s3":
            signer = _S3Signer if self.lifetime is None else _S3QuerySigner
            # S3 signs the path encoded in one way, however the client has encoded it.
            path = percent_encode(unquote(path), safe="/~")
        # The server decodes header values as Latin-1; the client signed their bytes as UTF-8.
        headers = {
            name: value.encode("latin-1").decode(errors="replace")
            for name, value in request.headers.items(lower=True)
        }
        pairs = [pair for pair in request.args.items(multi=True) if pair[0] != "X-Amz-Signature"]
        url = f"http://local{path}?{urlencode(pairs, quote_via=quote)}"
        signed = AWSRequest(request.method, url, headers, request.get_data())
        signed.context.update(timestamp=self.timestamp, signed_headers=self.signed_headers)
        auth = signer(Credentials(self.access_key, secret), self.service, self.region)
        text = auth.string_to_sign(signed, auth.canonical_request(signed))
        return auth.signature(text, signed).encode()

    def _check_time(self) -> None:
        try:
            signed = datetime.strptime(f"{self.timestamp}+0000", "%Y%m%dT%H%M%SZ%z")
        except ValueError:
            refuse("clock skew", self.service)
        now = datetime.now(timezone.utc)
        if self.lifetime is None:
            if abs(now - signed) > _CLOCK_SKEW:
                refuse("clock skew", self.service)
        elif signed - _CLOCK_SKEW > now or now > signed + timedelta(seconds=self.lifetime):
            raise Refusal(403, "AccessDenied", "Request has expired")


class _HeaderSigner(SigV4Auth):
    """Signs the headers that the authorization names, where botocore has its own rule for them."""

    def headers_to_sign(self, request: AWSRequest) -> HTTPHeaders:
        chosen = HTTPHeaders()
        for name in request.context["signed_headers"]:
            chosen[name] = request.headers.get(_as_sent(name), "")
        return chosen


class _S3Signer(_HeaderSigner, S3SigV4Auth): ...


class _S3QuerySigner(_HeaderSigner, S3SigV4QueryAuth): ...


def _as_sent(name: str) -> str:
    # WSGI folds "_" and "-" in header names, which matters for user metadata only.
    return name.replace("_", "-")
