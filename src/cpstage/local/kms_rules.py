"""The rules of KMS that moto leaves out, for S3's server-side encryption and for direct calls.

A key must exist in the region, be enabled, and be the caller's to use ("SSE-KMS" in the S3 User
Guide, "Key states of AWS KMS keys" in the KMS Developer Guide).
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from cpstage.local.backend import MANAGED_KEY, Backend
from cpstage.local.wire import Refusal, Reply, Request

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cpstage.local.identities import Identity
    from cpstage.local.s3_rules import S3Request

SSE = "x-amz-server-side-encryption"
SSE_KEY = "x-amz-server-side-encryption-aws-kms-key-id"
SSE_BUCKET_KEY = "x-amz-server-side-encryption-bucket-key-enabled"
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
        if asked.operation not in WRITES or request.headers.get(SSE) != "aws:kms":
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
