"""Reading without staging: show, ls, cat, diff, doctor, and past executions.

Every name is loaded on first use, which keeps each command fast.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cpstage.inspect.comparison import (
        Change,
        Changes,
        Comparison,
        Texts,
        compare,
        compare_executions,
        compare_local,
    )
    from cpstage.inspect.content import read_archive, read_member
    from cpstage.inspect.description import (
        DescribedExecution,
        ListedExecution,
        describe,
        describe_execution,
        past_executions,
    )
    from cpstage.inspect.doctor import Check, diagnose
    from cpstage.inspect.listing import Listing, list_archive, list_artifacts

_HOMES = {
    "comparison": "Change Changes Comparison Texts compare compare_executions compare_local",
    "content": "read_archive read_member",
    "description": "DescribedExecution ListedExecution describe describe_execution past_executions",
    "doctor": "Check diagnose",
    "listing": "Listing list_archive list_artifacts",
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names.split()}

__all__ = [
    "Change",
    "Changes",
    "Check",
    "Comparison",
    "DescribedExecution",
    "ListedExecution",
    "Listing",
    "Texts",
    "compare",
    "compare_executions",
    "compare_local",
    "describe",
    "describe_execution",
    "diagnose",
    "list_archive",
    "list_artifacts",
    "past_executions",
    "read_archive",
    "read_member",
]


def __getattr__(name: str) -> object:
    """Import a public name on first use (PEP 562)."""
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)


def __dir__() -> list[str]:
    """Return the public names, for completion in an interactive Python."""
    return [*__all__]
