"""A network and an AWS on a bad day, and what a user of ``cpstage push`` has of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from aws_clients import s3
from cpstage.archive.workers import thread_count
from cpstage.local import Input, LocalAWS, Output
from fault_plans import RandomFaults, Rule
from fault_proxy import FaultProxy
from faults import (
    ACCESS_DENIED,
    EXPIRED_TOKEN,
    INTERNAL_ERROR,
    SLOW_DOWN,
    Answer,
    Close,
    Drop,
    Fault,
    Flip,
    Meanwhile,
    Reset,
    Stall,
    redirect,
)

if TYPE_CHECKING:
    from command_line import Cli

pytestmark = pytest.mark.slow

MIB = 1 << 20
SMALL = os.urandom(1000)
LARGE = os.urandom(17 * MIB)
"""Three parts."""


def _job(aws: LocalAWS, cli: Cli, body: bytes = LARGE) -> str:
    (cli.directory / "noise").write_bytes(body)
    return aws.add_job(outputs=["Built"])


def _push(cli: Cli, proxy: FaultProxy, job_id: str) -> subprocess.CompletedProcess[str]:
    return cli("push", job_id, "Built=noise", AWS_ENDPOINT_URL=proxy.url)


def _stored(aws: LocalAWS, job_id: str) -> list[bytes]:
    """All versions of an output's object, the newest first."""
    admin, there = s3(aws.admin_environment), aws.job(job_id).outputs[0]
    versions = admin.list_object_versions(Bucket=there.bucket, Prefix=there.key).get("Versions", [])
    return [
        admin.get_object(Bucket=there.bucket, Key=there.key, VersionId=one["VersionId"])[
            "Body"
        ].read()
        for one in versions
    ]


def _uploads(aws: LocalAWS, job_id: str) -> list[str]:
    """The multipart uploads of an output's object that were left behind."""
    there = aws.job(job_id).outputs[0]
    answer = s3(aws.admin_environment).list_multipart_uploads(Bucket=there.bucket)
    return [one["UploadId"] for one in answer.get("Uploads", []) if one["Key"] == there.key]


def _left_nothing(aws: LocalAWS, job_id: str) -> bool:
    return not _stored(aws, job_id) and not _uploads(aws, job_id)


class _Far:
    """A store to which parts take long: each waits until more of them than four are on their way.

    Attributes:
        most: How many were on their way at the same time.
    """

    _SECONDS = 1.0

    def __init__(self) -> None:
        self.most = 0
        self._now = 0
        self._changed = threading.Condition()

    def pass_part(self) -> None:
        with self._changed:
            self._now += 1
            self.most = max(self.most, self._now)
            self._changed.notify_all()
            self._changed.wait_for(lambda: self.most > 4, self._SECONDS)
            self._now -= 1


def test_more_parts_are_on_their_way_to_a_store_that_is_far_away(aws: LocalAWS, cli: Cli) -> None:
    far = _Far()
    job_id = _job(aws, cli)
    os.truncate(cli.directory / "noise", 14 * 8 * MIB)

    with FaultProxy(
        aws.endpoint_url, [Rule(Meanwhile(far.pass_part), "UploadPart", times=None)]
    ) as proxy:
        done = _push(cli, proxy, job_id)

    assert done.returncode == 0, done.stderr
    assert proxy.operations.count("UploadPart") == 14
    assert 4 < far.most <= 4 + thread_count()
    assert len(_stored(aws, job_id)[0]) == 14 * 8 * MIB


@pytest.mark.parametrize("body", [SMALL, LARGE], ids=["small", "large"])
def test_denied_is_not_tried_again_and_leaves_nothing(aws: LocalAWS, cli: Cli, body: bytes) -> None:
    job_id = _job(aws, cli, body)
    operation = "PutObject" if body is SMALL else "UploadPart"
    plan = [
        Rule(ACCESS_DENIED, operation, query="*partNumber=2*" if body is LARGE else "*", times=None)
    ]

    with FaultProxy(aws.endpoint_url, plan) as proxy:
        done = _push(cli, proxy, job_id)

    there = aws.job(job_id).outputs[0]
    assert done.returncode == 77
    last = done.stderr.splitlines()[-1]
    for text in (f"artifact Built to s3://{there.bucket}/{there.key}", aws.key_arn, "s3:PutObject"):
        assert text in last
    assert [one.struck for one in proxy.log].count(True) == 1
    assert _left_nothing(aws, job_id)


@pytest.mark.parametrize(
    ("operation", "fault"),
    [
        ("PutObject", INTERNAL_ERROR),
        ("PutObject", Close(None)),
        ("PutObject", Reset(0.5, side="request")),
        ("PutObject", Answer(400, "BadDigest")),
        ("PutObject", Flip(0.5, side="request")),
        ("CreateMultipartUpload", SLOW_DOWN),
        ("UploadPart", INTERNAL_ERROR),
        ("UploadPart", SLOW_DOWN),
        ("UploadPart", Drop()),
        ("UploadPart", Close(None)),
        ("UploadPart", Reset(0.5, side="request")),
        ("UploadPart", Answer(400, "BadDigest")),
        ("UploadPart", Flip(0.5, side="request")),
        ("CompleteMultipartUpload", Answer(200, "InternalError")),
        ("CompleteMultipartUpload", Close(None)),
        ("CompleteMultipartUpload", Close(0.5)),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_what_passes_is_tried_again(aws: LocalAWS, cli: Cli, operation: str, fault: Fault) -> None:
    body = SMALL if operation == "PutObject" else LARGE
    job_id = _job(aws, cli, body)

    with FaultProxy(aws.endpoint_url, [Rule(fault, operation)]) as proxy:
        done = _push(cli, proxy, job_id)

    assert done.returncode == 0, done.stderr
    assert _stored(aws, job_id)[0] == body
    assert _uploads(aws, job_id) == []
    assert [one.struck for one in proxy.log if one.fault] == [True]


def test_a_part_that_never_arrives_ends_the_upload(aws: LocalAWS, cli: Cli) -> None:
    """The abort fails at first, too."""
    job_id = _job(aws, cli)
    plan = [
        Rule(Reset(0.5, side="request"), "UploadPart", query="*partNumber=2*", times=None),
        Rule(INTERNAL_ERROR, "AbortMultipartUpload"),
    ]

    with FaultProxy(aws.endpoint_url, plan) as proxy:
        done = _push(cli, proxy, job_id)

    assert done.returncode == 69
    assert "artifact Built" in done.stderr.splitlines()[-1]
    assert _left_nothing(aws, job_id)


@pytest.mark.parametrize("times", [1, None])
def test_a_completion_whose_answer_is_lost_is_looked_up(
    aws: LocalAWS, cli: Cli, times: int | None
) -> None:
    """The job's session may not look at the object; that the upload is gone tells."""
    job_id = _job(aws, cli)

    with FaultProxy(
        aws.endpoint_url, [Rule(Close(None), "CompleteMultipartUpload", times=times)]
    ) as proxy:
        done = _push(cli, proxy, job_id)

    assert done.returncode == 0, done.stderr
    assert _stored(aws, job_id)[0] == LARGE
    assert _uploads(aws, job_id) == []
    if times is None:
        assert proxy.operations[-2:] == ["HeadObject", "AbortMultipartUpload"]
        assert "S3 has the object" in done.stderr


def test_a_completion_that_never_arrives_is_none(aws: LocalAWS, cli: Cli) -> None:
    job_id = _job(aws, cli)

    with FaultProxy(
        aws.endpoint_url, [Rule(Drop(), "CompleteMultipartUpload", times=None)]
    ) as proxy:
        done = _push(cli, proxy, job_id)

    assert done.returncode == 69
    assert _left_nothing(aws, job_id)


def test_an_upload_that_cannot_be_aborted_is_named(aws: LocalAWS, cli: Cli) -> None:
    job_id = _job(aws, cli)
    plan = [
        Rule(ACCESS_DENIED, "UploadPart", times=None),
        Rule(ACCESS_DENIED, "AbortMultipartUpload", times=None),
    ]

    with FaultProxy(aws.endpoint_url, plan) as proxy:
        done = _push(cli, proxy, job_id)

    (left,) = _uploads(aws, job_id)
    assert done.returncode == 77
    assert f"the multipart upload {left} of s3://" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("body", "operation", "says"),
    [
        (LARGE, "CreateMultipartUpload", "a multipart upload may have been created"),
        (SMALL, "PutObject", "the object may have been stored"),
    ],
)
def test_an_upload_of_which_no_answer_comes_may_be_there(
    aws: LocalAWS, cli: Cli, body: bytes, operation: str, says: str
) -> None:
    job_id = _job(aws, cli, body)

    with FaultProxy(aws.endpoint_url, [Rule(Close(None), operation, times=None)]) as proxy:
        done = _push(cli, proxy, job_id)

    assert done.returncode == 69
    assert says in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("body", [SMALL, LARGE], ids=["small", "large"])
def test_a_bit_that_flips_on_the_way_up_never_becomes_the_object(
    aws: LocalAWS, cli: Cli, body: bytes
) -> None:
    job_id = _job(aws, cli, body)
    operation = "PutObject" if body is SMALL else "UploadPart"
    plan = [Rule(Flip(0.5, side="request"), operation, times=None)]

    with FaultProxy(aws.endpoint_url, plan) as proxy:
        done = _push(cli, proxy, job_id)

    assert done.returncode == 69
    assert "artifact Built" in done.stderr.splitlines()[-1]
    assert _left_nothing(aws, job_id)


@pytest.mark.parametrize(
    ("body", "operation"),
    [
        (SMALL, "PutObject"),
        (LARGE, "CreateMultipartUpload"),
        (LARGE, "UploadPart"),
        (LARGE, "CompleteMultipartUpload"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_an_expired_token_is_renewed_once(
    aws: LocalAWS, cli: Cli, body: bytes, operation: str
) -> None:
    job_id = _job(aws, cli, body)

    with FaultProxy(aws.endpoint_url, [Rule(EXPIRED_TOKEN, operation)]) as proxy:
        done = _push(cli, proxy, job_id)

    assert done.returncode == 0, done.stderr
    assert _stored(aws, job_id) == [body]
    assert proxy.operations.count("GetJobDetails") == 2


@pytest.mark.parametrize("status", [301, 307, 400])
@pytest.mark.parametrize("operation", ["PutObject", "CreateMultipartUpload"])
def test_a_bucket_elsewhere_is_followed_to(
    aws: LocalAWS, cli: Cli, status: int, operation: str
) -> None:
    bucket = f"elsewhere-{operation.lower()}-{status}"
    aws.add_bucket(bucket, "eu-west-1")
    job_id = aws.add_job(outputs=[Output("Built", bucket=bucket)], encryption_key=None)
    body = SMALL if operation == "PutObject" else LARGE
    (cli.directory / "noise").write_bytes(body)

    with FaultProxy(aws.endpoint_url, [Rule(redirect(status, "eu-west-1"), operation)]) as proxy:
        done = _push(cli, proxy, job_id)

    assert done.returncode == 0, done.stderr
    assert _stored(aws, job_id) == [body]
    assert proxy.operations.count(operation) == 2


KMS_DENIED = Answer(400, "AccessDeniedException", "The key's policy does not allow it.")
KMS_DISABLED = Answer(400, "DisabledException", "The key is disabled.")
KMS_PENDING = Answer(400, "KMSInvalidStateException", "The key is pending deletion.")


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        (KMS_DENIED, "kms:GenerateDataKey"),
        (KMS_DISABLED, "DisabledException"),
        (KMS_PENDING, "KMSInvalidStateException"),
    ],
    ids=["denied", "disabled", "pending deletion"],
)
def test_without_the_key_nothing_goes_up_unsealed(
    aws: LocalAWS, cli: Cli, fault: Fault, says: str
) -> None:
    job_id = _job(aws, cli, SMALL)

    with FaultProxy(aws.endpoint_url, [Rule(fault, "GenerateDataKey", times=None)]) as proxy:
        done = cli("push", job_id, "Built=noise", "--encrypt", AWS_ENDPOINT_URL=proxy.url)

    assert done.returncode == 77
    assert aws.key_arn in done.stderr.splitlines()[-1]
    assert says in done.stderr.splitlines()[-1]
    assert proxy.operations == ["GetJobDetails", "GenerateDataKey"]


@pytest.mark.parametrize(
    ("fault", "code", "says"),
    [
        (KMS_DENIED, 77, "kms:Decrypt"),
        (KMS_DISABLED, 77, "DisabledException"),
        (KMS_PENDING, 77, "KMSInvalidStateException"),
    ],
    ids=["denied", "disabled", "pending deletion"],
)
def test_without_the_key_nothing_is_opened(
    aws: LocalAWS, cli: Cli, fault: Fault, code: int, says: str
) -> None:
    job_id = _sealed(aws, cli)

    with FaultProxy(aws.endpoint_url, [Rule(fault, "Decrypt", times=None)]) as proxy:
        done = cli("fetch", job_id, AWS_ENDPOINT_URL=proxy.url)

    assert done.returncode == code
    assert aws.key_arn in done.stderr.splitlines()[-1]
    assert says in done.stderr.splitlines()[-1]
    assert proxy.operations.count("Decrypt") == 1
    assert not (cli.directory / "in").exists()


@pytest.mark.parametrize(
    "fault",
    [
        Answer(500, "KMSInternalException"),
        Answer(400, "ThrottlingException"),
        Answer(400, "ExpiredTokenException"),
        Drop(),
        Close(None),
        Close(0.5),
        Reset(0.5),
    ],
    ids=["500", "throttled", "expired", "dropped", "answer lost", "cut", "reset"],
)
def test_what_passes_at_kms_is_tried_again(aws: LocalAWS, cli: Cli, fault: Fault) -> None:
    plan = [Rule(fault, "GenerateDataKey"), Rule(fault, "Decrypt")]

    with FaultProxy(aws.endpoint_url, plan) as proxy:
        done = cli("fetch", _sealed(aws, cli, proxy.url), AWS_ENDPOINT_URL=proxy.url)

    assert done.returncode == 0, done.stderr
    assert (cli.directory / "in/App/noise").read_bytes() == SMALL
    assert [one.struck for one in proxy.log if one.fault] == [True, True]


@pytest.mark.parametrize("command", ["push", "fetch"])
def test_an_answer_of_kms_that_says_nothing(aws: LocalAWS, cli: Cli, command: str) -> None:
    nothing = Answer(200, "Nothing")
    arguments = ["Built=noise", "--encrypt"] if command == "push" else []
    job_id = _job(aws, cli, SMALL) if command == "push" else _sealed(aws, cli)
    plan = [Rule(nothing, "GenerateDataKey", times=None), Rule(nothing, "Decrypt", times=None)]

    with FaultProxy(aws.endpoint_url, plan) as proxy:
        there = cli.with_variables({"AWS_ENDPOINT_URL": proxy.url})
        done = there(command, job_id, *arguments, "--retry-timeout", "1")

    assert done.returncode == 69, done.stderr
    assert "the answer has no KeyId" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_a_part_stalls_leaves_nothing(
    aws: LocalAWS, cli: Cli, number: signal.Signals
) -> None:
    job_id = _job(aws, cli)
    plan = [Rule(Stall(0.5, side="request"), "UploadPart", query="*partNumber=2*", times=None)]

    with (
        FaultProxy(aws.endpoint_url, plan) as proxy,
        subprocess.Popen(
            [sys.executable, "-m", "cpstage", "push", job_id, "Built=noise"],
            cwd=cli.directory,
            env={**cli.environment, "AWS_ENDPOINT_URL": proxy.url},
            stderr=subprocess.PIPE,
            text=True,
        ) as running,
    ):
        assert proxy.stalled.wait(60)
        running.send_signal(number)
        _, said = running.communicate(timeout=15)

    assert running.returncode == 128 + number
    assert said.splitlines()[-1] == f"cpstage: error: stopped by {number.name}"
    assert proxy.operations.count("UploadPart") <= 3
    assert _left_nothing(aws, job_id)


def test_an_upload_that_s3_refuses_at_last_leaves_nothing(aws: LocalAWS, cli: Cli) -> None:
    """With 200, since it had begun to answer; and it quotes what it was asked."""
    job_id = _job(aws, cli)
    refused = Answer(200, "AccessDenied", "x" * 10_000)
    plan = [Rule(refused, "CompleteMultipartUpload", times=None)]

    with FaultProxy(aws.endpoint_url, plan) as proxy:
        done = cli("push", job_id, "Built=noise", "--retry-timeout=1", AWS_ENDPOINT_URL=proxy.url)

    assert done.returncode == 77, done.stderr
    assert len(done.stderr.splitlines()[-1]) < 1500
    assert _left_nothing(aws, job_id)


def _sealed(aws: LocalAWS, cli: Cli, endpoint: str | None = None) -> str:
    """A job whose input is what push --encrypt makes."""
    (cli.directory / "tree").mkdir()
    (cli.directory / "tree/noise").write_bytes(SMALL)
    up = aws.add_job(outputs=["App"])
    done = cli("push", up, "App=tree", "--encrypt", AWS_ENDPOINT_URL=endpoint or aws.endpoint_url)
    assert done.returncode == 0, done.stderr
    return aws.add_job([Input("App", _stored(aws, up)[0], "")])


@pytest.mark.parametrize("seed", range(2))
def test_random_faults_do_no_harm(aws: LocalAWS, cli: Cli, seed: int) -> None:
    """Each kind of request fails at most twice, and the result is the same to the last byte."""
    (cli.directory / "noise").write_bytes(LARGE)
    job_id = aws.add_job(outputs=[Output("Built", key=f"random/{seed}/built")])

    with FaultProxy(aws.endpoint_url, RandomFaults(seed, 0.5, most=2)) as proxy:
        done = cli("push", job_id, "Built=noise", AWS_ENDPOINT_URL_S3=proxy.url)

    assert done.returncode == 0, done.stderr
    assert _stored(aws, job_id)[0] == LARGE
    assert any(one.struck for one in proxy.log)
