"""The input of an AWS CLI command: ``file://`` parameters, and ``--cli-input-json``.

Nothing of a value that is refused is repeated in the message: it can be a token, or a file that
was not meant.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cpstage.errors import UsageError, local_reason

if TYPE_CHECKING:
    from collections.abc import Mapping

_FILE = "file://"
_JSON_TYPES = {
    bool: "a boolean",
    dict: "an object",
    float: "a number",
    int: "a number",
    list: "an array",
    str: "a string",
    type(None): "null",
}


def parameter(value: str | None, option: str) -> str | None:
    """Return the value of a parameter, read from where ``file://`` in front of a path says.

    Args:
        value: The value as it is given.
        option: The name of the option, for messages.

    Raises:
        UsageError: The file cannot be read, or is not UTF-8.
    """
    if value is None or not value.startswith(_FILE):
        return value
    path = os.path.expandvars(os.path.expanduser(value.removeprefix(_FILE)))
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError as error:
        why = local_reason(error)
        raise UsageError(f"cannot read {path}, the value of {option}: {why}") from error
    except ValueError:
        # The reason holds bytes of the file.
        raise UsageError(f"cannot read {path}, the value of {option}: not UTF-8 text") from None


def input_members(document: str | None) -> dict[str, Any]:
    """Read the members of ``--cli-input-json``; there are none where it is not given.

    Raises:
        UsageError: It is not JSON, or no object.
    """
    text = parameter(document, "--cli-input-json")
    if text is None:
        return {}
    try:
        members = json.loads(text)
    except ValueError as error:
        raise UsageError(f"--cli-input-json is not JSON: {error}") from None
    except RecursionError:
        raise UsageError("--cli-input-json is nested too deeply") from None
    if not isinstance(members, dict):
        raise UsageError(f"--cli-input-json is {_JSON_TYPES[type(members)]}, not an object")
    return members


def check_members(members: Mapping[str, Any], known: str) -> None:
    """Check the input against an operation that takes one member, a string.

    Raises:
        UsageError: There are unknown members, or the known one is no string.
    """
    unknown = [json.dumps(name, ensure_ascii=False) for name in members if name != known]
    if unknown:
        names = ", ".join(unknown)
        raise UsageError(
            f"unknown {'member' if len(unknown) == 1 else 'members'} in --cli-input-json: {names}",
            hint=f"its only member is {json.dumps(known)}",
        )
    value = members.get(known, "")
    if not isinstance(value, str):
        kind = _JSON_TYPES[type(value)]
        raise UsageError(f"{json.dumps(known)} in --cli-input-json is {kind}, not a string")
