"""The header of an encrypted message: reading it, the keys that it names, and its context.

It follows the "AWS Encryption SDK message format reference", versions 1 and 2, and is read without
KMS and without the SDK. Nothing in it is authentic before the message is decrypted: it serves to
recognise messages, and to describe an artifact. Objects of the Amazon S3 Encryption Client, which
cpstage does not decrypt, are recognised by their metadata.

Anyone can write a message header, so KMS is called only with keys that the caller or the job names,
or with keys of one account. The encryption context is plain text in the header and in CloudTrail;
KMS decrypts a data key only with the same context.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from cpstage.errors import ArtifactRejected, ConfigurationError

HEAD_BYTES = 256 << 10
"""A message is recognised if its header ends in so many bytes."""

_TYPE = 0x80
_NOT_FRAMED, _FRAMED = 1, 2
_IV_BYTES, _TAG_BYTES, _COMMITMENT_BYTES = 12, 16, 32
_MESSAGE_ID_BYTES = {1: 16, 2: 32}
_LONGEST_FRAME = (1 << 31) - 1

_ALGORITHMS = {
    (1, 0x0014): "AES_128_GCM_IV12_TAG16",
    (1, 0x0046): "AES_192_GCM_IV12_TAG16",
    (1, 0x0078): "AES_256_GCM_IV12_TAG16",
    (1, 0x0114): "AES_128_GCM_IV12_TAG16_HKDF_SHA256",
    (1, 0x0146): "AES_192_GCM_IV12_TAG16_HKDF_SHA256",
    (1, 0x0178): "AES_256_GCM_IV12_TAG16_HKDF_SHA256",
    (1, 0x0214): "AES_128_GCM_IV12_TAG16_HKDF_SHA256_ECDSA_P256",
    (1, 0x0346): "AES_192_GCM_IV12_TAG16_HKDF_SHA384_ECDSA_P384",
    (1, 0x0378): "AES_256_GCM_IV12_TAG16_HKDF_SHA384_ECDSA_P384",
    (2, 0x0478): "AES_256_GCM_HKDF_SHA512_COMMIT_KEY",
    (2, 0x0578): "AES_256_GCM_HKDF_SHA512_COMMIT_KEY_ECDSA_P384",
}
"""The suites by message format version and algorithm id ("Algorithms reference")."""


class Header(NamedTuple):
    """The header of a message, as the message has it.

    Attributes:
        version: The message format version, 1 or 2.
        algorithm: The algorithm suite's name.
        context: The encryption context.
        keys: Under which keys the data key is wrapped: ARNs of KMS keys, and
            ``provider/name`` for others.
        frame_length: Bytes of plaintext in a frame; 0 for a body that is not framed.
        length: Bytes of the header itself.
    """

    version: int
    algorithm: str
    context: Mapping[str, str]
    keys: tuple[str, ...]
    frame_length: int
    length: int

    def document(self) -> dict[str, Any]:
        """Return the header's facts for the manifest and for JSON."""
        return {
            "format": f"AWS Encryption SDK, message format {self.version}",
            "algorithm": self.algorithm,
            "keys": list(self.keys),
            "encryption_context": dict(self.context),
            "frame_length": self.frame_length,
        }


def read_header(head: bytes) -> Header | None:
    """Return the header at the start of an object; None where it is not complete, or not a header.

    The first :data:`HEAD_BYTES` bytes suffice.
    """
    try:
        return _header(_Fields(head[:HEAD_BYTES]))
    except ValueError:
        return None


class _Fields(io.BytesIO):
    """Consecutive big-endian fields; raises ``ValueError`` where the bytes end too early."""

    def take(self, length: int) -> bytes:
        data = self.read(length)
        _require(len(data) == length)
        return data

    def number(self, length: int) -> int:
        return int.from_bytes(self.take(length), "big")

    def counted(self) -> bytes:
        return self.take(self.number(2))


def _header(fields: _Fields) -> Header:
    version = fields.number(1)
    if version == 1:
        _require(fields.number(1) == _TYPE)
    algorithm = _ALGORITHMS.get((version, fields.number(2)), "")
    _require(algorithm != "")
    fields.take(_MESSAGE_ID_BYTES[version])
    context = _context(fields.counted())
    keys = tuple(_wrapping_key(fields) for _ in range(fields.number(2)))
    _require(len(keys) > 0)
    content_type = fields.number(1)
    if version == 1:
        _require(fields.number(4) == 0 and fields.number(1) == _IV_BYTES)
    frame_length = fields.number(4)
    is_framed = content_type == _FRAMED and 0 < frame_length <= _LONGEST_FRAME
    _require(is_framed or (content_type == _NOT_FRAMED and frame_length == 0))
    fields.take(_IV_BYTES if version == 1 else _COMMITMENT_BYTES)
    fields.take(_TAG_BYTES)
    return Header(version, algorithm, context, keys, frame_length, fields.tell())


def _context(data: bytes) -> dict[str, str]:
    """Read the encryption context; its field is empty without pairs."""
    if not data:
        return {}
    fields = _Fields(data)
    count = fields.number(2)
    pairs = [(fields.counted().decode(), fields.counted().decode()) for _ in range(count)]
    context = dict(pairs)
    _require(not fields.read() and len(context) == count > 0)
    return context


def _wrapping_key(fields: _Fields) -> str:
    provider, name = fields.counted().decode(), fields.counted()
    fields.counted()
    shown = name.decode(errors="backslashreplace")
    return shown if provider == "aws-kms" else f"{provider}/{shown}"


def _require(holds: bool) -> None:
    if not holds:
        raise ValueError("a field is cut, or has a value that it cannot have")


_FORMATS = (("x-amz-c", 3), ("x-amz-key-v2", 2), ("x-amz-cek-alg", 2), ("x-amz-key", 1))
"""Metadata names, and the format version that they show (S3 Encryption Client specification,
Content Metadata)."""

S3_CLIENT_HINT = (
    "get it with an Amazon S3 Encryption Client and the key it was encrypted with, or fetch it "
    "as it is with --no-decrypt"
)


def s3_client_object(metadata: Mapping[str, str]) -> str | None:
    """Describe an object of the S3 Encryption Client by its metadata; None for any other object.

    Names of metadata are in lower case, without ``x-amz-meta-``.
    """
    for name, version in _FORMATS:
        if name in metadata:
            return f"encrypted by the Amazon S3 Encryption Client (format version {version})"
    return None


_ARN = re.compile(
    r"arn:(?P<partition>aws[a-z-]*):kms:(?P<region>[a-z0-9-]{1,32}):(?P<account>[0-9]{12}):"
    r"(?P<resource>(?:key|alias)/[A-Za-z0-9:/_-]{1,256})"
)


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
    """Read the ARN of a KMS key or alias; None for any other text."""
    match = _ARN.fullmatch(text)
    return Arn(**match.groupdict()) if match else None


def related(one: Arn | None, other: Arn | None) -> bool:
    """Whether two ARNs are those of one key, or of replicas of one multi-region key.

    All replicas have one id, which begins with ``mrk-``, in one account (AWS KMS Developer Guide,
    "Multi-Region keys in AWS KMS").
    """
    if one is None or other is None:
        return False
    is_multi_region = one.resource.startswith("key/mrk-")
    return one == (other._replace(region=one.region) if is_multi_region else other)


def is_key(key_id: str, arn: str) -> bool:
    """Whether the key with an ARN is the one that was named, as far as its name tells."""
    named = parse_arn(key_id)
    if named is None:
        return key_id.startswith("alias/") or arn.endswith(f":key/{key_id}")
    return named.resource.startswith("alias/") or related(named, parse_arn(arn))


def replicas(arn: str, region: str | None) -> list[str]:
    """Return the ARNs under which a key may be asked: first that of its replica in a region."""
    found = parse_arn(arn)
    if found is None or region is None or not found.resource.startswith("key/mrk-"):
        return [arn]
    near = ":".join(("arn", found.partition, "kms", region, found.account, found.resource))
    return list(dict.fromkeys((near, arn)))


class AllowedKeys(NamedTuple):
    """The keys that may decrypt a message.

    Attributes:
        key_ids: Key ids, ARNs or aliases; they are tried first.
        account_id: An account whose keys are all allowed, in any region.
        partition: The partition of that account.
        region: Where replicas of multi-region keys are asked first.
    """

    key_ids: Sequence[str]
    account_id: str | None = None
    partition: str = "aws"
    region: str | None = None

    def calls(self, wrapped: Iterable[WrappedKey]) -> list[tuple[str, WrappedKey]]:
        """Return the calls to KMS in order: which key decrypts which encrypted data key.

        KMS resolves a bare id or an alias, and refuses a data key that another key encrypted, so
        kms:Decrypt is enough to follow an alias.
        """
        known = sorted(wrapped)
        named = [(name, one) for name in self.key_ids for one in known if _may_be(name, one.arn)]
        found = [
            (name, one)
            for one in known
            if self._in_account(one.arn)
            for name in replicas(one.arn, self.region)
        ]
        return list(dict.fromkeys(named + found))

    def __str__(self) -> str:
        parts = list(self.key_ids)
        if self.account_id:
            parts.append(f"any key of account {self.account_id}")
        return ", ".join(parts) or "no key"

    def _in_account(self, text: str) -> bool:
        arn = parse_arn(text)
        return (
            arn is not None
            and arn.resource.startswith("key/")
            and (arn.partition, arn.account) == (self.partition, self.account_id)
        )


def _may_be(name: str, text: str) -> bool:
    """Whether a key id, ARN or alias can mean the key with this ARN."""
    named, arn = parse_arn(name), parse_arn(text)
    if arn is None or not arn.resource.startswith("key/"):
        return False
    if named is None:
        return name.startswith("alias/") or arn.resource == f"key/{name}"
    return related(named, arn) or (named.resource.startswith("alias/") and named[:3] == arn[:3])


_RESERVED = "aws-crypto-"
_SHOWN = 100
"""Characters of a value in an error: the writer of the message chose its length."""


def job_context(
    *,
    account: str | None = None,
    pipeline: str | None = None,
    stage: str | None = None,
    action: str | None = None,
    artifact: str | None = None,
) -> dict[str, str]:
    """Return the pairs that name a place in a pipeline; None leaves a pair out.

    A message is encrypted with all pairs. A later action knows the account, the pipeline and the
    artifact, but not the stage and the action that encrypted it, so it compares those three.
    """
    parts = {
        "cpstage:account": account,
        "cpstage:pipeline": pipeline,
        "cpstage:stage": stage,
        "cpstage:action": action,
        "cpstage:artifact": artifact,
    }
    return {name: value for name, value in parts.items() if value}


def check_new(context: Mapping[str, str]) -> None:
    """Check the encryption context of a new message.

    Raises:
        ConfigurationError: A name is empty, or reserved by the AWS Encryption SDK.
    """
    for name in context:
        if not name or name.startswith(_RESERVED):
            raise ConfigurationError(
                f"the encryption context cannot have a pair named {name!r}",
                hint=f"choose a name that does not begin with {_RESERVED}",
            )


def check_found(found: Mapping[str, str], expected: Mapping[str, str]) -> None:
    """Check that the context of a message has the expected pairs; it may have more.

    Raises:
        ArtifactRejected: A pair is missing or differs.
    """
    for name, value in expected.items():
        if name not in found:
            raise ArtifactRejected(
                f"the message is bound to another artifact: its encryption context has no {name}"
            )
        if found[name] != value:
            raise ArtifactRejected(
                "the message is bound to another artifact: its encryption context says "
                f"{name} is {_short(found[name])}, not {_short(value)}"
            )


def _short(value: str) -> str:
    return repr(value if len(value) <= _SHOWN else value[:_SHOWN] + "…")
