"""Session credentials that expire in the middle: renewed once per expiry, from many threads."""

from __future__ import annotations

import base64
import json
import os
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from aws_clients import s3
from constant_server import answering_server
from cpstage import AwsConfig, CpstageError, get_job
from cpstage.aws.job_session import JobCredentials, JobSession
from cpstage.aws.s3 import S3, OpenUpload
from cpstage.errors import AccessDenied, OutOfSync
from cpstage.job import SessionCredentials
from cpstage.job.model import Secret
from cpstage.local import SESSION_ACTIONS, Call, Input, LocalAWS
from samples import zip_of
from trees import names

if TYPE_CHECKING:
    from pathlib import Path

    from command_line import Cli

pytestmark = pytest.mark.slow

MIB = 1 << 20


def _renewals(calls: list[Call]) -> int:
    return len([call for call in calls if call.action == "GetJobDetails"]) - 1


def _expired_sessions(calls: list[Call]) -> set[int | None]:
    """The sessions that a request was refused with, because they had expired.

    The answer to a HEAD has no code; 400 is what S3 says to an expired token there.
    """
    return {
        call.session
        for call in calls
        if call.error == "ExpiredToken" or (call.action == "HeadObject" and call.status == 400)
    }


def _as_caller(aws: LocalAWS, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in aws.environment.items():
        monkeypatch.setenv(name, value)


class _Issuer:
    """Hands out credentials, and counts how often."""

    def __init__(self) -> None:
        self.issued = 0
        self.error: CpstageError | None = None

    def __call__(self) -> SessionCredentials:
        if self.error:
            raise self.error
        self.issued += 1
        token = Secret(f"token-{self.issued}")
        return SessionCredentials(f"access-{self.issued}", Secret("secret"), token)


def test_many_threads_with_the_same_expired_token_renew_once() -> None:
    issuer = _Issuer()
    credentials = JobCredentials(issuer(), issuer, max_age=60)
    start = threading.Barrier(8)

    def be_told_that_it_expired(_: int) -> None:
        start.wait()
        credentials.refresh_after("token-1")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(be_told_that_it_expired, range(8)))

    assert issuer.issued == 2
    assert credentials.get_frozen_credentials().token == "token-2"


def test_they_are_renewed_ahead_of_time_once_at_their_age() -> None:
    now = 0.0
    issuer = _Issuer()
    credentials = JobCredentials(issuer(), issuer, max_age=840, clock=lambda: now)

    tokens = []
    for now in (0.0, 839.0, 840.0, 841.0, 1679.0, 1680.0):  # noqa: B007 (read by the clock)
        tokens.append(credentials.get_frozen_credentials().token)

    assert tokens == ["token-1", "token-1", "token-2", "token-2", "token-2", "token-3"]


def test_a_renewal_ahead_of_time_that_fails_is_no_failure_yet() -> None:
    now = 0.0
    issuer = _Issuer()
    credentials = JobCredentials(issuer(), issuer, max_age=840, clock=lambda: now)
    issuer.error = AccessDenied("the caller's credentials have expired")

    now = 841.0
    assert credentials.get_frozen_credentials().token == "token-1"
    with pytest.raises(AccessDenied, match="the caller's credentials have expired"):
        credentials.refresh_after("token-1")
    issuer.error = None
    assert credentials.get_frozen_credentials().token == "token-1"
    now = 900.0
    assert credentials.get_frozen_credentials().token == "token-2"


def test_credentials_do_not_print_themselves() -> None:
    issuer = _Issuer()
    credentials = JobCredentials(issuer(), issuer, max_age=60)

    said = f"{credentials!r} {credentials.get_frozen_credentials()!r}"

    assert "access-1" not in said
    assert "token-1" not in said


def test_eight_threads_read_through_many_expiries(
    aws: LocalAWS, monkeypatch: pytest.MonkeyPatch
) -> None:
    _as_caller(aws, monkeypatch)
    body = os.urandom(32 * MIB)
    job_id = aws.add_job([Input("App", body, ".bin")], session_requests=5)
    since = len(aws.calls())
    config = AwsConfig()
    job = get_job(job_id, config=config)
    store = JobSession(job, config).store
    artifact = job.input_artifacts[0]
    remote = store.open(artifact, store.head(artifact))

    with ThreadPoolExecutor(8) as pool:
        parts = list(pool.map(lambda index: remote.read(index * MIB, MIB), range(32)))

    calls = aws.calls()[since:]
    assert b"".join(parts) == body
    assert _expired_sessions(calls)
    assert _renewals(calls) == len(_expired_sessions(calls))


def _crc32(data: bytes) -> str:
    return base64.b64encode(zlib.crc32(data).to_bytes(4, "big")).decode()


def test_eight_threads_write_through_many_expiries(
    aws: LocalAWS, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every call of a multipart upload, the last one and one that is given up included."""
    _as_caller(aws, monkeypatch)
    body = os.urandom(8 * 5 * MIB)
    job_id = aws.add_job(outputs=["Built"], session_requests=3)
    since = len(aws.calls())
    job = get_job(job_id)
    credentials = JobCredentials(
        job.require_credentials(), lambda: get_job(job_id).require_credentials(), max_age=840
    )
    client = S3(AwsConfig().s3(credentials))
    location = job.output_artifacts[0].location
    bucket, key = location.bucket, location.key
    members = {
        "Bucket": bucket,
        "Key": key,
        "ServerSideEncryption": "aws:kms",
        "SSEKMSKeyId": aws.key_arn,
    }

    def begin() -> OpenUpload:
        aws.expire_sessions(job_id)
        return client.create_multipart_upload(members)[0]

    def put(number: int) -> dict[str, object]:
        part = body[(number - 1) * 5 * MIB : number * 5 * MIB]
        etag = client.upload_part(upload, number, (part,), _crc32(part))["ETag"]
        return {"PartNumber": number, "ETag": etag, "ChecksumCRC32": _crc32(part)}

    upload = begin()
    with ThreadPoolExecutor(8) as pool:
        parts = list(pool.map(put, range(1, 9)))
    aws.expire_sessions(job_id)
    client.complete_multipart_upload(upload, parts, _crc32(body))
    given_up = begin()
    aws.expire_sessions(job_id)
    client.abort_multipart_upload(given_up, timeout=60)

    calls = aws.calls()[since:]
    stored = s3(aws.admin_environment).get_object(Bucket=bucket, Key=key)
    assert stored["Body"].read() == body
    assert len(_expired_sessions(calls)) >= 4
    assert _renewals(calls) == len(_expired_sessions(calls))


def test_a_push_of_many_parts_goes_on_through_many_expiries(aws: LocalAWS, cli: Cli) -> None:
    noise = cli.directory / "noise"
    noise.write_bytes(os.urandom(64 * MIB))
    job_id = aws.add_job(outputs=["Built"], session_requests=3)
    since = len(aws.calls())

    done = cli("push", job_id, "Built=noise", "--json")

    calls = aws.calls()[since:]
    artifact = aws.job(job_id).outputs[0]
    answer = s3(aws.admin_environment).get_object(Bucket=artifact.bucket, Key=artifact.key)
    assert done.returncode == 0, done.stderr
    assert answer["Body"].read() == noise.read_bytes()
    assert _expired_sessions(calls)
    assert _renewals(calls) == len(_expired_sessions(calls))


def test_a_fetch_goes_on_through_many_expiries(aws: LocalAWS, cli: Cli) -> None:
    content = os.urandom(64 * MIB)
    job_id = aws.add_job(
        [Input("App", zip_of({"noise": content})), Input("Lib", zip_of({"f": "x"}))],
        session_requests=3,
    )
    since = len(aws.calls())

    done = cli("fetch", job_id)

    calls = aws.calls()[since:]
    assert done.returncode == 0, done.stderr
    assert (cli.directory / "in/App/noise").read_bytes() == content
    assert _expired_sessions(calls)
    assert _renewals(calls) == len(_expired_sessions(calls))


@pytest.mark.parametrize("size", [1000, 20 * MIB], ids=["single", "multipart"])
def test_a_session_that_expired_before_the_upload_is_renewed(
    aws: LocalAWS, cli: Cli, size: int
) -> None:
    """With a document that was saved, renewal is by the caller, through the API."""
    job_id = aws.add_job([Input("App", zip_of({"f": "x"}))], outputs=["Built"])
    (cli.directory / "job.json").write_text(
        cli("get-job-details", "--job-id", job_id, "--reveal-secrets").stdout
    )
    (cli.directory / "noise").write_bytes(os.urandom(size))
    aws.expire_sessions(job_id)
    since = len(aws.calls())

    fetched = cli("fetch", "--job-file", "job.json")
    aws.expire_sessions(job_id)
    pushed = cli("push", "--job-file", "job.json", "Built=noise")

    assert fetched.returncode == pushed.returncode == 0, fetched.stderr + pushed.stderr
    renewals = [call for call in aws.calls()[since:] if call.action == "GetJobDetails"]
    assert [call.identity for call in renewals] == ["caller", "caller"]


def test_a_third_party_session_is_renewed_with_its_client_token(aws: LocalAWS, cli: Cli) -> None:
    job_id = aws.add_job(
        [Input("App", zip_of({"f": "x"}))],
        third_party=True,
        session_requests=1,
    )
    token = aws.job(job_id).client_token
    assert token is not None

    done = cli("fetch", job_id, CPSTAGE_CLIENT_TOKEN=token)

    assert done.returncode == 0, done.stderr
    calls = [call.action for call in aws.calls() if call.job_id == job_id]
    assert calls.count("GetThirdPartyJobDetails") > 1


def test_max_age_renews_ahead_of_time(aws: LocalAWS, cli: Cli) -> None:
    job_id = aws.add_job([Input("App", zip_of({"noise": os.urandom(40 * MIB)}))])
    since = len(aws.calls())

    done = cli("fetch", job_id, "--credentials-max-age", "0.05")

    calls = aws.calls()[since:]
    assert done.returncode == 0, done.stderr
    assert _renewals(calls) >= 1
    assert _expired_sessions(calls) == set()


def _expired_document(aws: LocalAWS, cli: Cli) -> str:
    job_id = aws.add_job([Input("App", zip_of({"f": "x"}))])
    saved = cli("get-job-details", "--job-id", job_id, "--reveal-secrets").stdout
    aws.expire_sessions(job_id)
    return saved


def test_when_the_job_is_gone_the_renewal_says_so(aws: LocalAWS, cli: Cli) -> None:
    saved = _expired_document(aws, cli)
    aws.set_status(json.loads(saved)["jobDetails"]["id"], "Failed")

    done = cli("fetch", "--job-file", "-", stdin=saved)

    assert done.returncode == 75
    assert "has expired, and the job is no longer in progress" in done.stderr
    assert names(cli.directory) == []


def test_when_the_caller_may_not_ask_the_renewal_says_so(aws: LocalAWS, cli: Cli) -> None:
    saved = _expired_document(aws, cli)
    stranger = aws.add_user("stranger", ["sts:GetCallerIdentity"])

    done = cli.with_variables(stranger)("fetch", "--job-file", "-", stdin=saved)

    assert done.returncode == 77
    assert "has expired and cannot be refreshed" in done.stderr
    assert "codepipeline:GetJobDetails" in done.stderr


def test_when_there_is_no_caller_the_renewal_says_so(aws: LocalAWS, cli: Cli) -> None:
    saved = _expired_document(aws, cli)

    done = cli(
        "fetch",
        "--job-file",
        "-",
        stdin=saved,
        without=("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"),
    )

    assert done.returncode == 77
    assert "cannot be refreshed" in done.stderr
    assert "no AWS credentials were found" in done.stderr


def test_when_codepipeline_is_busy_the_renewal_says_so(aws: LocalAWS, cli: Cli) -> None:
    saved = _expired_document(aws, cli)
    busy = b'{"__type": "ThrottlingException", "message": "Rate exceeded"}'

    with answering_server(400, busy) as url:
        there = cli.with_variables({"AWS_ENDPOINT_URL_CODEPIPELINE": url})
        done = there("fetch", "--job-file", "-", stdin=saved)

    assert done.returncode == 69
    assert "cannot be refreshed" in done.stderr
    assert "ThrottlingException" in done.stderr


def test_a_saved_document_needs_no_caller_while_its_session_lasts(aws: LocalAWS, cli: Cli) -> None:
    job_id = aws.add_job([Input("App", zip_of({"f": "x"}))])
    saved = cli("get-job-details", "--job-id", job_id, "--reveal-secrets").stdout

    done = cli(
        "fetch",
        "--job-file",
        "-",
        stdin=saved,
        without=("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION", "AWS_DEFAULT_REGION"),
    )

    assert done.returncode == 0, done.stderr


FETCH_ONLY = frozenset({"s3:GetObject", "kms:Decrypt"})
PUSH_ONLY = frozenset({"s3:PutObject", "kms:GenerateDataKey", "kms:Decrypt"})


def test_fetch_needs_get_object_and_decrypt_alone(aws: LocalAWS, cli: Cli) -> None:
    body = zip_of({"noise": os.urandom(20 * MIB)})
    job_id = aws.add_job([Input("App", body)], session_actions=FETCH_ONLY)

    done = cli("fetch", job_id)

    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("size", [1000, 20 * MIB], ids=["single", "multipart"])
def test_push_needs_put_object_and_the_key_alone(aws: LocalAWS, cli: Cli, size: int) -> None:
    job_id = aws.add_job(outputs=["Built"], session_actions=PUSH_ONLY)
    (cli.directory / "noise").write_bytes(os.urandom(size))

    done = cli("push", job_id, "Built=noise")

    assert done.returncode == 0, done.stderr


def test_a_denied_abort_does_not_hide_why_the_upload_failed(aws: LocalAWS, cli: Cli) -> None:
    actions = SESSION_ACTIONS - {"s3:AbortMultipartUpload", "kms:Decrypt"}
    job_id = aws.add_job(outputs=["Built"], session_actions=actions)
    (cli.directory / "noise").write_bytes(os.urandom(20 * MIB))

    done = cli("push", job_id, "Built=noise")

    assert done.returncode == 77
    assert "kms:Decrypt" in done.stderr
    assert "Abort" not in done.stderr.splitlines()[-1]


def test_out_of_sync_is_the_class_of_a_job_that_is_gone(
    aws: LocalAWS, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The same from Python: callers can tell the cases apart by class."""
    _as_caller(aws, monkeypatch)
    job_id = aws.add_job([Input("App", zip_of({"f": "x"}))])
    job = get_job(job_id)
    aws.expire_sessions(job_id)
    aws.set_status(job_id, "TimedOut")

    with pytest.raises(OutOfSync):
        JobSession(job, AwsConfig()).store.head(job.input_artifacts[0])
