"""Where the SDK gets its data keys from: its cryptographic materials manager, over our KMS calls.

This module and its parent class need the SDK, whose import costs a third of a second: it is
imported on first use. Refusals of KMS reach the user with KMS's own text.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

from aws_encryption_sdk.exceptions import SerializationError
from aws_encryption_sdk.materials_managers import DecryptionMaterials, EncryptionMaterials
from aws_encryption_sdk.materials_managers.base import CryptoMaterialsManager
from aws_encryption_sdk.structures import DataKey, EncryptedDataKey, MasterKeyInfo
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from cpstage.encryption.kms import AllowedKeys, Kms, WrappedKey, check_found
from cpstage.errors import AccessDenied, CpstageError
from cpstage.job.masking import SecretBytes

_PROVIDER = "aws-kms"
_PUBLIC_KEY = "aws-crypto-public-key"
_SHOWN = 200


class KmsMaterials(CryptoMaterialsManager):  # type: ignore[misc] # the SDK has no types
    """Has data keys wrapped under all of some KMS keys, and unwrapped by the first that can.

    Args:
        kms: The calls.
        allowed: The keys.
        expected: The pairs that the context of a message to open must have.
    """

    def __init__(self, kms: Kms, allowed: AllowedKeys, expected: Mapping[str, str]) -> None:
        self._kms = kms
        self._allowed = allowed
        self._expected = expected

    def get_encryption_materials(self, request: Any) -> EncryptionMaterials:
        """Have a data key made by the first key, and wrapped by the others.

        Raises:
            AccessDenied, ServiceUnavailable, ConfigurationError: As KMS says, naming the key.
        """
        context = request.encryption_context
        first, *others = self._allowed.key_ids
        plaintext, made = self._kms.generate(first, context)
        wrapped = [made, *(self._kms.wrap(key_id, plaintext, context) for key_id in others)]
        return EncryptionMaterials(
            algorithm=request.algorithm,
            data_encryption_key=_data_key(plaintext, made),
            encrypted_data_keys={
                EncryptedDataKey(MasterKeyInfo(_PROVIDER, one.arn), one.blob) for one in wrapped
            },
            encryption_context=context,
        )

    def decrypt_materials(self, request: Any) -> DecryptionMaterials:
        """Decrypt the data key of a message, after checking its context and its keys.

        Raises:
            ArtifactRejected: The context differs, or KMS finds a wrapped key damaged.
            AccessDenied: No key that may open the message did.
            ServiceUnavailable, ConfigurationError: As KMS says, naming the key.
        """
        context = request.encryption_context
        check_found(context, self._expected)
        wrapped = [
            WrappedKey(_text(key.key_provider.key_info), key.encrypted_data_key)
            for key in request.encrypted_data_keys
            if key.key_provider.provider_id == _PROVIDER
        ]
        plaintext, used = self._unwrap(wrapped, context)
        if len(plaintext.reveal()) != request.algorithm.data_key_len:
            raise SerializationError("the data key is not as long as the algorithm's")
        return DecryptionMaterials(
            data_key=_data_key(plaintext, used),
            verification_key=_verification_key(request.algorithm, context),
        )

    def _unwrap(
        self, wrapped: Sequence[WrappedKey], context: Mapping[str, str]
    ) -> tuple[SecretBytes, WrappedKey]:
        failures: list[CpstageError] = []
        for key_id, one in self._allowed.calls(wrapped):
            try:
                return self._kms.unwrap(key_id, one, context), one
            except CpstageError as error:
                failures.append(error)
        if not failures:
            raise AccessDenied(
                f"the message is encrypted under {_names(wrapped)}; allowed keys: {self._allowed}",
                hint="if you trust that key, allow it with --decrypt-key",
            )
        first = failures[0]
        raise type(first)("; ".join(one.message for one in failures), hint=first.hint) from first


def _data_key(plaintext: SecretBytes, wrapped: WrappedKey) -> DataKey:
    return DataKey(MasterKeyInfo(_PROVIDER, wrapped.arn), plaintext.reveal(), wrapped.blob)


def _names(wrapped: Sequence[WrappedKey]) -> str:
    """Return the key names of a message, cut: the writer of the message chose their length."""
    return ", ".join(sorted(one.arn[:_SHOWN] for one in wrapped)) or "keys that are not in KMS"


def _text(key_info: bytes) -> str:
    return key_info.decode(errors="backslashreplace")


def _verification_key(algorithm: Any, context: Mapping[str, str]) -> bytes | None:
    """Return the public key of a signed message, which its context carries (DER)."""
    encoded = context.get(_PUBLIC_KEY)
    if algorithm.is_signing() != (encoded is not None):
        raise SerializationError("the context has a signature's key, or none, against the suite")
    if encoded is None:
        return None
    point = EllipticCurvePublicKey.from_encoded_point(
        algorithm.signing_algorithm_info(), base64.b64decode(encoded)
    )
    der: bytes = point.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return der
