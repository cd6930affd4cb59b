"""The gate authenticates, authorizes and records every request, and hands it to what answers it.

Of S3, it has the rules that moto leaves out: region, permissions, a bucket policy that refuses
unencrypted uploads, SSE-KMS under an enabled key, and AccessDenied in place of NoSuchKey for
callers without s3:ListBucket. Operations are recognised by the HTTP bindings of botocore's S3
model; permissions follow "Required permissions for Amazon S3 API operations" (S3 User Guide).
Buckets are named in the path.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import cache
from typing import NamedTuple
from urllib.parse import parse_qsl, unquote

from botocore.loaders import Loader
from botocore.model import OperationModel, ServiceModel
from werkzeug.wrappers import Response

from cpstage.local.access import (
    ACCOUNT,
    Authorization,
    Identities,
    Identity,
    Refusal,
    Request,
    refuse,
)
from cpstage.local.backend import MANAGED_KEY, Backend, json_object
from cpstage.local.client import Call
from cpstage.local.history import History
from cpstage.local.job_api import JobWorkerAPI

_LOG = logging.getLogger(__name__)
_TARGETS = {"CodePipeline_20150709": "codepipeline", "TrentService": "kms"}

_SSE = "x-amz-server-side-encryption"
_SSE_KEY = "x-amz-server-side-encryption-aws-kms-key-id"
_SSE_BUCKET_KEY = "x-amz-server-side-encryption-bucket-key-enabled"
_SSE_KMS = frozenset({"aws:kms", "aws:kms:dsse"})
_WRITES = frozenset({"PutObject", "CopyObject", "CreateMultipartUpload"})
_PARTS = frozenset({"UploadPart", "UploadPartCopy"})
# CompleteMultipartUpload may come again after it has succeeded.
_ON_UPLOADS = _PARTS | {"ListParts", "AbortMultipartUpload"}


class Operation(NamedTuple):
    """The service and operation of a request; of S3, the bucket and the object key, decoded."""

    service: str
    operation: str
    bucket: str | None = None
    key: str | None = None

    @property
    def resource(self) -> str:
        """The ARN of the bucket or object, which permissions of S3 are about."""
        if self.bucket is None:
            return "*"
        return f"arn:aws:s3:::{self.bucket}" + (f"/{self.key}" if self.key else "")


def _asked(request: Request, authorization: Authorization | None) -> Operation:
    """Read what a request asks for; the service is that of the signature, or else guessed."""
    prefix, _, operation = request.headers.get("x-amz-target", "").partition(".")
    is_form = request.mimetype == "application/x-www-form-urlencoded"
    action = request.form.get("Action", "") if is_form else ""
    service = (
        authorization.service if authorization else _TARGETS.get(prefix, "sts" if action else "s3")
    )
    if service == "s3":
        return understand(request.method, request.uri, request.headers.keys(lower=True))
    return Operation(service, operation or action or request.method)


class Gate:
    """Answers every request to the local AWS, and keeps the record of calls."""

    def __init__(
        self, identities: Identities, backend: Backend, api: JobWorkerAPI, history: History
    ) -> None:
        self._identities = identities
        self._backend = backend
        self._api = api
        self._history = history
        self._lock = threading.Lock()
        self._calls: list[Call] = []

    def calls(self) -> list[Call]:
        """Return the calls so far; safe while calls come in."""
        with self._lock:
            return list(self._calls)

    def answer(self, request: Request) -> Response:
        """Answer a request, and record it."""
        authorization: Authorization | None = None
        asked = _asked(request, None)
        error = None
        try:
            authorization = Authorization.read(request)
            asked = _asked(request, authorization)
            reply = self._serve(request, asked, authorization)
        except Refusal as refusal:
            reply, error = refusal.reply(asked.service), refusal.code
        except Exception:
            _LOG.exception("the local AWS failed on %s %s", request.method, request.raw_path)
            failure = Refusal(500, "InternalError", "The local AWS failed; see its log.")
            reply, error = failure.reply(asked.service), failure.code
        call = self._call(request, asked, authorization, reply, error)
        with self._lock:
            self._calls.append(replace(call, sequence=len(self._calls) + 1))
        return reply

    def _serve(
        self, request: Request, asked: Operation, authorization: Authorization | None
    ) -> Response:
        if authorization is None:
            refuse("anonymous", asked.service)
        identity = self._identities.authenticate(request, authorization)
        region = authorization.region
        if asked.service == "s3":
            return self._serve_s3(request, asked, identity, region)
        if asked.service == "kms":
            return self._backend.answer_kms(request, asked.operation, identity, region)
        if (asked.service, asked.operation) == ("sts", "GetCallerIdentity"):
            return _caller_identity(identity)  # which takes no permission
        identity.require(f"{asked.service}:{asked.operation}", "*")
        if asked.service == "codepipeline":
            api = self._history if asked.operation in self._history.operations else self._api
            return api.answer(asked.operation, request.get_data(), region)
        if asked.service not in ("iam", "sts"):
            refuse("denied", asked.service, f"The local AWS has no {asked.service}.")
        return self._backend.answer(request, asked.service, region)

    def _call(
        self,
        request: Request,
        asked: Operation,
        authorization: Authorization | None,
        reply: Response,
        error: str | None,
    ) -> Call:
        identity = self._identities.find(authorization.access_key) if authorization else None
        stranger = "unknown" if authorization else "anonymous"
        is_s3, headers = asked.service == "s3", request.headers
        document = {} if is_s3 else json_object(request.get_data())
        return Call(
            sequence=0,
            service=asked.service,
            action=asked.operation,
            identity=identity.name if identity else stranger,
            session=identity.session if identity else None,
            job_id=_text(document.get("jobId")) or (identity.job_id if identity else None),
            bucket=asked.bucket,
            key=asked.key,
            server_side_encryption=headers.get(_SSE) if is_s3 else None,
            kms_key_id=headers.get(_SSE_KEY) if is_s3 else _text(document.get("KeyId")),
            bucket_key=headers.get(_SSE_BUCKET_KEY) == "true",
            byte_range=headers.get("range"),
            status=reply.status_code,
            error=error or _error_of(reply),
        )

    def _serve_s3(
        self, request: Request, asked: Operation, identity: Identity, region: str
    ) -> Response:
        """Answer an S3 request of a proved identity, or refuse what S3 would refuse."""
        self._check_region(asked, region)
        for action, resource in _permissions(request, asked):
            identity.require(action, resource)
        _check_policy(request, asked, identity)
        self._check_upload(request, asked, identity, region)
        key = None
        if asked.operation in _WRITES and request.headers.get(_SSE) in _SSE_KMS:
            key_id = request.headers.get(_SSE_KEY) or MANAGED_KEY
            key = self._use_key(key_id, "GenerateDataKey", identity, region)
        try:
            reply = self._backend.answer(request, "s3", region, key_arn=key)
        except KeyError:  # moto does not look whether there is such an upload
            self._check_upload(request, asked, identity, region)
            raise
        if reply.status_code == 404 and asked.operation in ("GetObject", "HeadObject"):
            # "If you don't have the s3:ListBucket permission, S3 returns 403": GetObject, API
            # Reference. Otherwise an answer would reveal that the object exists.
            identity.require("s3:ListBucket", f"arn:aws:s3:::{asked.bucket}")
        self._add_key(request, asked, reply)
        # HEAD decrypts nothing, unless it is asked for the checksum.
        wants_plaintext = request.method == "GET" or "x-amz-checksum-mode" in request.headers
        if _SSE_KEY in reply.headers and wants_plaintext:
            self._use_key(reply.headers[_SSE_KEY], "Decrypt", identity, region)
        return reply

    def _check_region(self, asked: Operation, region: str) -> None:
        if asked.bucket is None or asked.operation == "CreateBucket":
            return
        home = self._backend.bucket_region(asked.bucket)
        if home is None:
            members = {"BucketName": asked.bucket}
            message = "The specified bucket does not exist"
            raise Refusal(404, "NoSuchBucket", message, members=members)
        if home != region:
            message = (
                "The authorization header is malformed; "
                f"the region '{region}' is wrong; expecting '{home}'"
            )
            headers = {"x-amz-bucket-region": home}
            code = "AuthorizationHeaderMalformed"
            raise Refusal(400, code, message, headers, members={"Region": home})

    def _check_upload(
        self, request: Request, asked: Operation, identity: Identity, region: str
    ) -> None:
        """Refuse work on a multipart upload that is over, or under a key that cannot be used."""
        upload_id = request.args.get("uploadId")
        if asked.operation not in _ON_UPLOADS or asked.bucket is None or upload_id is None:
            return
        key = self._backend.upload_key(asked.bucket, upload_id)
        if asked.operation in _PARTS and key is not None:
            self._use_key(key, "Decrypt", identity, region)

    def _use_key(self, key_id: str, operation: str, identity: Identity, region: str) -> str:
        """Judge the use of a key by S3 on behalf of an identity, and return the key's ARN."""
        arn = self._backend.enabled_key(key_id, region, prefix="KMS.")
        action = f"kms:{operation}"
        if not identity.allows(action, arn):
            raise Refusal(403, "AccessDenied", identity.denial(action, arn))
        return arn

    def _add_key(self, request: Request, asked: Operation, reply: Response) -> None:
        """Add the key of an object under DSSE-KMS, which moto leaves out of the headers."""
        is_dsse = reply.headers.get(_SSE) == "aws:kms:dsse"
        if is_dsse and _SSE_KEY not in reply.headers and asked.bucket and asked.key:
            version = request.args.get("versionId")
            if key := self._backend.object_kms_key(asked.bucket, asked.key, version):
                reply.headers[_SSE_KEY] = key


def _check_policy(request: Request, asked: Operation, identity: Identity) -> None:
    """Apply the DenyUnEncryptedObjectUploads statement of CodePipeline's bucket policy."""
    if asked.operation not in _WRITES or request.headers.get(_SSE) in _SSE_KMS:
        return
    if not identity.allows("s3:PutBucketPolicy", f"arn:aws:s3:::{asked.bucket}"):
        message = (
            f"User: {identity.arn} is not authorized to perform: s3:PutObject on resource: "
            f'"{asked.resource}" with an explicit deny in a resource-based policy'
        )
        refuse("denied", "s3", message)


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _error_of(reply: Response) -> str | None:
    """Return the error code that moto put into an answer."""
    if reply.status_code < 400:
        return None
    body = reply.get_data()
    code = json_object(body).get("__type")
    if code is not None:
        return str(code).rpartition("#")[2]
    _, found, rest = body.partition(b"<Code>")
    return rest.partition(b"</Code>")[0].decode() if found else str(reply.status_code)


# Operations whose permission is not called as they are.
_PERMISSIONS = {
    "HeadObject": "GetObject",
    **dict.fromkeys(
        ("CopyObject", "CreateMultipartUpload", "CompleteMultipartUpload", *_PARTS), "PutObject"
    ),
    "ListParts": "ListMultipartUploadParts",
    **dict.fromkeys(("HeadBucket", "ListObjects", "ListObjectsV2"), "ListBucket"),
    "ListObjectVersions": "ListBucketVersions",
    "ListMultipartUploads": "ListBucketMultipartUploads",
    "ListBuckets": "ListAllMyBuckets",
}
_VERSIONED = frozenset({"GetObject", "DeleteObject", "GetObjectTagging"})


def _permissions(request: Request, asked: Operation) -> Iterator[tuple[str, str]]:
    """Yield each action and resource that a request needs to be allowed."""
    action = _PERMISSIONS.get(asked.operation, asked.operation)
    if action in _VERSIONED and request.args.get("versionId"):
        action = action.replace("Object", "ObjectVersion", 1)
    yield f"s3:{action}", asked.resource
    if "x-amz-tagging" in request.headers:
        yield "s3:PutObjectTagging", asked.resource
    if "x-amz-acl" in request.headers:
        yield "s3:PutObjectAcl", asked.resource
    source = request.headers.get("x-amz-copy-source")
    if source is not None:
        path = unquote(source.partition("?")[0]).lstrip("/")
        yield "s3:GetObject", f"arn:aws:s3:::{path}"


def understand(method: str, uri: str, headers: Iterable[str]) -> Operation:
    """Recognise an S3 request by its path and query, as sent, and its headers' names."""
    path, _, query = uri.partition("?")
    bucket, _, key = path.lstrip("/").partition("/")
    level = "key" if key else "bucket" if bucket else "service"
    present = set(headers)
    for name, value in parse_qsl(query, keep_blank_values=True):
        present |= {name, f"{name}={value}"}
    candidates = [
        (len(needed), name)
        for name, needed in _bindings().get((method, level), ())
        if needed <= present
    ]
    operation = max(candidates, default=(0, f"{method} {level}"), key=lambda c: c[0])[1]
    return Operation("s3", operation, unquote(bucket) or None, unquote(key) or None)


@cache
def _bindings() -> dict[tuple[str, str], list[tuple[str, frozenset[str]]]]:
    """Map method and level to operations, with the parameters and headers that mark each."""
    model = ServiceModel(Loader().load_service_model("s3", "service-2"))
    bindings: dict[tuple[str, str], list[tuple[str, frozenset[str]]]] = {}
    for name in model.operation_names:
        operation = model.operation_model(name)
        if operation.deprecated:
            continue
        path, _, query = operation.http["requestUri"].partition("?")
        level = "key" if "{Key+}" in path else "bucket" if path == "/{Bucket}" else "service"
        needed = frozenset(filter(None, query.split("&"))) | _required(operation)
        bindings.setdefault((operation.http["method"], level), []).append((name, needed))
    return bindings


def _required(operation: OperationModel) -> frozenset[str]:
    shape = operation.input_shape
    if shape is None:
        return frozenset()
    members = (shape.members[name] for name in shape.required_members)
    return frozenset(
        member.serialization["name"]
        for member in members
        if member.serialization.get("location") in ("querystring", "header")
    )


def _caller_identity(identity: Identity) -> Response:
    body = (
        '<GetCallerIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">'
        f"<GetCallerIdentityResult><Arn>{identity.arn}</Arn>"
        f"<UserId>{identity.access_key}</UserId><Account>{ACCOUNT}</Account>"
        "</GetCallerIdentityResult><ResponseMetadata><RequestId>local</RequestId>"
        "</ResponseMetadata></GetCallerIdentityResponse>"
    )
    return Response(body, content_type="text/xml")
