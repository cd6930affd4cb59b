"""What an S3 request asks for: operation, bucket, key, and the permissions it takes.

Operations are recognised by the HTTP bindings of botocore's S3 service model, permissions follow
"Required permissions for Amazon S3 API operations" of the S3 User Guide. Buckets are named in
the path: on a loopback address there is no other way.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING
from urllib.parse import unquote

from botocore.loaders import Loader
from botocore.model import OperationModel, ServiceModel

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cpstage.local.wire import Request

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
