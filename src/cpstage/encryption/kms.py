"""KMS keys: which may decrypt a message, its encryption context, and the calls to KMS.

The SDK's own master keys and providers turn every answer of KMS into "unable to decrypt any data
key", and accept no client whose credentials a job refreshes. Its keyrings come with the Material
Providers Library, which triples the import time. Calling KMS by boto3 keeps the reason of a
refusal, and needs no permission beyond the operation itself.

Anyone can write a message header, so KMS is called only with keys that the caller or the job names,
or with keys of one account. The encryption context is plain text in the header and in CloudTrail;
KMS decrypts a data key only with the same context.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from cpstage.aws.client import Answer, AwsClient, Check, has
from cpstage.aws.errors import CALLER_EXPIRED_HINT, SESSION_EXPIRED_HINT, ServiceError, aws_failures
from cpstage.errors import AccessDenied, ArtifactRejected, ConfigurationError, ServiceUnavailable
from cpstage.job.masking import SecretBytes

Clients = Callable[["str | None"], AwsClient]
"""Returns the KMS client of a region; None is the pipeline's region."""

_DATA_KEY_BYTES = 32

_ARN = re.compile(
    r"arn:(?P<partition>aws[a-z-]*):kms:(?P<region>[a-z0-9-]{1,32}):(?P<account>[0-9]{12}):"
    r"(?P<resource>(?:key|alias)/[A-Za-z0-9:/_-]{1,256})"
)
_KEY_HINT = "check which key it is, its state, and its account and region"
_KEY_UNUSABLE = {
    *("DisabledException", "IncorrectKeyException", "InvalidArnException"),
    *("InvalidKeyUsageException", "KMSInvalidStateException", "NotFoundException"),
}
_CHANGED = "InvalidCiphertextException"


class Arn(NamedTuple):
    """The ARN of a KMS key or alias."""

    partition: str
    region: str
    account: str
    resource: str

    def text(self) -> str:
        """Return the ARN as text."""
        return f"arn:{self.partition}:kms:{self.region}:{self.account}:{self.resource}"


class WrappedKey(NamedTuple):
    """A data key, encrypted under the KMS key with this ARN."""

    arn: str
    blob: bytes


def parse_arn(text: str) -> Arn | None:
    """Read the ARN of a KMS key or alias; None for any other text."""
    match = _ARN.fullmatch(text)
    return Arn(**match.groupdict()) if match else None


def related(one: Arn, other: Arn) -> bool:
    """Whether two ARNs are those of one key, or of replicas of one multi-region key.

    All replicas have one id, which begins with ``mrk-``, in one account (AWS KMS Developer Guide,
    "Multi-Region keys in AWS KMS").
    """
    if one == other:
        return True
    is_multi_region = one.resource.startswith("key/mrk-")
    return is_multi_region and one == other._replace(region=one.region)


def replicas(arn: str, region: str | None) -> list[str]:
    """Return the ARNs under which a key may be asked: first that of its replica in a region."""
    found = parse_arn(arn)
    if found is None or region is None or not found.resource.startswith("key/mrk-"):
        return [arn]
    return list(dict.fromkeys((found._replace(region=region).text(), arn)))


class Kms(NamedTuple):
    """The three KMS operations that encrypted messages need; their errors name the key.

    A key is named by any of the four forms that KMS takes: ARN, bare id, alias ARN, alias name.
    """

    clients: Clients

    def generate(self, key_id: str, context: Mapping[str, str]) -> tuple[SecretBytes, WrappedKey]:
        """Make a data key, and return it in plaintext and wrapped (GenerateDataKey)."""
        doing = f"encrypt under the KMS key {key_id}"
        parameters = {"NumberOfBytes": _DATA_KEY_BYTES, "EncryptionContext": {**context}}
        check = has("KeyId", "CiphertextBlob", "Plaintext")
        answer = self._call(doing, "GenerateDataKey", key_id, parameters, check)
        wrapped = WrappedKey(_key_arn(answer, doing), answer["CiphertextBlob"])
        return SecretBytes(answer["Plaintext"]), wrapped

    def wrap(self, key_id: str, data_key: SecretBytes, context: Mapping[str, str]) -> WrappedKey:
        """Wrap a data key under one more key (Encrypt)."""
        doing = f"encrypt under the KMS key {key_id}"
        parameters = {"Plaintext": data_key, "EncryptionContext": {**context}}
        check = has("KeyId", "CiphertextBlob")
        answer = self._call(doing, "Encrypt", key_id, parameters, check)
        return WrappedKey(_key_arn(answer, doing), answer["CiphertextBlob"])

    def unwrap(self, key_id: str, wrapped: WrappedKey, context: Mapping[str, str]) -> SecretBytes:
        """Decrypt a wrapped data key, with the named key and no other (Decrypt).

        Raises:
            ArtifactRejected: The encrypted data key or the context was changed.
        """
        doing = f"decrypt with the KMS key {key_id}"
        parameters = {"CiphertextBlob": wrapped.blob, "EncryptionContext": {**context}}
        answer = self._call(doing, "Decrypt", key_id, parameters, has("KeyId", "Plaintext"))
        used = _key_arn(answer, doing)
        if not _same_key(used, wrapped.arn):
            raise ArtifactRejected(
                f"the encrypted message names the KMS key {wrapped.arn}, but {used} decrypted it"
            )
        return SecretBytes(answer["Plaintext"])

    def _call(
        self, doing: str, operation: str, key_id: str, parameters: Mapping[str, Any], check: Check
    ) -> Answer:
        """Call KMS; its own code stays in the message of a refusal."""
        client = self._client(key_id)
        is_of_job = client.credentials is not None  # local files are the caller's
        who = "the job's session" if is_of_job else "the caller's policy"
        denied_hint = f"{who} and the key's policy have to allow kms:{operation} on it"
        expired_hint = SESSION_EXPIRED_HINT if is_of_job else CALLER_EXPIRED_HINT
        with aws_failures(doing, denied_hint=denied_hint, expired_hint=expired_hint):
            try:
                return client.call(operation, {"KeyId": key_id, **parameters}, check=check)
            except ServiceError as error:
                what = error.text(doing)
                if error.code in _KEY_UNUSABLE:
                    raise AccessDenied(what, hint=_KEY_HINT) from error
                if error.code == _CHANGED:
                    raise ArtifactRejected(what) from error
                raise

    def _client(self, key_id: str) -> AwsClient:
        arn = parse_arn(key_id)
        if arn is None and (not key_id or key_id.startswith("arn:")):
            raise ConfigurationError(
                f"{key_id!r} is not the ARN of a KMS key or alias",
                hint="arn:aws:kms:REGION:ACCOUNT:key/ID is one",
            )
        return self.clients(arn.region if arn else None)


def _same_key(used: str, wrapped_under: str) -> bool:
    one, other = parse_arn(used), parse_arn(wrapped_under)
    return one is not None and other is not None and related(one, other)


def _key_arn(answer: Answer, doing: str) -> str:
    """Return the ARN of the key that was used; other text must not be shown."""
    found = str(answer["KeyId"])
    if parse_arn(found) is None:
        raise ServiceUnavailable(f"cannot {doing}: KMS answered a KeyId that is not an ARN")
    return found


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


_PREFIX = "cpstage:"
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
        "account": account,
        "pipeline": pipeline,
        "stage": stage,
        "action": action,
        "artifact": artifact,
    }
    return {f"{_PREFIX}{name}": value for name, value in parts.items() if value}


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
