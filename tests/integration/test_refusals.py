"""What AWS refuses, and what a user is told: exit code, hint, request id, number of requests."""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from aws_clients import s3
from cpstage.local import Input, LocalAWS
from fault_plans import Rule
from fault_proxy import FaultProxy
from faults import SLOW_DOWN, Answer, Request, Throttle
from samples import tar_of, zip_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from command_line import Cli

MIB = 1 << 20


def _small(aws: LocalAWS) -> str:
    return aws.add_job([Input("App", zip_of({"f": "x"}))])


def _is_read(request: Request) -> bool:
    return request.operation in ("HeadObject", "GetObject")


def _fetch(
    aws: LocalAWS, cli: Cli, job_id: str, plan: Sequence[Rule]
) -> tuple[int, str, list[str]]:
    """The exit code, the last line, and the operations."""
    with FaultProxy(aws.endpoint_url, plan) as proxy:
        done = cli("fetch", job_id, AWS_ENDPOINT_URL=proxy.url)
    assert "Traceback" not in done.stderr
    return done.returncode, done.stderr.splitlines()[-1], proxy.operations


@pytest.mark.parametrize(
    ("answer", "code", "hint"),
    [
        (Answer(403, "InvalidObjectState"), 66, "archived to Glacier: restore it"),
        (Answer(404, "NoSuchBucket"), 78, "the pipeline's artifact bucket does not exist"),
        (Answer(409, "OperationAborted"), 78, "AWS refused the request"),
        (Answer(400, "SomethingNew"), 78, "AWS refused the request"),
        (Answer(405, "MethodNotAllowed"), 78, "AWS refused the request"),
    ],
    ids=lambda value: value.code if isinstance(value, Answer) else None,
)
def test_a_refusal_of_s3_has_its_class_and_its_hint(
    aws: LocalAWS, cli: Cli, answer: Answer, code: int, hint: str
) -> None:
    plan = [Rule(answer, when=_is_read, times=None)]

    exit_code, line, operations = _fetch(aws, cli, _small(aws), plan)

    assert exit_code == code, line
    assert answer.code in line
    assert hint in line
    assert "check the network" not in line
    assert operations.count("GetObject") == 1


def test_a_4xx_of_codepipeline_that_is_not_known_does_not_blame_the_network(
    aws: LocalAWS, cli: Cli
) -> None:
    plan = [Rule(Answer(400, "SomethingNewException"), "GetJobDetails", times=None)]

    exit_code, line, operations = _fetch(aws, cli, _small(aws), plan)

    assert exit_code == 78
    assert "AWS refused the request" in line
    assert operations == ["GetJobDetails"]


@pytest.mark.parametrize("said", ["expired: 20240101T000000Z is now earlier", "not yet current: x"])
def test_a_signature_that_is_too_old_is_about_the_clock(aws: LocalAWS, cli: Cli, said: str) -> None:
    date = {"Date": "Mon, 01 Jan 2024 00:00:00 GMT"}
    skewed = Answer(400, "InvalidSignatureException", f"Signature {said}", headers=date)
    plan = [Rule(skewed, "GetJobDetails", times=None)]

    exit_code, line, _ = _fetch(aws, cli, _small(aws), plan)

    assert exit_code == 77
    assert "the clock of this machine is off by +" in line


def test_the_local_aws_gives_request_ids_as_aws_does(aws: LocalAWS, cli: Cli) -> None:
    """A refusal that is practised on it looks like one in an account."""
    unknown = cli("fetch", "nobody-knows-it")
    denied = cli("pack", ".", "--output", "a.zip", "--encrypt", "--encrypt-key", aws.key_arn)
    answered = cli("fetch", _small(aws), "-v").stderr.splitlines()

    assert "(request ID " in unknown.stderr
    assert denied.returncode == 77
    assert "(request ID " in denied.stderr
    calls = [line for line in answered if ": status " in line]
    assert calls
    assert all(", request ID " in line for line in calls)


@pytest.mark.parametrize("header", ["x-amzn-RequestId", "x-amz-request-id"])
def test_the_request_id_is_on_the_line_and_in_the_log(aws: LocalAWS, cli: Cli, header: str) -> None:
    operation = "GetJobDetails" if header == "x-amzn-RequestId" else "GetObject"
    refused = Answer(403, "AccessDenied", headers={header: "4442587FB7D0A2F9"})
    rules = [Rule(refused, operation, times=None), Rule(refused, "HeadObject", times=None)]

    with FaultProxy(aws.endpoint_url, rules) as proxy:
        done = cli("fetch", _small(aws), "-v", AWS_ENDPOINT_URL=proxy.url)

    assert done.returncode == 77
    assert "(request ID 4442587FB7D0A2F9)" in done.stderr.splitlines()[-1]
    logged = [line for line in done.stderr.splitlines() if f".{operation}" in line]
    assert logged[-1].endswith("request ID 4442587FB7D0A2F9")


def test_the_log_names_artifact_bucket_and_key_of_each_call(aws: LocalAWS, cli: Cli) -> None:
    job_id = aws.add_job([Input("App", zip_of({"f": "x"}))], outputs=["Built"])
    (cli.directory / "file").write_text("x")

    fetched = cli("fetch", job_id, "-v")
    pushed = cli("push", job_id, "Built=file", "-v")

    job = aws.job(job_id)
    for done, one in ((fetched, job.inputs[0]), (pushed, job.outputs[0])):
        lines = [line for line in done.stderr.splitlines() if line.startswith("cpstage: s3.")]
        where = f"artifact {one.name} at s3://{one.bucket}/{one.key}"
        assert lines
        assert all(where in line for line in lines)


@dataclass(frozen=True)
class _WrongRegion(Answer):
    """Names the region in the body of its refusal, and nowhere else."""

    def body(self, request: Request) -> tuple[str, bytes]:
        kind, text = super().body(request)
        return kind, text.replace(b"</Error>", b"<Region>eu-west-1</Region></Error>")


def test_a_region_that_is_named_in_the_body_only_is_followed(aws: LocalAWS, cli: Cli) -> None:
    aws.add_bucket("named-in-the-body", "eu-west-1")
    job_id = aws.add_job(outputs=["Built"], bucket="named-in-the-body", encryption_key=None)
    (cli.directory / "file").write_text("x")
    malformed = _WrongRegion(400, "AuthorizationHeaderMalformed")

    with FaultProxy(aws.endpoint_url, [Rule(malformed, "PutObject")]) as proxy:
        done = cli("push", job_id, "Built=file", AWS_ENDPOINT_URL=proxy.url)

    assert done.returncode == 0, done.stderr
    assert "bucket named-in-the-body is in eu-west-1: redirected" in done.stderr
    assert proxy.operations == ["GetJobDetails", "PutObject", "PutObject"]


def test_a_bare_400_to_head_is_asked_about_and_taken_for_no_expired_session(
    aws: LocalAWS, cli: Cli
) -> None:
    plan = [
        Rule(Answer(400), "HeadObject", times=None),
        Rule(Answer(400, "SomethingNew"), "GetObject", times=None),
    ]

    exit_code, line, operations = _fetch(aws, cli, _small(aws), plan)

    assert exit_code == 78
    assert "SomethingNew" in line
    assert operations.count("GetJobDetails") == 1
    assert len(operations) <= 4


@pytest.mark.slow
def test_a_transfer_is_not_given_up_for_being_long(aws: LocalAWS, cli: Cli) -> None:
    """Its time limit counts from the last progress."""
    body = tar_of({"noise": bytes(8 * MIB + MIB // 2)})
    job_id = aws.add_job([Input("App", body, ".tar")])
    last = f"bytes={8 * MIB}-{len(body) - 1}"
    plan = [
        Rule(SLOW_DOWN, "GetObject", byte_range=last, times=2),
        Rule(Throttle(4 * MIB), "GetObject", times=None),
    ]

    with FaultProxy(aws.endpoint_url, plan) as proxy:
        done = cli("fetch", job_id, "--retry-timeout", "1.5", "-v", AWS_ENDPOINT_URL=proxy.url)

    assert done.returncode == 0, done.stderr
    assert proxy.operations.count("GetObject") == 5


@pytest.mark.parametrize("option", ["--read-timeout", "--cli-read-timeout"])
def test_a_read_timeout_can_be_set_on_every_command(aws: LocalAWS, cli: Cli, option: str) -> None:
    from stalled_server import stalling_server

    with stalling_server() as server:
        done = cli(
            "show", "some-job", option, "0.2", AWS_ENDPOINT_URL=server.url, AWS_MAX_ATTEMPTS="1"
        )

    assert done.returncode == 69
    assert "Read timeout" in done.stderr


def test_an_object_under_a_customer_key_is_named(aws: LocalAWS, cli: Cli) -> None:
    """S3 answers HEAD with a bare 400, and GET with a reason."""
    message = (
        "The object was stored using a form of Server Side Encryption. The correct parameters "
        "must be provided to retrieve the object."
    )
    plan = [
        Rule(Answer(400), "HeadObject", times=None),
        Rule(Answer(400, "InvalidRequest", message), "GetObject", times=None),
    ]

    code, line, operations = _fetch(aws, cli, _small(aws), plan)

    assert code == 77
    assert "encrypted with a customer key (SSE-C), which a job does not carry" in line
    assert len(operations) <= 4


@pytest.mark.parametrize(
    "code",
    ["KMS.ThrottlingException", "KMS.DependencyTimeoutException", "KMS.KMSInternalException"],
)
def test_a_busy_kms_behind_s3_is_asked_again(aws: LocalAWS, cli: Cli, code: str) -> None:
    (cli.directory / "f").write_bytes(b"x")
    job_id = aws.add_job([Input("App", zip_of({"f": "x"}))], outputs=["Built"])
    plan = [
        Rule(Answer(400, code), "GetObject", times=2),
        Rule(Answer(400, code), "PutObject", times=2),
    ]

    with FaultProxy(aws.endpoint_url, plan) as proxy:
        fetched = cli("fetch", job_id, AWS_ENDPOINT_URL=proxy.url)
        pushed = cli("push", job_id, "Built=f", AWS_ENDPOINT_URL=proxy.url)

    assert (fetched.returncode, pushed.returncode) == (0, 0), fetched.stderr + pushed.stderr
    assert proxy.operations.count("GetObject") == proxy.operations.count("PutObject") == 3


def test_a_kms_that_stays_busy_is_not_a_denial(aws: LocalAWS, cli: Cli) -> None:
    plan = [Rule(Answer(400, "KMS.ThrottlingException"), "GetObject", times=None)]

    with FaultProxy(aws.endpoint_url, plan) as proxy:
        done = cli("fetch", _small(aws), "--timeout", "0.5", AWS_ENDPOINT_URL=proxy.url)

    assert done.returncode == 69
    assert "AWS is busy or broken" in done.stderr


def test_an_archive_with_a_content_encoding_is_named(aws: LocalAWS, cli: Cli) -> None:
    """An output's key has no suffix: the media type announces the zip."""
    job_id = aws.add_job([Input("App", b"", "")])
    artifact = aws.job(job_id).inputs[0]
    s3(aws.admin_environment).put_object(
        Bucket=artifact.bucket,
        Key=artifact.key,
        Body=gzip.compress(zip_of({"f": "x"})),
        ContentType="application/zip",
        ContentEncoding="gzip",
        ServerSideEncryption="aws:kms",
        SSEKMSKeyId=aws.key_arn,
    )

    done = cli("fetch", job_id)

    assert done.returncode == 65
    assert "is gzip around a zip archive; the uploader left Content-Encoding: gzip" in done.stderr
