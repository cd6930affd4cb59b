"""Callers of the local AWS: their access keys, what each may do, and the proof of who calls.

An identity is an access key with a secret, sometimes a session token and an expiry, and a list of
statements. A request that no statement allows is denied.

Callers prove themselves by Signature Version 4: botocore signs the request once more, and the two
signatures are compared. The rules are those of "Signature Version 4 signing process" (IAM User
Guide) and "Authenticating Requests" (S3 API Reference), for signatures in the Authorization header
and in the query. The chunk signatures inside an aws-chunked body are not checked, only the seed
signature.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import string
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import NamedTuple
from urllib.parse import quote, unquote, urlencode

from botocore.auth import S3SigV4Auth, S3SigV4QueryAuth, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.compat import HTTPHeaders
from botocore.credentials import Credentials
from botocore.utils import percent_encode

from cpstage.local.wire import Refusal, Request, refuse

ACCOUNT = "123456789012"
_KEY_ALPHABET = string.ascii_uppercase + "234567"
_SECRET_ALPHABET = string.ascii_letters + string.digits + "+/"

_ALGORITHM = "AWS4-HMAC-SHA256"
_QUERY = ("Credential", "SignedHeaders", "Signature", "Security-Token", "Date", "Expires")
_CLOCK_SKEW = timedelta(minutes=15)
_HEX_DIGEST = re.compile(r"[0-9a-f]{64}")


class Statement(NamedTuple):
    """Allows actions on resources; `*` alone stands for every one."""

    actions: frozenset[str]
    resources: frozenset[str] = frozenset({"*"})

    def allows(self, action: str, resource: str) -> bool:
        """Whether this statement allows the action on the resource."""
        return bool({"*", action} & self.actions) and bool({"*", resource} & self.resources)


@dataclass
class Identity:
    """One access key and what it may do.

    Attributes:
        name: How the record calls it: `caller`, `admin`, `job:<id>`.
        arn: How AWS calls it in messages.
        statements: What it is allowed.
        access_key: The access key id.
        secret: The secret access key.
        token: The session token; None for a lasting key.
        expires_at: End of life in seconds since the epoch; None for a lasting key.
        job_id: The job whose session this is.
        session: Which of the job's sessions this is, from 1.
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
    _requests: Iterator[int] | None = field(default=None, repr=False)

    def spend_request(self) -> bool:
        """Count a request; return False if the life of the credentials is over."""
        if self.expires_at is not None and time.time() >= self.expires_at:
            return False
        return self._requests is None or next(self._requests, None) is not None

    def allows(self, action: str, resource: str) -> bool:
        """Whether any statement allows the action on the resource."""
        return any(statement.allows(action, resource) for statement in self.statements)

    def denial(self, action: str, resource: str) -> str:
        """Word the refusal of an action as AWS does."""
        policy = "identity-based" if self.job_id is None else "session"
        return (
            f"User: {self.arn} is not authorized to perform: {action} "
            f'on resource: "{resource}" because no {policy} policy allows the {action} action'
        )

    def require(self, service: str, action: str, resource: str) -> None:
        """Refuse an action of a service that is not allowed.

        Raises:
            Refusal: No statement allows the action on the resource.
        """
        if not self.allows(action, resource):
            refuse("denied", service, self.denial(action, resource))


class Identities:
    """Every identity of one local AWS, by access key."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
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
        statements: Iterable[Statement],
        seconds: float,
        requests: int | None = None,
    ) -> Identity:
        """Make the session credentials of a job, which end after some seconds or requests."""
        return self._add(
            Identity(
                name=f"job:{job_id}",
                arn=f"arn:aws:sts::{ACCOUNT}:assumed-role/CodePipelineJob/{job_id}",
                statements=tuple(statements),
                access_key=_access_key("ASIA"),
                secret=_secret(40),
                token=_secret(320),
                expires_at=time.time() + seconds,
                job_id=job_id,
                session=number,
                _requests=None if requests is None else iter(range(requests)),
            )
        )

    def expire(self, job_id: str) -> None:
        """End every session of a job now."""
        with self._lock:
            for identity in self._by_key.values():
                if identity.job_id == job_id:
                    identity.expires_at = 0.0

    def authenticate(self, request: Request, claim: Claim, service: str) -> Identity:
        """Return the identity that signed a request.

        Raises:
            Refusal: The key is unknown or has expired, the signature does not belong to the
                request, or was made more than 15 minutes away from now.
        """
        identity = self.find(claim.access_key)
        if identity is None or (identity.token is not None and claim.token is None):
            refuse("unknown key", service)
        if identity.token != claim.token:
            refuse("wrong token", service)
        claim.prove(request, identity.secret, service)
        if not identity.spend_request():
            refuse("expired", service)
        return identity

    def _add(self, identity: Identity) -> Identity:
        with self._lock:
            self._by_key[identity.access_key] = identity
        return identity


def _access_key(prefix: str) -> str:
    return prefix + "".join(secrets.choice(_KEY_ALPHABET) for _ in range(16))


def _secret(length: int) -> str:
    return "".join(secrets.choice(_SECRET_ALPHABET) for _ in range(length))


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

    @classmethod
    def read(cls, request: Request) -> Claim | None:
        """Read the claim of a request; None if the request is not signed.

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

    def prove(self, request: Request, secret: str, service: str) -> None:
        """Check the claim against the secret of the identity that it names.

        Raises:
            Refusal: The signature is another request's, leaves out a header that it must cover, or
                was made too far from now; the presigned URL expired; or the body is not the one
                that was signed.
        """
        covered = {_as_sent(name) for name in self.signed_headers} | {"x-amz-content-sha256"}
        sent = request.headers.keys(lower=True)
        required = {name for name in sent if name.startswith("x-amz-")} | {"host"}
        expected = self._signature_of(request, secret)
        if not (required <= covered and hmac.compare_digest(expected, self.signature.encode())):
            refuse("wrong signature", service)
        self._check_time(service)
        # S3 has values of this header that are not digests.
        signed = request.headers.get("x-amz-content-sha256", "")
        body = request.get_data()
        if _HEX_DIGEST.fullmatch(signed) and hashlib.sha256(body).hexdigest() != signed:
            message = "The provided 'x-amz-content-sha256' header does not match what was computed."
            raise Refusal(400, "XAmzContentSHA256Mismatch", message)

    def _signature_of(self, request: Request, secret: str) -> bytes:
        """Return the signature that the request must have, in hex."""
        signer, path = _ClaimSigner, request.raw_path
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

    def _check_time(self, service: str) -> None:
        try:
            signed = datetime.strptime(f"{self.timestamp}+0000", "%Y%m%dT%H%M%SZ%z")
        except ValueError:
            refuse("clock skew", service)
        now = datetime.now(timezone.utc)
        if self.lifetime is None:
            if abs(now - signed) > _CLOCK_SKEW:
                refuse("clock skew", service)
        elif signed - _CLOCK_SKEW > now or now > signed + timedelta(seconds=self.lifetime):
            raise Refusal(403, "AccessDenied", "Request has expired")


class _ClaimSigner(SigV4Auth):
    """Signs the headers that the claim names, where botocore has its own rule for them."""

    def headers_to_sign(self, request: AWSRequest) -> HTTPHeaders:
        chosen = HTTPHeaders()
        for name in request.context["signed_headers"]:
            chosen[name] = request.headers.get(_as_sent(name), "")
        return chosen


class _S3Signer(_ClaimSigner, S3SigV4Auth): ...


class _S3QuerySigner(_ClaimSigner, S3SigV4QueryAuth): ...


def _as_sent(name: str) -> str:
    # WSGI folds "_" and "-" in header names, which matters for user metadata only.
    return name.replace("_", "-")
