"""Past executions of pipelines, and the operations of the CodePipeline API about them.

The operations are those of the CodePipeline API Reference: newest first, at most 100 on a page, and
a token that leads to the next one.

A pipeline has executions, an execution has runs of actions, and a run has input and output
artifacts, whose objects are in the pipeline's bucket of the action's region.
"""

from __future__ import annotations

import base64
import json
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from werkzeug.wrappers import Response

from cpstage.local.access import ACCOUNT, Refusal, json_reply
from cpstage.local.client import ActionRun, Input, Revision
from cpstage.local.job_api import read_request
from cpstage.local.jobs import ActionType, JobService, StoredArtifact, place

HISTORY_SECONDS = 365 * 24 * 3600.0
"""How long CodePipeline keeps executions (CodePipeline User Guide, quotas)."""

_HOUR = 3600.0
_PAGE = 100
_COUNTS = {"minimumCount": 0, "maximumCount": 5}
_Document = dict[str, Any]

ActionTypeKey = tuple[str, str, str, str]
Properties = Mapping[str, bool]
"""The properties of an action type, and whether each is secret."""


class _KeptRun(NamedTuple):
    """A run of an action with what the history adds to it."""

    run: ActionRun
    id: str
    started: float
    inputs: list[StoredArtifact]
    outputs: list[StoredArtifact]


class _Execution(NamedTuple):
    """One execution of a pipeline: its summary as the API has it, and its runs, oldest first."""

    id: str
    started: float
    summary: _Document
    runs: list[_KeptRun]


class History:
    """The executions of all pipelines of one region; their artifacts are stored as those of jobs.

    Attributes:
        action_types: Action types with their configuration properties.
        operations: The operations that :meth:`answer` answers.
    """

    def __init__(self, jobs: JobService) -> None:
        self._jobs = jobs
        self._lock = threading.Lock()
        self._pipelines: dict[str, list[_Execution]] = {}
        self.action_types: dict[ActionTypeKey, Properties] = {}
        self.operations: dict[str, Callable[[_Document], _Document]] = {
            "ListPipelines": self._list_pipelines,
            "GetPipeline": self._get_pipeline,
            "ListPipelineExecutions": self._list_executions,
            "ListActionExecutions": self._list_actions,
            "ListActionTypes": self._list_types,
            "GetActionType": self._get_type,
        }

    def add_pipeline(self, name: str) -> None:
        """Add a pipeline without executions."""
        with self._lock:
            self._pipelines.setdefault(name, [])

    def add(
        self,
        pipeline: str,
        runs: Sequence[ActionRun],
        *,
        status: str = "Succeeded",
        started: float | None = None,
        revisions: Sequence[Revision] = (),
        trigger: tuple[str, str] = ("StartPipelineExecution", ""),
        mode: str = "SUPERSEDED",
        kind: str = "STANDARD",
        status_summary: str | None = None,
        stop_reason: str | None = None,
    ) -> str:
        """Add an execution, and store the objects of its artifacts; return its id."""
        self.add_pipeline(pipeline)
        execution_id = str(uuid.uuid4())
        with self._lock:
            began = started
            if began is None:  # later than every other execution of the pipeline
                others = [one.started for one in self._pipelines[pipeline]]
                began = max(others) + 1 if others else time.time() - _HOUR
            summary = {
                "pipelineExecutionId": execution_id,
                "status": status,
                **_given(statusSummary=status_summary),
                "startTime": began,
                "lastUpdateTime": began + sum(run.seconds for run in runs),
                "sourceRevisions": [
                    {"actionName": one.action, "revisionId": one.id}
                    | _given(revisionSummary=one.summary, revisionUrl=one.url)
                    for one in revisions
                ],
                "trigger": {"triggerType": trigger[0], "triggerDetail": trigger[1]},
                **_given(stopTrigger=_given(reason=stop_reason)),
                "executionMode": mode,
                "executionType": kind,
            }
            kept = [*self._keep(pipeline, runs, began)]
            self._pipelines[pipeline].append(_Execution(execution_id, began, summary, kept))
        return execution_id

    def _keep(self, pipeline: str, runs: Sequence[ActionRun], began: float) -> Iterator[_KeptRun]:
        made: dict[str, tuple[StoredArtifact, Input]] = {}
        for run in runs:
            bucket, key = self._jobs.store_of(run.region or self._jobs.region)
            inputs = [self._input(made, name, bucket, key) for name in run.inputs]
            outputs = [place(pipeline, item, bucket) for item in run.outputs]
            for item, artifact in zip(run.outputs, outputs, strict=True):
                self._jobs.store(artifact, item, key)
                made[item.name] = (artifact, item)
            yield _KeptRun(run, str(uuid.uuid4()), began, inputs, outputs)
            began += run.seconds

    def _input(
        self, made: Mapping[str, tuple[StoredArtifact, Input]], name: str, bucket: str, key: str
    ) -> StoredArtifact:
        """Return an input; CodePipeline copies it into the bucket of the action's region."""
        if name not in made:
            raise ValueError(f"no earlier action of the execution made an artifact {name}")
        artifact, item = made[name]
        if artifact.bucket == bucket or item.bucket is not None:
            return artifact
        copy = StoredArtifact(name, bucket, artifact.key, artifact.revision)
        self._jobs.store(copy, item, key)
        return copy

    def answer(self, operation: str, body: bytes, region: str) -> Response:
        """Answer one call.

        Raises:
            Refusal: One of the operation's errors.
        """
        document = read_request(operation, body)
        name = document.get("pipelineName") or document.get("name")
        if name and (region != self._jobs.region or name not in self._pipelines):
            message = f"Account '{ACCOUNT}' does not have a pipeline with name '{name}'"
            raise Refusal(400, "PipelineNotFoundException", message)
        return json_reply(self.operations[operation](document))

    def _list_pipelines(self, document: _Document) -> _Document:
        names = [{"name": name, "version": 1} for name in sorted(self._pipelines)]
        return _page("pipelines", names, document, 1000)

    def _get_pipeline(self, document: _Document) -> _Document:
        name, region = document["name"], self._jobs.region
        runs = [run for one in self._kept(name) for run in one.runs]
        used = {run.run.region or region for run in runs} | {region}
        stores = {
            one: {"type": "S3", "location": bucket, "encryptionKey": {"id": key, "type": "KMS"}}
            for one, (bucket, key) in self._jobs.stores.items()
            if one in used
        }
        several = len(used) > 1
        return {
            "pipeline": {
                "name": name,
                "roleArn": f"arn:aws:iam::{ACCOUNT}:role/pipeline",
                **({"artifactStores": stores} if several else {"artifactStore": stores[region]}),
                "stages": [*_stages(runs, region)],
                "version": 1,
                "pipelineType": "V2",
            },
            "metadata": {"pipelineArn": f"arn:aws:codepipeline:{region}:{ACCOUNT}:{name}"},
        }

    def _list_executions(self, document: _Document) -> _Document:
        kept = self._kept(document["pipelineName"])
        stage = ((document.get("filter") or {}).get("succeededInStage") or {}).get("stageName")
        if stage:
            kept = [one for one in kept if _succeeded_in(one, stage)]
        return _page("pipelineExecutionSummaries", [one.summary for one in kept], document)

    def _list_actions(self, document: _Document) -> _Document:
        kept = self._kept(document["pipelineName"])
        wanted = document.get("filter") or {}
        latest = wanted.get("latestInPipelineExecution") or {}
        execution_id = wanted.get("pipelineExecutionId") or latest.get("pipelineExecutionId")
        if execution_id:
            kept = [one for one in kept if one.id == execution_id]
            if not kept:
                message = f"Unable to find pipeline execution '{execution_id}'"
                raise Refusal(400, "PipelineExecutionNotFoundException", message)
        runs = [(one.id, run) for one in kept for run in one.runs]
        if latest.get("startTimeRange") == "Latest":
            runs = [*{(one, run.run.stage, run.run.name): (one, run) for one, run in runs}.values()]
        runs.sort(key=lambda pair: -pair[1].started)
        details = [_detail(one, run, self._jobs.region) for one, run in runs]
        return _page("actionExecutionDetails", details, document)

    def _list_types(self, document: _Document) -> _Document:
        owner = document.get("actionOwnerFilter")
        found = [
            {
                "id": ActionType(*key)._asdict(),
                "actionConfigurationProperties": [
                    {"name": name, "required": False, "key": False, "secret": is_secret}
                    for name, is_secret in properties.items()
                ],
                "inputArtifactDetails": _COUNTS,
                "outputArtifactDetails": _COUNTS,
            }
            for key, properties in self.action_types.items()
            if owner in (None, key[1])
        ]
        return _page("actionTypes", found, document)

    def _get_type(self, document: _Document) -> _Document:
        key = ActionType(*(document[name] for name in ActionType._fields))
        properties = self.action_types.get(key)
        if properties is None:
            message = f"The action type {'/'.join(key)} is not known"
            raise Refusal(400, "ActionTypeNotFoundException", message)
        return {
            "actionType": {
                "id": key._asdict(),
                "executor": {"type": "JobWorker", "configuration": {}},
                "inputArtifactDetails": _COUNTS,
                "outputArtifactDetails": _COUNTS,
                "properties": [
                    {"name": name, "optional": True, "key": False, "noEcho": is_secret}
                    for name, is_secret in properties.items()
                ],
            }
        }

    def _kept(self, pipeline: str) -> list[_Execution]:
        """Return what is kept of a pipeline's executions, newest first."""
        oldest = time.time() - HISTORY_SECONDS
        kept = [one for one in self._pipelines[pipeline] if one.started >= oldest]
        return sorted(kept, key=lambda one: -one.started)


def _page(
    member: str, items: Sequence[_Document], document: _Document, most: int = _PAGE
) -> _Document:
    """Return one page of a list, and the token of the next one."""
    token = document.get("nextToken")
    start = _offset(token, member) if token else 0
    end = start + min(document.get("maxResults") or most, most)
    page: _Document = {member: [*items[start:end]]}
    if end < len(items):
        page["nextToken"] = base64.urlsafe_b64encode(json.dumps([member, end]).encode()).decode()
    return page


def _offset(token: str, member: str) -> int:
    try:
        of, offset = json.loads(base64.urlsafe_b64decode(token))
        if of == member and isinstance(offset, int):
            return offset
    except (ValueError, TypeError):
        pass
    raise Refusal(400, "InvalidNextTokenException", "The next token is invalid")


def _succeeded_in(execution: _Execution, stage: str) -> bool:
    """Whether the last attempts of all actions of a stage succeeded."""
    last = {run.run.name: run.run.status for run in execution.runs if run.run.stage == stage}
    return bool(last) and set(last.values()) == {"Succeeded"}


def _given(**members: object) -> _Document:
    """Return members without those that are empty."""
    return {name: value for name, value in members.items() if value}


def _detail(execution_id: str, kept: _KeptRun, region: str) -> _Document:
    run = kept.run
    code, message = run.error or ("", "")
    result = _given(
        externalExecutionId=run.external_id,
        externalExecutionSummary=run.summary,
        externalExecutionUrl=run.external_url,
        errorDetails=_given(code=code, message=message),
    )
    detail: _Document = {
        "pipelineExecutionId": execution_id,
        "actionExecutionId": kept.id,
        "pipelineVersion": 1,
        "stageName": run.stage,
        "actionName": run.name,
        "startTime": kept.started,
        "lastUpdateTime": kept.started + run.seconds,
        "status": run.status,
        "input": {
            "actionTypeId": ActionType(*run.action_type)._asdict(),
            "configuration": dict(run.configuration),
            "resolvedConfiguration": dict(run.configuration),
            "region": run.region or region,
            "inputArtifacts": [*map(_artifact, kept.inputs)],
        },
    }
    if run.status != "InProgress":
        detail["output"] = {
            "outputArtifacts": [*map(_artifact, kept.outputs)],
            "executionResult": result,
            "outputVariables": {},
        }
    return detail


def _artifact(one: StoredArtifact) -> _Document:
    return {"name": one.name, "s3location": {"bucket": one.bucket, "key": one.key}}


def _stages(runs: Sequence[_KeptRun], home: str) -> Iterator[_Document]:
    """Yield the stages that the runs were of, in their order."""
    stages: dict[str, dict[str, _KeptRun]] = {}
    for kept in runs:
        stages.setdefault(kept.run.stage, {}).setdefault(kept.run.name, kept)
    for stage, actions in stages.items():
        yield {
            "name": stage,
            "actions": [
                {
                    "name": name,
                    "actionTypeId": ActionType(*kept.run.action_type)._asdict(),
                    "runOrder": 1,
                    "configuration": dict(kept.run.configuration),
                    "inputArtifacts": [{"name": one.name} for one in kept.inputs],
                    "outputArtifacts": [{"name": one.name} for one in kept.outputs],
                    "region": kept.run.region or home,
                }
                for name, kept in actions.items()
            ],
        }
