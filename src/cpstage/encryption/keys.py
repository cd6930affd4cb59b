"""The KMS keys that may decrypt a message, and the encryption context that binds it to an artifact.

Anyone can write a message header, so KMS is called only with keys that the caller or the job names,
or with keys of one account. The encryption context is plain text in the header and in CloudTrail;
KMS decrypts a data key only with the same context.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from cpstage.encryption.kms import WrappedKey, parse_arn, related, replicas
from cpstage.errors import ArtifactRejected, ConfigurationError


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
