"""A document in the AWS CLI's three output formats: ``json``, ``text`` and ``table``.

The formats are those of the AWS CLI User Guide ("Setting the output format in the AWS CLI"), to
the byte where a script could tell the difference. This module knows nothing of jobs.
"""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Any

from cpstage.cli.aws_cli.table import is_scalar, table
from cpstage.errors import ConfigurationError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cpstage import Connection

FORMATS = ("json", "text", "table")


def output_format(option: str | None, as_json: bool, connection: Connection) -> str:
    """Choose the format: ``--output`` or ``--json``, then the environment, then the profile.

    Args:
        option: The value of ``--output``.
        as_json: Whether ``--json`` is given.
        connection: Knows the profile.

    Raises:
        UsageError: The two options contradict each other.
        ConfigurationError: The configured format is not one of ours.
    """
    if as_json and option not in (None, "json"):
        raise UsageError(f"both --json and --output {option} are given", hint="give one of them")
    if option or as_json:
        return option or "json"
    configured = connection.setting("output", "AWS_DEFAULT_OUTPUT") or "json"
    if configured not in FORMATS:
        from_environment = os.environ.get("AWS_DEFAULT_OUTPUT")
        where = "AWS_DEFAULT_OUTPUT" if from_environment else "'output' of the AWS profile"
        raise ConfigurationError(
            f"{where} is {configured!r}, which is no format of this command",
            hint="give --output json, text or table",
        )
    return configured


def render(document: Any, output: str, title: str) -> str:
    """Return the document as the text to print, its last newline included.

    Args:
        document: Anything that JSON can hold.
        output: One of ``FORMATS``.
        title: What to write over a table.

    Raises:
        UsageError: A table cannot hold a document of this form.
    """
    if output == "json":
        # An operation without output prints nothing; so does an empty document.
        return "" if document == {} else _json(document)
    if output == "text":
        return "".join(f"{line}\n" for line in _text(document))
    return table(document, title, _terminal_width())


def _json(document: Any) -> str:
    return json.dumps(document, indent=4, ensure_ascii=False) + "\n"


def _text(value: Any, name: str | None = None, columns: list[str] | None = None) -> Iterator[str]:
    """Yield tab-separated lines, each after the upper-cased name of what it describes.

    Args:
        value: A part of the document.
        name: The member that it is the value of.
        columns: Where it stands in a list of structures, the members that have a column there.
    """
    if isinstance(value, dict):
        yield from _text_of_structure(value, name, columns)
    elif isinstance(value, list):
        yield from _text_of_list(value, name)
    else:
        yield str(value)


def _text_of_structure(
    structure: dict[str, Any], name: str | None, columns: list[str] | None
) -> Iterator[str]:
    if columns is None:
        columns = sorted(key for key, value in structure.items() if is_scalar(value))
    if columns:
        cells = [str(structure.get(key, "")) for key in columns]
        yield "\t".join(cells if name is None else [name.upper(), *cells])
    for key in sorted(structure.keys() - set(columns)):
        yield from _text(structure[key], key)


def _text_of_list(items: list[Any], name: str | None) -> Iterator[str]:
    structures = [item for item in items if isinstance(item, dict)]
    if structures:
        columns = {key for one in structures for key, value in one.items() if is_scalar(value)}
        for item in items:
            yield from _text(item, name, sorted(columns))
        return
    scalars = [str(item) for item in items if is_scalar(item)]
    if name is not None:
        yield from (f"{name.upper()}\t{scalar}" for scalar in scalars)
    elif scalars:
        yield "\t".join(scalars)
    for item in items:
        if not is_scalar(item):
            yield from _text(item, name)


def _terminal_width() -> int:
    """Return the columns of the terminal, or 80 where stdout is none."""
    try:
        return os.get_terminal_size(sys.stdout.fileno()).columns or 80
    except (AttributeError, OSError, ValueError):
        return 80
