"""Past executions of pipelines, read with the caller's own credentials.

ListPipelineExecutions, ListActionExecutions, GetPipeline and, for the nearest names of a pipeline
that does not exist, ListPipelines. CodePipeline keeps executions for 12 months.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from cpstage.aws.client import has
from cpstage.aws.codepipeline import call, listed
from cpstage.aws.config import AwsConfig
from cpstage.errors import AccessDenied, CpstageError, NotFound, UsageError
from cpstage.job import EncryptionKey
from cpstage.job.execution import (
    ActionExecution,
    Execution,
    ExecutionSummary,
    artifacts_of,
    context_of,
    latest_attempts,
    parse_action,
    parse_pipeline,
    parse_summary,
)

_PAGE = 100
_ID = re.compile(r"[0-9a-f]{4}[0-9a-f-]{0,32}")
"""An id, or its start, as the console shows it."""

_MOST_NAMED = 5
_KEPT = "CodePipeline keeps executions for 12 months"


def list_executions(
    pipeline: str, *, status: str | None = None, config: AwsConfig | None = None
) -> Iterator[ExecutionSummary]:
    """Return the executions of a pipeline, newest first; pages are requested as they are needed.

    Args:
        pipeline: The pipeline: its name, its ARN, or a URL of the console.
        status: Only executions of this status, such as ``Failed``.
        config: How to reach AWS, with the caller's own credentials.

    Raises:
        UsageError: The text names no pipeline, or another region than the config.
        NotFound: The region does not have the pipeline.
        AccessDenied: The caller lacks ``codepipeline:ListPipelineExecutions``.
        ServiceUnavailable, ConfigurationError: CodePipeline could not be reached.
    """
    name, where, _ = _resolve(pipeline, config)
    doing, members = f"list the executions of pipeline {name}", "pipelineExecutionSummaries"
    for one in _pages(where, "ListPipelineExecutions", {"pipelineName": name}, members, doing):
        summary = parse_summary(one)
        if status is None or summary.status == status:
            yield summary


def list_actions(
    pipeline: str, execution_id: str, *, config: AwsConfig | None = None
) -> list[ActionExecution]:
    """Return all attempts of all actions of an execution, oldest first.

    Args:
        pipeline: The pipeline: its name, its ARN, or a URL of the console.
        execution_id: The complete id of the execution.
        config: How to reach AWS, with the caller's own credentials.

    Raises:
        NotFound: The pipeline does not have the execution.
        AccessDenied: The caller lacks ``codepipeline:ListActionExecutions``.
        UsageError, ServiceUnavailable, ConfigurationError: As :func:`list_executions`.
    """
    name, where, _ = _resolve(pipeline, config)
    doing = f"list the actions of execution {execution_id} of pipeline {name}"
    parameters = {"pipelineName": name, "filter": {"pipelineExecutionId": execution_id}}
    found = _pages(where, "ListActionExecutions", parameters, "actionExecutionDetails", doing)
    return [parse_action(one) for one in found][::-1]


def find_execution(
    pipeline: str,
    execution: str | None = None,
    *,
    failed: bool = False,
    config: AwsConfig | None = None,
) -> ExecutionSummary:
    """Find an execution of a pipeline: arguments and errors as in :func:`get_execution`."""
    name, where, named = _resolve(pipeline, config)
    wanted = execution if execution is not None else named
    if wanted is None:
        status = "Failed" if failed else None
        latest = next(list_executions(name, status=status, config=where), None)
        if latest is None:
            what = "no failed executions" if failed else "no executions"
            raise NotFound(f"pipeline {name} has {what} in {where.require_region()}", hint=_KEPT)
        return latest
    if not _ID.fullmatch(wanted):
        raise _no_execution(name, wanted, where)
    seen: list[ExecutionSummary] = []
    for one in list_executions(name, config=where):
        if one.id == wanted:
            return one
        seen.append(one)
    found = [one for one in seen if one.id.startswith(wanted)]
    if len(found) > 1:
        ids = ", ".join(one.id for one in found[:_MOST_NAMED])
        raise UsageError(f"{wanted!r} begins several executions of {name}", hint=f"give one: {ids}")
    if not found:
        raise _no_execution(name, wanted, where, seen)
    return found[0]


def get_execution(
    pipeline: str,
    execution: str | None = None,
    *,
    action: str | None = None,
    failed: bool = False,
    failed_action: bool = False,
    config: AwsConfig | None = None,
) -> Execution:
    """Return a past execution, which stands in place of a job where artifacts are read.

    ``fetch`` and the functions of :mod:`cpstage.inspect` take it. The caller's own credentials read
    its artifacts.

    Args:
        pipeline: The pipeline: its name, its ARN, or a URL of the console, which may name the
            execution as well.
        execution: The id of the execution, or its start; the latest execution if None.
        action: Only the artifacts of this action, ``Action`` or ``Stage/Action``: those of its
            latest attempt.
        failed: The latest execution that failed, where no execution is given.
        failed_action: Only the artifacts of the action that failed.
        config: How to reach AWS, with the caller's own credentials.

    Raises:
        UsageError: The arguments contradict each other, or fit several executions or actions.
        NotFound: The pipeline, the execution or the action does not exist.
        AccessDenied: The caller lacks ``codepipeline:ListPipelineExecutions`` or
            ``codepipeline:ListActionExecutions``.
        ServiceUnavailable, ConfigurationError: CodePipeline could not be reached.
    """
    if action is not None and failed_action:
        raise UsageError("an action and the failed action are given", hint="give one of them")
    name, where, _ = _resolve(pipeline, config)
    summary = find_execution(pipeline, execution, failed=failed, config=where)
    actions = list_actions(name, summary.id, config=where)
    title = f"execution {summary.id} of pipeline {name}"
    latest = latest_attempts(actions)
    chosen = None
    if action is not None:
        chosen = _choose_action(latest, action, title)
    elif failed_action:
        chosen = _failed_action(latest, title)
    return _execution(name, where, summary, actions, chosen)


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
        actions = [action.document() for action in self.actions]
        execution = {**self.listed.document(), "actions": actions}
        return {"pipeline": self.pipeline, "executions": [execution]}


def past_executions(
    pipeline: str, status: str | None = None, *, config: AwsConfig | None = None
) -> Iterator[ListedExecution]:
    """Return the executions of a pipeline, newest first, with the failed actions of failed ones.

    Args:
        pipeline: The pipeline: its name, its ARN, or a URL of the console.
        status: Only executions of this status.
        config: The configuration of the AWS clients, with the caller's own credentials.

    Raises:
        UsageError, NotFound, AccessDenied, ServiceUnavailable, ConfigurationError: As
            :func:`list_executions`; the failed actions need
            ``codepipeline:ListActionExecutions``.
    """
    for summary in list_executions(pipeline, status=status, config=config):
        has_failed = summary.status == "Failed"
        actions = list_actions(pipeline, summary.id, config=config) if has_failed else []
        yield ListedExecution(summary, _failed(actions))


def describe_execution(
    pipeline: str, execution: str | None = None, *, config: AwsConfig | None = None
) -> DescribedExecution:
    """Return one execution with all its actions.

    Args:
        pipeline: The pipeline: its name, its ARN, or a URL of the console.
        execution: The id, or its start; by default the one of the URL, or the latest one.
        config: The configuration of the AWS clients, with the caller's own credentials.

    Raises:
        UsageError, NotFound, AccessDenied, ServiceUnavailable, ConfigurationError: As
            :func:`get_execution`.
    """
    name, where, _ = _resolve(pipeline, config)
    summary = find_execution(pipeline, execution, config=where)
    actions = list_actions(name, summary.id, config=where)
    listed = ListedExecution(summary, _failed(actions))
    return DescribedExecution(name, where.require_region(), listed, tuple(actions))


def _failed(actions: list[ActionExecution]) -> tuple[ActionExecution, ...]:
    return tuple(one for one in latest_attempts(actions) if one.status == "Failed")


def previous_success(execution: Execution, *, config: AwsConfig) -> ExecutionSummary:
    """Return the last successful execution that began before another one.

    Raises:
        NotFound: No earlier execution succeeded.
        CpstageError: As in :func:`list_executions`.
    """
    where = replace(config, region=execution.region)
    is_before = False
    for one in list_executions(execution.pipeline, config=where):
        if is_before and one.status == "Succeeded":
            return one
        is_before = is_before or one.id == execution.execution_id
    raise NotFound(
        f"no execution of pipeline {execution.pipeline} succeeded before {execution.execution_id}",
        hint=f"give the id of another one: {_KEPT}",
    )


def _execution(
    name: str,
    where: AwsConfig,
    summary: ExecutionSummary,
    actions: Sequence[ActionExecution],
    chosen: ActionExecution | None,
) -> Execution:
    arn, keys = _stores(name, where)
    home = where.require_region()
    inputs, outputs = artifacts_of([chosen] if chosen else latest_attempts(actions))
    return Execution(
        id=chosen.id if chosen else summary.id,
        account_id=arn.split(":")[4] if arn else None,
        action_type_id=chosen.action_type_id if chosen else None,
        pipeline_context=context_of(name, summary.id, arn, chosen),
        input_artifacts=inputs,
        output_artifacts=outputs,
        encryption_key=keys.get((chosen.region if chosen else None) or home) or keys.get(None),
        action_configuration=chosen.configuration if chosen else {},
        pipeline_region=home,
        summary=summary,
        action=chosen,
        actions=tuple(actions),
    )


def _choose_action(latest: Sequence[ActionExecution], wanted: str, title: str) -> ActionExecution:
    found = [one for one in latest if wanted in (one.name, one.path)]
    if len(found) > 1:
        paths = " or ".join(one.path for one in found)
        raise UsageError(f"{title} has several actions {wanted}", hint=f"give {paths}")
    if not found:
        meant = _meant(wanted, [one.name for one in latest], 1)
        known = ", ".join(one.path for one in latest) or "none"
        raise NotFound(f"{title} has no action {wanted!r}", hint=f"{meant}its actions are: {known}")
    return found[0]


def _failed_action(latest: Sequence[ActionExecution], title: str) -> ActionExecution:
    found = [one for one in latest if one.status == "Failed"]
    if len(found) > 1:
        paths = ", ".join(one.path for one in found)
        raise UsageError(f"several actions of {title} failed", hint=f"give --action: {paths}")
    if not found:
        states = ", ".join(f"{one.path} ({one.status})" for one in latest) or "none"
        raise NotFound(f"no action of {title} failed", hint=f"its actions are: {states}")
    return found[0]


def _stores(name: str, where: AwsConfig) -> tuple[str | None, Mapping[str | None, EncryptionKey]]:
    """Return the ARN of a pipeline, and the KMS keys of its artifact stores by region.

    A pipeline with one store has the region None. GetPipeline may be denied: only encrypted
    messages need the keys.
    """
    try:
        answer = call(where, "GetPipeline", {"name": name}, f"get pipeline {name}", has("pipeline"))
    except (AccessDenied, NotFound):
        return None, {}
    pipeline = answer["pipeline"]
    stores = {None: pipeline.get("artifactStore"), **pipeline.get("artifactStores", {})}
    keys: dict[str | None, EncryptionKey] = {}
    for region, store in stores.items():
        if key := (store or {}).get("encryptionKey"):
            keys[region] = EncryptionKey(key.get("id"), key.get("type"))
    return answer.get("metadata", {}).get("pipelineArn"), keys


def _resolve(pipeline: str, config: AwsConfig | None) -> tuple[str, AwsConfig, str | None]:
    """Return a pipeline's name, the config for its region, and the execution that a URL names."""
    where, reference = config or AwsConfig(), parse_pipeline(pipeline)
    if reference.region is None:
        return reference.name, where, reference.execution_id
    if where.region not in (None, reference.region):
        raise UsageError(
            f"the pipeline is in {reference.region}, and the region that is given is "
            f"{where.region}",
            hint="leave out --region",
        )
    return reference.name, replace(where, region=reference.region), reference.execution_id


def _pages(
    where: AwsConfig, operation: str, parameters: Mapping[str, Any], member: str, doing: str
) -> Iterator[Mapping[str, Any]]:
    """Call a list operation about a pipeline; its errors name the ones that exist."""
    try:
        yield from listed(where, operation, {**parameters, "maxResults": _PAGE}, member, doing)
    except CpstageError as error:
        code, name = getattr(error.__cause__, "code", None), parameters["pipelineName"]
        if code == "PipelineNotFoundException":
            raise _no_pipeline(name, where) from error
        if code == "PipelineExecutionNotFoundException" and "filter" in parameters:
            wanted = parameters["filter"]["pipelineExecutionId"]
            raise _no_execution(name, wanted, where) from error
        raise


def _no_pipeline(name: str, where: AwsConfig) -> NotFound:
    try:
        parameters = {"maxResults": 1000}
        answer = call(where, "ListPipelines", parameters, "list pipelines", has("pipelines"))
        names = [str(one.get("name")) for one in answer["pipelines"]]
    except CpstageError:  # it is only for the hint
        names = []
    return NotFound(
        f"pipeline {name!r} does not exist in {where.require_region()}",
        hint=f"{_meant(name, names, _MOST_NAMED)}check the name, the account and --region",
    )


def _meant(word: str, words: Sequence[str], most: int) -> str:
    close = _close(word, words, most)
    return f"did you mean {', '.join(close)}? " if close else ""


def _no_execution(
    name: str, wanted: str, where: AwsConfig, known: Sequence[ExecutionSummary] | None = None
) -> NotFound:
    if known is None:
        known = [*islice(list_executions(name, config=where), _MOST_NAMED)]
    ids = [one.id for one in known]
    near = _close(wanted, ids, 1) or ids[:_MOST_NAMED]
    shown = ", ".join(f"{one.id} ({one.status})" for one in known if one.id in near)
    nearest = f"; executions there are: {shown}" if shown else ""
    return NotFound(
        f"pipeline {name} has no execution {wanted[:200]!r}",
        hint=f"it may be one of another pipeline or older: {_KEPT}{nearest}",
    )


def _close(word: str, words: Sequence[str], most: int) -> list[str]:
    from difflib import get_close_matches  # only an error needs it

    return get_close_matches(word, words, most)
