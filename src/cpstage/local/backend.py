"""moto: the S3, KMS, STS and IAM behind the gate, and all that we know of its insides.

Requests go to moto as WSGI calls, already judged by the gate. Its state is global to the
process, so that only one local AWS can live in a process at a time.
"""

from __future__ import annotations

import base64
import hashlib
import io
import threading
from functools import cache
from typing import Literal, cast
from urllib.parse import urlencode

from flask import Flask
from moto.core.base_backend import BackendDict
from moto.kms.models import kms_backends
from moto.moto_server.werkzeug_app import create_backend_app
from moto.s3.models import s3_backends
from werkzeug.test import run_wsgi_app

from cpstage.local.identities import ACCOUNT
from cpstage.local.wire import Reply, Request

MANAGED_KEY = "alias/aws/s3"
_PARTITION = "aws"
_Service = Literal["iam", "kms", "s3", "sts"]
_PRESIGNED = frozenset(
    {
        "x-amz-algorithm",
        "x-amz-credential",
        "x-amz-date",
        "x-amz-expires",
        "x-amz-security-token",
        "x-amz-signature",
        "x-amz-signedheaders",
    }
)


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
        self, request: Request, service: str, region: str, key_arn: str | None = None
    ) -> Reply:
        """Let moto answer a request that the gate has let through.

        Args:
            request: The request.
            service: Its service: `s3`, `kms`, `sts` or `iam`.
            region: The region it was signed for.
            key_arn: The KMS key to put in place of the one the client named, for S3.
        """
        environ = dict(request.environ)
        environ["wsgi.input"] = io.BytesIO(request.body)
        environ["CONTENT_LENGTH"] = str(len(request.body))
        environ.pop("HTTP_TRANSFER_ENCODING", None)
        # moto reads the region from a signature in the header only.
        scope = f"AKIDLOCAL/20150830/{region}/{service}/aws4_request"
        environ["HTTP_AUTHORIZATION"] = f"AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host"
        if request.parameter("X-Amz-Signature") is not None:
            kept = [pair for pair in request.query if pair[0].lower() not in _PRESIGNED]
            environ["QUERY_STRING"] = urlencode(kept)
            environ["RAW_URI"] = f"{request.path}?{urlencode(kept)}"
        if key_arn is not None:
            environ["HTTP_X_AMZ_SERVER_SIDE_ENCRYPTION_AWS_KMS_KEY_ID"] = key_arn
        with self._moto_lock:
            content, status, headers = run_wsgi_app(_application(service), environ, buffered=True)
            body = b"".join(content)
        # moto lets every web page read its answers; we do not.
        kept_headers = [
            (name, value)
            for name, value in headers
            if not name.lower().startswith("access-control-")
        ]
        return Reply(int(status.split(" ", 1)[0]), tuple(kept_headers), body)

    def create_bucket(self, name: str, region: str) -> None:
        """Make a versioned bucket in a region."""
        backend = s3_backends[ACCOUNT][_PARTITION]
        backend.create_bucket(name, region)
        backend.put_bucket_versioning(name, "Enabled")

    def bucket_region(self, name: str) -> str | None:
        """Return the region of a bucket, or None if there is no such bucket."""
        bucket = s3_backends[ACCOUNT][_PARTITION].buckets.get(name)
        return None if bucket is None else str(bucket.region_name)

    def put_object(
        self, bucket: str, key: str, body: bytes, content_type: str | None, key_arn: str
    ) -> None:
        """Store an object encrypted under a KMS key, as an earlier action of the pipeline did."""
        # moto would work the ETag out on the first read, and not safely between threads.
        etag = hashlib.md5(body, usedforsecurity=False).hexdigest()
        stored = s3_backends[ACCOUNT][_PARTITION].put_object(
            bucket, key, body, etag=etag, encryption="aws:kms", kms_key_id=key_arn
        )
        stored.set_metadata({"content-type": content_type or "binary/octet-stream"})

    def object_kms_key(self, bucket: str, key: str, version_id: str | None) -> str | None:
        """Return the ARN of the KMS key of an object, if it has one."""
        found = s3_backends[ACCOUNT][_PARTITION].get_object(bucket, key, version_id)
        return None if found is None or found.kms_key_id is None else str(found.kms_key_id)

    def has_upload(self, bucket: str, upload_id: str) -> bool:
        """Whether a multipart upload is under way."""
        return upload_id in s3_backends[ACCOUNT][_PARTITION].buckets[bucket].multiparts

    def upload_key(self, bucket: str, upload_id: str) -> str | None:
        """Return the KMS key of a multipart upload, or None if there is no such upload."""
        found = s3_backends[ACCOUNT][_PARTITION].buckets[bucket].multiparts.get(upload_id)
        return None if found is None else found.kms_key_id

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

    def managed_key(self, region: str) -> str:
        """Return the ARN of the AWS managed key of S3, which is made on demand."""
        found = self.find_key(MANAGED_KEY, region)
        if found is None:
            raise LookupError(f"moto has no {MANAGED_KEY} in {region}")
        return found[0]

    def ciphertext_key(self, blob: str) -> str | None:
        """Return the id of the KMS key that a ciphertext in base64 was made under, if legible."""
        # moto's blob begins with the key's id in text.
        try:
            return base64.b64decode(blob)[:36].decode("ascii")
        except ValueError:
            return None


@cache
def _application(service: str) -> Flask:
    """Make moto's application for one service; moto's own dispatcher takes longer to find it."""
    return create_backend_app(cast("_Service", service))
