"""What a run has done, as data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from cpstage.errors import Reportable
from cpstage.report.details import Reported
from cpstage.runner.command import Finished
from cpstage.runner.handover import Left
from cpstage.transfer.fetch import FetchResult
from cpstage.transfer.push import PushResult


@dataclass
class RunResult:
    """What a run has done, as far as it came.

    Attributes:
        job_id: The job's.
        fetched, command, pushed, reported: What has been done; None of what has not.
        left: What the command has left behind.
        failure: What went wrong; None where nothing did.
        report_failure: Why the result could not be put, where it was to be.
    """

    job_id: str
    fetched: FetchResult | None = None
    command: Finished | None = None
    left: Left = field(default_factory=Left)
    pushed: PushResult | None = None
    reported: Reported | None = None
    failure: Reportable | None = None
    report_failure: Reportable | None = None

    @property
    def error(self) -> Reportable | None:
        """What the run as a whole has to say: the failure of the work before that of its report."""
        return self.failure or self.report_failure

    def document(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {
            "job_id": self.job_id,
            "fetch": self.fetched.document() if self.fetched else None,
            "command": self.command.document() if self.command else None,
            "output_variables": list(self.left.output_variables),
            "push": self.pushed.document() if self.pushed else None,
            "report": self.reported.document() if self.reported else None,
            "error": _error_document(self.failure),
            "report_error": _error_document(self.report_failure),
        }


def _error_document(error: Reportable | None) -> dict[str, Any] | None:
    if error is None:
        return None
    return {
        "exit_code": error.exit_code,
        "failure_type": error.failure_type,
        "message": str(error),
    }
