"""What a service says, without the secrets of the request, which it may quote whole or in part."""

from __future__ import annotations

from collections.abc import Sequence

from cpstage.aws.sigv4 import Keys

_LONGEST_SEARCHED = 8_000
"""Characters of a message that are searched for secrets; the rest of it is not shown."""

_PIECE_OF_SECRET = 12
"""Characters in a row of a secret that give too much of it away."""

_SHORTEST_SECRET = 8
"""Characters: what is shorter is no key of AWS, and would be found in every other word."""

_MASK = "********"


def secrets_of(keys: Keys | None) -> list[str]:
    """Return what of the keys nobody may see."""
    values = [keys.secret_key, keys.token or "", keys.access_key] if keys else []
    return [value for value in values if len(value) >= _SHORTEST_SECRET]


def masked(text: str, secrets: Sequence[str]) -> str:
    """Hide secrets in what a service says, also those that it has cut.

    Args:
        text: What it says; what is far behind is left out.
        secrets: What nobody may see.
    """
    text = text[:_LONGEST_SEARCHED]
    for secret in filter(None, secrets):
        text = text.replace(secret, _MASK)
    shown = [*text]
    for start in range(len(text) - _PIECE_OF_SECRET + 1):
        piece = text[start : start + _PIECE_OF_SECRET]
        if any(piece in secret for secret in secrets):
            shown[start : start + _PIECE_OF_SECRET] = "*" * _PIECE_OF_SECRET
    return "".join(shown)
