"""What is looked at and not staged: show, ls, cat, diff, doctor, and past executions."""

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
