r"""Output variables of an action: from arguments and files, within the limits of the service.

A file holds ``NAME=value`` lines or one JSON object of strings. Lines may be empty or comments,
and may begin with ``export``. A value that is all in quotes may go over several lines: in single
quotes it is taken as it is, in double quotes ``\n``, ``\t``, ``\"`` and ``\\`` are what they are
elsewhere. Of a name that comes twice the last value counts, so that a file can be appended to.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

from cpstage.errors import ConfigurationError, unreadable_input
from cpstage.report.details import is_unicode

MOST_BYTES = 122_880
"""Of all names and values of an action (quotas of the CodePipeline user guide)."""

_NAME = re.compile(r"[A-Za-z0-9@\-_]+")
_LINE = re.compile(
    r"""
    [ \t\r]* (?:
        (?: \#[^\n]* )?
      | (?:export[ \t]+)? (?P<name>[^=\s]+) [ \t]* = [ \t]* (?:
            '(?P<single>[^']*)' [ \t\r]*
          | "(?P<double>(?:[^"\\]|\\.)*)" [ \t\r]*
          | (?P<plain>[^\n]*)
        )
    ) (?:\n|\Z)
    """,
    re.VERBOSE | re.DOTALL,
)
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_ESCAPED = {"n": "\n", "r": "\r", "t": "\t"}
MOST_READ = 4 * MOST_BYTES
"""Quotes, escapes and comments do not count; a longer file is not a list of variables."""

_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")

_ELSEWHERE = "put large values into an output artifact"


def read_variables(path: Path | str) -> dict[str, str]:
    """Read a file of output variables.

    Raises:
        ConfigurationError: It cannot be read, or holds something else.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(MOST_READ + 1)
    except OSError as error:
        raise unreadable_input(error, f"the output variables {path}") from error
    return parse_variables(data, str(path))


def parse_variables(data: bytes, path: str) -> dict[str, str]:
    """Return the output variables out of the content of a file.

    Args:
        data: Its first bytes, up to one more than a list of variables may have.
        path: The file, for messages.

    Raises:
        ConfigurationError: It holds something else.
    """
    if len(data) > MOST_READ:
        raise ConfigurationError(
            f"the output variables {path} are longer than {MOST_READ:,} bytes", hint=_ELSEWHERE
        )
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigurationError(
            f"the output variables {path} are not UTF-8 text", hint="write them as UTF-8"
        ) from error
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
                f"{name[:200]!r} cannot be an output variable",
                hint="CodePipeline allows A-Z a-z 0-9 @ - _ in a name",
            )
        if not is_unicode(variables[name]):
            raise ConfigurationError(
                f"the value of the output variable {name} is not Unicode text",
                hint="give it in UTF-8",
            )
        if _CONTROL.search(variables[name]):
            raise ConfigurationError(
                f"the value of the output variable {name} has control characters",
                hint="write text; lines and tabs are fine",
            )
    size = sum(len(name.encode()) + len(value.encode()) for name, value in variables.items())
    if size > MOST_BYTES:
        raise ConfigurationError(
            f"the output variables take {size:,} bytes, and CodePipeline allows {MOST_BYTES:,}",
            hint=_ELSEWHERE,
        )
    return dict(variables)


def _of_json(text: str, path: Path | str) -> dict[str, str]:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        raise ConfigurationError(
            f"the output variables {path} are not JSON", hint='write {"NAME": "value"}'
        ) from None
    for name, value in document.items():
        if not isinstance(value, str):
            raise ConfigurationError(
                f"the output variable {name!r} in {path} is not a string", hint="quote it"
            )
        if any("\ud800" <= character <= "\udfff" for character in name + value):
            raise ConfigurationError(
                f"the output variable {name!r} in {path} is not Unicode text",
                hint="write both halves of a surrogate pair",
            )
    return dict(document)


def _of_lines(text: str, path: Path | str) -> dict[str, str]:
    variables = {}
    at, end = 0, len(text)
    while at < end:
        found = _LINE.match(text, at)
        if found is None:
            # The line itself may be a piece of a secret.
            raise ConfigurationError(
                f"line {text.count(chr(10), 0, at) + 1} of the output variables {path} is not of "
                "the form NAME=value",
                hint="a value of several lines is written in quotes",
            )
        at = found.end()
        if found["name"] is not None:
            variables[found["name"]] = _value(found)
    return variables


def _value(found: re.Match[str]) -> str:
    """Return the value of a line, by the form that it is written in."""
    if found["double"] is not None:
        return _ESCAPE.sub(lambda escape: _ESCAPED.get(escape[1], escape[1]), found["double"])
    value: str = found["plain"].strip() if found["single"] is None else found["single"]
    return value
