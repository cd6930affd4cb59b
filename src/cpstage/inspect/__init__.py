"""Reading without staging: show, ls, cat, diff, doctor, and past executions.

Every name is loaded on first use, which keeps each command fast.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cpstage._version import loaded_on_first_use

if TYPE_CHECKING:
    from cpstage.aws.executions import DescribedExecution as DescribedExecution
    from cpstage.aws.executions import ListedExecution as ListedExecution
    from cpstage.aws.executions import describe_execution as describe_execution
    from cpstage.aws.executions import get_execution as get_execution
    from cpstage.aws.executions import list_actions as list_actions
    from cpstage.aws.executions import list_executions as list_executions
    from cpstage.aws.executions import past_executions as past_executions
    from cpstage.inspect.comparison import Change as Change
    from cpstage.inspect.comparison import Changes as Changes
    from cpstage.inspect.comparison import Comparison as Comparison
    from cpstage.inspect.comparison import Texts as Texts
    from cpstage.inspect.comparison import compare as compare
    from cpstage.inspect.comparison import compare_executions as compare_executions
    from cpstage.inspect.comparison import compare_local as compare_local
    from cpstage.inspect.content import read_archive as read_archive
    from cpstage.inspect.content import read_member as read_member
    from cpstage.inspect.job import Check as Check
    from cpstage.inspect.job import describe as describe
    from cpstage.inspect.job import diagnose as diagnose
    from cpstage.inspect.listing import Listing as Listing
    from cpstage.inspect.listing import list_archive as list_archive
    from cpstage.inspect.listing import list_artifacts as list_artifacts
    from cpstage.job.execution import Execution as Execution

_HOMES = {
    ".aws.executions": "DescribedExecution ListedExecution describe_execution get_execution "
    "list_actions list_executions past_executions",
    ".job.execution": "Execution",
    "comparison": "Change Changes Comparison Texts compare compare_executions compare_local",
    "content": "read_archive read_member",
    "job": "Check describe diagnose",
    "listing": "Listing list_archive list_artifacts",
}

__getattr__, __dir__, __all__ = loaded_on_first_use(__name__, _HOMES)
