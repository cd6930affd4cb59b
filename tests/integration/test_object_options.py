"""``--acl``, ``--tagging`` and ``--sse``: what the owner of the bucket then sees of an object."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Any

import pytest

import cpstage
from aws_clients import codepipeline, s3
from cpstage.errors import UsageError
from cpstage.local import SESSION_ACTIONS, Input, LocalAWS
from fault_plans import Rule
from fault_proxy import FaultProxy
from faults import Answer
from samples import zip_of

if TYPE_CHECKING:
    from pathlib import Path

    from command_line import Cli

MIB = 1 << 20
ALL = SESSION_ACTIONS | {"s3:PutObjectAcl", "s3:PutObjectTagging"}
OPTIONS = (
    *("--acl", "bucket-owner-full-control"),
    *("--tagging", "team=build&cost=a%2Bb+c"),
    *("--sse", "aws:kms:dsse"),
)


def _job(aws: LocalAWS, **options: Any) -> str:
    return aws.add_job(outputs=["Built"], session_actions=ALL, **options)


def _key(aws: LocalAWS, job_id: str) -> str:
    uploads = {"PutObject", "CreateMultipartUpload"}
    calls = [one for one in aws.calls() if one.job_id == job_id and one.action in uploads]
    return calls[-1].key or ""


def _seen(aws: LocalAWS, job_id: str) -> tuple[dict[str, str], str, set[str]]:
    """The tags, the encryption and the permissions of the job's output, as its owner sees them."""
    owner, bucket, key = s3(aws.admin_environment), aws.bucket, _key(aws, job_id)
    tags = owner.get_object_tagging(Bucket=bucket, Key=key)["TagSet"]
    encryption = owner.head_object(Bucket=bucket, Key=key)["ServerSideEncryption"]
    grants = owner.get_object_acl(Bucket=bucket, Key=key)["Grants"]
    return {one["Key"]: one["Value"] for one in tags}, encryption, {g["Permission"] for g in grants}


@pytest.mark.parametrize("size", [1000, 9 * MIB], ids=["single", "multipart"])
def test_push_stores_tags_acl_and_encryption(aws: LocalAWS, cli: Cli, size: int) -> None:
    (cli.directory / "noise").write_bytes(os.urandom(size))
    job_id = _job(aws)

    done = cli("push", job_id, "Built=noise", "--json", *OPTIONS)

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["outputs"][0]["encryption"] == "aws:kms:dsse"
    tags, encryption, permissions = _seen(aws, job_id)
    assert tags == {"team": "build", "cost": "a+b c"}
    assert (encryption, permissions) == ("aws:kms:dsse", {"FULL_CONTROL"})


def test_run_and_work_take_the_options(aws: LocalAWS, cli: Cli) -> None:
    command = ["--", sys.executable, "-c", "open('out/Built/f', 'w')"]
    run = _job(aws)
    queued = _job(aws, status="Queued", provider="Tagged")
    mine = ["--category", "Build", "--provider", "Tagged", "--version", "1", "--once"]

    ran = cli("run", run, *OPTIONS, *command)
    worked = cli("work", *mine, *OPTIONS, *command)

    assert (ran.returncode, worked.returncode) == (0, 0), ran.stderr + worked.stderr
    for job_id in (run, queued):
        assert _seen(aws, job_id)[:2] == ({"team": "build", "cost": "a+b c"}, "aws:kms:dsse")


def test_the_python_api_takes_them(aws: LocalAWS, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"x")
    config = cpstage.AwsConfig(
        endpoint_url=aws.endpoint_url, region=aws.region, session=_boto3_session(aws)
    )
    job = cpstage.get_job(_job(aws), config=config)
    how = cpstage.PushOptions(
        {"Built": tmp_path / "f"},
        encryption=cpstage.Encryption(sse="aws:kms:dsse"),
        acl="bucket-owner-full-control",
        tags={"team": "build"},
    )

    cpstage.push(job, tmp_path, how, config=config)

    assert _seen(aws, job.id)[:2] == ({"team": "build"}, "aws:kms:dsse")


def _boto3_session(aws: LocalAWS) -> Any:
    import boto3

    caller = aws.environment
    return boto3.Session(caller["AWS_ACCESS_KEY_ID"], caller["AWS_SECRET_ACCESS_KEY"])


def test_an_object_of_dsse_is_fetched(aws: LocalAWS, cli: Cli) -> None:
    job_id = aws.add_job([Input("App", b"", "")])
    (key,) = codepipeline(aws.environment).get_job_details(jobId=job_id)["jobDetails"]["data"][
        "inputArtifacts"
    ]
    s3(aws.admin_environment).put_object(
        Bucket=aws.bucket,
        Key=key["location"]["s3Location"]["objectKey"],
        Body=zip_of({"f": "content"}),
        ServerSideEncryption="aws:kms:dsse",
        SSEKMSKeyId=aws.key_arn,
    )

    done = cli("fetch", job_id, "--json")

    assert done.returncode == 0, done.stderr
    (staged,) = json.loads(done.stdout)["inputs"]
    assert (staged["encryption"], staged["kms_key_id"]) == ("aws:kms:dsse", aws.key_arn)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--tagging", "team"], "is not of the form KEY=VALUE&KEY2=VALUE2"),
        (["--tagging", "a=1&a=2"], "is not of the form KEY=VALUE&KEY2=VALUE2"),
        (["--tagging", "&".join(f"k{n}=v" for n in range(11))], "11 tags are given"),
        (["--tagging", f"k={'v' * 257}"], "the tag 'k' is empty or too long"),
        (["--tagging", "=v"], "the tag '' is empty or too long"),
        (["--sse", "AES256"], "'AES256' is not one of"),
        (["--acl", "public-read"], "'public-read' is not one of"),
        (["--sse", "aws:kms:dsse", "--bucket-key"], "S3 has no Bucket Keys for aws:kms:dsse"),
    ],
)
def test_options_that_s3_would_refuse_are_errors_of_usage(
    cli: Cli, arguments: list[str], says: str
) -> None:
    done = cli("push", "some-job", *arguments)

    assert done.returncode == 2
    assert says in done.stderr.splitlines()[-1]


def test_the_api_refuses_an_encryption_that_is_weaker() -> None:
    with pytest.raises(UsageError, match="AES256"):
        cpstage.Encryption(sse="AES256")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "action"),
    [(OPTIONS[:2], "s3:PutObjectAcl"), (OPTIONS[2:4], "s3:PutObjectTagging")],
    ids=["acl", "tagging"],
)
def test_a_job_that_may_not_set_them_is_told_the_permission(
    aws: LocalAWS, cli: Cli, options: list[str], action: str
) -> None:
    (cli.directory / "f").write_bytes(b"x")
    job_id = aws.add_job(outputs=["Built"])

    done = cli("push", job_id, "Built=f", *options)

    assert done.returncode == 77
    assert f"the job's session needs s3:PutObject, {action} on it" in done.stderr


@pytest.mark.parametrize(
    ("given", "asked"), [("aws:kms", "aws:kms:dsse"), ("aws:kms:dsse", "aws:kms")]
)
def test_what_s3_says_it_encrypted_is_compared_with_the_option(
    aws: LocalAWS, cli: Cli, given: str, asked: str
) -> None:
    (cli.directory / "f").write_bytes(b"x")
    job_id = aws.add_job(outputs=["Built"], encryption_key=None)
    headers = {"ETag": '"e"', "x-amz-server-side-encryption": given}
    said = Answer(200, headers=headers)

    with FaultProxy(aws.endpoint_url, [Rule(said, "PutObject", times=None)]) as proxy:
        done = cli("push", job_id, "Built=f", "--sse", asked, AWS_ENDPOINT_URL=proxy.url)

    assert done.returncode == 77
    assert f"with encryption {given}, but {asked} was requested" in done.stderr


def _denial(action: str, kind: str) -> Answer:
    message = (
        "User: arn:aws:sts::111122223333:assumed-role/Pipeline/1 is not authorized to perform: "
        f'{action} on resource: "arn:aws:s3:::b/P/Built/x" with an explicit deny in a {kind}'
    )
    return Answer(403, "AccessDenied", message)


@pytest.mark.parametrize(
    ("action", "kind", "hint"),
    [
        ("s3:PutObject", "resource-based policy", "it may require --acl bucket-owner-full-control"),
        ("kms:GenerateDataKey", "resource-based policy", "the key policy denies"),
        ("s3:PutObject", "service control policy", "a service control policy denies"),
        ("s3:PutObject", "VPC endpoint policy", "a VPC endpoint policy denies"),
        ("s3:PutObject", "permissions boundary", "a permissions boundary denies"),
    ],
)
def test_an_explicit_deny_is_told_from_a_missing_permission(
    aws: LocalAWS, cli: Cli, action: str, kind: str, hint: str
) -> None:
    (cli.directory / "f").write_bytes(b"x")
    job_id = aws.add_job(outputs=["Built"])
    plan = [Rule(_denial(action, kind), "PutObject", times=None)]

    with FaultProxy(aws.endpoint_url, plan) as proxy:
        done = cli("push", job_id, "Built=f", AWS_ENDPOINT_URL=proxy.url)

    assert done.returncode == 77
    assert hint in done.stderr
    assert "needs s3:PutObject" not in done.stderr
