"""moto's mock_aws with mock_jobs: cpstage and boto3 within one process, without any network."""

from __future__ import annotations

import io
import os
import socket
import zipfile
from typing import TYPE_CHECKING

import boto3
import pytest
from moto import mock_aws

import cpstage
from aws_clients import refused
from cpstage.local import Input, MockJobs, mock_jobs

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mypy_boto3_codepipeline.type_defs import ActionTypeIdTypeDef

REGION = "us-east-1"
CUSTOM: ActionTypeIdTypeDef = {
    "category": "Build",
    "owner": "Custom",
    "provider": "CpstageLocal",
    "version": "1",
}


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> Iterator[MockJobs]:
    """Jobs under mock_aws, for a program that knows a region and has no endpoint URL."""

    def refuse(_: socket.socket, address: object) -> None:
        raise AssertionError(f"a connection to {address}")

    for name in ("AWS_PROFILE", "AWS_ENDPOINT_URL", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    with mock_aws(), mock_jobs() as running:
        yield running


def _zip(**members: str | bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, text in members.items():
            archive.writestr(name, text)
    return buffer.getvalue()


def test_cpstage_works_a_whole_job(jobs: MockJobs, tmp_path: Path) -> None:
    job_id = jobs.add_job([Input("AppSource", _zip(hello="from moto"))], ["AppBuild"])
    job = cpstage.get_job(job_id)
    cpstage.fetch(job, tmp_path)
    assert (tmp_path / "in/AppSource/hello").read_text() == "from moto"
    (tmp_path / "out/AppBuild/built").write_text("by the test")
    cpstage.push(job, tmp_path)
    cpstage.report_success(job_id, output_variables={"Version": "1.0"})
    state = jobs.job(job_id)
    assert state.status == "Succeeded"
    assert state.result is not None
    assert state.result["outputVariables"] == {"Version": "1.0"}
    place = state.outputs[0]
    kept = boto3.client("s3", region_name=REGION).get_object(Bucket=place.bucket, Key=place.key)
    assert (kept["ServerSideEncryption"], kept["SSEKMSKeyId"]) == ("aws:kms", jobs.key_arn)
    with zipfile.ZipFile(io.BytesIO(kept["Body"].read())) as archive:
        assert archive.read("built") == b"by the test"


def test_cpstage_works_with_artifacts_in_many_parts(jobs: MockJobs, tmp_path: Path) -> None:
    body = os.urandom(40 << 20)
    source = _zip(**{"large": body})
    job_id = jobs.add_job([Input("AppSource", source)], ["AppBuild"])
    job = cpstage.get_job(job_id)
    cpstage.fetch(job, tmp_path)
    assert (tmp_path / "in/AppSource/large").read_bytes() == body
    (tmp_path / "out/AppBuild/large").write_bytes(body)
    cpstage.push(job, tmp_path)
    place = jobs.job(job_id).outputs[0]
    kept = boto3.client("s3", region_name=REGION).get_object(Bucket=place.bucket, Key=place.key)
    assert "-" in kept["ETag"]
    assert kept["SSEKMSKeyId"] == jobs.key_arn
    with zipfile.ZipFile(io.BytesIO(kept["Body"].read())) as archive:
        assert archive.read("large") == body


def test_a_failure_is_kept_as_it_was_put(jobs: MockJobs) -> None:
    job_id = jobs.add_job()
    cpstage.report_failure(job_id, "No such target")
    state = jobs.job(job_id)
    assert state.status == "Failed"
    assert state.result is not None
    assert state.result["failureDetails"]["message"] == "No such target"


def test_a_worker_polls_and_acknowledges(jobs: MockJobs) -> None:
    client = boto3.client("codepipeline", region_name=REGION)
    assert client.poll_for_jobs(actionTypeId=CUSTOM)["jobs"] == []
    job_id = jobs.add_job(status="Queued")
    (polled,) = client.poll_for_jobs(actionTypeId=CUSTOM)["jobs"]
    assert polled["id"] == job_id
    with refused("InvalidNonceException", 400):
        client.acknowledge_job(jobId=job_id, nonce="3")
    answer = client.acknowledge_job(jobId=job_id, nonce=polled["nonce"])
    assert answer["status"] == jobs.job(job_id).status == "InProgress"


def test_a_third_party_job_goes_by_its_client_token(jobs: MockJobs) -> None:
    job_id = jobs.add_job([Input("AppSource", b"x")], third_party=True)
    token = jobs.job(job_id).client_token
    job = cpstage.get_job(job_id, client_token=token)
    assert [artifact.name for artifact in job.input_artifacts] == ["AppSource"]
    cpstage.report_success(job_id, client_token=token)
    assert jobs.job(job_id).status == "Succeeded"


def test_errors_are_those_of_the_api(jobs: MockJobs) -> None:
    client = boto3.client("codepipeline", region_name=REGION)
    with refused("JobNotFoundException", 400):
        client.get_job_details(jobId="f4f4ff82-2d11-EXAMPLE")
    with refused("InvalidJobStateException", 400):
        client.put_job_success_result(jobId=jobs.add_job(status="Queued"))
    elsewhere = boto3.client("codepipeline", region_name="eu-west-1")
    with refused("JobNotFoundException", 400):
        elsewhere.get_job_details(jobId=jobs.add_job())
    with pytest.raises(cpstage.errors.NotFound):
        cpstage.get_job("f4f4ff82-2d11-EXAMPLE")


def test_moto_keeps_what_it_has_and_gets_its_own_back(jobs: MockJobs) -> None:
    s3 = boto3.client("s3", region_name=REGION)
    s3.create_bucket(Bucket="of-the-test")
    with mock_jobs() as inner:
        job_id = inner.add_job()
        assert cpstage.get_job(job_id).id == job_id
        assert (inner.bucket, inner.key_arn == jobs.key_arn) == (jobs.bucket, False)
    with pytest.raises(cpstage.errors.NotFound):
        cpstage.get_job(job_id)
    cpstage.get_job(jobs.add_job())
    assert {bucket["Name"] for bucket in s3.list_buckets()["Buckets"]} == {
        "of-the-test",
        jobs.bucket,
    }
    assert boto3.client("codepipeline", region_name=REGION).list_pipelines()["pipelines"] == []


def test_it_takes_mock_aws() -> None:
    with pytest.raises(RuntimeError, match="mock_aws is not active"), mock_jobs():
        pass
    with mock_aws():
        with mock_jobs():
            pass
        client = boto3.client("codepipeline", region_name=REGION)
        with pytest.raises(NotImplementedError):
            client.get_job_details(jobId="f4f4ff82-2d11-EXAMPLE")
