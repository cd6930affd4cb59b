"""The result of a run as data, and its report to CodePipeline.

A first signal waits for the end of the report; a second signal ends the report. The report is
visible to everyone with access to the pipeline, so secrets of the job are taken out.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from cpstage.aws.config import AwsConfig
from cpstage.aws.job_result import MOST_MESSAGE, end_of, report_failure, report_success
from cpstage.errors import (
    ConfigurationError,
    Reportable,
    UsageError,
    WorkspaceInUse,
    reportable,
)
from cpstage.job import Job
from cpstage.job.masking import MASK, SHORTEST_SECRET, Secret
from cpstage.job.result import Details, Reported, length_of, without_control_characters
from cpstage.runner.command import Finished
from cpstage.runner.handover import Left
from cpstage.runner.signals import Interrupts
from cpstage.transfer.fetch import FetchResult
from cpstage.transfer.push import PushResult


@dataclass
class RunResult:
    """What a run has done, as far as it came.

    Attributes:
        job_id: The job's.
        fetched, command, pushed, reported: The result of each step; None where it was not reached.
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


_STOPPED_SECONDS = 20.0
"""For a report after a signal: its sender often sends SIGKILL soon."""


def report_run(
    result: RunResult,
    details: Details,
    *,
    job: Job | None,
    client_token: Secret | str | None,
    config: AwsConfig,
    interrupts: Interrupts,
) -> None:
    """Put the result of a run, and note in it what has become of that.

    Args:
        result: What the run has done.
        details: What to say besides.
        job: The job, where it is known.
        client_token: The client's token of a third-party job.
        config: How to reach AWS.
        interrupts: Where signals come from.
    """
    if isinstance(result.failure, WorkspaceInUse) and result.failure.job_id == result.job_id:
        return  # the job is being worked on, and its result is that run's to put
    token = client_token or (job.client_token if job else None)
    if result.failure is None:
        refused = _tell_success(result, details, token, config, interrupts)
        if not isinstance(refused, UsageError | ConfigurationError):
            result.report_failure = refused
            return
        result.failure = refused  # what was to be told cannot be: that is a failure by itself
    if interrupts.first is not None:
        config = replace(config, timeout=min(config.timeout, _STOPPED_SECONDS))
    try:
        with interrupts.patient():
            result.reported = report_failure(
                result.job_id,
                _message(result, result.failure, job),
                failure_type=result.failure.failure_type,
                external_execution_id=details.external_execution_id,
                client_token=token,
                config=config,
            )
    except (Reportable, Exception) as error:
        result.report_failure = reportable(error)


def _tell_success(
    result: RunResult,
    details: Details,
    client_token: Secret | str | None,
    config: AwsConfig,
    interrupts: Interrupts,
) -> Reportable | None:
    """Report a success, and return why that could not be done, if so."""
    try:
        with interrupts.patient():
            result.reported = report_success(
                result.job_id,
                details=details,
                output_variables=result.left.output_variables,
                continuation_token=result.left.continuation_token,
                client_token=client_token,
                config=config,
            )
    except (Reportable, Exception) as error:
        return reportable(error)
    return None


def _message(result: RunResult, failure: Reportable, job: Job | None) -> str:
    """Say what went wrong, and then the end of what the command said."""
    said = str(failure)
    tail = without_control_characters(result.command.tail if result.command else "")
    for secret in _secrets(job) if job else ():
        text = secret.reveal()
        said, tail = said.replace(text, MASK), tail.replace(text, MASK)
    return f"{said}\n{end_of(tail, MOST_MESSAGE - 1 - length_of(said))}" if tail else said


def _secrets(job: Job) -> list[Secret]:
    """Return what a command may have printed, and a pipeline must not show; longest first."""
    configured = [
        value for value in job.action_configuration.values() if len(value) >= SHORTEST_SECRET
    ]
    known = [job.continuation_token, job.client_token, *configured]
    return sorted((one for one in known if one), key=len, reverse=True)
