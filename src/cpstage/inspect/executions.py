"""The past executions of a pipeline for a person: what failed, and what each action did."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from cpstage.aws.config import AwsConfig
from cpstage.aws.executions import find_execution, list_actions, list_executions
from cpstage.job.execution import ActionExecution, ExecutionSummary, latest_attempts, parse_pipeline


@dataclass(frozen=True)
class ListedExecution:
    """An execution in a list, with the actions that failed in it."""

    summary: ExecutionSummary
    failed_actions: tuple[ActionExecution, ...] = ()

    def document(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        failed = [
            {
                "stage": one.stage,
                "action": one.name,
                "error_code": one.error_code,
                "error_message": one.error_message,
            }
            for one in self.failed_actions
        ]
        return {**self.summary.document(), "failed_actions": failed}


@dataclass(frozen=True)
class DescribedExecution:
    """One execution, and all attempts of its actions, oldest first."""

    pipeline: str
    region: str | None
    listed: ListedExecution
    actions: tuple[ActionExecution, ...]

    def document(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {
            "pipeline": self.pipeline,
            "executions": [
                {
                    **self.listed.document(),
                    "actions": [action.document() for action in self.actions],
                }
            ],
        }


def past_executions(
    pipeline: str, status: str | None = None, *, config: AwsConfig | None = None
) -> Iterator[ListedExecution]:
    """Return the executions of a pipeline, newest first, with the failed actions of failed ones.

    Args:
        pipeline: The pipeline: its name, its ARN, or a URL of the console.
        status: Only executions of this status.
        config: How to reach AWS, with the caller's own credentials.

    Raises:
        UsageError, NotFound, AccessDenied, ServiceUnavailable, ConfigurationError: As
            :func:`cpstage.list_executions`; the failed actions need
            ``codepipeline:ListActionExecutions``.
    """
    for summary in list_executions(pipeline, status=status, config=config):
        failed: tuple[ActionExecution, ...] = ()
        if summary.status == "Failed":
            failed = _failed(list_actions(pipeline, summary.id, config=config))
        yield ListedExecution(summary, failed)


def describe_execution(
    pipeline: str, execution: str | None = None, *, config: AwsConfig | None = None
) -> DescribedExecution:
    """Return one execution with all its actions.

    Args:
        pipeline: The pipeline: its name, its ARN, or a URL of the console.
        execution: The id, or its start; by default the one of the URL, or the latest one.
        config: How to reach AWS, with the caller's own credentials.

    Raises:
        UsageError, NotFound, AccessDenied, ServiceUnavailable, ConfigurationError: As
            :func:`cpstage.get_execution`.
    """
    reference, where = parse_pipeline(pipeline), config or AwsConfig()
    summary = find_execution(pipeline, execution, config=where)
    actions = list_actions(pipeline, summary.id, config=where)
    region = reference.region or where.require_region()
    listed = ListedExecution(summary, _failed(actions))
    return DescribedExecution(reference.name, region, listed, tuple(actions))


def _failed(actions: list[ActionExecution]) -> tuple[ActionExecution, ...]:
    return tuple(one for one in latest_attempts(actions) if one.status == "Failed")
