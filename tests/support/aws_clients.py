"""What the tests of the local AWS share: clients for its identities, and how to expect errors."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from mypy_boto3_codepipeline import CodePipelineClient
    from mypy_boto3_kms import KMSClient
    from mypy_boto3_s3 import S3Client

    from cpstage.local import LocalAWS

_ONCE = Config(retries={"total_max_attempts": 1, "mode": "standard"}, signature_version="v4")
_S3_ONCE = _ONCE.merge(Config(signature_version="s3v4"))


def options(environment: Mapping[str, str], region: str | None = None) -> dict[str, Any]:
    """The arguments that make a boto3 client the identity of an environment."""
    return {
        "endpoint_url": environment["AWS_ENDPOINT_URL"],
        "aws_access_key_id": environment["AWS_ACCESS_KEY_ID"],
        "aws_secret_access_key": environment["AWS_SECRET_ACCESS_KEY"],
        "aws_session_token": environment.get("AWS_SESSION_TOKEN"),
        "region_name": region or environment["AWS_REGION"],
    }


def codepipeline(environment: Mapping[str, str], region: str | None = None) -> CodePipelineClient:
    return boto3.client("codepipeline", config=_ONCE, **options(environment, region))


def s3(environment: Mapping[str, str], region: str | None = None) -> S3Client:
    return boto3.client("s3", config=_S3_ONCE, **options(environment, region))


def kms(environment: Mapping[str, str], region: str | None = None) -> KMSClient:
    return boto3.client("kms", config=_ONCE, **options(environment, region))


def session(aws: LocalAWS, job_id: str) -> dict[str, str]:
    """The environment of a new session of a job, as GetJobDetails hands it out."""
    details = codepipeline(aws.environment).get_job_details(jobId=job_id)
    credentials = details["jobDetails"]["data"]["artifactCredentials"]
    return {
        **aws.environment,
        "AWS_ACCESS_KEY_ID": credentials["accessKeyId"],
        "AWS_SECRET_ACCESS_KEY": credentials["secretAccessKey"],
        "AWS_SESSION_TOKEN": credentials["sessionToken"],
    }


@contextmanager
def refused(code: str, status: int, words: str = "") -> Iterator[pytest.ExceptionInfo[ClientError]]:
    """Expect an AWS error with a code, an HTTP status and words in its message."""
    with pytest.raises(ClientError) as caught:
        yield caught
    response = caught.value.response
    assert response["Error"]["Code"] == code
    assert response["ResponseMetadata"]["HTTPStatusCode"] == status
    assert words in response["Error"]["Message"]


def aws_cli(environment: Mapping[str, str], *arguments: str, cwd: Path) -> str:
    """Run the real AWS CLI as the identity of an environment, and return its output."""
    beside_python = Path(sys.executable).with_name("aws")
    program = str(beside_python) if beside_python.exists() else shutil.which("aws")
    assert program is not None, "the AWS CLI is missing: pip install awscli"
    clean = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    done = subprocess.run(
        [program, *arguments],
        env={**clean, **environment, "HOME": str(cwd), "AWS_PAGER": ""},
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
