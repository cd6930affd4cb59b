"""Variables as the shells read them: quoted so that any value comes out as it went in.

This module knows the quoting rules of each, and nothing of what the variables are.
"""

from __future__ import annotations

import json
import os
import re
import shlex
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

Syntax = Literal["sh", "fish", "powershell", "dotenv", "json"]

_POWERSHELL_QUOTES = re.compile("(['\u2018\u2019\u201a\u201b])")
"""All of these end a string in single quotes (about_Quoting_Rules); doubled, they do not."""

_FISH_SPECIAL = re.compile(r"([\\'])")


def render(variables: Mapping[str, str], syntax: Syntax) -> bytes:
    """Write variables in the syntax of a shell, a line each; or as a JSON object.

    Names of files may be no text: such bytes come out as they are, but in JSON, which has none.
    """
    if syntax == "json":
        return (json.dumps(dict(variables), indent=2) + "\n").encode("ascii")
    line = _LINES[syntax]
    return os.fsencode("".join(f"{line(name, value)}\n" for name, value in variables.items()))


def _sh(name: str, value: str) -> str:
    return f"export {name}={shlex.quote(value)}"


def _fish(name: str, value: str) -> str:
    escaped = _FISH_SPECIAL.sub(r"\\\1", value)
    return f"set -gx {name} '{escaped}'"


def _powershell(name: str, value: str) -> str:
    doubled = _POWERSHELL_QUOTES.sub(r"\1\1", value)
    return f"$env:{name} = '{doubled}'"


def _dotenv(name: str, value: str) -> str:
    return f"{name}={shlex.quote(value)}"


_LINES: dict[str, Callable[[str, str], str]] = {
    "sh": _sh,
    "fish": _fish,
    "powershell": _powershell,
    "dotenv": _dotenv,
}
