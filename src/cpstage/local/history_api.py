"""The operations of the CodePipeline API about pipelines, their past executions and action types.

ListPipelines, GetPipeline, ListPipelineExecutions, ListActionExecutions, ListActionTypes and
GetActionType, as the CodePipeline API Reference describes them: newest first, at most 100 on a
page, and a token that leads to the next one.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NoReturn, TypeVar

from cpstage.local.history import History, KeptExecution, KeptRun
from cpstage.local.identities import ACCOUNT
from cpstage.local.job_api import read_request
from cpstage.local.jobs import Artifact
from cpstage.local.wire import Refusal, Reply

HISTORY_OPERATIONS = (
    "ListPipelines",
    "GetPipeline",
    "ListPipelineExecutions",
    "ListActionExecutions",
    "ListActionTypes",
    "GetActionType",
)
"""What :class:`HistoryAPI` answers."""

_PAGE = 100
_Document = dict[str, Any]
_Item = TypeVar("_Item")

ActionTypeKey = tuple[str, str, str, str]
Properties = Mapping[str, bool]
"""The properties of an action type, and whether each is secret."""


class HistoryAPI:
    """Answers the operations about pipelines and action types.

    Args:
        history: The past executions.
        action_types: The action types with their configuration properties.
        stores: Returns the artifact buckets and KMS keys by region.
    """

    def __init__(
        self,
        history: History,
        action_types: Mapping[ActionTypeKey, Properties],
        stores: Callable[[], Mapping[str, tuple[str, str]]],
    ) -> None:
        self._history = history
        self._action_types = action_types
        self._stores = stores
        self._handlers: dict[str, Callable[[_Document], _Document]] = {
            "ListPipelines": self._pipelines,
            "GetPipeline": self._pipeline,
            "ListPipelineExecutions": self._executions,
            "ListActionExecutions": self._actions,
            "ListActionTypes": self._types,
            "GetActionType": self._type,
        }

    def answer(self, operation: str, body: bytes, region: str) -> Reply:
        """Answer one call.

        Raises:
            Refusal: One of the operation's errors.
        """
        document = read_request(operation, body)
        name = document.get("pipelineName") or document.get("name")
        if name and (region != self._history.region or self._history.executions(name) is None):
            message = f"Account '{ACCOUNT}' does not have a pipeline with name '{name}'"
            raise Refusal(400, "PipelineNotFoundException", message)
        return Reply.of_json(self._handlers[operation](document))

    def _pipelines(self, document: _Document) -> _Document:
        names = [{"name": name, "version": 1} for name in self._history.pipelines()]
        return _page("pipelines", names, document, 1000)

    def _pipeline(self, document: _Document) -> _Document:
        name, region = document["name"], self._history.region
        runs = [run for one in self._kept(name) for run in one.runs]
        stores = self._stores()
        used = {run.run.region or region for run in runs} | {region}
        documents = {
            one: {"type": "S3", "location": bucket, "encryptionKey": {"id": key, "type": "KMS"}}
            for one, (bucket, key) in stores.items()
            if one in used
        }
        several = {"artifactStores": documents} if len(used) > 1 else {}
        return {
            "pipeline": {
                "name": name,
                "roleArn": f"arn:aws:iam::{ACCOUNT}:role/pipeline",
                **(several or {"artifactStore": documents[region]}),
                "stages": [*_stages(runs, region)],
                "version": 1,
                "pipelineType": "V2",
            },
            "metadata": {"pipelineArn": f"arn:aws:codepipeline:{region}:{ACCOUNT}:{name}"},
        }

    def _executions(self, document: _Document) -> _Document:
        kept = self._kept(document["pipelineName"])
        stage = ((document.get("filter") or {}).get("succeededInStage") or {}).get("stageName")
        if stage:
            kept = [one for one in kept if _succeeded_in(one, stage)]
        return _page("pipelineExecutionSummaries", [*map(_summary, kept)], document)

    def _actions(self, document: _Document) -> _Document:
        kept = self._kept(document["pipelineName"])
        wanted = document.get("filter") or {}
        latest = wanted.get("latestInPipelineExecution")
        execution_id = wanted.get("pipelineExecutionId") or (latest or {}).get(
            "pipelineExecutionId"
        )
        if execution_id:
            kept = [one for one in kept if one.id == execution_id]
            if not kept:
                message = f"Unable to find pipeline execution '{execution_id}'"
                raise Refusal(400, "PipelineExecutionNotFoundException", message)
        region = self._history.region
        runs = [(one, run) for one in kept for run in one.runs]
        if latest and latest["startTimeRange"] == "Latest":
            runs = [
                *{(one.id, run.run.stage, run.run.name): (one, run) for one, run in runs}.values()
            ]
        runs.sort(key=lambda pair: -pair[1].started)
        details = [_detail(one, run, region) for one, run in runs]
        return _page("actionExecutionDetails", details, document)

    def _types(self, document: _Document) -> _Document:
        owner = document.get("actionOwnerFilter")
        found = [
            _type_document(key, properties)
            for key, properties in self._action_types.items()
            if owner in (None, key[1])
        ]
        return _page("actionTypes", found, document)

    def _type(self, document: _Document) -> _Document:
        key = (document["category"], document["owner"], document["provider"], document["version"])
        properties = self._action_types.get(key)
        if properties is None:
            message = f"The action type {'/'.join(key)} is not known"
            raise Refusal(400, "ActionTypeNotFoundException", message)
        counts = {"minimumCount": 0, "maximumCount": 5}
        return {
            "actionType": {
                "id": _type_id(key),
                "executor": {"type": "JobWorker", "configuration": {}},
                "inputArtifactDetails": counts,
                "outputArtifactDetails": counts,
                "properties": [
                    {"name": name, "optional": True, "key": False, "noEcho": is_secret}
                    for name, is_secret in properties.items()
                ],
            }
        }

    def _kept(self, pipeline: str) -> list[KeptExecution]:
        return self._history.executions(pipeline) or []


def _page(
    member: str, items: Sequence[_Document], document: _Document, most: int = _PAGE
) -> _Document:
    """Return one page of a list, and the token of the next one."""
    token = document.get("nextToken")
    start = _offset(token, member) if token else 0
    end = start + min(document.get("maxResults") or most, most)
    following = {"nextToken": _token(member, end)} if end < len(items) else {}
    return {member: [*items[start:end]], **following}


def _token(member: str, offset: int) -> str:
    return base64.urlsafe_b64encode(json.dumps([member, offset]).encode()).decode()


def _offset(token: str, member: str) -> int:
    try:
        of, offset = json.loads(base64.urlsafe_b64decode(token))
    except (ValueError, TypeError):
        _bad_token()
    if of != member or not isinstance(offset, int):
        _bad_token()
    return offset


def _bad_token() -> NoReturn:
    raise Refusal(400, "InvalidNextTokenException", "The next token is invalid")


def _succeeded_in(execution: KeptExecution, stage: str) -> bool:
    """Whether the last attempts of all actions of a stage succeeded."""
    last = {run.run.name: run.run.status for run in execution.runs if run.run.stage == stage}
    return bool(last) and set(last.values()) == {"Succeeded"}


def _summary(one: KeptExecution) -> _Document:
    return {
        "pipelineExecutionId": one.id,
        "status": one.status,
        **({"statusSummary": one.status_summary} if one.status_summary else {}),
        "startTime": one.started,
        "lastUpdateTime": one.updated,
        "sourceRevisions": [
            {
                "actionName": revision.action,
                "revisionId": revision.id,
                **({"revisionSummary": revision.summary} if revision.summary else {}),
                **({"revisionUrl": revision.url} if revision.url else {}),
            }
            for revision in one.revisions
        ],
        "trigger": {"triggerType": one.trigger[0], "triggerDetail": one.trigger[1]},
        **({"stopTrigger": {"reason": one.stop_reason}} if one.stop_reason else {}),
        "executionMode": one.mode,
        "executionType": one.type,
    }


def _detail(one: KeptExecution, kept: KeptRun, region: str) -> _Document:
    run = kept.run
    result: _Document = {}
    if run.external_id:
        result["externalExecutionId"] = run.external_id
    if run.summary:
        result["externalExecutionSummary"] = run.summary
    if run.external_url:
        result["externalExecutionUrl"] = run.external_url
    if run.error:
        result["errorDetails"] = {"code": run.error[0], "message": run.error[1]}
    detail: _Document = {
        "pipelineExecutionId": one.id,
        "actionExecutionId": kept.id,
        "pipelineVersion": 1,
        "stageName": run.stage,
        "actionName": run.name,
        "startTime": kept.started,
        "lastUpdateTime": kept.started + run.seconds,
        "status": run.status,
        "input": {
            "actionTypeId": _type_id(run.action_type),
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


def _artifact(one: Artifact) -> _Document:
    return {"name": one.name, "s3location": {"bucket": one.bucket, "key": one.key}}


def _type_id(key: ActionTypeKey) -> _Document:
    return dict(zip(("category", "owner", "provider", "version"), key, strict=True))


def _type_document(key: ActionTypeKey, properties: Properties) -> _Document:
    counts = {"minimumCount": 0, "maximumCount": 5}
    return {
        "id": _type_id(key),
        "actionConfigurationProperties": [
            {"name": name, "required": False, "key": False, "secret": is_secret}
            for name, is_secret in properties.items()
        ],
        "inputArtifactDetails": counts,
        "outputArtifactDetails": counts,
    }


def _stages(runs: Sequence[KeptRun], home: str) -> Iterator[_Document]:
    """Yield the stages that the runs were of, in their order."""
    stages: dict[str, dict[str, KeptRun]] = {}
    for kept in runs:
        stages.setdefault(kept.run.stage, {}).setdefault(kept.run.name, kept)
    for stage, actions in stages.items():
        yield {
            "name": stage,
            "actions": [
                {
                    "name": name,
                    "actionTypeId": _type_id(kept.run.action_type),
                    "runOrder": 1,
                    "configuration": dict(kept.run.configuration),
                    "inputArtifacts": [{"name": one.name} for one in kept.inputs],
                    "outputArtifacts": [{"name": one.name} for one in kept.outputs],
                    "region": kept.run.region or home,
                }
                for name, kept in actions.items()
            ],
        }
