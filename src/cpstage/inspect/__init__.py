"""Reading without staging: show, ls, cat, diff, doctor, and past executions.

The names of comparisons are imported when they are first used, which keeps other commands fast.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

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
    """Return a public name that is not imported above (PEP 562)."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.comparison"), name)
