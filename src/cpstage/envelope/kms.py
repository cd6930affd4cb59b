"""KMS: data keys made, wrapped and unwrapped, and what its refusals mean.

The SDK's own master keys turn every answer of KMS into "unable to decrypt any data key". Calling
KMS ourselves keeps the reason, and needs no permission beyond the operation itself. This module
knows nothing of messages.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from cpstage.errors import AccessDenied, ArtifactRejected, ConfigurationError
from cpstage.failures import SESSION_EXPIRED_HINT, aws_failures

if TYPE_CHECKING:
    from mypy_boto3_kms import KMSClient

Clients = Callable[["str | None"], "KMSClient"]
"""Gives a client for a region; None asks for the pipeline's."""

_DATA_KEY_BYTES = 32

_ARN = re.compile(
    r"arn:(?P<partition>aws[a-z-]*):kms:(?P<region>[a-z0-9-]{1,32}):(?P<account>[0-9]{12}):"
    r"(?P<resource>(?:key|alias)/[A-Za-z0-9:/_-]{1,256})"
)
_KEY_HINT = "check which key it is, its state, and its account and region"
_KEY_UNUSABLE = {
    "DisabledException",
    "IncorrectKeyException",
    "InvalidArnException",
    "InvalidKeyUsageException",
    "KMSInvalidStateException",
    "NotFoundException",
}
_NOT_AS_SEALED = "InvalidCiphertextException"


class Arn(NamedTuple):
    """The ARN of a KMS key or alias."""

    partition: str
    region: str
    account: str
    resource: str


class WrappedKey(NamedTuple):
    """A data key, encrypted under the KMS key with this ARN."""

    arn: str
    blob: bytes


def parse_arn(text: str) -> Arn | None:
    """Read the ARN of a KMS key or alias; None for a bare id, an alias name, or nonsense."""
    match = _ARN.fullmatch(text)
    return Arn(**match.groupdict()) if match else None


@dataclass(frozen=True)
class Kms:
    """The three calls that envelopes need.

    A key may be named by any of the four forms that KMS takes: ARN, bare id, alias ARN, alias name.
    """

    clients: Clients

    def generate(self, key_id: str, context: Mapping[str, str]) -> tuple[bytes, WrappedKey]:
        """Have a data key made, and return it in plaintext and wrapped (GenerateDataKey).

        Raises:
            AccessDenied, ServiceUnavailable, ConfigurationError: As KMS says, naming the key.
        """
        with _failures(f"seal under the KMS key {key_id}", "kms:GenerateDataKey"):
            answer = self._client(key_id).generate_data_key(
                KeyId=key_id, NumberOfBytes=_DATA_KEY_BYTES, EncryptionContext=context
            )
        return answer["Plaintext"], WrappedKey(answer["KeyId"], answer["CiphertextBlob"])

    def wrap(self, key_id: str, data_key: bytes, context: Mapping[str, str]) -> WrappedKey:
        """Have a data key wrapped under one more key (Encrypt).

        Raises:
            AccessDenied, ServiceUnavailable, ConfigurationError: As KMS says, naming the key.
        """
        with _failures(f"seal under the KMS key {key_id}", "kms:Encrypt"):
            answer = self._client(key_id).encrypt(
                KeyId=key_id, Plaintext=data_key, EncryptionContext=context
            )
        return WrappedKey(answer["KeyId"], answer["CiphertextBlob"])

    def unwrap(self, key_id: str, wrapped: WrappedKey, context: Mapping[str, str]) -> bytes:
        """Have a wrapped data key decrypted, by the named key and no other (Decrypt).

        Raises:
            ArtifactRejected: The wrapped key or the context is not what was sealed.
            AccessDenied, ServiceUnavailable, ConfigurationError: As KMS says, naming the key.
        """
        with _failures(f"open the envelope with the KMS key {key_id}", "kms:Decrypt"):
            answer = self._client(key_id).decrypt(
                KeyId=key_id, CiphertextBlob=wrapped.blob, EncryptionContext=context
            )
        if answer["KeyId"] != wrapped.arn:
            raise ArtifactRejected(
                f"the envelope names the KMS key {wrapped.arn}, but {answer['KeyId']} opened it"
            )
        return answer["Plaintext"]

    def _client(self, key_id: str) -> KMSClient:
        arn = parse_arn(key_id)
        if arn is None and key_id.startswith("arn:"):
            raise ConfigurationError(
                f"{key_id!r} is not the ARN of a KMS key or alias",
                hint="arn:aws:kms:REGION:ACCOUNT:key/ID is one",
            )
        return self.clients(arn.region if arn else None)


@contextmanager
def _failures(doing: str, permission: str) -> Iterator[None]:
    """Translate what KMS refuses, with its own code in the message."""
    from botocore.exceptions import ClientError

    hint = f"the job's session and the key's policy have to allow {permission} on it"
    with aws_failures(doing, denied_hint=hint, expired_hint=SESSION_EXPIRED_HINT):
        try:
            yield
        except ClientError as error:
            answer = error.response["Error"]
            what = f"cannot {doing}: {answer['Code']}: {answer.get('Message') or 'no message'}"
            if answer["Code"] in _KEY_UNUSABLE:
                raise AccessDenied(what.rstrip("."), hint=_KEY_HINT) from error
            if answer["Code"] == _NOT_AS_SEALED:
                raise ArtifactRejected(what.rstrip(".")) from error
            raise
