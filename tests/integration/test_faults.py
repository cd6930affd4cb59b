"""A network and an AWS on a bad day, and what a user of ``cpstage fetch`` has of it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from aws_clients import s3
from cpstage.local import Input, LocalAWS
from fault_plans import RandomFaults, Rule
from fault_proxy import FaultProxy
from faults import (
    ACCESS_DENIED,
    EXPIRED_TOKEN,
    INTERNAL_ERROR,
    NO_SUCH_KEY,
    PRECONDITION_FAILED,
    SLOW_DOWN,
    Answer,
    Changed,
    Close,
    Drop,
    Fault,
    Flip,
    Meanwhile,
    Request,
    Reset,
    Shorten,
    Stall,
    redirect,
)
from samples import tar_of, zip_of
from stalled_server import stalling_server
from trees import names

if TYPE_CHECKING:
    from pathlib import Path

    from command_line import Cli

pytestmark = pytest.mark.slow

MIB = 1 << 20
NOISE = os.urandom(8 * MIB + MIB // 2)
LARGE = tar_of({"noise": NOISE})
"""More than one block, so that it is read in ranges by several threads."""

FIRST = 64 << 10
FIRST_BLOCK, SECOND_BLOCK = f"bytes=0-{FIRST - 1}", f"bytes={FIRST}-{8 * MIB - 1}"
LAST_BLOCK = f"bytes={8 * MIB}-{len(LARGE) - 1}"


def _failed(done: subprocess.CompletedProcess[str], code: int, *says: str) -> None:
    lines = done.stderr.splitlines()
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    for text in says:
        assert text in lines[-1]


def _reads(request: Request) -> bool:
    return request.operation in ("HeadObject", "GetObject")


def _small(aws: LocalAWS) -> str:
    return aws.add_job([Input("App", zip_of({"f": "x" * 1000}))])


def _location(aws: LocalAWS, job_id: str) -> str:
    artifact = aws.job(job_id).inputs[0]
    return f"artifact App at s3://{artifact.bucket}/{artifact.key}"


def _nothing_staged(directory: Path) -> bool:
    staging = directory / ".cpstage/staging"
    return names(directory) == [] and (not staging.exists() or list(staging.iterdir()) == [])


def test_denied_is_not_tried_again(aws: LocalAWS, cli: Cli) -> None:
    job_id = _small(aws)

    with FaultProxy(aws.endpoint_url, [Rule(ACCESS_DENIED, "GetObject", times=None)]) as proxy:
        done = cli("fetch", job_id, AWS_ENDPOINT_URL=proxy.url)

    _failed(done, 77, _location(aws, job_id), "AccessDenied", "s3:GetObject", "kms:Decrypt")
    assert aws.key_arn in done.stderr
    assert proxy.operations.count("GetObject") == 1
    assert _nothing_staged(cli.directory)


def test_denied_in_the_middle_discards_all(aws: LocalAWS, cli: Cli) -> None:
    job_id = aws.add_job([Input("App", LARGE, ".tar")])
    plan = [Rule(ACCESS_DENIED, "GetObject", byte_range=SECOND_BLOCK, times=None)]

    with FaultProxy(aws.endpoint_url, plan) as proxy:
        done = cli("fetch", job_id, AWS_ENDPOINT_URL=proxy.url)

    _failed(done, 77, _location(aws, job_id))
    assert proxy.operations.count("GetObject") == 3
    assert _nothing_staged(cli.directory)


def test_a_missing_object_is_named_and_not_asked_for_again(aws: LocalAWS, cli: Cli) -> None:
    job_id = _small(aws)

    with FaultProxy(aws.endpoint_url, [Rule(NO_SUCH_KEY, when=_reads, times=None)]) as proxy:
        done = cli("fetch", job_id, AWS_ENDPOINT_URL=proxy.url)

    _failed(done, 66, _location(aws, job_id), "NoSuchKey", "lifecycle rule")
    assert proxy.operations.count("GetObject") <= 1
    assert _nothing_staged(cli.directory)


def test_an_object_that_keeps_changing_is_out_of_sync(aws: LocalAWS, cli: Cli) -> None:
    job_id = aws.add_job([Input("App", LARGE, ".tar")])
    plan = [Rule(PRECONDITION_FAILED, "GetObject", byte_range=SECOND_BLOCK, times=None)]

    with FaultProxy(aws.endpoint_url, plan) as proxy:
        done = cli("fetch", job_id, AWS_ENDPOINT_URL=proxy.url)

    _failed(done, 75, _location(aws, job_id), "PreconditionFailed", "run the command again")
    assert _nothing_staged(cli.directory)


@pytest.mark.parametrize(
    ("operation", "fault"),
    [
        ("GetJobDetails", Answer(500, "InternalFailure")),
        ("GetJobDetails", Answer(400, "ThrottlingException")),
        ("GetJobDetails", Close(0.5)),
        ("GetJobDetails", Reset(0.5)),
        ("HeadObject", SLOW_DOWN),
        ("GetObject", INTERNAL_ERROR),
        ("GetObject", SLOW_DOWN),
        ("GetObject", Drop()),
        ("GetObject", Reset(None)),
        ("GetObject", Close(None)),
        ("GetObject", Reset(0.5)),
        ("GetObject", Close(0.5)),
        ("GetObject", Shorten(to=100)),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_what_passes_is_tried_again(aws: LocalAWS, cli: Cli, operation: str, fault: Fault) -> None:
    job_id = _small(aws)

    with FaultProxy(aws.endpoint_url, [Rule(fault, operation, times=2)]) as proxy:
        done = cli("fetch", job_id, AWS_ENDPOINT_URL=proxy.url)

    assert done.returncode == 0, done.stderr
    assert (cli.directory / "in/App/f").read_text() == "x" * 1000
    assert proxy.operations.count(operation) == 3
    assert [one.struck for one in proxy.log if one.fault] == [True, True]


@pytest.mark.parametrize(
    "fault", [Reset(0.5), Close(0.5), Shorten(to=1000)], ids=lambda f: type(f).__name__
)
def test_a_range_that_is_cut_is_resumed_and_no_other_is_read_again(
    aws: LocalAWS, cli: Cli, fault: Fault
) -> None:
    job_id = aws.add_job([Input("App", LARGE, ".tar")])

    def is_of_second(request: Request) -> bool:
        return bool(request.byte_range) and str(request.byte_range).endswith(f"-{8 * MIB - 1}")

    plan = [Rule(fault, "GetObject", when=is_of_second, times=2)]
    with FaultProxy(aws.endpoint_url, plan) as proxy:
        done = cli("fetch", job_id, AWS_ENDPOINT_URL=proxy.url)

    assert done.returncode == 0, done.stderr
    assert (cli.directory / "in/App/noise").read_bytes() == NOISE
    reads = [one.request for one in proxy.log if one.request.operation == "GetObject"]
    of_second = [one.byte_range for one in reads if is_of_second(one)]
    others = [one.byte_range for one in reads if not is_of_second(one)]
    assert sorted(map(str, others)) == [FIRST_BLOCK, LAST_BLOCK]
    assert of_second[0] == SECOND_BLOCK
    assert len(of_second) == 3
    if not isinstance(fault, Shorten):  # whose announced length is wrong: nothing of it is read
        assert FIRST < _start(of_second[1]) <= _start(of_second[2])


def _start(byte_range: str | None) -> int:
    return int(str(byte_range).removeprefix("bytes=").partition("-")[0])


def test_a_service_that_stays_away_is_unavailable(aws: LocalAWS, cli: Cli) -> None:
    job_id = _small(aws)

    with FaultProxy(aws.endpoint_url, [Rule(SLOW_DOWN, "GetObject", times=None)]) as proxy:
        done = cli("fetch", job_id, AWS_ENDPOINT_URL=proxy.url)

    _failed(done, 69, _location(aws, job_id), "SlowDown", "try again later")
    assert proxy.operations.count("GetObject") > 1
    assert _nothing_staged(cli.directory)


@pytest.mark.parametrize("fault", [SLOW_DOWN, Drop()], ids=["busy", "dropped"])
def test_without_time_there_is_one_try(aws: LocalAWS, cli: Cli, fault: Fault) -> None:
    with FaultProxy(aws.endpoint_url, [Rule(fault, "GetJobDetails", times=None)]) as proxy:
        done = cli(
            "fetch", _small(aws), "--retry-timeout", "0.001", "-v", AWS_ENDPOINT_URL=proxy.url
        )

    _failed(done, 69)
    assert "codepipeline.GetJobDetails: status" in done.stderr
    assert ", 0 retries" in done.stderr
    assert len(proxy.operations) <= 1


@pytest.mark.parametrize("service", ["CODEPIPELINE", "S3"])
def test_who_says_nothing_is_not_waited_for(aws: LocalAWS, cli: Cli, service: str) -> None:
    began = time.monotonic()
    with stalling_server() as server:
        there = cli.with_variables({f"AWS_ENDPOINT_URL_{service}": server.url})
        # S3 sends half of each range, which counts as progress: there are several timeouts.
        done = there("fetch", _small(aws), "--retry-timeout", "0.2")

    _failed(done, 69, "Read timeout")
    assert time.monotonic() - began < 15


@pytest.mark.parametrize("status", [301, 307, 400])
def test_a_bucket_that_is_always_elsewhere_is_not_run_after(
    aws: LocalAWS, cli: Cli, status: int
) -> None:
    rule = Rule(redirect(status, "eu-west-1"), when=lambda request: bool(request.key), times=None)

    with FaultProxy(aws.endpoint_url, [rule]) as proxy:
        done = cli("fetch", _small(aws), AWS_ENDPOINT_URL=proxy.url)

    _failed(done, 78, "--region")
    assert proxy.operations.count("GetObject") <= 2
    assert _nothing_staged(cli.directory)


def test_an_answer_that_stalls_and_goes_on_is_no_failure(aws: LocalAWS, cli: Cli) -> None:
    job_id = aws.add_job([Input("App", LARGE, ".tar")])
    plan = [Rule(Stall(0.5), "GetObject", byte_range=SECOND_BLOCK)]

    with (
        FaultProxy(aws.endpoint_url, plan) as proxy,
        _running(cli, proxy, "fetch", job_id) as running,
    ):
        assert proxy.stalled.wait(60)
        assert _nothing_staged_yet(cli.directory)
        proxy.release()
        _, said = running.communicate()

    assert running.returncode == 0, said
    assert (cli.directory / "in/App/noise").read_bytes() == NOISE
    assert proxy.operations.count("GetObject") == 3


def _nothing_staged_yet(directory: Path) -> bool:
    return not (directory / "in").exists()


def _running(cli: Cli, proxy: FaultProxy, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "cpstage", *arguments],
        cwd=cli.directory,
        env={**cli.environment, "AWS_ENDPOINT_URL": proxy.url},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_heeded_in_the_middle_of_a_stalled_range(
    aws: LocalAWS, cli: Cli, number: signal.Signals
) -> None:
    job_id = aws.add_job([Input("App", LARGE, ".tar")])
    plan = [Rule(Stall(0.5), "GetObject", byte_range=SECOND_BLOCK)]

    with (
        FaultProxy(aws.endpoint_url, plan) as proxy,
        _running(cli, proxy, "fetch", job_id) as running,
    ):
        assert proxy.stalled.wait(60)
        running.send_signal(number)
        _, said = running.communicate(timeout=25)

    assert running.returncode == 128 + number
    assert said.splitlines()[-1] == f"cpstage: error: stopped by {number.name}"
    assert _nothing_staged(cli.directory)


def test_a_flipped_bit_is_found_by_the_archive(aws: LocalAWS, cli: Cli) -> None:
    body = zip_of({"f": os.urandom(1000)})
    job_id = aws.add_job([Input("App", body)])

    with FaultProxy(aws.endpoint_url, [Rule(Flip(500), "GetObject")]) as proxy:
        done = cli("fetch", job_id, AWS_ENDPOINT_URL=proxy.url)

    _failed(done, 65, _location(aws, job_id), "CRC-32")
    assert _nothing_staged(cli.directory)


@pytest.mark.parametrize("algorithm", ["CRC32", "SHA256"])
def test_a_flipped_bit_is_found_by_the_checksum_of_the_object(
    aws: LocalAWS, cli: Cli, algorithm: str
) -> None:
    """In a file that is no archive, nothing else would find it."""
    job_id = aws.add_job([Input("Notes", b"plain text", ".txt")])
    _put(aws, job_id, b"a" * len(LARGE), ChecksumAlgorithm=algorithm)
    plan = [Rule(Flip(500), "GetObject", byte_range=SECOND_BLOCK)]

    with FaultProxy(aws.endpoint_url, plan) as proxy:
        done = cli("fetch", job_id, AWS_ENDPOINT_URL=proxy.url)
    whole = cli("fetch", job_id)

    _failed(done, 65, "artifact Notes", algorithm)
    assert whole.returncode == 0, whole.stderr
    manifest = json.loads((cli.directory / ".cpstage/manifest.json").read_text())
    assert f"{algorithm} of the object" in manifest["artifacts"]["Notes"]["verified"]


def _put(aws: LocalAWS, job_id: str, body: bytes, **options: str) -> None:
    """Replace the object of an input."""
    artifact = aws.job(job_id).inputs[0]
    s3(aws.admin_environment).put_object(
        Bucket=artifact.bucket,
        Key=artifact.key,
        Body=body,
        ServerSideEncryption="aws:kms",
        SSEKMSKeyId=aws.key_arn,
        **options,  # type: ignore[arg-type]
    )


def test_an_object_that_changed_once_is_read_from_its_start(aws: LocalAWS, cli: Cli) -> None:
    job_id = aws.add_job([Input("App", LARGE, ".tar")])
    replace = Meanwhile(lambda: _put(aws, job_id, tar_of({"new": "content"})))

    with FaultProxy(aws.endpoint_url, [Rule(replace, "GetObject", first=2)]) as proxy:
        done = cli("fetch", job_id, AWS_ENDPOINT_URL=proxy.url)

    assert done.returncode == 0, done.stderr
    assert names(cli.directory / "in") == ["App", "App/new"]
    assert 412 in {exchange.status for exchange in proxy.log}


@pytest.mark.parametrize(("times", "code"), [(1, 0), (None, 75)])
def test_a_range_of_another_object_is_not_taken(
    aws: LocalAWS, cli: Cli, times: int | None, code: int
) -> None:
    """A cache, or a store that ignores If-Match, answers with what is there now."""
    job_id = aws.add_job([Input("App", LARGE, ".tar")])
    other = Changed("ETag", '"other"')
    plan = [Rule(other, "GetObject", byte_range=SECOND_BLOCK, times=times)]

    with FaultProxy(aws.endpoint_url, plan) as proxy:
        done = cli("fetch", job_id, AWS_ENDPOINT_URL=proxy.url)

    assert done.returncode == code, done.stderr
    if code:
        _failed(done, code, _location(aws, job_id), "was replaced", "run the command again")
        assert _nothing_staged(cli.directory)
    else:
        assert (cli.directory / "in/App/noise").read_bytes() == NOISE


def test_a_weak_etag_is_that_of_the_same_object(aws: LocalAWS, cli: Cli) -> None:
    job_id = aws.add_job([Input("App", LARGE, ".tar")])
    artifact = aws.job(job_id).inputs[0]
    found = s3(aws.admin_environment).head_object(Bucket=artifact.bucket, Key=artifact.key)
    plan = [Rule(Changed("ETag", f"W/{found['ETag']}"), "GetObject", times=None)]

    with FaultProxy(aws.endpoint_url, plan) as proxy:
        done = cli("fetch", job_id, AWS_ENDPOINT_URL=proxy.url)

    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("operation", ["HeadObject", "GetObject"])
def test_an_expired_token_is_renewed_once(aws: LocalAWS, cli: Cli, operation: str) -> None:
    job_id = aws.add_job([Input("App", LARGE, ".tar")])

    # The answer to a HEAD does not say why; the GET of one byte that follows does.
    plan = [Rule(EXPIRED_TOKEN, one) for one in {operation, "GetObject"}]
    with FaultProxy(aws.endpoint_url, plan) as proxy:
        done = cli("fetch", job_id, AWS_ENDPOINT_URL=proxy.url)

    assert done.returncode == 0, done.stderr
    assert (cli.directory / "in/App/noise").read_bytes() == NOISE
    assert proxy.operations.count("GetJobDetails") == 2


def test_an_expired_token_of_a_job_that_is_gone(aws: LocalAWS, cli: Cli) -> None:
    job_id = aws.add_job([Input("App", LARGE, ".tar")])
    end = Meanwhile(lambda: aws.set_status(job_id, "TimedOut"))
    plan = [Rule(EXPIRED_TOKEN, "GetObject", first=2), Rule(end, "GetObject")]

    with FaultProxy(aws.endpoint_url, plan) as proxy:
        done = cli("fetch", job_id, AWS_ENDPOINT_URL=proxy.url)

    _failed(done, 75, job_id, "no longer in progress")
    assert _nothing_staged(cli.directory)


@pytest.mark.parametrize("status", [301, 307, 400])
def test_a_bucket_elsewhere_is_followed_to(aws: LocalAWS, cli: Cli, status: int) -> None:
    bucket = f"artifacts-elsewhere-{status}"
    aws.add_bucket(bucket, "eu-west-1")
    job_id = aws.add_job([Input("App", zip_of({"f": "x"}))], bucket=bucket)
    there = redirect(status, "eu-west-1")

    with FaultProxy(aws.endpoint_url, [Rule(there, "HeadObject")]) as proxy:
        done = cli("fetch", job_id, AWS_ENDPOINT_URL=proxy.url)

    assert done.returncode == 0, done.stderr
    assert (cli.directory / "in/App/f").read_text() == "x"
    assert proxy.operations == ["GetJobDetails", "HeadObject", "HeadObject", "GetObject"]


def test_a_clock_that_is_off_is_told_by_how_much(aws: LocalAWS, cli: Cli) -> None:
    date = {"Date": "Mon, 01 Jan 2024 00:00:00 GMT"}
    skewed = Answer(403, "RequestTimeTooSkewed", headers=date)

    with FaultProxy(aws.endpoint_url, [Rule(skewed, when=_reads, times=None)]) as proxy:
        done = cli("fetch", _small(aws), AWS_ENDPOINT_URL=proxy.url)

    _failed(done, 77, "RequestTimeTooSkewed", "the clock of this machine is off by +", " s")


@pytest.mark.parametrize("seed", range(3))
def test_random_faults_do_no_harm(aws: LocalAWS, cli: Cli, seed: int) -> None:
    """Each kind of request fails at most twice, and the result is the same to the last byte."""
    job_id = aws.add_job(
        [
            Input("Large", LARGE, key=f"random/{seed}/large.tar"),
            Input("Small", zip_of({"f": "x"}), key=f"random/{seed}/small.zip"),
        ]
    )

    with FaultProxy(aws.endpoint_url, RandomFaults(seed, 0.5, most=2)) as proxy:
        done = cli("fetch", job_id, AWS_ENDPOINT_URL_S3=proxy.url)

    assert done.returncode == 0, done.stderr
    assert (cli.directory / "in/Large/noise").read_bytes() == NOISE
    assert (cli.directory / "in/Small/f").read_text() == "x"
    assert any(one.struck for one in proxy.log)


@pytest.mark.parametrize("command", ["fetch", "push"])
def test_a_redirect_is_told(aws: LocalAWS, cli: Cli, command: str) -> None:
    bucket = f"elsewhere-told-{command}"
    aws.add_bucket(bucket, "eu-west-1")
    job_id = aws.add_job(
        [Input("App", tar_of({"f": "x"}), ".tar")], ["Built"], bucket=bucket, encryption_key=None
    )
    (cli.directory / "out/Built").mkdir(parents=True)
    (cli.directory / "out/Built/f").write_text("x")
    rule = Rule(redirect(301, "eu-west-1"), when=lambda request: bool(request.key))

    with FaultProxy(aws.endpoint_url, [rule]) as proxy:
        done = cli(command, job_id, AWS_ENDPOINT_URL=proxy.url)

    assert done.returncode == 0, done.stderr
    assert "eu-west-1" in done.stderr
