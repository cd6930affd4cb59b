r"""Output variables of an action: from arguments and files, within the limits of the service.

A file holds ``NAME=value`` lines or one JSON object of strings. Lines may be empty or comments,
and may begin with ``export``; a value in single quotes is taken as it is, one in double quotes
knows ``\n``, ``\"`` and ``\\``. Of a name that comes twice the last value counts, so that a file
can be appended to.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

from cpstage.errors import ConfigurationError, local_reason

MOST_BYTES = 122_880
"""Of all names and values of an action (quotas of the CodePipeline user guide)."""

_NAME = re.compile(r"[A-Za-z0-9@\-_]+")
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_ESCAPED = {"n": "\n", "r": "\r", "t": "\t"}
_MOST_READ = 4 * MOST_BYTES
"""Quotes, escapes and comments do not count; what is longer than this is no list of variables."""


def read_variables(path: Path | str) -> dict[str, str]:
    """Read a file of output variables.

    Raises:
        ConfigurationError: It cannot be read, or holds something else.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(_MOST_READ + 1)
    except OSError as error:
        why = local_reason(error)
        raise ConfigurationError(f"cannot read the output variables {path}: {why}") from error
    if len(data) > _MOST_READ:
        raise ConfigurationError(f"the output variables {path} are longer than {_MOST_READ} bytes")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"the output variables {path} are not UTF-8 text") from error
    variables = _of_json(text, path) if text.lstrip().startswith("{") else _of_lines(text, path)
    return check_variables(variables)


def check_variables(variables: Mapping[str, str]) -> dict[str, str]:
    """Return the variables, if the service would take them.

    Raises:
        ConfigurationError: A name has another form, or they are too long together.
    """
    for name in variables:
        if not _NAME.fullmatch(name):
            raise ConfigurationError(
                f"{name!r} cannot be an output variable",
                hint="CodePipeline allows A-Z a-z 0-9 @ - _ in a name",
            )
    size = sum(len(name.encode()) + len(value.encode()) for name, value in variables.items())
    if size > MOST_BYTES:
        raise ConfigurationError(
            f"the output variables take {size:,} bytes, and CodePipeline allows {MOST_BYTES:,}",
            hint="put large values into an output artifact",
        )
    return dict(variables)


def _of_json(text: str, path: Path | str) -> dict[str, str]:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        raise ConfigurationError(f"the output variables {path} are not JSON") from None
    for name, value in document.items():
        if not isinstance(value, str):
            raise ConfigurationError(
                f"the output variable {name!r} in {path} is not a string", hint="quote it"
            )
        if any("\ud800" <= character <= "\udfff" for character in name + value):
            raise ConfigurationError(f"the output variable {name!r} in {path} is not Unicode text")
    return dict(document)


def _of_lines(text: str, path: Path | str) -> dict[str, str]:
    variables = {}
    for number, line in enumerate(text.split("\n"), 1):
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        name, equals, value = stripped.removeprefix("export ").partition("=")
        if not equals:
            # The line itself may be a piece of a secret.
            raise ConfigurationError(
                f"line {number} of the output variables {path} is not of the form NAME=value",
                hint='a value of several lines is written in double quotes, with "\\n" in it',
            )
        variables[name.strip()] = _unquoted(value.strip())
    return variables


def _unquoted(value: str) -> str:
    if len(value) >= 2 and value[0] == value[-1] == "'":
        return value[1:-1]
    if len(value) >= 2 and value[0] == value[-1] == '"':
        return _ESCAPE.sub(lambda match: _ESCAPED.get(match[1], match[1]), value[1:-1])
    return value
