"""Encrypt a stream into one message of the AWS Encryption SDK, or decrypt one, frame by frame.

Memory holds one frame. The encryption context binds the message to its place in a pipeline. Every
frame is authenticated before it is returned. The message is complete after the last frame: publish
the plaintext only when the iterator has ended.

The SDK gets its data keys from :class:`KmsMaterials`, over our own calls to KMS. The SDK's own
master keys and providers turn every answer of KMS into "unable to decrypt any data key", and accept
no client whose credentials a job refreshes. Its keyrings come with the Material Providers Library,
which triples the import time. Calling KMS by boto3 keeps the reason of a refusal, and needs no
permission beyond the operation itself. Importing the SDK costs a third of a second: this module is
imported on first use.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO, NamedTuple

from aws_encryption_sdk import CommitmentPolicy, EncryptionSDKClient
from aws_encryption_sdk.exceptions import (
    ActionNotAllowedError,
    AWSEncryptionSDKClientError,
    CustomMaximumValueExceeded,
    MaxEncryptedDataKeysExceeded,
    SerializationError,
)
from aws_encryption_sdk.identifiers import AlgorithmSuite
from aws_encryption_sdk.materials_managers import DecryptionMaterials, EncryptionMaterials
from aws_encryption_sdk.materials_managers.base import CryptoMaterialsManager
from aws_encryption_sdk.structures import DataKey, EncryptedDataKey, MasterKeyInfo
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from cpstage.aws.client import (
    CALLER_EXPIRED_HINT,
    SESSION_EXPIRED_HINT,
    Answer,
    AwsClient,
    ServiceError,
    aws_failures,
    has,
)
from cpstage.encryption.header import (
    AllowedKeys,
    Header,
    WrappedKey,
    check_found,
    check_new,
    parse_arn,
    read_header,
    related,
)
from cpstage.errors import (
    AccessDenied,
    ArtifactRejected,
    ConfigurationError,
    CpstageError,
    InternalError,
    ServiceUnavailable,
)
from cpstage.job.model import SecretBytes

Clients = Callable[["str | None"], AwsClient]
"""Returns the KMS client of a region; None is the pipeline's region."""

MOST_KEYS = 5
"""Encrypted data keys of one message: each can cost the reader a call to KMS."""

FRAME_LENGTH = 256 << 10
"""Measured by tools/benchmarks/encryption.py: almost twice as fast as 64 KiB, since each frame has
a cost in the SDK; longer frames are no faster. A reader holds one frame in memory."""

LONGEST_FRAME = 16 << 20
"""Bytes. A frame, or the body of a message without frames, is held in memory."""

_PROVIDER = "aws-kms"
_PUBLIC_KEY = "aws-crypto-public-key"
_SHOWN = 200
"""Characters of a key's name in an error: the writer of the message chose its length."""

_ANSWERS = {
    "GenerateDataKey": ("KeyId", "CiphertextBlob", "Plaintext"),
    "Encrypt": ("KeyId", "CiphertextBlob"),
    "Decrypt": ("KeyId", "Plaintext"),
}
"""Members that the answers of KMS have."""


_KEY_HINT = "check which key it is, its state, and its account and region"
_KEY_UNUSABLE = {
    *("DisabledException", "IncorrectKeyException", "InvalidArnException"),
    *("InvalidKeyUsageException", "KMSInvalidStateException", "NotFoundException"),
}
_CHANGED = "InvalidCiphertextException"


class EncryptedMessage(NamedTuple):
    """A message that is being encrypted: its header, and an iterator over all its bytes."""

    header: Header
    chunks: Iterator[bytes]


def encrypt(
    chunks: Iterable[bytes],
    *,
    key_ids: Sequence[str],
    context: Mapping[str, str],
    kms: Clients,
    frame_length: int = FRAME_LENGTH,
) -> EncryptedMessage:
    """Encrypt a stream under KMS keys, with a key-committing suite without signature.

    KMS is called before this function returns: an unusable key stops an upload before its start.

    Args:
        chunks: The plaintext. An exception of the iterator is passed on.
        key_ids: The keys, each of which can decrypt the message: ARNs, bare ids or aliases, of
            any region and account. The first makes the data key.
        context: The encryption context.
        kms: Returns the KMS client of a region.
        frame_length: Bytes of plaintext in a frame.

    Raises:
        ConfigurationError: There are no keys or too many, or the context is invalid.
        AccessDenied, ServiceUnavailable: As KMS says, with its own code.
    """
    if not 0 < len(key_ids) <= MOST_KEYS:
        raise ConfigurationError(
            f"cannot encrypt under {len(key_ids)} KMS keys", hint=f"give 1 to {MOST_KEYS} of them"
        )
    check_new(context)
    policy = CommitmentPolicy.REQUIRE_ENCRYPT_REQUIRE_DECRYPT
    client = EncryptionSDKClient(commitment_policy=policy, max_encrypted_data_keys=MOST_KEYS)
    stream = client.stream(
        mode="e",
        source=_Source(chunks),
        materials_manager=KmsMaterials(kms, AllowedKeys(key_ids), {}),
        encryption_context=dict(context),
        algorithm=AlgorithmSuite.AES_256_GCM_HKDF_SHA512_COMMIT_KEY,
        frame_length=frame_length,
    )
    try:
        _ = stream.header  # calls KMS, and writes the header into the buffer
    except SerializationError as error:
        raise ConfigurationError(f"cannot encrypt with this encryption context: {error}") from error
    header = read_header(stream.output_buffer)
    if header is None:
        raise InternalError("the SDK wrote a header that cannot be read")
    return EncryptedMessage(header, _ciphertext(stream, frame_length))


def _ciphertext(stream: Any, frame_length: int) -> Iterator[bytes]:
    # A read of one frame's length takes one frame of plaintext: more would be sliced over again.
    while chunk := stream.read(frame_length):
        yield chunk
        # Otherwise the overhead of each frame stays in the SDK's buffer and is copied again.
        if rest := stream.read(len(stream.output_buffer)):
            yield rest


class _Source:
    """An iterator of bytes as the file object that the SDK reads."""

    closed = False

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = iter(chunks)
        self._rest = memoryview(b"")

    def read(self, length: int) -> bytes:
        """Return up to ``length`` bytes; no bytes at the end."""
        while not self._rest:
            chunk = next(self._chunks, None)
            if chunk is None:
                return b""
            self._rest = memoryview(chunk)
        piece, self._rest = self._rest[:length], self._rest[length:]
        return bytes(piece)


def decrypt(
    source: BinaryIO,
    *,
    context: Mapping[str, str],
    key_ids: Sequence[str],
    account_id: str | None = None,
    partition: str = "aws",
    region: str | None = None,
    kms: Clients,
    requires_commitment: bool = True,
) -> Iterator[bytes]:
    """Return the plaintext of a message, to be published only after the iterator has ended.

    Args:
        source: The message, with no bytes after it; read once, in order.
        context: Pairs that the message's encryption context must have.
        key_ids: The keys that may decrypt it: ARNs, bare ids or aliases.
        account_id: An account whose keys may decrypt it too.
        partition: The partition of that account.
        region: Where replicas of multi-region keys are asked first.
        kms: Returns the KMS client of a region.
        requires_commitment: Whether a message without key commitment is refused.

    Raises:
        ArtifactRejected: The message was changed, cut or extended, is bound to another artifact, or
            is over a limit.
        AccessDenied: It is encrypted under another key, or KMS refuses; with KMS's own code.
        ServiceUnavailable, ConfigurationError: As KMS says, naming the key.
    """
    policy = CommitmentPolicy.REQUIRE_ENCRYPT_REQUIRE_DECRYPT
    if not requires_commitment:
        policy = CommitmentPolicy.REQUIRE_ENCRYPT_ALLOW_DECRYPT
    allowed = AllowedKeys(key_ids, account_id, partition, region)
    client = EncryptionSDKClient(commitment_policy=policy, max_encrypted_data_keys=MOST_KEYS)
    stream = client.stream(
        mode="d",
        source=source,
        materials_manager=KmsMaterials(kms, allowed, context),
        max_body_length=LONGEST_FRAME,
    )
    try:
        with _refusals():
            # A read of one frame's length is one frame: longer ones are sliced over again.
            length = stream.header.frame_length or LONGEST_FRAME
            chunk = stream.read(length)
        while chunk:
            yield chunk
            with _refusals():
                chunk = stream.read(length)
        with _refusals():
            stream.close()  # raises before the last frame was reached
        if source.read(1):
            raise ArtifactRejected("bytes follow the end of the encrypted message")
    finally:
        # Without this, the SDK complains on stderr about a message that was not read to its end.
        io.IOBase.close(stream)


_REFUSALS: tuple[tuple[type[Exception], str], ...] = (
    (MaxEncryptedDataKeysExceeded, f"the message is encrypted under more than {MOST_KEYS} keys"),
    (
        CustomMaximumValueExceeded,
        f"the encrypted message has frames of more than {LONGEST_FRAME >> 20} MiB",
    ),
    (InvalidTag, "the encrypted message was changed"),
    (InvalidSignature, "the signature of the encrypted message is wrong"),
    (ActionNotAllowedError, "the message is encrypted without key commitment"),
)
_COMMITMENT_HINT = (
    "if it is from a writer that you trust, allow it with "
    "--commitment-policy require-encrypt-allow-decrypt"
)


@contextmanager
def _refusals() -> Iterator[None]:
    """Translate the exceptions of the SDK for a changed message."""
    try:
        yield
    except (AWSEncryptionSDKClientError, InvalidTag, InvalidSignature) as error:
        why = error.args[0] if error.args else type(error).__name__
        other = f"the encrypted message is damaged or cut: {why}".rstrip(".")
        what = next((what for kind, what in _REFUSALS if isinstance(error, kind)), other)
        hint = _COMMITMENT_HINT if isinstance(error, ActionNotAllowedError) else None
        raise ArtifactRejected(what, hint=hint) from error
    except (LookupError, ValueError) as error:  # a field that the SDK read without looking at it
        raise ArtifactRejected(f"the encrypted message is damaged: {error}") from error


@dataclass
class KmsMaterials(CryptoMaterialsManager):  # type: ignore[misc] # the SDK has no types
    """Wraps data keys under all allowed KMS keys, and unwraps them with the first that can.

    Attributes:
        kms: Returns the KMS client of a region.
        allowed: The keys.
        expected: The pairs that the encryption context of a message to decrypt must have.
    """

    kms: Clients
    allowed: AllowedKeys
    expected: Mapping[str, str]

    def get_encryption_materials(self, request: Any) -> EncryptionMaterials:
        """Make a data key with the first key, and wrap it under the others.

        Raises:
            AccessDenied, ServiceUnavailable, ConfigurationError: As KMS says, naming the key.
        """
        context = request.encryption_context
        first, *others = self.allowed.key_ids
        made = self._encrypted(first, "GenerateDataKey", context, NumberOfBytes=32)
        plaintext = SecretBytes(made["Plaintext"])
        answers = [made]
        answers += [self._encrypted(one, "Encrypt", context, Plaintext=plaintext) for one in others]
        wrapped = [WrappedKey(one["KeyId"], one["CiphertextBlob"]) for one in answers]
        return EncryptionMaterials(
            algorithm=request.algorithm,
            data_encryption_key=_data_key(plaintext, wrapped[0]),
            encrypted_data_keys={
                EncryptedDataKey(MasterKeyInfo(_PROVIDER, one.arn), one.blob) for one in wrapped
            },
            encryption_context=context,
        )

    def decrypt_materials(self, request: Any) -> DecryptionMaterials:
        """Decrypt the data key of a message, after checking its context and its keys.

        Raises:
            ArtifactRejected: The context differs, or KMS finds a wrapped key damaged.
            AccessDenied: No allowed key decrypted the data key.
            ServiceUnavailable, ConfigurationError: As KMS says, naming the key.
        """
        context = request.encryption_context
        check_found(context, self.expected)
        wrapped = [
            WrappedKey(
                key.key_provider.key_info.decode(errors="backslashreplace"), key.encrypted_data_key
            )
            for key in request.encrypted_data_keys
            if key.key_provider.provider_id == _PROVIDER
        ]
        plaintext, used = self._unwrapped(wrapped, context)
        if len(plaintext.reveal()) != request.algorithm.data_key_len:
            raise SerializationError("the data key is not as long as the algorithm's")
        return DecryptionMaterials(
            data_key=_data_key(plaintext, used),
            verification_key=_verification_key(request.algorithm, context),
        )

    def _unwrapped(
        self, wrapped: Sequence[WrappedKey], context: Mapping[str, str]
    ) -> tuple[SecretBytes, WrappedKey]:
        failures: list[CpstageError] = []
        for key_id, one in self.allowed.calls(wrapped):
            try:
                return self._decrypted(key_id, one, context), one
            except CpstageError as error:
                failures.append(error)
        if not failures:
            names = ", ".join(sorted(one.arn[:_SHOWN] for one in wrapped))
            raise AccessDenied(
                f"the message is encrypted under {names or 'keys that are not in KMS'}; "
                f"allowed keys: {self.allowed}",
                hint="if you trust that key, allow it with --decrypt-key",
            )
        first = failures[0]
        raise type(first)("; ".join(one.message for one in failures), hint=first.hint) from first

    def _encrypted(
        self, key_id: str, operation: str, context: Mapping[str, str], **parameters: Any
    ) -> Answer:
        """Make or encrypt a data key under a key (GenerateDataKey, Encrypt)."""
        parameters["EncryptionContext"] = {**context}
        return self._call(f"encrypt under the KMS key {key_id}", operation, key_id, parameters)

    def _decrypted(
        self, key_id: str, wrapped: WrappedKey, context: Mapping[str, str]
    ) -> SecretBytes:
        """Decrypt a wrapped data key, with the named key and no other (Decrypt)."""
        doing = f"decrypt with the KMS key {key_id}"
        parameters = {"CiphertextBlob": wrapped.blob, "EncryptionContext": {**context}}
        answer = self._call(doing, "Decrypt", key_id, parameters)
        used = answer["KeyId"]
        if not related(parse_arn(used), parse_arn(wrapped.arn)):
            raise ArtifactRejected(
                f"the encrypted message names the KMS key {wrapped.arn}, but {used} decrypted it"
            )
        return SecretBytes(answer["Plaintext"])

    def _call(
        self, doing: str, operation: str, key_id: str, parameters: Mapping[str, Any]
    ) -> Answer:
        """Call KMS; its own code stays in the message of a refusal.

        A key is named by any of the four forms that KMS takes: ARN, bare id, alias ARN, alias name.
        """
        arn = parse_arn(key_id)
        if arn is None and (not key_id or key_id.startswith("arn:")):
            raise ConfigurationError(
                f"{key_id!r} is not the ARN of a KMS key or alias",
                hint="arn:aws:kms:REGION:ACCOUNT:key/ID is one",
            )
        client = self.kms(arn.region if arn else None)
        is_of_job = client.credentials is not None  # local files are the caller's
        who = "the job's session" if is_of_job else "the caller's policy"
        denied_hint = f"{who} and the key's policy have to allow kms:{operation} on it"
        expired_hint = SESSION_EXPIRED_HINT if is_of_job else CALLER_EXPIRED_HINT
        with aws_failures(doing, denied_hint=denied_hint, expired_hint=expired_hint):
            try:
                check = has(*_ANSWERS[operation])
                answer = client.call(operation, {"KeyId": key_id, **parameters}, check=check)
            except ServiceError as error:
                what = error.text(doing)
                if error.code in _KEY_UNUSABLE:
                    raise AccessDenied(what, hint=_KEY_HINT) from error
                if error.code == _CHANGED:
                    raise ArtifactRejected(what) from error
                raise
        if parse_arn(str(answer["KeyId"])) is None:  # other text must not be shown
            raise ServiceUnavailable(f"cannot {doing}: KMS answered a KeyId that is not an ARN")
        return answer


def _data_key(plaintext: SecretBytes, wrapped: WrappedKey) -> DataKey:
    return DataKey(MasterKeyInfo(_PROVIDER, wrapped.arn), plaintext.reveal(), wrapped.blob)


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
