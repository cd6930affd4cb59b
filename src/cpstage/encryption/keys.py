"""Which KMS keys may open a message: those that were named, or every key of one account.

The header of a message names the keys that it was sealed under, and anybody can write a header.
So a name in it is never asked for its own sake, only where it is one of these. This module makes no
calls.

The encryption context: what binds a message to the artifact that it was sealed for.

The pairs are plain text in the header and in the log of KMS; the data key can only be unwrapped
with the same pairs, and the header is authentic only with them. This module knows names and values,
and nothing of how a message is made.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from cpstage.encryption.kms import WrappedKey, parse_arn, related, replicas
from cpstage.errors import ArtifactRejected, ConfigurationError


@dataclass(frozen=True)
class Trust:
    """The keys that may open a message.

    Attributes:
        key_ids: Keys by name, in any form that KMS takes; they are tried first.
        account_id: An account whose keys are all good, in any region; None for no such account.
        partition: The partition of that account.
        region: Where replicas of multi-region keys are asked first.
    """

    key_ids: Sequence[str]
    account_id: str | None = None
    partition: str = "aws"
    region: str | None = None

    def ways(self, wrapped: Iterable[WrappedKey]) -> list[tuple[str, WrappedKey]]:
        """Return what to ask KMS, in order: by which name of a key to unwrap which data key.

        KMS itself resolves a bare id or an alias, and refuses to decrypt under it what another
        key encrypted: so the right to decrypt is enough to follow an alias.
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
    """Whether a key's name can stand for the key with this ARN."""
    named, arn = parse_arn(name), parse_arn(text)
    if arn is None or not arn.resource.startswith("key/"):
        return False
    if named is None:
        return name.startswith("alias/") or arn.resource == f"key/{name}"
    return related(named, arn) or (named.resource.startswith("alias/") and named[:3] == arn[:3])


_PREFIX = "cpstage:"
_RESERVED = "aws-crypto-"
_SHOWN = 100
"""How much of a value a message shows: whoever made the envelope chose its length."""


def job_context(
    *,
    account: str | None = None,
    pipeline: str | None = None,
    stage: str | None = None,
    action: str | None = None,
    artifact: str | None = None,
) -> dict[str, str]:
    """Return the pairs that stand for a place in a pipeline; what is None has none.

    All of them bind a message that is sealed. A later action knows the account, the pipeline and
    the artifact, but neither which stage nor which action sealed it, and so compares those three.
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
    """Make sure that a context may be sealed with.

    Raises:
        ConfigurationError: A name is empty, or one that the AWS Encryption SDK keeps to itself.
    """
    for name in context:
        if not name or name.startswith(_RESERVED):
            raise ConfigurationError(
                f"the encryption context cannot have a pair named {name!r}",
                hint=f"choose a name that does not begin with {_RESERVED}",
            )


def check_found(found: Mapping[str, str], expected: Mapping[str, str]) -> None:
    """Compare the context of a message with what it should have; it may have more.

    Raises:
        ArtifactRejected: A pair is missing or differs.
    """
    for name, value in expected.items():
        if name not in found:
            raise ArtifactRejected(
                f"the envelope was sealed for something else: its encryption context has no {name}"
            )
        if found[name] != value:
            raise ArtifactRejected(
                "the envelope was sealed for something else: its encryption context says "
                f"{name} is {_short(found[name])}, not {_short(value)}"
            )


def _short(value: str) -> str:
    return repr(value if len(value) <= _SHOWN else value[:_SHOWN] + "…")
