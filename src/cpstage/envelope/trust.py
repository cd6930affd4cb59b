"""Which KMS keys may open a message: those that were named, or every key of one account.

The header of a message names the keys that it was sealed under, and anybody can write a header.
So a name in it is never asked for its own sake, only where it is one of these. This module makes no
calls.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cpstage.envelope.kms import WrappedKey, parse_arn, related, replicas


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
