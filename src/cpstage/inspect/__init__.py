"""Artifacts that are looked at and not staged: show, ls, cat, diff, doctor."""

from cpstage.inspect.comparison import Comparison, compare
from cpstage.inspect.content import read_member
from cpstage.inspect.description import describe
from cpstage.inspect.doctor import Check, diagnose
from cpstage.inspect.listing import Listing, list_artifacts

__all__ = [
    "Check",
    "Comparison",
    "Listing",
    "compare",
    "describe",
    "diagnose",
    "list_artifacts",
    "read_member",
]
