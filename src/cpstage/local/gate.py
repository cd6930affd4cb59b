"""The gate: every request comes through here, and everything AWS would refuse is refused.

It proves who is calling, asks whether they may, hands the request to the job-worker API or to
moto, and records every call, the refused ones too.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any
from urllib.parse import parse_qs

from cpstage.local import signature
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
        claim: signature.Claim | None = None
        asked = _ask(request, None)
        try:
            claim = signature.read_claim(request)
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

    def _serve(self, request: Request, asked: _Asked, claim: signature.Claim | None) -> Reply:
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

    def _authenticate(self, request: Request, claim: signature.Claim, service: str) -> Identity:
        identity = self._identities.find(claim.access_key)
        if identity is None or (identity.token is not None and claim.token is None):
            refuse("unknown key", service)
        if identity.token != claim.token:
            refuse("wrong token", service)
        try:
            signature.prove(request, claim, identity.secret, datetime.now(timezone.utc))
        except signature.BadSignature:
            refuse("wrong signature", service)
        except signature.ClockSkew:
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

    def _call(
        self, request: Request, asked: _Asked, claim: signature.Claim | None, reply: Reply
    ) -> Call:
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


def _ask(request: Request, claim: signature.Claim | None) -> _Asked:
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
