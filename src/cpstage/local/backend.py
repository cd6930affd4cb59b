"""moto: S3, KMS, STS and IAM, and the rules of S3 and KMS that moto leaves out.

Requests go to moto as WSGI calls. Its state is global to the process, so that only one local AWS
can live in a process at a time.

Of S3, the rules are region, permissions, a bucket policy that refuses unencrypted uploads, SSE-KMS
under an enabled key, and AccessDenied in place of NoSuchKey for callers without s3:ListBucket.
Permissions follow "Required permissions for Amazon S3 API operations" (S3 User Guide). Buckets are
named in the path. A KMS key must exist in the region and be enabled ("Key states of AWS KMS keys",
KMS Developer Guide).
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import threading
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, Literal, NamedTuple, cast
from urllib.parse import unquote

from flask import Flask
from moto.core.base_backend import BackendDict
from moto.core.routing import RestRouter
from moto.core.utils import get_service_model
from moto.kms.models import kms_backends
from moto.moto_server.werkzeug_app import create_backend_app
from moto.s3.models import S3Backend, s3_backends
from werkzeug.exceptions import NotFound
from werkzeug.wrappers import Response

from cpstage.local.access import ACCOUNT, Identity, Refusal, Request, refuse

MANAGED_KEY = "alias/aws/s3"
SSE = "x-amz-server-side-encryption"
SSE_KEY = "x-amz-server-side-encryption-aws-kms-key-id"

_PARTITION = "aws"
_Service = Literal["iam", "kms", "s3", "sts"]
_CRYPTOGRAPHIC = {"Decrypt", "Encrypt", "GenerateDataKey", "GenerateDataKeyWithoutPlaintext"}
_BARE_ID_ONLY = {"DisableKey", "EnableKey", "ScheduleKeyDeletion", "CancelKeyDeletion"}
_STATES = {
    "Disabled": ("DisabledException", "is disabled."),
    "PendingDeletion": ("KMSInvalidStateException", "is pending deletion."),
}

_SSE_KMS = {"aws:kms", "aws:kms:dsse"}
_WRITES = {"PutObject", "CopyObject", "CreateMultipartUpload"}
_PARTS = {"UploadPart", "UploadPartCopy"}
# CompleteMultipartUpload may come again after it has succeeded.
_ON_UPLOADS = _PARTS | {"ListParts", "AbortMultipartUpload"}

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
_VERSIONED = {"GetObject", "DeleteObject", "GetObjectTagging"}


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

    def permissions(self, request: Request) -> Iterator[tuple[str, str]]:
        """Yield each action and resource that a request to S3 needs to be allowed."""
        action = _PERMISSIONS.get(self.operation, self.operation)
        if action in _VERSIONED and request.args.get("versionId"):
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


def s3_operation(request: Request) -> Operation:
    """Recognise a request to S3 by the HTTP bindings of botocore's model."""
    bucket, _, key = request.raw_path.lstrip("/").partition("/")
    try:
        operation = _s3_router().match(cast("Any", request))[0].name
    except NotFound:
        operation = f"{request.method} {'key' if key else 'bucket' if bucket else 'service'}"
    return Operation("s3", operation, unquote(bucket) or None, unquote(key) or None)


@cache
def _s3_router() -> RestRouter:
    return RestRouter(get_service_model("s3"))


class Backend:
    """moto in this process."""

    def __init__(self) -> None:
        self._key_lock = threading.Lock()
        # moto changes its lists of parts and versions without locks: an abort beside UploadPart,
        # or a delete beside ListObjectVersions, ends in a 500.
        self._moto_lock = threading.Lock()

    @staticmethod
    def clear() -> None:
        """Empty every account of moto."""
        BackendDict.reset()

    def answer(
        self,
        request: Request,
        service: str,
        region: str,
        *,
        body: bytes | None = None,
        key_arn: str | None = None,
    ) -> Response:
        """Let moto answer a request that is allowed.

        A body takes the place of the client's, and a KMS key that of the one in an S3 request.
        """
        sent = request.get_data() if body is None else body
        environ = dict(request.environ)
        environ["wsgi.input"] = io.BytesIO(sent)
        environ["CONTENT_LENGTH"] = str(len(sent))
        environ.pop("HTTP_TRANSFER_ENCODING", None)
        # moto reads the region from a signature in the header only.
        scope = f"AKIDLOCAL/20150830/{region}/{service}/aws4_request"
        environ["HTTP_AUTHORIZATION"] = f"AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host"
        if "X-Amz-Signature" in request.args:
            environ["QUERY_STRING"] = request.unsigned_query
            environ["RAW_URI"] = f"{request.raw_path}?{request.unsigned_query}"
        if key_arn is not None:
            environ["HTTP_X_AMZ_SERVER_SIDE_ENCRYPTION_AWS_KMS_KEY_ID"] = key_arn
        with self._moto_lock:
            reply = Response.from_app(_application(service), environ, buffered=True)
        # moto lets every web page read its answers; we do not.
        for name in [*reply.headers.keys(lower=True)]:
            if name.startswith("access-control-"):
                reply.headers.remove(name)
        return reply

    @property
    def _s3(self) -> S3Backend:
        return s3_backends[ACCOUNT][_PARTITION]

    def create_bucket(self, name: str, region: str) -> None:
        """Make a versioned bucket in a region."""
        self._s3.create_bucket(name, region)
        self._s3.put_bucket_versioning(name, "Enabled")

    def bucket_region(self, name: str) -> str | None:
        """Return the region of a bucket, or None if there is no such bucket."""
        bucket = self._s3.buckets.get(name)
        return None if bucket is None else str(bucket.region_name)

    def put_object(
        self, bucket: str, key: str, body: bytes, content_type: str | None, key_arn: str
    ) -> None:
        """Store an object encrypted under a KMS key, as an earlier action of the pipeline did."""
        # moto would work the ETag out on the first read, and not safely between threads.
        etag = hashlib.md5(body, usedforsecurity=False).hexdigest()
        stored = self._s3.put_object(
            bucket, key, body, etag=etag, encryption="aws:kms", kms_key_id=key_arn
        )
        stored.set_metadata({"content-type": content_type or "binary/octet-stream"})

    def answer_s3(
        self, request: Request, asked: Operation, identity: Identity, region: str
    ) -> Response:
        """Answer an S3 request of a proved identity.

        Raises:
            Refusal: S3 would refuse it.
        """
        self._check_region(asked, region)
        for action, resource in asked.permissions(request):
            identity.require(action, resource)
        is_write = asked.operation in _WRITES
        has_kms = request.headers.get(SSE) in _SSE_KMS
        if is_write and not has_kms:
            _check_policy(asked, identity)
        self._check_upload(request, asked, identity, region)
        key = None
        if is_write and has_kms:
            key_id = request.headers.get(SSE_KEY) or MANAGED_KEY
            key = self._use_key(key_id, "GenerateDataKey", identity, region)
        try:
            reply = self.answer(request, "s3", region, key_arn=key)
        except KeyError:  # moto does not look whether there is such an upload
            self._check_upload(request, asked, identity, region)
            raise
        if reply.status_code == 404 and asked.operation in ("GetObject", "HeadObject"):
            # "If you don't have the s3:ListBucket permission, S3 returns 403": GetObject, API
            # Reference. Otherwise an answer would reveal that the object exists.
            identity.require("s3:ListBucket", f"arn:aws:s3:::{asked.bucket}")
        is_dsse = reply.headers.get(SSE) == "aws:kms:dsse"
        if is_dsse and SSE_KEY not in reply.headers and asked.bucket and asked.key:
            # moto leaves the key out of the headers of an object under DSSE-KMS.
            found = self._s3.get_object(asked.bucket, asked.key, request.args.get("versionId"))
            if found and found.kms_key_id:
                reply.headers[SSE_KEY] = str(found.kms_key_id)
        # HEAD decrypts nothing, unless it is asked for the checksum.
        wants_plaintext = request.method == "GET" or "x-amz-checksum-mode" in request.headers
        if SSE_KEY in reply.headers and wants_plaintext:
            self._use_key(reply.headers[SSE_KEY], "Decrypt", identity, region)
        return reply

    def _check_region(self, asked: Operation, region: str) -> None:
        if asked.bucket is None or asked.operation == "CreateBucket":
            return
        home = self.bucket_region(asked.bucket)
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
        key = self.upload_key(asked.bucket, upload_id)
        if asked.operation in _PARTS and key is not None:
            self._use_key(key, "Decrypt", identity, region)

    def upload_key(self, bucket: str, upload_id: str) -> str | None:
        """Return the KMS key of a multipart upload.

        Raises:
            Refusal: There is no such upload, or it is over.
        """
        found = self._s3.buckets[bucket].multiparts.get(upload_id)
        if found is None:
            raise Refusal(404, "NoSuchUpload", "The specified upload does not exist.")
        return None if found.kms_key_id is None else str(found.kms_key_id)

    def _use_key(self, key_id: str, operation: str, identity: Identity, region: str) -> str:
        """Judge the use of a key by S3 on behalf of an identity, and return the key's ARN."""
        arn = self.enabled_key(key_id, region, prefix="KMS.")
        action = f"kms:{operation}"
        if not identity.allows(action, arn):
            raise Refusal(403, "AccessDenied", identity.denial(action, arn))
        return arn

    def create_key(self, region: str, description: str) -> str:
        """Make a KMS key and return its ARN."""
        key = kms_backends[ACCOUNT][region].create_key(
            None, "ENCRYPT_DECRYPT", "SYMMETRIC_DEFAULT", description, None
        )
        return str(key.arn)

    def find_key(self, key_id: str, region: str) -> tuple[str, str] | None:
        """Resolve a key id, key ARN, alias name or alias ARN in a region.

        Returns:
            The key's ARN and state, or None if the region has no such key.
        """
        if key_id.startswith("arn:") and key_id.split(":")[3:5] != [region, ACCOUNT]:
            return None
        backend = kms_backends[ACCOUNT][region]
        name = key_id.split(":", 5)[-1].removeprefix("key/")
        with self._key_lock:
            # An AWS managed key comes into being when its alias is first asked for.
            known = backend.get_key_id_from_alias(name) if name.startswith("alias/") else name
        key = backend.keys.get(known) if known else None
        return None if key is None else (str(key.arn), str(key.key_state))

    def enabled_key(self, key_id: str, region: str, prefix: str = "") -> str:
        """Return the ARN of a key; S3 puts a prefix before the error codes of KMS.

        Raises:
            Refusal: The key does not exist, or is not enabled.
        """
        found = self.find_key(key_id, region)
        if found is None:
            raise Refusal(400, f"{prefix}NotFoundException", f"Key '{key_id}' does not exist")
        arn, state = found
        if state in _STATES:
            code, words = _STATES[state]
            raise Refusal(400, prefix + code, f"{arn} {words}")
        return arn

    def answer_kms(
        self, request: Request, operation: str, identity: Identity, region: str
    ) -> Response:
        """Answer a direct call of KMS.

        Raises:
            Refusal: The call is denied, or is a cryptographic operation on a key that is not
                enabled.
        """
        document = json_object(request.get_data())
        key = self._named_key(document, region)
        identity.require(f"kms:{operation}", key or "*")
        body = None
        if key is not None:
            if operation in _CRYPTOGRAPHIC:
                self.enabled_key(key, region)
            if operation in _BARE_ID_ONLY:  # moto knows the key by no other name there
                body = json.dumps({**document, "KeyId": key.rpartition("/")[2]}).encode()
        return self.answer(request, "kms", region, body=body)

    def _named_key(self, document: Mapping[str, Any], region: str) -> str | None:
        """Return the ARN of the key that a call names, if it names one that exists."""
        key_id, blob = document.get("KeyId"), document.get("CiphertextBlob")
        if key_id is None and isinstance(blob, str):
            try:
                # moto's blob begins with the key's id in text.
                key_id = base64.b64decode(blob)[:36].decode("ascii")
            except ValueError:
                return None
        found = self.find_key(key_id, region) if isinstance(key_id, str) else None
        return found[0] if found else None


def _check_policy(asked: Operation, identity: Identity) -> None:
    """Apply the DenyUnEncryptedObjectUploads statement of CodePipeline's bucket policy."""
    if not identity.allows("s3:PutBucketPolicy", f"arn:aws:s3:::{asked.bucket}"):
        message = (
            f"User: {identity.arn} is not authorized to perform: s3:PutObject on resource: "
            f'"{asked.resource}" with an explicit deny in a resource-based policy'
        )
        refuse("denied", "s3", message)


def json_object(body: bytes) -> dict[str, Any]:
    """Return the JSON object of a body; an empty one if it has none."""
    try:
        document = json.loads(body)
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}


@cache
def _application(service: str) -> Flask:
    """Make moto's application for one service; moto's own dispatcher takes longer to find it."""
    return create_backend_app(cast("_Service", service))
