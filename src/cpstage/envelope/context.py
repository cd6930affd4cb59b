"""The encryption context: what binds a message to the artifact that it was sealed for.

The pairs are plain text in the header and in the log of KMS; the data key can only be unwrapped
with the same pairs, and the header is authentic only with them. This module knows names and values,
and nothing of how a message is made.
"""

from __future__ import annotations

from collections.abc import Mapping

from cpstage.errors import ArtifactRejected, ConfigurationError

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
