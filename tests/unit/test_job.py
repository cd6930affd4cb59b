"""The job model: every shape AWS hands out, what is refused, and what is masked."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cpstage import parse_job
from cpstage.cli.job_options import JobSource
from cpstage.errors import ConfigurationError
from cpstage.job import mask_document
from cpstage.job.document import reveal
from cpstage.job.model import Secret

CANARIES = {
    "accessKeyId": "canary-access-key",
    "secretAccessKey": "canary-secret",
    "sessionToken": "canary-token",
    "Password": "canary-password",
    "continuationToken": "canary-continuation",
}


def _details() -> dict[str, Any]:
    location = {"bucketName": "bucket", "objectKey": "Pipeline/App/key.zip"}
    return {
        "id": "11111111-2222-3333-4444-555555555555",
        "data": {
            "actionTypeId": {
                "category": "Build",
                "owner": "Custom",
                "provider": "Make",
                "version": "1",
            },
            "actionConfiguration": {"configuration": {"Password": CANARIES["Password"]}},
            "pipelineContext": {
                "pipelineName": "Pipeline",
                "stage": {"name": "Build"},
                "action": {"name": "Compile", "actionExecutionId": "action-execution"},
                "pipelineArn": "arn:aws:codepipeline:eu-central-1:123456789012:Pipeline",
                "pipelineExecutionId": "execution",
            },
            "inputArtifacts": [
                {
                    "name": "App",
                    "revision": "abc",
                    "location": {"type": "S3", "s3Location": location},
                }
            ],
            "outputArtifacts": [
                {
                    "name": "Built",
                    "revision": None,
                    "location": {"type": "S3", "s3Location": {**location, "objectKey": "P/B/x"}},
                }
            ],
            "artifactCredentials": {
                name: CANARIES[name] for name in ("accessKeyId", "secretAccessKey", "sessionToken")
            },
            "continuationToken": CANARIES["continuationToken"],
            "encryptionKey": {"id": "key-id", "type": "KMS"},
        },
        "accountId": "123456789012",
    }


AWS_PAGE_EXAMPLE = {
    "jobDetails": {
        "accountId": "111111111111",
        "data": {
            "actionConfiguration": {
                "__type": "ActionConfiguration",
                "configuration": {"ProjectName": "MyJenkinsExampleTestProject"},
            },
            "actionTypeId": {
                "__type": "ActionTypeId",
                "category": "Test",
                "owner": "Custom",
                "provider": "MyJenkinsProviderName",
                "version": "1",
            },
            "artifactCredentials": {
                "__type": "AWSSessionCredentials",
                "accessKeyId": "AKIAIOSFODNN7EXAMPLE",
                "secretAccessKey": "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
                "sessionToken": "fICCQD6m7oRw0uXOjANBgkqhkiG9w0BAQUFADCBiDELMAkGA1UEBhMEXAMPLE",
            },
            "inputArtifacts": [
                {
                    "__type": "Artifact",
                    "location": {
                        "s3Location": {
                            "bucketName": "codepipeline-us-east-1-11EXAMPLE11",
                            "objectKey": "MySecondPipeline/MyAppBuild/EXAMPLE",
                        },
                        "type": "S3",
                    },
                    "name": "MyAppBuild",
                }
            ],
            "outputArtifacts": [],
            "pipelineContext": {
                "__type": "PipelineContext",
                "action": {"name": "MyJenkinsTest-Action"},
                "pipelineName": "MySecondPipeline",
                "stage": {"name": "Testing"},
            },
        },
        "id": "f4f4ff82-2d11-EXAMPLE",
    }
}


def test_the_example_of_the_aws_page_is_a_job() -> None:
    job = parse_job(AWS_PAGE_EXAMPLE)

    assert job.id == "f4f4ff82-2d11-EXAMPLE"
    assert str(job.action_type_id) == "Test/Custom/MyJenkinsProviderName/1"
    assert reveal(job.action_configuration) == {"ProjectName": "MyJenkinsExampleTestProject"}
    assert job.pipeline_context.action_name == "MyJenkinsTest-Action"
    assert job.pipeline_context.pipeline_arn is None
    assert [str(artifact.location) for artifact in job.input_artifacts] == [
        "s3://codepipeline-us-east-1-11EXAMPLE11/MySecondPipeline/MyAppBuild/EXAMPLE"
    ]
    assert job.output_artifacts == ()
    assert job.encryption_key is None
    assert job.require_credentials().access_key_id == "AKIAIOSFODNN7EXAMPLE"


def test_every_member_has_its_place() -> None:
    job = parse_job({"jobDetails": _details()})

    assert job.account_id == "123456789012"
    assert job.pipeline_context.action_execution_id == "action-execution"
    assert job.pipeline_context.pipeline_execution_id == "execution"
    assert job.region == "eu-central-1"
    assert job.input_artifacts[0].revision == "abc"
    assert job.input_artifacts[0].location.file_name == "key.zip"
    assert job.encryption_key is not None
    assert job.encryption_key.kms_key_id == "key-id"
    assert job.continuation_token == Secret(CANARIES["continuationToken"])
    assert job.action_configuration["Password"] == Secret(CANARIES["Password"])


@pytest.mark.parametrize(
    "shape",
    [
        lambda job: {"jobDetails": job},
        lambda job: {"jobDetails": {**job, "nonce": "3"}},
        lambda job: {**job, "nonce": "3"},
        lambda job: {"jobs": [job]},
        lambda job: {"CodePipeline.job": job},
    ],
    ids=["get-job-details", "third-party", "polled", "poll-for-jobs", "lambda"],
)
def test_all_saved_shapes_are_the_same_job(shape: Any) -> None:
    job = parse_job(shape(_details()))

    assert job.id == "11111111-2222-3333-4444-555555555555"
    assert [artifact.name for artifact in job.output_artifacts] == ["Built"]
    assert job.require_credentials().session_token == Secret(CANARIES["sessionToken"])


def test_a_job_never_prints_a_secret() -> None:
    job = parse_job(_details())

    said = f"{job} {job!r} {job.credentials} {job.credentials!r}"
    assert "Built" in said
    assert not [canary for canary in CANARIES.values() if canary in said]


def test_a_masked_document_keeps_its_shape_and_no_secret() -> None:
    document = {"jobDetails": _details()}
    before = copy.deepcopy(document)

    masked = mask_document(document)

    assert not [canary for canary in CANARIES.values() if canary in json.dumps(masked)]
    assert document == before
    assert (
        masked["jobDetails"]["data"]["pipelineContext"]
        == before["jobDetails"]["data"]["pipelineContext"]
    )
    assert set(masked["jobDetails"]["data"]["artifactCredentials"]) == set(
        before["jobDetails"]["data"]["artifactCredentials"]
    )


@pytest.mark.parametrize(
    ("key", "sent"),
    [
        (None, None),
        ({"id": "arn:aws:kms:eu-west-1:1:key/x", "type": "KMS"}, "arn:aws:kms:eu-west-1:1:key/x"),
        ({"type": "KMS"}, None),
        ({"id": "", "type": "KMS"}, None),
        ({"id": "some-key", "type": "Other"}, None),
    ],
    ids=["no key", "arn", "no id", "empty id", "other type"],
)
def test_a_key_id_is_sent_only_for_a_kms_key_with_an_id(key: Any, sent: str | None) -> None:
    details = _details()
    details["data"]["encryptionKey"] = key

    found = parse_job(details).encryption_key

    assert (found.kms_key_id if found else None) == sent


@pytest.mark.parametrize(
    "name", ["../x", "a/b", "", ".", "a b", "n" * 101, "CON", "lpt1", "ümlaut", "a\n", None, 7]
)
def test_an_artifact_name_that_is_no_safe_directory_is_refused(name: object) -> None:
    details = _details()
    details["data"]["inputArtifacts"][0]["name"] = name

    with pytest.raises(ConfigurationError, match="artifact named") as caught:
        parse_job(details)

    assert caught.value.exit_code == 78
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("key", ["P/App/", "P/App/..", "P/App/.", "P/App/a\x1b[2J", "n" * 256])
def test_a_key_that_ends_in_no_file_name_is_refused_as_one(key: str) -> None:
    details = _details()
    details["data"]["inputArtifacts"][0]["location"]["s3Location"]["objectKey"] = key
    location = parse_job(details).input_artifacts[0].location

    with pytest.raises(ConfigurationError, match="does not end in the name of a file"):
        _ = location.file_name


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda data: data["inputArtifacts"][0]["location"].update(type="FTP"), "'FTP'"),
        (lambda data: data["inputArtifacts"].append(data["inputArtifacts"][0]), "twice"),
        (lambda data: data["inputArtifacts"][0].pop("location"), "bucketName"),
        (lambda data: data.update(inputArtifacts={}), None),
        (lambda data: data.update(inputArtifacts="x"), "not a list"),
        (lambda data: data.update(pipelineContext=[]), "'pipelineContext'"),
        (lambda data: data["artifactCredentials"].pop("secretAccessKey"), "secretAccessKey"),
    ],
    ids=["store", "twice", "no location", "empty", "not a list", "context", "credentials"],
)
def test_an_unusable_member_is_named(change: Any, says: str | None) -> None:
    details = _details()
    change(details["data"])

    if says is None:
        assert parse_job(details).input_artifacts == ()
        return
    with pytest.raises(ConfigurationError, match=says):
        parse_job(details)


@pytest.mark.parametrize("value", ["canary\n", "canary x", "canaryé", "\x1bcanary"])
@pytest.mark.parametrize("member", ["accessKeyId", "secretAccessKey", "sessionToken"])
def test_credentials_that_would_break_a_header_are_refused_unseen(member: str, value: str) -> None:
    details = _details()
    details["data"]["artifactCredentials"][member] = value

    with pytest.raises(ConfigurationError, match=member) as caught:
        parse_job(details)

    assert "canary" not in str(caught.value)


@pytest.mark.parametrize(
    "change",
    [
        lambda details: details.update(id="\ud800"),
        lambda details: details["data"]["pipelineContext"].update(pipelineName="\udfff"),
        lambda details: details["data"]["encryptionKey"].update(id="key\nid"),
        lambda details: details["data"]["pipelineContext"].update(pipelineName="a\0b"),
    ],
)
def test_text_that_cannot_be_sent_is_refused(change: Any) -> None:
    details = _details()
    change(details)

    with pytest.raises(ConfigurationError):
        parse_job(details)


@pytest.mark.parametrize("levels", [700, 100_000])
def test_a_document_that_is_nested_too_deeply_is_refused(tmp_path: Path, levels: int) -> None:
    nested = '{"a":' * levels + "1" + "}" * levels
    text = json.dumps({**_details(), "unknown": "*"}).replace('"*"', nested)
    (tmp_path / "job.json").write_text(text)

    with pytest.raises(ConfigurationError, match=r"nested too deeply|is not JSON"):
        JobSource(None, None, str(tmp_path / "job.json")).require_id()


@pytest.mark.parametrize(
    "document", [None, [], "x", {}, {"jobDetails": None}, {"jobs": []}, {"jobs": [{}, {}]}]
)
def test_a_document_without_a_job_is_refused(document: object) -> None:
    with pytest.raises(ConfigurationError, match="the job document holds"):
        parse_job(document)


def _of_powershell(value: Any, name: str = "") -> Any:
    """Make a document what ``ConvertTo-Json`` writes: .NET properties, enumerations as objects."""
    if name in ("category", "owner", "type"):
        return {"Value": value}
    if isinstance(value, list):
        return [_of_powershell(one) for one in value]
    if isinstance(value, dict) and name != "configuration":
        return {one[0].upper() + one[1:]: _of_powershell(value[one], one) for one in value}
    return value


@pytest.mark.parametrize(
    "shape",
    [
        lambda job: job,
        lambda job: {"JobDetails": job, "ResponseMetadata": {"RequestId": "x"}},
        lambda job: {**job, "Nonce": "3"},
        lambda job: [job],
        lambda job: {"Jobs": [job]},
    ],
    ids=["Get-CPJobDetail", "-Select *", "third party", "Get-CPActionableJobList", "its response"],
)
def test_a_document_of_powershell_is_the_same_job(shape: Any) -> None:
    details = _details()
    details["data"]["actionConfiguration"]["configuration"]["password"] = {"Value": "x"}

    job = parse_job(shape(_of_powershell(details)))

    assert replace(job, nonce=None) == parse_job(details)
    assert str(job.action_type_id) == "Build/Custom/Make/1"
    assert job.encryption_key is not None
    assert job.encryption_key.kms_key_id == "key-id"


def test_a_masked_document_of_powershell_holds_no_secret() -> None:
    said = json.dumps(mask_document(_of_powershell(_details())))

    assert not [canary for canary in CANARIES.values() if canary in said]


@pytest.mark.parametrize(
    ("member", "text"),
    [
        ("InputArtifacts", ["Amazon.CodePipeline.Model.Artifact"]),
        ("InputArtifacts", "Amazon.CodePipeline.Model.Artifact"),
        ("PipelineContext", "Amazon.CodePipeline.Model.PipelineContext"),
        ("ArtifactCredentials", "@{AccessKeyId=canary}"),
    ],
)
def test_a_document_that_powershell_cut_says_how_to_save_it(member: str, text: object) -> None:
    document = _of_powershell(_details())
    document["Data"][member] = text

    with pytest.raises(ConfigurationError, match="-Depth 10") as caught:
        parse_job(document)

    assert "canary" not in str(caught.value)
    with pytest.raises(ConfigurationError, match="-Depth 10"):
        parse_job({"Id": "x", "Data": "Amazon.CodePipeline.Model.JobData"})


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_file_of_powershell_is_read_in_its_encoding(tmp_path: Path, encoding: str) -> None:
    """``>`` of Windows PowerShell writes UTF-16 with a byte order mark."""
    saved = tmp_path / "job.json"
    saved.write_text(json.dumps(_of_powershell(_details())), encoding=encoding)

    source = JobSource(None, None, str(saved))

    assert source.require_id() == "11111111-2222-3333-4444-555555555555"
