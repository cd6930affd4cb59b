"""Past executions of a pipeline: their actions and artifacts, in the shapes of the API reference.

The names are those of ``PipelineExecutionSummary`` and ``ActionExecutionDetail``. An
:class:`Execution` stands in place of a job where artifacts are read: it has the artifacts of one
action or of all actions, and no credentials.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

from cpstage.errors import UsageError
from cpstage.job import (
    APART,
    ActionTypeId,
    Artifact,
    ArtifactName,
    ArtifactSet,
    PipelineContext,
    ReadWith,
    S3Location,
    artifact_document,
    check_artifact_name,
)
from cpstage.job.model import Secret

_CONSOLE_PATH = re.compile(
    r"/codesuite/codepipeline/pipelines/(?P<name>[^/]+)(?:/executions/(?P<execution>[^/]+))?(?:/|$)"
)
_CONSOLE_HOSTS = (
    ".console.aws.amazon.com",
    ".console.amazonaws.cn",
    ".console.amazonaws-us-gov.com",
)
_REGION = re.compile(r"[a-z]{2}(?:-[a-z]+)+-[0-9]+")
_NAME = re.compile(r"[A-Za-z0-9.@_-]{1,100}")
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9.@_-]")
_LONGEST_ACTION = 140
"""With the 100 characters of an artifact's name, it fits into the name of a file."""

Document = Mapping[str, Any]


class PipelineReference(NamedTuple):
    """A pipeline as a person names it; an ARN names a region, a console URL an execution too."""

    name: str
    region: str | None = None
    execution_id: str | None = None


def parse_pipeline(text: str) -> PipelineReference:
    """Read a pipeline's name, ARN or URL, or an execution's URL; raise UsageError for others."""
    found: PipelineReference | None = None
    if "://" in text:
        found = _of_url(text)
    elif not text.startswith("arn:"):
        found = PipelineReference(text)
    elif re.fullmatch("arn:[^:]*:codepipeline(:[^:]*){3}", text):
        *_, region, _, resource = text.split(":")
        found = PipelineReference(resource.partition("/")[0], region or None)
    if found is None or not _NAME.fullmatch(found.name):
        raise UsageError(
            f"{text[:200]!r} is not a pipeline",
            hint="give its name, its ARN, or the console's URL of the pipeline or of an execution",
        )
    return found


def _of_url(text: str) -> PipelineReference | None:
    try:
        parts = urlsplit(text)
        host = parts.hostname or ""
    except ValueError:
        return None
    path = _CONSOLE_PATH.search(parts.path)
    known = any(f".{host}".endswith(one) for one in _CONSOLE_HOSTS)
    if parts.scheme != "https" or path is None or not known:
        return None
    named = parse_qs(parts.query).get("region", [])
    regions = [one for one in [*named, *host.split(".")] if _REGION.fullmatch(one)]
    execution = path["execution"]
    return PipelineReference(
        unquote(path["name"]),
        regions[0] if regions else None,
        unquote(execution) if execution else None,
    )


@dataclass(frozen=True)
class ExecutionSummary:
    """``PipelineExecutionSummary``, and the failed action where the execution failed."""

    id: str
    status: str
    status_summary: str | None = None
    start_time: datetime | None = None
    last_update_time: datetime | None = None
    trigger: str | None = None
    trigger_detail: str | None = None
    source_revisions: tuple[Mapping[str, str | None], ...] = ()
    stop_reason: str | None = None
    execution_mode: str | None = None
    execution_type: str | None = None

    def document(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        revisions = [dict(one) for one in self.source_revisions]
        return {**vars(self), **_times(self), "source_revisions": revisions}


@dataclass(frozen=True)
class ActionExecution:
    """``ActionExecutionDetail``: one attempt of an action."""

    id: str
    execution_id: str
    stage: str
    name: str
    status: str
    start_time: datetime | None = None
    last_update_time: datetime | None = None
    action_type_id: ActionTypeId | None = None
    configuration: Mapping[str, Secret] = field(default_factory=dict, repr=False)
    region: str | None = None
    inputs: tuple[Artifact, ...] = ()
    outputs: tuple[Artifact, ...] = ()
    external_id: str | None = None
    external_summary: str | None = None
    external_url: str | None = None
    error_code: str | None = None
    error_message: str | None = None

    @property
    def path(self) -> str:
        """The stage and the action: ``Stage/Action``."""
        return f"{self.stage}/{self.name}"

    @property
    def error(self) -> str | None:
        """Code and message of its failure, on one line."""
        return ": ".join(filter(None, (self.error_code, self.error_message))) or None

    def document(self) -> dict[str, Any]:
        """Return it as JSON has it; values of the configuration are left out."""
        return {
            "id": self.id,
            "stage": self.stage,
            "action": self.name,
            "status": self.status,
            **_times(self),
            "action_type": str(self.action_type_id) if self.action_type_id else None,
            "region": self.region,
            "error_code": self.error_code,
            "error_message": self.error_message,
            "external_id": self.external_id,
            "external_summary": self.external_summary,
            "external_url": self.external_url,
            "inputs": [*map(artifact_document, self.inputs)],
            "outputs": [*map(artifact_document, self.outputs)],
        }


@dataclass(frozen=True)
class Execution(ArtifactSet):
    """A past execution of a pipeline, or one action of it, with the artifacts to read.

    The caller's credentials read the artifacts. Of one action, ``input_artifacts`` and
    ``output_artifacts`` are its own. Of all actions, ``output_artifacts`` are what the actions
    made, each object once, and ``input_artifacts`` what no action of the execution made.

    Attributes:
        pipeline_region: The region of the pipeline.
        summary: The entry of ListPipelineExecutions; None where it is not listed.
        action: The latest attempt of the chosen action; None for all actions.
        actions: All attempts of all actions, oldest first.
    """

    read_with: ReadWith = "caller"
    pipeline_region: str = field(default="", kw_only=True)
    summary: ExecutionSummary | None = field(default=None, kw_only=True)
    action: ActionExecution | None = field(default=None, kw_only=True)
    actions: tuple[ActionExecution, ...] = field(default=(), kw_only=True)

    @property
    def pipeline(self) -> str:
        """The pipeline's name."""
        return self.pipeline_context.pipeline_name or ""

    @property
    def execution_id(self) -> str:
        """The id of the execution of the pipeline."""
        return self.pipeline_context.pipeline_execution_id or ""

    @property
    def title(self) -> str:
        """The name for messages."""
        whose = f"action {self.action.path} of " if self.action else ""
        return f"{whose}execution {self.execution_id} of pipeline {self.pipeline}"

    @property
    def region(self) -> str | None:
        """The region of the pipeline."""
        return self.pipeline_region or super().region

    @property
    def made_artifacts(self) -> tuple[Artifact, ...]:
        """The outputs, whose objects exist already, and are staged as well."""
        return self.output_artifacts

    @property
    def artifacts_to_build(self) -> tuple[Artifact, ...]:
        """The outputs of the chosen action, which can be built again."""
        return self.output_artifacts if self.action else ()


def latest_attempts(actions: Iterable[ActionExecution]) -> list[ActionExecution]:
    """Return the last attempt of each action; attempts are given and returned oldest first."""
    latest: dict[str, ActionExecution] = {}
    for one in actions:
        latest.pop(one.path, None)
        latest[one.path] = one
    return [*latest.values()]


def artifacts_of(
    actions: Sequence[ActionExecution],
) -> tuple[tuple[Artifact, ...], tuple[Artifact, ...]]:
    """Return the inputs from elsewhere and the outputs of actions, each object once.

    Artifacts of one name and several objects get different names: ``App@Build`` is the one that the
    action Build made, or read from elsewhere.
    """
    made: dict[S3Location, tuple[Artifact, ActionExecution]] = {}
    read: dict[S3Location, tuple[Artifact, ActionExecution]] = {}
    for action in actions:
        for artifact in action.outputs:
            made.setdefault(artifact.location, (artifact, action))
    copies = {(artifact.name, artifact.location.key) for artifact, _ in made.values()}
    for action in actions:
        for artifact in action.inputs:
            # CodePipeline copies an input under the same key into the bucket of another region.
            if len(actions) > 1 and (artifact.name, artifact.location.key) in copies:
                continue
            if artifact.location not in made:
                read.setdefault(artifact.location, (artifact, action))
    named = _with_unique_names([*read.values(), *made.values()])
    return tuple(named[: len(read)]), tuple(named[len(read) :])


def _with_unique_names(found: Sequence[tuple[Artifact, ActionExecution]]) -> list[Artifact]:
    """Give each artifact a unique name: first with its action, then also with its stage."""
    names = [str(artifact.name) for artifact, _ in found]
    for suffix in (lambda one: one.name, lambda one: f"{one.stage}.{one.name}"):
        counts = Counter(names)
        names = [
            _apart(artifact.name, suffix(action)) if counts[name] > 1 else name
            for name, (artifact, action) in zip(names, found, strict=True)
        ]
    unique = [
        name if names.index(name) == number else f"{name}{APART}{number}"
        for number, name in enumerate(names)
    ]
    return [
        artifact._replace(name=ArtifactName(name))
        for name, (artifact, _) in zip(unique, found, strict=True)
    ]


def _apart(name: str, action: str) -> str:
    """Return a name that is safe as the name of a directory, whatever a service answers."""
    return f"{name}{APART}{_NOT_IN_NAMES.sub('_', action)[:_LONGEST_ACTION]}"


def parse_summary(member: Document) -> ExecutionSummary:
    """Read a ``PipelineExecutionSummary``."""
    trigger = _mapping(member, "trigger")
    revisions = member.get("sourceRevisions")
    return ExecutionSummary(
        id=_text(member, "pipelineExecutionId") or "",
        status=_text(member, "status") or "",
        status_summary=_text(member, "statusSummary"),
        start_time=moment(member.get("startTime")),
        last_update_time=moment(member.get("lastUpdateTime")),
        trigger=_text(trigger, "triggerType"),
        trigger_detail=_text(trigger, "triggerDetail"),
        source_revisions=tuple(
            {
                "action": _text(one, "actionName"),
                "id": _text(one, "revisionId"),
                "summary": _text(one, "revisionSummary"),
                "url": _text(one, "revisionUrl"),
            }
            for one in (revisions if isinstance(revisions, list) else [])
            if isinstance(one, dict)
        ),
        stop_reason=_text(_mapping(member, "stopTrigger"), "reason"),
        execution_mode=_text(member, "executionMode"),
        execution_type=_text(member, "executionType"),
    )


def parse_action(member: Document) -> ActionExecution:
    """Read an ``ActionExecutionDetail``; raise ConfigurationError for an unsafe artifact name."""
    given, output = _mapping(member, "input"), _mapping(member, "output")
    result = _mapping(output, "executionResult")
    error = _mapping(result, "errorDetails")
    kind = _mapping(given, "actionTypeId")
    configuration = _mapping(given, "resolvedConfiguration") or _mapping(given, "configuration")
    parts = [_text(kind, name) or "" for name in ("category", "owner", "provider", "version")]
    return ActionExecution(
        id=_text(member, "actionExecutionId") or "",
        execution_id=_text(member, "pipelineExecutionId") or "",
        stage=_text(member, "stageName") or "",
        name=_text(member, "actionName") or "",
        status=_text(member, "status") or "",
        start_time=moment(member.get("startTime")),
        last_update_time=moment(member.get("lastUpdateTime")),
        action_type_id=ActionTypeId(*parts) if all(parts) else None,
        configuration={
            name: Secret(value) for name, value in configuration.items() if isinstance(value, str)
        },
        region=_text(given, "region"),
        inputs=_artifacts(given, "inputArtifacts"),
        outputs=_artifacts(output, "outputArtifacts"),
        external_id=_text(result, "externalExecutionId"),
        external_summary=_text(result, "externalExecutionSummary"),
        external_url=_text(result, "externalExecutionUrl"),
        error_code=_text(error, "code"),
        error_message=_text(error, "message"),
    )


def context_of(
    pipeline: str, execution_id: str, arn: str | None, action: ActionExecution | None
) -> PipelineContext:
    """Return the context of an execution, or of one action of it."""
    return PipelineContext(
        pipeline_name=pipeline,
        stage_name=action.stage if action else None,
        action_name=action.name if action else None,
        action_execution_id=action.id if action else None,
        pipeline_arn=arn,
        pipeline_execution_id=execution_id,
    )


def moment(value: object) -> datetime | None:
    """Read a time of an answer, which clients leave as text: seconds since 1970, or as in HTTP."""
    text = str(value)
    with suppress(ValueError, OverflowError, OSError):
        return datetime.fromtimestamp(float(text), timezone.utc)
    with suppress(ValueError, TypeError, OverflowError):
        return parsedate_to_datetime(text)
    return None


def iso(time: datetime | None) -> str | None:
    """Return a time as ISO 8601 in UTC, in seconds."""
    return f"{time.astimezone(timezone.utc):%Y-%m-%dT%H:%M:%SZ}" if time else None


def _times(one: ExecutionSummary | ActionExecution) -> dict[str, Any]:
    start, end = one.start_time, one.last_update_time
    return {
        "start_time": iso(start),
        "last_update_time": iso(end),
        "duration_seconds": round((end - start).total_seconds()) if start and end else None,
    }


def _artifacts(parent: Document, member: str) -> tuple[Artifact, ...]:
    listed = parent.get(member)
    found = []
    for one in listed if isinstance(listed, list) else []:
        place = _mapping(one, "s3location")
        bucket, key = _text(place, "bucket"), _text(place, "key")
        if bucket and key:  # an action that never ran has names only
            found.append(Artifact(check_artifact_name(one.get("name")), S3Location(bucket, key)))
    return tuple(found)


def _mapping(parent: Document, member: str) -> dict[str, Any]:
    found = parent.get(member) if isinstance(parent, Mapping) else None
    return found if isinstance(found, dict) else {}


def _text(parent: Document, member: str) -> str | None:
    found = parent.get(member)
    return found if isinstance(found, str) and found else None
