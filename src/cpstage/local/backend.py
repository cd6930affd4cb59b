"""moto: S3, KMS, STS and IAM behind the gate, and the rules of KMS that moto leaves out.

Requests go to moto as WSGI calls. Its state is global to the process, so that only one local AWS
can live in a process at a time. A KMS key must exist in the region and be enabled ("Key states of
AWS KMS keys", KMS Developer Guide).
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import threading
from collections.abc import Mapping
from functools import cache
from typing import Any, Literal, cast

from flask import Flask
from moto.core.base_backend import BackendDict
from moto.kms.models import kms_backends
from moto.moto_server.werkzeug_app import create_backend_app
from moto.s3.models import S3Backend, s3_backends
from werkzeug.wrappers import Response

from cpstage.local.access import ACCOUNT, Identity, Refusal, Request

MANAGED_KEY = "alias/aws/s3"
_PARTITION = "aws"
_Service = Literal["iam", "kms", "s3", "sts"]
_CRYPTOGRAPHIC = {"Decrypt", "Encrypt", "GenerateDataKey", "GenerateDataKeyWithoutPlaintext"}
_BARE_ID_ONLY = {"DisableKey", "EnableKey", "ScheduleKeyDeletion", "CancelKeyDeletion"}
_STATES = {
    "Disabled": ("DisabledException", "is disabled."),
    "PendingDeletion": ("KMSInvalidStateException", "is pending deletion."),
}


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
        """Let moto answer a request that the gate has admitted.

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

    def object_kms_key(self, bucket: str, key: str, version_id: str | None) -> str | None:
        """Return the ARN of the KMS key of an object, if it has one."""
        found = self._s3.get_object(bucket, key, version_id)
        return None if found is None or found.kms_key_id is None else str(found.kms_key_id)

    def upload_key(self, bucket: str, upload_id: str) -> str | None:
        """Return the KMS key of a multipart upload.

        Raises:
            Refusal: There is no such upload, or it is over.
        """
        found = self._s3.buckets[bucket].multiparts.get(upload_id)
        if found is None:
            raise Refusal(404, "NoSuchUpload", "The specified upload does not exist.")
        return None if found.kms_key_id is None else str(found.kms_key_id)

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
