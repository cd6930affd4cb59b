"""Descriptions of a job with its artifacts, and of the past executions of a pipeline.

Secrets are masked.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from cpstage.aws.codepipeline import secret_properties
from cpstage.aws.config import AwsConfig
from cpstage.aws.executions import find_execution, list_actions, list_executions
from cpstage.aws.job_session import JobSession, ObjectInfo
from cpstage.encryption.header import s3_client_object
from cpstage.errors import ArtifactRejected, CpstageError
from cpstage.job import Artifact, ArtifactSet, Job, artifact_document
from cpstage.job.execution import (
    ActionExecution,
    Execution,
    ExecutionSummary,
    iso,
    latest_attempts,
    moment,
    parse_pipeline,
)
from cpstage.job.masking import MASK
from cpstage.transfer.artifact import identify, read_head
from cpstage.transfer.options import Unpacking


def describe(job: ArtifactSet, *, config: AwsConfig | None = None) -> dict[str, Any]:
    """Describe a job, with what S3 says of its inputs; secrets are masked.

    An input whose HEAD fails is described by the error: a person who debugs a job wants to see the
    rest of it all the same. Of a past execution, the outputs are described as well.

    A value of the action's configuration is shown where the action type says that the property is
    not secret.

    Args:
        job: The job, or a past execution.
        config: The configuration of the AWS clients.
    """
    where = config or AwsConfig()
    session = JobSession(job, where)
    token = job.continuation_token if isinstance(job, Job) else None
    return {
        "id": job.id,
        "account_id": job.account_id,
        "action_type": str(job.action_type_id) if job.action_type_id else None,
        "pipeline_context": job.pipeline_context._asdict(),
        "region": job.region,
        "configuration": _configuration(job, where),
        "encryption_key": job.encryption_key._asdict() if job.encryption_key else None,
        "continuation_token": MASK if token else None,
        "credentials": _credentials(job),
        "read_with": job.read_with,
        "execution": _execution(job) if isinstance(job, Execution) else None,
        "inputs": [_object(one, session) for one in job.input_artifacts],
        "outputs": [_object(one, session) for one in job.made_artifacts]
        or [*map(artifact_document, job.output_artifacts)],
    }


def _credentials(job: ArtifactSet) -> dict[str, Any]:
    found = job.credentials if isinstance(job, Job) else None
    age = found.age_seconds if found else None
    return {
        "present": found is not None,
        "age_seconds": None if age is None else round(age),
        "expires_at": iso(found.expires_at if found else None),
    }


def _execution(job: Execution) -> dict[str, Any]:
    """Describe a past execution: the whole, and the action that was chosen."""
    summary = job.summary.document() if job.summary else {}
    action = job.action
    return {
        "status": summary.get("status"),
        "start_time": summary.get("start_time"),
        "duration_seconds": summary.get("duration_seconds"),
        "source_revisions": summary.get("source_revisions", []),
        "action_status": action.status if action else None,
        "action_error": action.error if action else None,
        "action_url": action.external_url if action else None,
    }


def _configuration(job: ArtifactSet, config: AwsConfig) -> dict[str, str]:
    """Return the action's configuration; every value that may be a secret is masked."""
    values, kind = job.action_configuration, job.action_type_id
    if not values:
        return {}
    if not config.region and job.region:  # which a saved document tells too
        config = replace(config, region=job.region)
    is_secret = (secret_properties(kind, config=config) if kind else None) or {}
    return {
        name: MASK if is_secret.get(name, True) else value.reveal()
        for name, value in values.items()
    }


def _object(artifact: Artifact, session: JobSession) -> dict[str, Any]:
    known = {**artifact_document(artifact), "revision": artifact.revision}
    try:
        store = session.store
        info = store.head(artifact)
        head = read_head(store.open(artifact, info))
    except CpstageError as error:
        return {**known, "error": str(error)}
    return {
        **known,
        **info._asdict(),
        "last_modified": iso(moment(info.last_modified)),
        "checksum": str(info.checksum) if info.checksum else None,
        "unverified_checksum": info.unverified_checksum,
        "client_side": s3_client_object(info.metadata),
        **_identity(head, artifact, info),
        "error": None,
    }


def _identity(head: bytes, artifact: Artifact, info: ObjectInfo) -> dict[str, Any]:
    name, content_type = artifact.location.key, info.content_type
    try:
        found = identify(head, Unpacking(), name=name, content_type=content_type)
    except ArtifactRejected as error:
        return {"envelope": None, "format": error.message}
    kind = "sealed" if found.header else found.format or "file"
    return {"envelope": found.message, "format": kind}


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
            :func:`cpstage.inspect.list_executions`; the failed actions need
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
            :func:`cpstage.inspect.get_execution`.
    """
    reference, where = parse_pipeline(pipeline), config or AwsConfig()
    summary = find_execution(pipeline, execution, config=where)
    actions = list_actions(pipeline, summary.id, config=where)
    region = reference.region or where.require_region()
    listed = ListedExecution(summary, _failed(actions))
    return DescribedExecution(reference.name, region, listed, tuple(actions))


def _failed(actions: list[ActionExecution]) -> tuple[ActionExecution, ...]:
    return tuple(one for one in latest_attempts(actions) if one.status == "Failed")
