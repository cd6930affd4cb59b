"""What is looked at and not staged: show, ls, cat, diff, doctor, and past executions."""

from cpstage.inspect.comparison import Comparison, compare
from cpstage.inspect.content import read_member
from cpstage.inspect.description import describe
from cpstage.inspect.doctor import Check, diagnose
from cpstage.inspect.executions import (
    DescribedExecution,
    ListedExecution,
    describe_execution,
    past_executions,
)
from cpstage.inspect.listing import Listing, list_artifacts

__all__ = [
    "Check",
    "Comparison",
    "DescribedExecution",
    "ListedExecution",
    "Listing",
    "compare",
    "describe",
    "describe_execution",
    "diagnose",
    "list_artifacts",
    "past_executions",
    "read_member",
]
