"""Past executions as the local AWS tells them: to boto3, and to the real AWS CLI."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pytest

from aws_clients import aws_cli, codepipeline, refused, s3
from command_line import plain_environment
from cpstage.local import ActionRun, Input, LocalAWS
from cpstage.local.sample import PIPELINE, add_sample_history

if TYPE_CHECKING:
    from pathlib import Path

    from mypy_boto3_codepipeline import CodePipelineClient

YEAR = 365 * 24 * 3600


@pytest.fixture(scope="module")
def failed(aws: LocalAWS) -> str:
    return add_sample_history(aws)


@pytest.fixture
def client(aws: LocalAWS) -> CodePipelineClient:
    return codepipeline(aws.admin_environment)


def _aws(aws: LocalAWS, home: Path, *arguments: str) -> Any:
    environment = {**plain_environment(home), **aws.debugger_environment}
    return json.loads(aws_cli(environment, "codepipeline", *arguments, cwd=home))


def test_the_aws_cli_lists_executions(aws: LocalAWS, failed: str, tmp_path: Path) -> None:
    arguments = ("--pipeline-name", PIPELINE)

    listed = _aws(aws, tmp_path, "list-pipeline-executions", *arguments)

    found = listed["pipelineExecutionSummaries"]
    assert [one["status"] for one in found] == ["Failed", "Succeeded", "Succeeded"]
    assert found[0]["pipelineExecutionId"] == failed
    assert found[0]["sourceRevisions"][0]["revisionSummary"] == "Shorten the greeting"
    assert [one["startTime"] for one in found] == sorted(
        (one["startTime"] for one in found), reverse=True
    )


def test_the_aws_cli_lists_the_actions_of_an_execution(
    aws: LocalAWS, failed: str, tmp_path: Path
) -> None:
    wanted = ("--pipeline-name", PIPELINE, "--filter", f"pipelineExecutionId={failed}")

    pages = _aws(aws, tmp_path, "list-action-executions", *wanted, "--page-size", "1")

    build, source = pages["actionExecutionDetails"]  # the AWS CLI follows the tokens
    assert (source["actionName"], build["actionName"]) == ("Source", "BuildWithCpstage")
    assert build["input"]["inputArtifacts"] == source["output"]["outputArtifacts"]
    place = build["input"]["inputArtifacts"][0]["s3location"]
    body = s3(aws.admin_environment).get_object(Bucket=place["bucket"], Key=place["key"])
    assert body["ServerSideEncryption"] == "aws:kms"
    assert build["output"]["executionResult"]["errorDetails"]["code"] == "JobFailed"


def test_the_aws_cli_gets_a_pipeline(aws: LocalAWS, failed: str, tmp_path: Path) -> None:
    assert failed

    got = _aws(aws, tmp_path, "get-pipeline", "--name", PIPELINE)

    assert got["pipeline"]["artifactStore"]["encryptionKey"]["id"] == aws.key_arn
    assert [one["name"] for one in got["pipeline"]["stages"]] == ["Source", "Build", "Deploy"]
    assert got["metadata"]["pipelineArn"].endswith(f":{PIPELINE}")


def test_pages_are_of_100_at_most(aws: LocalAWS, client: CodePipelineClient) -> None:
    ids = [aws.history.add("long", []) for _ in range(205)]

    found, token, sizes = [], None, []
    while True:
        more: Any = {"nextToken": token} if token else {}
        page = client.list_pipeline_executions(pipelineName="long", **more)
        found += [one["pipelineExecutionId"] for one in page["pipelineExecutionSummaries"]]
        sizes.append(len(page["pipelineExecutionSummaries"]))
        token = page.get("nextToken")
        if not token:
            break

    assert found == ids[::-1]
    assert sizes == [100, 100, 5]
    with refused("ValidationException", 400):
        client.list_pipeline_executions(pipelineName="long", maxResults=101)
    with refused("InvalidNextTokenException", 400):
        client.list_pipeline_executions(pipelineName="long", nextToken="bm90aGluZw==")
    with refused("InvalidNextTokenException", 400):
        token = client.list_pipeline_executions(pipelineName="long", maxResults=1)["nextToken"]
        client.list_action_executions(pipelineName="long", nextToken=token)


def test_what_is_not_there_is_refused(
    aws: LocalAWS, client: CodePipelineClient, failed: str
) -> None:
    other = aws.history.add("other", [])

    with refused("PipelineNotFoundException", 400):
        client.list_pipeline_executions(pipelineName="missing")
    with refused("PipelineNotFoundException", 400):
        codepipeline(aws.admin_environment, "eu-west-1").get_pipeline(name="other")
    for unknown in (failed, "00000000-0000-0000-0000-000000000000"):
        with refused("PipelineExecutionNotFoundException", 400):
            client.list_action_executions(
                pipelineName="other", filter={"pipelineExecutionId": unknown}
            )
    with refused("ValidationException", 400):
        client.list_action_executions(pipelineName="other", filter={"pipelineExecutionId": "x"})
    with refused("AccessDeniedException", 400):
        codepipeline(aws.environment).list_pipeline_executions(pipelineName="other")
    assert client.list_action_executions(
        pipelineName="other", filter={"pipelineExecutionId": other}
    )["actionExecutionDetails"] == []  # fmt: skip


def test_executions_older_than_a_year_are_gone(aws: LocalAWS, client: CodePipelineClient) -> None:
    aws.history.add("old", [], started=time.time() - YEAR - 60)
    young = aws.history.add("old", [], started=time.time() - YEAR + 600)

    found = client.list_pipeline_executions(pipelineName="old")["pipelineExecutionSummaries"]

    assert [one["pipelineExecutionId"] for one in found] == [young]


def test_attempts_regions_and_filters(aws: LocalAWS, client: CodePipelineClient) -> None:
    source = ActionRun("Source", "Source", outputs=(Input("App", b"x"),))
    first = ActionRun("Build", inputs=("App",), status="Failed")
    again = ActionRun("Build", inputs=("App",), outputs=(Input("Built", b"y", ""),))
    abroad = ActionRun("Abroad", "Deploy", ("Built",), region="eu-west-1")
    approval = ActionRun("Approve", "Deploy", action_type=("Approval", "AWS", "Manual", "1"))
    execution = aws.history.add("regions", [source, first, again, approval, abroad])
    aws.history.add("regions", [source, first], status="Failed", mode="PARALLEL")

    def actions(**wanted: Any) -> list[Any]:
        answer = client.list_action_executions(pipelineName="regions", filter=wanted)  # type: ignore[arg-type]
        return [*answer["actionExecutionDetails"]]

    every = actions(pipelineExecutionId=execution)
    latest = {"pipelineExecutionId": execution, "startTimeRange": "Latest"}
    assert [one["actionName"] for one in every] == [
        *("Abroad", "Approve", "Build", "Build", "Source")
    ]
    assert [one["status"] for one in actions(latestInPipelineExecution=latest)] == ["Succeeded"] * 4
    place = every[0]["input"]["inputArtifacts"][0]["s3location"]
    assert (every[0]["input"]["region"], place["bucket"]) == (
        "eu-west-1",
        "codepipeline-eu-west-1-123456789012",
    )
    s3(aws.admin_environment, "eu-west-1").head_object(Bucket=place["bucket"], Key=place["key"])
    stores = client.get_pipeline(name="regions")["pipeline"]["artifactStores"]
    assert sorted(stores) == ["eu-west-1", "us-east-1"]
    wanted: Any = {"succeededInStage": {"stageName": "Build"}}
    succeeded = client.list_pipeline_executions(pipelineName="regions", filter=wanted)
    assert [one["pipelineExecutionId"] for one in succeeded["pipelineExecutionSummaries"]] == [
        execution
    ]


def test_action_types_tell_which_properties_are_secret(
    aws: LocalAWS, client: CodePipelineClient, failed: str
) -> None:
    aws.action_types["Build", "ThirdParty", "Partner", "1"] = {"Token": True, "Project": False}

    custom = client.list_action_types(actionOwnerFilter="Custom")["actionTypes"]
    partner = client.get_action_type(
        category="Build", owner="ThirdParty", provider="Partner", version="1"
    )

    assert failed
    properties = {
        one["name"]: one["secret"]
        for kind in custom
        for one in kind["actionConfigurationProperties"]
    }
    assert properties["DeployToken"]
    assert not properties["Target"]
    echoes = {one["name"]: one["noEcho"] for one in partner["actionType"]["properties"]}
    assert echoes == {"Token": True, "Project": False}
    with refused("ValidationException", 400):
        client.get_action_type(category="Build", owner="Custom", provider="x", version="1")
