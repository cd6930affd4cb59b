"""What became of the jobs of a fleet, as the local AWS has recorded it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cpstage.local import LocalAWS

WORKER_ACTIONS = (
    "codepipeline:PollForJobs",
    "codepipeline:AcknowledgeJob",
    "codepipeline:GetJobDetails",
    "codepipeline:PutJobSuccessResult",
    "codepipeline:PutJobFailureResult",
)
"""What a worker needs; as in the role of the examples."""


@dataclass(frozen=True)
class Fate:
    """What became of a job.

    Attributes:
        status: The JobStatus.
        claimed_by: Whose acknowledgements were answered.
        reported_by: Whose results were taken, one for each.
        refused: How many results were not taken.
    """

    status: str
    claimed_by: frozenset[str]
    reported_by: tuple[str, ...]
    refused: int

    def is_right(self, lost: Iterable[str] = ()) -> bool:
        """Whether it was claimed by one worker, and reported once or left to time out.

        Args:
            lost: The workers that were killed or cut off, and may leave a job.
        """
        if len(self.claimed_by) != 1 or self.refused:
            return False
        if self.status == "InProgress":
            return self.claimed_by <= {*lost} and not self.reported_by
        return self.status == "Succeeded" and self.reported_by == (*self.claimed_by,)


def fates(aws: LocalAWS, job_ids: Iterable[str]) -> dict[str, Fate]:
    """Return the fate of each job."""
    claimed: dict[str, set[str]] = {}
    reported: dict[str, list[str]] = {}
    refused: dict[str, int] = {}
    for call in aws.calls():
        name, ok = call.job_id or "", call.status == 200
        if call.action == "AcknowledgeJob" and ok:
            claimed.setdefault(name, set()).add(call.identity)
        elif call.action.endswith("Result") and ok:
            reported.setdefault(name, []).append(call.identity)
        elif call.action.endswith("Result"):
            refused[name] = refused.get(name, 0) + 1
    return {
        name: Fate(
            aws.job(name).status,
            frozenset(claimed.get(name, ())),
            tuple(reported.get(name, ())),
            refused.get(name, 0),
        )
        for name in job_ids
    }
