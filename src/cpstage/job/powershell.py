"""Job documents of the AWS Tools for PowerShell: ``Get-CPJobDetail | ConvertTo-Json``.

They show the properties of .NET classes. Names begin with a capital letter, and an enumeration is
an object with the member ``Value``. ``ConvertTo-Json`` replaces what lies deeper than its
``-Depth`` (2 by default) with the name of the class.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_WRAPPERS = ("Data", "JobDetails", "Jobs")
"""Members that only a document of PowerShell has: of a job, of a response, and of a poll."""

_LITERAL = "Configuration"
"""The member whose names are those of the pipeline's author."""

_CLASS = re.compile(r"(Amazon\.CodePipeline\.Model|System\.Collections)\.|@\{")

DEPTH_HINT = "PowerShell cut the document: save it with 'ConvertTo-Json -Depth 10'"


def with_api_names(document: Any) -> Any:
    """Return a document of PowerShell with the names and values of the API reference.

    Any other document is returned unchanged.
    """
    first = document[0] if isinstance(document, list) and document else document
    if not isinstance(first, Mapping) or not any(name in first for name in _WRAPPERS):
        return document
    return _converted(document)


def is_cut(value: object) -> bool:
    """Whether ``ConvertTo-Json`` wrote the name of a class in place of an object."""
    values = value if isinstance(value, list) else [value]
    return any(isinstance(one, str) and bool(_CLASS.match(one)) for one in values)


def _converted(value: Any) -> Any:
    if isinstance(value, list):
        return [_converted(one) for one in value]
    if not isinstance(value, Mapping):
        return value
    if [*value] == ["Value"]:
        return value["Value"]
    # Of the same type: a dictionary that masks its values stays one.
    return type(
        value
    )(  # type: ignore[call-arg]
        (name[:1].lower() + name[1:], member if name == _LITERAL else _converted(member))
        for name, member in value.items()
    )
