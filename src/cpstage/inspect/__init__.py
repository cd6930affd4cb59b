"""Reading without staging: show, ls, cat, diff, doctor, and past executions.

Every name is loaded on first use, which keeps each command fast.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cpstage._version import loaded_on_first_use

if TYPE_CHECKING:
    from cpstage.aws.executions import get_execution, list_actions, list_executions
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
    from cpstage.job.execution import Execution

_HOMES = {
    ".aws.executions": "get_execution list_actions list_executions",
    ".job.execution": "Execution",
    "comparison": "Change Changes Comparison Texts compare compare_executions compare_local",
    "content": "read_archive read_member",
    "description": "DescribedExecution ListedExecution describe describe_execution past_executions",
    "doctor": "Check diagnose",
    "listing": "Listing list_archive list_artifacts",
}

__all__ = [
    "Change",
    "Changes",
    "Check",
    "Comparison",
    "DescribedExecution",
    "Execution",
    "ListedExecution",
    "Listing",
    "Texts",
    "compare",
    "compare_executions",
    "compare_local",
    "describe",
    "describe_execution",
    "diagnose",
    "get_execution",
    "list_actions",
    "list_archive",
    "list_artifacts",
    "list_executions",
    "past_executions",
    "read_archive",
    "read_member",
]

__getattr__, __dir__ = loaded_on_first_use(__name__, _HOMES)
