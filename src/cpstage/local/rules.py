"""The rules of S3 and KMS that moto leaves out.

S3: region, permissions, a bucket policy that refuses unencrypted uploads, SSE-KMS under an enabled
key, and AccessDenied in place of NoSuchKey for callers without s3:ListBucket. Operations are
recognised by the HTTP bindings of botocore's S3 model; permissions follow "Required permissions
for Amazon S3 API operations" (S3 User Guide). Buckets are named in the path.

KMS: a key must exist in the region, be enabled, and be allowed to the caller ("Key states of AWS
KMS keys", KMS Developer Guide).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any
from urllib.parse import unquote

from botocore.loaders import Loader
from botocore.model import OperationModel, ServiceModel

from cpstage.local.backend import MANAGED_KEY, Backend
from cpstage.local.identities import Identity
from cpstage.local.wire import Refusal, Reply, Request, refuse, require

SSE = "x-amz-server-side-encryption"
SSE_KEY = "x-amz-server-side-encryption-aws-kms-key-id"
SSE_BUCKET_KEY = "x-amz-server-side-encryption-bucket-key-enabled"
_SSE_KMS = frozenset({"aws:kms", "aws:kms:dsse"})
_CRYPTOGRAPHIC = frozenset(
    {"Decrypt", "Encrypt", "GenerateDataKey", "GenerateDataKeyWithoutPlaintext"}
)
_BARE_ID_ONLY = frozenset({"DisableKey", "EnableKey", "ScheduleKeyDeletion", "CancelKeyDeletion"})
_STATES = {
    "Disabled": ("DisabledException", "is disabled."),
    "PendingDeletion": ("KMSInvalidStateException", "is pending deletion."),
}
WRITES = frozenset({"PutObject", "CopyObject", "CreateMultipartUpload"})
_PARTS = frozenset({"UploadPart", "UploadPartCopy"})


class KMSRules:
    """Judges the use of KMS keys."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def key_for_write(
        self, request: Request, asked: S3Request, identity: Identity, region: str
    ) -> str | None:
        """Judge the key of a request that writes an object.

        Returns:
            The ARN of the key to encrypt under; None if the request does not ask for SSE-KMS.

        Raises:
            Refusal: The key is not there, not enabled, or not the caller's to use.
        """
        if asked.operation in _PARTS:
            key = self._upload_key(request, asked)
            if key is not None:
                self._use(key, "Decrypt", identity, region)
            return None
        if asked.operation not in WRITES or request.headers.get(SSE) not in _SSE_KMS:
            return None
        key_id = request.headers.get(SSE_KEY) or MANAGED_KEY
        return self._use(key_id, "GenerateDataKey", identity, region)

    def check_read(self, request: Request, reply: Reply, identity: Identity, region: str) -> None:
        """Judge the key of an object that was read, before its bytes go out.

        Raises:
            Refusal: The key is not there, not enabled, or not the caller's to use.
        """
        key = reply.header(SSE_KEY)
        # HEAD decrypts nothing, unless it is asked for the checksum.
        wants_plaintext = request.method == "GET" or "x-amz-checksum-mode" in request.headers
        if key is not None and wants_plaintext:
            self._use(key, "Decrypt", identity, region)

    def named_key(self, document: Mapping[str, Any], region: str) -> str | None:
        """Return the ARN of the key that a direct KMS call names, if it names one that exists."""
        key_id = document.get("KeyId")
        blob = document.get("CiphertextBlob")
        if key_id is None and isinstance(blob, str):
            key_id = self._backend.ciphertext_key(blob)
        found = self._backend.find_key(key_id, region) if isinstance(key_id, str) else None
        return None if found is None else found[0]

    def check_call(self, operation: str, key: str, region: str) -> None:
        """Judge the state of the key of a direct KMS call.

        Raises:
            Refusal: A cryptographic operation on a key that is not enabled.
        """
        if operation in _CRYPTOGRAPHIC:
            self._check_state(key, region, prefix="")

    def for_moto(
        self, request: Request, operation: str, document: Mapping[str, Any], key: str
    ) -> Request:
        """Name the key by its bare id where moto knows it by no other name."""
        if operation not in _BARE_ID_ONLY:
            return request
        bare = {**document, "KeyId": key.rpartition("/")[2]}
        return replace(request, body=json.dumps(bare).encode())

    def _upload_key(self, request: Request, asked: S3Request) -> str | None:
        upload_id = request.parameter("uploadId")
        if asked.bucket is None or upload_id is None:
            return None
        return self._backend.upload_key(asked.bucket, upload_id)

    def _use(self, key_id: str, operation: str, identity: Identity, region: str) -> str:
        """Judge the use of a key by S3 on behalf of an identity, and return the key's ARN."""
        arn = self._check_state(key_id, region, prefix="KMS.")
        action = f"kms:{operation}"
        if not identity.allows(action, arn):
            raise Refusal(403, "AccessDenied", identity.denial(action, arn))
        return arn

    def _check_state(self, key_id: str, region: str, prefix: str) -> str:
        found = self._backend.find_key(key_id, region)
        if found is None:
            raise Refusal(400, f"{prefix}NotFoundException", f"Key '{key_id}' does not exist")
        arn, state = found
        if state in _STATES:
            code, words = _STATES[state]
            raise Refusal(400, prefix + code, f"{arn} {words}")
        return arn


# CompleteMultipartUpload may come again after it has succeeded.
_ON_UPLOADS = frozenset({"UploadPart", "UploadPartCopy", "ListParts", "AbortMultipartUpload"})


class S3Gate:
    """Judges S3 requests, and mends moto's answers."""

    def __init__(self, backend: Backend, kms: KMSRules) -> None:
        self._backend = backend
        self._kms = kms

    def answer(self, request: Request, asked: S3Request, identity: Identity, region: str) -> Reply:
        """Answer an S3 request of a proved identity.

        Args:
            request: The request.
            asked: The same, understood.
            identity: Who asks.
            region: The region it was signed for.

        Raises:
            Refusal: What S3 would refuse.
        """
        self._check_region(asked, region)
        for action, resource in asked.permissions(request):
            require(identity, "s3", action, resource)
        self._check_policy(request, asked, identity)
        self._check_upload(request, asked)
        key = self._kms.key_for_write(request, asked, identity, region)
        reply = self._backend.answer(request, "s3", region, key)
        if reply.status == 404 and asked.operation in ("GetObject", "HeadObject"):
            # "If you don't have the s3:ListBucket permission, S3 returns 403": GetObject, API
            # Reference. Otherwise an answer would reveal that the object exists.
            require(identity, "s3", "s3:ListBucket", f"arn:aws:s3:::{asked.bucket}")
        reply = self._with_key(request, asked, reply)
        self._kms.check_read(request, reply, identity, region)
        return reply

    def _with_key(self, request: Request, asked: S3Request, reply: Reply) -> Reply:
        """Add the key of an object under DSSE-KMS, which moto leaves out of the headers."""
        if reply.header(SSE) != "aws:kms:dsse" or reply.header(SSE_KEY) or not asked.key:
            return reply
        version = request.parameter("versionId")
        key = self._backend.object_kms_key(asked.bucket or "", asked.key, version)
        return replace(reply, headers=(*reply.headers, (SSE_KEY, key))) if key else reply

    def _check_region(self, asked: S3Request, region: str) -> None:
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

    def _check_upload(self, request: Request, asked: S3Request) -> None:
        """Refuse work on a multipart upload that is over, where moto would fail."""
        upload_id = request.parameter("uploadId")
        if asked.operation not in _ON_UPLOADS or asked.bucket is None or upload_id is None:
            return
        if not self._backend.has_upload(asked.bucket, upload_id):
            raise Refusal(404, "NoSuchUpload", "The specified upload does not exist.")

    def _check_policy(self, request: Request, asked: S3Request, identity: Identity) -> None:
        """Apply the DenyUnEncryptedObjectUploads statement of CodePipeline's bucket policy."""
        if asked.operation not in WRITES or request.headers.get(SSE) in _SSE_KMS:
            return
        if not identity.allows("s3:PutBucketPolicy", f"arn:aws:s3:::{asked.bucket}"):
            message = (
                f"User: {identity.arn} is not authorized to perform: s3:PutObject on resource: "
                f'"{asked.resource}" with an explicit deny in a resource-based policy'
            )
            refuse("denied", "s3", message)


# Operations whose permission is not called as they are.
_PERMISSIONS = {
    "HeadObject": "GetObject",
    "CopyObject": "PutObject",
    "CreateMultipartUpload": "PutObject",
    "UploadPart": "PutObject",
    "UploadPartCopy": "PutObject",
    "CompleteMultipartUpload": "PutObject",
    "ListParts": "ListMultipartUploadParts",
    "HeadBucket": "ListBucket",
    "ListObjects": "ListBucket",
    "ListObjectsV2": "ListBucket",
    "ListObjectVersions": "ListBucketVersions",
    "ListMultipartUploads": "ListBucketMultipartUploads",
    "ListBuckets": "ListAllMyBuckets",
}
_VERSIONED = frozenset({"GetObject", "DeleteObject", "GetObjectTagging"})


@dataclass(frozen=True)
class S3Request:
    """An S3 request, understood.

    Attributes:
        operation: The API's name of the operation.
        bucket: The bucket named in the path.
        key: The object key, decoded.
    """

    operation: str
    bucket: str | None = None
    key: str | None = None

    @property
    def resource(self) -> str:
        """The ARN that the permission is asked on."""
        if self.bucket is None:
            return "*"
        return f"arn:aws:s3:::{self.bucket}" + (f"/{self.key}" if self.key else "")

    def permissions(self, request: Request) -> Iterator[tuple[str, str]]:
        """Yield each action and resource that the request needs to be allowed."""
        action = _PERMISSIONS.get(self.operation, self.operation)
        if action in _VERSIONED and request.parameter("versionId"):
            action = action.replace("Object", "ObjectVersion", 1)
        yield f"s3:{action}", self.resource
        if "x-amz-tagging" in request.headers:
            yield "s3:PutObjectTagging", self.resource
        if "x-amz-acl" in request.headers:
            yield "s3:PutObjectAcl", self.resource
        source = request.headers.get("x-amz-copy-source")
        if source is not None:
            path = unquote(source.partition("?")[0]).lstrip("/")
            yield "s3:GetObject", f"arn:aws:s3:::{path}"


def understand(request: Request) -> S3Request:
    """Recognise the operation, bucket and key of an S3 request."""
    bucket, _, key = request.path.lstrip("/").partition("/")
    level = "key" if key else "bucket" if bucket else "service"
    present = {name for name, _ in request.query} | set(request.headers)
    present |= {f"{name}={value}" for name, value in request.query}
    candidates = [
        (len(needed), name)
        for name, needed in _bindings().get((request.method, level), ())
        if needed <= present
    ]
    operation = max(candidates, default=(0, f"{request.method} {level}"), key=lambda c: c[0])[1]
    return S3Request(operation, unquote(bucket) or None, unquote(key) or None)


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
