"""Reading without staging: show, ls, cat, diff, doctor, and past executions.

Every name is loaded on first use, which keeps each command fast.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cpstage._version import loaded_on_first_use

if TYPE_CHECKING:
    from cpstage.aws.executions import (
        DescribedExecution,
        ListedExecution,
        describe_execution,
        past_executions,
    )
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
    from cpstage.inspect.job import Check, describe, diagnose
    from cpstage.inspect.listing import Listing, list_archive, list_artifacts

_HOMES = {
    ".aws.executions": "DescribedExecution ListedExecution describe_execution past_executions",
    "comparison": "Change Changes Comparison Texts compare compare_executions compare_local",
    "content": "read_archive read_member",
    "job": "Check describe diagnose",
    "listing": "Listing list_archive list_artifacts",
}

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

__getattr__, __dir__ = loaded_on_first_use(__name__, _HOMES)
