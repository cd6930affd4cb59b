"""S3 as the pipeline's bucket is: what moto leaves out of it.

Region, permissions, the bucket policy that refuses unencrypted uploads, SSE-KMS under a key that
may be used, and AccessDenied in place of NoSuchKey for who may not list.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cpstage.local.kms_rules import SSE, WRITES, KMSRules
from cpstage.local.refusals import refuse, require
from cpstage.local.wire import Refusal, Reply, Request

if TYPE_CHECKING:
    from cpstage.local.backend import Backend
    from cpstage.local.identities import Identity
    from cpstage.local.s3_requests import S3Request

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
            # Reference. Otherwise an answer would tell whether the object exists.
            require(identity, "s3", "s3:ListBucket", f"arn:aws:s3:::{asked.bucket}")
        self._kms.check_read(request, reply, identity, region)
        return reply

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
        if asked.operation not in WRITES or request.headers.get(SSE) == "aws:kms":
            return
        if not identity.allows("s3:PutBucketPolicy", f"arn:aws:s3:::{asked.bucket}"):
            message = (
                f"User: {identity.arn} is not authorized to perform: s3:PutObject on resource: "
                f'"{asked.resource}" with an explicit deny in a resource-based policy'
            )
            refuse("denied", "s3", message)
