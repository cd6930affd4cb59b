"""The local AWS as boto3 and the AWS CLI meet it: what it gives, and all that it refuses."""

from __future__ import annotations

import http.client
import io
import json
import os
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import boto3
import pytest
from botocore.auth import S3SigV4Auth, S3SigV4QueryAuth, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials

from aws_clients import aws_cli, codepipeline, kms, options, refused, s3, session
from cpstage.local import SESSION_ACTIONS, Call, Input, LocalAWS, LocalAWSClient, Output, sample
from cpstage.local.backend import Backend

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from mypy_boto3_codepipeline.type_defs import ActionTypeIdTypeDef
    from mypy_boto3_s3 import S3Client

pytestmark = pytest.mark.slow

REGION = "us-east-1"
FIVE_MIB = 5 << 20
CUSTOM: ActionTypeIdTypeDef = {
    "category": "Build",
    "owner": "Custom",
    "provider": "CpstageLocal",
    "version": "1",
}
THIRD_PARTY: ActionTypeIdTypeDef = {
    "category": "Build",
    "owner": "ThirdParty",
    "provider": "CpstageLocal",
    "version": "1",
}


@pytest.fixture
def aws() -> Iterator[LocalAWS]:
    with LocalAWS(region=REGION) as running:
        yield running


@pytest.fixture
def job(aws: LocalAWS) -> str:
    return aws.add_job([Input("AppSource", b"the source")], ["AppBuild"])


def put_options(aws: LocalAWS, job_id: str) -> dict[str, Any]:
    output = aws.job(job_id).outputs[0]
    return {"Bucket": output.bucket, "Key": output.key, "ServerSideEncryption": "aws:kms"}


def get_options(aws: LocalAWS, job_id: str) -> dict[str, Any]:
    source = aws.job(job_id).inputs[0]
    return {"Bucket": source.bucket, "Key": source.key}


# Getting the job


def test_get_job_details_tells_everything_about_the_job(aws: LocalAWS) -> None:
    job_id = aws.add_job(
        [Input("AppSource", b"x", revision="r1")],
        ["AppBuild"],
        configuration={"ProjectName": "demo"},
        continuation_token="again",
        pipeline="a-pipeline-with-a-long-name",
    )
    details = codepipeline(aws.environment).get_job_details(jobId=job_id)["jobDetails"]
    data = details["data"]
    assert (details["id"], details["accountId"]) == (job_id, "123456789012")
    assert data["actionTypeId"] == CUSTOM
    assert data["actionConfiguration"] == {"configuration": {"ProjectName": "demo"}}
    assert data["encryptionKey"] == {"id": aws.key_arn, "type": "KMS"}
    assert data["continuationToken"] == "again"
    assert data["pipelineContext"]["pipelineName"] == "a-pipeline-with-a-long-name"
    source = data["inputArtifacts"][0]
    assert (source["name"], source["revision"]) == ("AppSource", "r1")
    source_key = source["location"]["s3Location"]["objectKey"]
    assert source_key.startswith("a-pipeline-with-a-lo/AppSource/")
    assert source_key.endswith(".zip")
    build_key = data["outputArtifacts"][0]["location"]["s3Location"]["objectKey"]
    assert build_key.rpartition("/")[0] == "a-pipeline-with-a-lo/AppBuild"
    assert "." not in build_key


def test_the_aws_cli_reads_the_same_job(aws: LocalAWS, job: str, tmp_path: Path) -> None:
    printed = aws_cli(
        aws.environment, "codepipeline", "get-job-details", "--job-id", job, cwd=tmp_path
    )
    ours = codepipeline(aws.environment).get_job_details(jobId=job)["jobDetails"]
    theirs = json.loads(printed)["jobDetails"]
    assert theirs["data"].pop("artifactCredentials") != ours["data"].pop("artifactCredentials")
    assert theirs == ours


def test_every_call_issues_a_session_of_its_own(aws: LocalAWS, job: str) -> None:
    first, second = session(aws, job), session(aws, job)
    assert first["AWS_SESSION_TOKEN"] != second["AWS_SESSION_TOKEN"]
    for credentials in (second, first):
        s3(credentials).get_object(**get_options(aws, job))
    assert [call.session for call in aws.calls() if call.service == "s3"] == [2, 1]


def test_a_job_is_unknown_in_another_region_and_under_another_id(aws: LocalAWS, job: str) -> None:
    with refused("JobNotFoundException", 400):
        codepipeline(aws.environment, "eu-west-1").get_job_details(jobId=job)
    with refused("JobNotFoundException", 400):
        codepipeline(aws.environment).get_job_details(jobId="f4f4ff82-2d11-EXAMPLE")


def test_a_finished_job_hands_out_no_credentials(aws: LocalAWS, job: str) -> None:
    aws.set_status(job, "TimedOut")
    with refused("JobNotFoundException", 400):
        codepipeline(aws.environment).get_job_details(jobId=job)


# Who may do what


def test_the_caller_may_work_on_jobs_and_nothing_else(aws: LocalAWS, job: str) -> None:
    sts = boto3.client("sts", **options(aws.environment))
    assert sts.get_caller_identity()["Arn"] == "arn:aws:iam::123456789012:user/caller"
    with refused("AccessDenied", 403, "no identity-based policy allows the s3:GetObject action"):
        s3(aws.environment).get_object(**get_options(aws, job))
    with refused("AccessDeniedException", 400, "kms:GenerateDataKey"):
        kms(aws.environment).generate_data_key(KeyId=aws.key_arn, KeySpec="AES_256")
    with refused("AccessDeniedException", 400, "codepipeline:ListPipelines"):
        codepipeline(aws.environment).list_pipelines()


def test_another_user_may_do_what_was_given(aws: LocalAWS, job: str) -> None:
    nobody = aws.add_user("nobody", [])
    with refused("AccessDeniedException", 400, "codepipeline:GetJobDetails"):
        codepipeline(nobody).get_job_details(jobId=job)
    assert aws.calls()[-1].identity == "nobody"


def test_a_session_reaches_its_job_s_objects_and_no_other(aws: LocalAWS, job: str) -> None:
    other = aws.add_job([Input("AppSource", b"secret of another job")], ["AppBuild"])
    client = s3(session(aws, job))
    assert client.get_object(**get_options(aws, job))["Body"].read() == b"the source"
    version = client.head_object(**get_options(aws, job))["VersionId"]
    client.get_object(**get_options(aws, job), VersionId=version)
    client.put_object(**put_options(aws, job), SSEKMSKeyId=aws.key_arn, Body=b"built")
    output = {key: put_options(aws, job)[key] for key in ("Bucket", "Key")}
    denied: list[Callable[[], object]] = [
        lambda: client.get_object(**get_options(aws, other)),
        lambda: client.put_object(**put_options(aws, other), Body=b"x"),
        lambda: client.get_object(**output),
        lambda: client.put_object(**get_options(aws, job), ServerSideEncryption="aws:kms"),
        lambda: client.delete_object(**output),
        lambda: client.list_objects_v2(Bucket=aws.bucket),
        client.list_buckets,
        lambda: client.get_bucket_location(Bucket=aws.bucket),
        lambda: client.copy_object(
            **put_options(aws, job), CopySource=_object_path(aws, other), SSEKMSKeyId=aws.key_arn
        ),
        lambda: client.put_object(**put_options(aws, job), Tagging="a=b", Body=b"x"),
    ]
    for call in denied:
        with refused("AccessDenied", 403, "because no session policy allows the s3:"):
            call()
    with refused("403", 403):
        client.head_bucket(Bucket=aws.bucket)
    with refused("AccessDeniedException", 400, "codepipeline:GetJobDetails"):
        codepipeline(session(aws, job)).get_job_details(jobId=job)


def test_a_session_uses_its_job_s_key_and_no_other(aws: LocalAWS, job: str) -> None:
    other = kms(aws.admin_environment).create_key()["KeyMetadata"]["Arn"]
    client = kms(session(aws, job))
    made = client.generate_data_key(KeyId=aws.key_arn, KeySpec="AES_256")
    opened = client.decrypt(CiphertextBlob=made["CiphertextBlob"])
    assert (opened["Plaintext"], opened["KeyId"]) == (made["Plaintext"], aws.key_arn)
    with refused("AccessDeniedException", 400, "kms:GenerateDataKey"):
        client.generate_data_key(KeyId=other, KeySpec="AES_256")
    sealed = kms(aws.admin_environment).encrypt(KeyId=other, Plaintext=b"x")["CiphertextBlob"]
    with refused("AccessDeniedException", 400, "kms:Decrypt"):
        client.decrypt(CiphertextBlob=sealed)
    with refused("AccessDeniedException", 400, "kms:Encrypt"):
        client.encrypt(KeyId=aws.key_arn, Plaintext=b"x")


def test_a_missing_object_is_403_unless_listing_is_allowed(aws: LocalAWS) -> None:
    gone = [Input("AppSource", None)]
    blind = aws.add_job(gone)
    seeing = aws.add_job(gone, session_actions=SESSION_ACTIONS | {"s3:ListBucket"})
    with refused("AccessDenied", 403, "s3:ListBucket"):
        s3(session(aws, blind)).get_object(**get_options(aws, blind))
    with refused("403", 403):
        s3(session(aws, blind)).head_object(**get_options(aws, blind))
    with refused("NoSuchKey", 404):
        s3(session(aws, seeing)).get_object(**get_options(aws, seeing))
    with refused("404", 404):
        s3(session(aws, seeing)).head_object(**get_options(aws, seeing))


def test_a_missing_bucket_is_no_such_bucket(aws: LocalAWS) -> None:
    with refused("NoSuchBucket", 404):
        s3(aws.admin_environment).get_object(Bucket="not-there", Key="x")


# Signatures and session credentials

Environment = dict[str, str]


def _unknown_key(environment: Environment) -> Environment:
    return {**environment, "AWS_ACCESS_KEY_ID": "ASIAAAAAAAAAAAAAAAAA"}


def _no_token(environment: Environment) -> Environment:
    return {key: value for key, value in environment.items() if key != "AWS_SESSION_TOKEN"}


def _wrong_token(environment: Environment) -> Environment:
    return {**environment, "AWS_SESSION_TOKEN": environment["AWS_SESSION_TOKEN"][::-1]}


def _wrong_secret(environment: Environment) -> Environment:
    return {**environment, "AWS_SECRET_ACCESS_KEY": environment["AWS_SECRET_ACCESS_KEY"][::-1]}


@pytest.mark.parametrize(
    ("spoil", "s3_error", "json_error"),
    [
        (_unknown_key, ("InvalidAccessKeyId", 403), "UnrecognizedClientException"),
        (_no_token, ("InvalidAccessKeyId", 403), "UnrecognizedClientException"),
        (_wrong_token, ("InvalidToken", 400), "UnrecognizedClientException"),
        (_wrong_secret, ("SignatureDoesNotMatch", 403), "InvalidSignatureException"),
    ],
)
def test_spoiled_credentials_are_refused(
    aws: LocalAWS,
    job: str,
    spoil: Callable[[Environment], Environment],
    s3_error: tuple[str, int],
    json_error: str,
) -> None:
    spoiled = spoil(session(aws, job))
    with refused(*s3_error):
        s3(spoiled).get_object(**get_options(aws, job))
    with refused(json_error, 400):
        kms(spoiled).generate_data_key(KeyId=aws.key_arn, KeySpec="AES_256")


def test_an_expired_session_is_refused(aws: LocalAWS, job: str) -> None:
    environment = session(aws, job)
    s3(environment).get_object(**get_options(aws, job))
    aws.expire_sessions(job)
    with refused("ExpiredToken", 400):
        s3(environment).get_object(**get_options(aws, job))
    with refused("ExpiredTokenException", 400):
        kms(environment).generate_data_key(KeyId=aws.key_arn, KeySpec="AES_256")
    with refused("400", 400) as caught:
        s3(environment).head_object(**get_options(aws, job))
    headers = caught.value.response["ResponseMetadata"]["HTTPHeaders"]
    assert "x-amz-bucket-region" not in headers
    s3(session(aws, job)).get_object(**get_options(aws, job))


def test_sessions_last_as_long_as_asked(aws: LocalAWS) -> None:
    short = aws.add_job([Input("AppSource", b"x")], session_seconds=0)
    with refused("ExpiredToken", 400):
        s3(session(aws, short)).get_object(**get_options(aws, short))


def _send(
    aws: LocalAWS, method: str, path: str, headers: dict[str, str], body: bytes = b""
) -> tuple[int, str]:
    """Send a request unchanged, and return status and body."""
    connection = http.client.HTTPConnection(urlsplit(aws.endpoint_url).netloc, timeout=10)
    connection.request(method, path, body, headers)
    response = connection.getresponse()
    answer = response.status, response.read().decode()
    connection.close()
    return answer


def _object_path(aws: LocalAWS, job_id: str) -> str:
    return "/{Bucket}/{Key}".format(**get_options(aws, job_id))


def test_an_unsigned_request_is_denied(aws: LocalAWS, job: str) -> None:
    status, body = _send(aws, "GET", _object_path(aws, job), {})
    assert (status, "<Code>AccessDenied</Code>" in body) == (403, True)
    target = {"X-Amz-Target": "CodePipeline_20150709.GetJobDetails"}
    status, body = _send(aws, "POST", "/", target, b"{}")
    assert (status, json.loads(body)["__type"]) == (400, "MissingAuthenticationTokenException")
    identities = [(call.service, call.identity) for call in aws.calls()]
    assert identities == [("s3", "anonymous"), ("codepipeline", "anonymous")]


def test_signature_version_2_is_refused(aws: LocalAWS, job: str) -> None:
    config = Config(signature_version="s3", retries={"total_max_attempts": 1})
    old = boto3.client("s3", config=config, **options(session(aws, job)))
    with refused("InvalidRequest", 400, "AWS4-HMAC-SHA256"):
        old.get_object(**get_options(aws, job))


def _signed(
    environment: Environment,
    method: str,
    url: str,
    body: bytes,
    signer: Callable[[Credentials, str, str], SigV4Auth],
    service: str = "s3",
    headers: dict[str, str] | None = None,
) -> AWSRequest:
    credentials = Credentials(
        environment["AWS_ACCESS_KEY_ID"],
        environment["AWS_SECRET_ACCESS_KEY"],
        environment.get("AWS_SESSION_TOKEN"),
    )
    request = AWSRequest(method, url, headers, body)
    signer(credentials, service, REGION).add_auth(request)
    return request


def test_a_body_other_than_the_signed_one_is_refused(aws: LocalAWS, job: str) -> None:
    options = put_options(aws, job)
    path = f"/{options['Bucket']}/{options['Key']}"
    environment = aws.admin_environment
    request = _signed(environment, "PUT", aws.endpoint_url + path, b"signed", S3SigV4Auth)
    status, body = _send(aws, "PUT", path, dict(request.headers), b"forged")
    assert (status, "XAmzContentSHA256Mismatch" in body) == (400, True)


def test_a_header_that_is_not_signed_is_refused(aws: LocalAWS, job: str) -> None:
    path = _object_path(aws, job)
    request = _signed(aws.admin_environment, "GET", aws.endpoint_url + path, b"", S3SigV4Auth)
    headers = dict(request.headers)
    assert _send(aws, "GET", path, headers)[0] == 200
    status, body = _send(aws, "GET", path, {**headers, "X-Amz-Checksum-Mode": "ENABLED"})
    assert (status, "SignatureDoesNotMatch" in body) == (403, True)


class _EveryHeaderAuth(S3SigV4Auth):
    """Signs headers that botocore leaves out, as the AWS SDK for .NET does."""

    def headers_to_sign(self, request: AWSRequest) -> http.client.HTTPMessage:
        headers = super().headers_to_sign(request)
        headers["user-agent"] = request.headers["User-Agent"]
        return headers


def test_every_header_that_is_signed_is_checked(aws: LocalAWS, job: str) -> None:
    path, agent = _object_path(aws, job), {"User-Agent": "aws-sdk-dotnet  3.7"}
    request = _signed(
        aws.admin_environment, "GET", aws.endpoint_url + path, b"", _EveryHeaderAuth, headers=agent
    )
    headers = dict(request.headers)
    assert _send(aws, "GET", path, headers)[0] == 200
    status, body = _send(aws, "GET", path, {**headers, "User-Agent": "other"})
    assert (status, "SignatureDoesNotMatch" in body) == (403, True)


@pytest.mark.parametrize(("minutes", "is_refused"), [(-16, True), (-14, False), (16, True)])
def test_a_clock_more_than_15_minutes_off_is_refused(
    aws: LocalAWS, job: str, monkeypatch: pytest.MonkeyPatch, minutes: int, is_refused: bool
) -> None:
    # botocore's clock is put wrong. Signers of awscrt have a clock of their own, which is why these
    # requests are not signed by a client.
    wrong = datetime.now(timezone.utc) + timedelta(minutes=minutes)
    monkeypatch.setattr("botocore.auth.get_current_datetime", lambda remove_tzinfo=True: wrong)
    caller, admin = aws.environment, aws.admin_environment
    url, path, body = aws.endpoint_url, _object_path(aws, job), json.dumps({"jobId": job}).encode()
    get = _signed(admin, "GET", url + path, b"", S3SigV4Auth)
    status, answer = _send(aws, "GET", path, dict(get.headers))
    assert (status == 403 and "RequestTimeTooSkewed" in answer) is is_refused
    target = {"X-Amz-Target": "CodePipeline_20150709.GetJobDetails"}
    post = _signed(caller, "POST", url, body, SigV4Auth, "codepipeline", target)
    status, answer = _send(aws, "POST", "/", dict(post.headers), body)
    assert (status == 400 and "InvalidSignatureException" in answer) is is_refused
    assert ("Signature expired: " in answer) is is_refused


def test_presigned_urls_hold_for_their_time_and_their_object(aws: LocalAWS, job: str) -> None:
    client = s3(session(aws, job))
    url = client.generate_presigned_url("get_object", get_options(aws, job), ExpiresIn=60)
    with urllib.request.urlopen(url, timeout=10) as response:
        assert response.read() == b"the source"
    plain = aws.endpoint_url + _object_path(aws, job)
    # The signers of awscrt refuse to make a URL that has expired.
    expired = partial(S3SigV4QueryAuth, expires=-1)
    over = str(_signed(session(aws, job), "GET", plain, b"", expired).url)
    forged = url.replace("AppSource", "AppSaurce")
    for broken, words in ((over, b"Request has expired"), (forged, b"SignatureDoesNotMatch")):
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(broken, timeout=10)
        assert caught.value.code == 403
        assert words in caught.value.read()


@pytest.mark.parametrize("key", ["a b+c/%2Fü~(1)!*'.zip", "x//y/../z", "käse?&=;#.zip", "a%20b"])
def test_keys_are_literal(aws: LocalAWS, key: str) -> None:
    job_id = aws.add_job(
        [Input("AppSource", b"odd", key=key)], [Output("AppBuild", key="o/" + key)]
    )
    client = s3(session(aws, job_id))
    assert client.get_object(Bucket=aws.bucket, Key=key)["Body"].read() == b"odd"
    client.put_object(**put_options(aws, job_id), SSEKMSKeyId=aws.key_arn, Body=b"x")
    assert [call.key for call in aws.calls() if call.service == "s3"] == [key, "o/" + key]
    kept = s3(aws.admin_environment).get_object(Bucket=aws.bucket, Key="o/" + key)
    assert kept["Body"].read() == b"x"


# Encryption


def test_an_upload_without_kms_is_refused(aws: LocalAWS, job: str) -> None:
    plain = {key: put_options(aws, job)[key] for key in ("Bucket", "Key")}
    client = s3(session(aws, job))
    denial = "with an explicit deny in a resource-based policy"
    with refused("AccessDenied", 403, denial):
        client.put_object(**plain, Body=b"x")
    with refused("AccessDenied", 403, denial):
        client.put_object(**plain, Body=b"x", ServerSideEncryption="AES256")
    with refused("AccessDenied", 403, denial):
        client.create_multipart_upload(**plain)
    s3(aws.admin_environment).put_object(**plain, Body=b"x")


def test_the_key_may_be_named_in_every_way_and_is_answered_as_an_arn(
    aws: LocalAWS, job: str
) -> None:
    kms(aws.admin_environment).create_alias(AliasName="alias/pipeline", TargetKeyId=aws.key_arn)
    prefix, _, bare = aws.key_arn.partition("key/")
    client = s3(session(aws, job))
    for name in (aws.key_arn, bare, "alias/pipeline", f"{prefix}alias/pipeline"):
        answer = client.put_object(**put_options(aws, job), SSEKMSKeyId=name, Body=b"x")
        assert answer["ServerSideEncryption"] == "aws:kms"
        assert answer["SSEKMSKeyId"] == aws.key_arn
        assert aws.calls()[-1].kms_key_id == name
        assert aws.calls()[-1].server_side_encryption == "aws:kms"


def test_a_job_without_a_key_uses_the_managed_one(aws: LocalAWS) -> None:
    job_id = aws.add_job([Input("AppSource", b"x")], ["AppBuild"], encryption_key=None)
    client = s3(session(aws, job_id))
    answer = client.put_object(**put_options(aws, job_id), Body=b"x")
    managed = kms(aws.admin_environment).describe_key(KeyId="alias/aws/s3")["KeyMetadata"]["Arn"]
    assert answer["SSEKMSKeyId"] == managed
    assert client.get_object(**get_options(aws, job_id))["SSEKMSKeyId"] == managed
    with refused("AccessDenied", 403, "kms:GenerateDataKey"):
        client.put_object(**put_options(aws, job_id), SSEKMSKeyId=aws.key_arn, Body=b"x")


def test_a_key_that_cannot_be_used_is_refused(aws: LocalAWS, job: str) -> None:
    client, admin = s3(session(aws, job)), kms(aws.admin_environment)
    options = put_options(aws, job)
    for unknown in (
        "11111111-2222-3333-4444-555555555555",
        aws.key_arn.replace("123456789012", "999999999999"),
        aws.key_arn.replace("us-east-1", "eu-west-1"),
        "alias/none",
    ):
        with refused("KMS.NotFoundException", 400, unknown):
            client.put_object(**options, SSEKMSKeyId=unknown, Body=b"x")
    admin.disable_key(KeyId=aws.key_arn)
    with refused("KMS.DisabledException", 400):
        client.put_object(**options, SSEKMSKeyId=aws.key_arn, Body=b"x")
    with refused("KMS.DisabledException", 400):
        client.get_object(**get_options(aws, job))
    assert client.head_object(**get_options(aws, job))["ContentLength"] == 10
    with refused("DisabledException", 400):
        kms(session(aws, job)).generate_data_key(KeyId=aws.key_arn, KeySpec="AES_256")
    admin.schedule_key_deletion(KeyId=aws.key_arn, PendingWindowInDays=7)
    with refused("KMS.KMSInvalidStateException", 400):
        client.get_object(**get_options(aws, job))


def test_an_input_under_a_foreign_key_cannot_be_read(aws: LocalAWS) -> None:
    other = kms(aws.admin_environment).create_key()["KeyMetadata"]["Arn"]
    job_id = aws.add_job([Input("AppSource", b"x", kms_key_id=other)])
    with refused("AccessDenied", 403, "kms:Decrypt"):
        s3(session(aws, job_id)).get_object(**get_options(aws, job_id))


# Multipart uploads and the shapes of HTTP


def _upload(client: S3Client, options: dict[str, Any], parts: list[bytes]) -> dict[str, Any]:
    place = {key: options[key] for key in ("Bucket", "Key")}
    upload = client.create_multipart_upload(**options)["UploadId"]

    def part(number: int) -> dict[str, Any]:
        answer = client.upload_part(
            **place, UploadId=upload, PartNumber=number, Body=parts[number - 1]
        )
        assert answer["SSEKMSKeyId"] == options["SSEKMSKeyId"]
        return {"PartNumber": number, "ETag": answer["ETag"]}

    with ThreadPoolExecutor(8) as pool:
        done: Any = list(pool.map(part, range(1, len(parts) + 1)))
    assert len(client.list_parts(**place, UploadId=upload)["Parts"]) == len(parts)
    completed = client.complete_multipart_upload(
        **place, UploadId=upload, MultipartUpload={"Parts": done}
    )
    return dict(completed)


def test_a_multipart_upload_in_eight_threads_keeps_key_and_bytes(aws: LocalAWS, job: str) -> None:
    client = s3(session(aws, job))
    options = {**put_options(aws, job), "SSEKMSKeyId": aws.key_arn, "ContentType": "text/plain"}
    parts = [bytes([number]) * FIVE_MIB for number in range(8)]
    completed = _upload(client, options, parts)
    assert completed["ServerSideEncryption"] == "aws:kms"
    assert completed["SSEKMSKeyId"] == aws.key_arn
    place = {key: options[key] for key in ("Bucket", "Key")}
    kept = s3(aws.admin_environment).get_object(**place)
    assert (kept["SSEKMSKeyId"], kept["ContentType"]) == (aws.key_arn, "text/plain")
    assert kept["Body"].read() == b"".join(parts)
    part = s3(aws.admin_environment).get_object(**place, Range="bytes=5242879-5242880")
    assert part["Body"].read() == b"\x00\x01"
    assert aws.calls()[-1].byte_range == "bytes=5242879-5242880"


def test_abort_is_allowed_unless_the_session_is_narrowed(aws: LocalAWS, job: str) -> None:
    narrow = aws.add_job([], ["AppBuild"], session_actions=frozenset({"s3:PutObject"}))
    full = SESSION_ACTIONS - {"s3:AbortMultipartUpload"}
    unabortable = aws.add_job([], ["AppBuild"], session_actions=full)
    for job_id, allowed in ((job, True), (unabortable, False)):
        client = s3(session(aws, job_id))
        options = {**put_options(aws, job_id), "SSEKMSKeyId": aws.key_arn}
        upload = client.create_multipart_upload(**options)["UploadId"]
        place = {key: options[key] for key in ("Bucket", "Key")}
        if allowed:
            client.abort_multipart_upload(**place, UploadId=upload)
            with refused("NoSuchUpload", 404):
                client.upload_part(**place, UploadId=upload, PartNumber=1, Body=b"x")
            continue
        with refused("AccessDenied", 403, "s3:AbortMultipartUpload"):
            client.abort_multipart_upload(**place, UploadId=upload)
    with refused("AccessDenied", 403, "kms:GenerateDataKey"):
        s3(session(aws, narrow)).create_multipart_upload(
            **put_options(aws, narrow), SSEKMSKeyId=aws.key_arn
        )


def test_a_part_that_comes_beside_the_abort_is_refused(
    aws: LocalAWS, job: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = s3(session(aws, job))
    asked = {**put_options(aws, job), "SSEKMSKeyId": aws.key_arn}
    place = {key: asked[key] for key in ("Bucket", "Key")}
    upload = client.create_multipart_upload(**asked)["UploadId"]
    find_key = Backend.upload_key
    calls: list[str] = []

    def find_key_and_abort(backend: Backend, bucket: str, upload_id: str) -> str | None:
        calls.append(upload_id)
        key = find_key(backend, bucket, upload_id)
        if len(calls) == 1:
            client.abort_multipart_upload(**place, UploadId=upload)
        return key

    monkeypatch.setattr(Backend, "upload_key", find_key_and_abort)
    with refused("NoSuchUpload", 404):
        client.upload_part(**place, UploadId=upload, PartNumber=1, Body=b"x")


def test_streamed_bodies_arrive_whole(aws: LocalAWS, job: str) -> None:
    # A file-like body makes botocore send "Expect: 100-continue".
    body = os.urandom(1 << 20)
    options = {**put_options(aws, job), "SSEKMSKeyId": aws.key_arn}
    client = s3(session(aws, job))
    client.put_object(**options, Body=io.BytesIO(body), ChecksumAlgorithm="CRC32")
    place = {key: options[key] for key in ("Bucket", "Key")}
    assert s3(aws.admin_environment).get_object(**place)["Body"].read() == body


class _TrailerAuth(S3SigV4Auth):
    """Signs as for a checksum in the trailer, which botocore itself does over TLS only."""

    def payload(self, request: AWSRequest) -> str:
        return "STREAMING-UNSIGNED-PAYLOAD-TRAILER"


@pytest.mark.parametrize("transfer", ["Content-Length", "Transfer-Encoding"])
def test_an_aws_chunked_body_with_a_trailer_is_unwrapped(
    aws: LocalAWS, job: str, transfer: str
) -> None:
    options = put_options(aws, job)
    path = f"/{options['Bucket']}/{options['Key']}"
    url = aws.endpoint_url + path
    request = _signed(aws.admin_environment, "PUT", url, b"", _TrailerAuth)
    body = b"5\r\nhello\r\n0\r\nx-amz-checksum-crc32:NhCmhg==\r\n\r\n"
    headers = {**dict(request.headers), "Content-Encoding": "aws-chunked"}
    if transfer == "Transfer-Encoding":
        headers["Transfer-Encoding"] = "chunked"
        body = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
    assert _send(aws, "PUT", path, headers, body)[0] == 200
    kept = s3(aws.admin_environment).get_object(Bucket=options["Bucket"], Key=options["Key"])
    assert kept["Body"].read() == b"hello"


def test_a_connection_serves_many_requests_after_refused_ones_too(aws: LocalAWS, job: str) -> None:
    connection = http.client.HTTPConnection(urlsplit(aws.endpoint_url).netloc, timeout=10)
    connection.connect()
    opened = connection.sock
    for method in ("PUT", "HEAD", "GET"):
        connection.request(method, _object_path(aws, job), b"x" * 100_000)
        response = connection.getresponse()
        response.read()
        assert response.status == 403
        assert connection.sock is opened
    connection.close()


def test_a_body_cut_in_the_middle_changes_nothing(aws: LocalAWS, job: str) -> None:
    options = put_options(aws, job)
    path = f"/{options['Bucket']}/{options['Key']}"
    request = _signed(aws.admin_environment, "PUT", aws.endpoint_url + path, b"", _TrailerAuth)
    lines = [f"PUT {path} HTTP/1.1", f"Host: {urlsplit(aws.endpoint_url).netloc}"]
    lines += [f"{name}: {value}" for name, value in request.headers.items()]
    lines += ["Content-Length: 1000", "", "3e8;cut"]
    address = urlsplit(aws.endpoint_url)
    with socket.create_connection((str(address.hostname), address.port or 0), 10) as connection:
        connection.sendall("\r\n".join(lines).encode())
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(100) == b""
    assert aws.calls() == []


# Regions


def test_a_bucket_elsewhere_redirects_boto3_to_its_region(aws: LocalAWS) -> None:
    aws.add_bucket("artifacts-in-ireland", "eu-west-1")
    job_id = aws.add_job(
        [Input("AppSource", b"far")], bucket="artifacts-in-ireland", encryption_key=None
    )
    environment = session(aws, job_id)
    config = Config(signature_version="s3v4")
    client = boto3.client("s3", config=config, **options(environment))
    assert client.get_object(**get_options(aws, job_id))["Body"].read() == b"far"
    asked = [(call.action, call.status, call.error) for call in aws.calls() if call.service == "s3"]
    assert asked == [
        ("GetObject", 400, "AuthorizationHeaderMalformed"),
        ("GetObject", 200, None),
    ]
    fresh = boto3.client("s3", config=config, **options(environment))
    assert fresh.head_object(**get_options(aws, job_id))["ContentLength"] == 3
    url = f"{aws.endpoint_url}{_object_path(aws, job_id)}"
    signed = _signed(environment, "GET", url, b"", S3SigV4Auth)
    status, body = _send(aws, "GET", _object_path(aws, job_id), dict(signed.headers))
    assert (status, "<Region>eu-west-1</Region>" in body) == (400, True)


# Working on jobs


def test_a_worker_polls_acknowledges_and_succeeds(aws: LocalAWS) -> None:
    client = codepipeline(aws.environment)
    assert client.poll_for_jobs(actionTypeId=CUSTOM)["jobs"] == []
    job_id = aws.add_job([], ["AppBuild"], status="Queued", configuration={"Name": "a"})
    assert client.poll_for_jobs(actionTypeId=CUSTOM, queryParam={"Name": "b"})["jobs"] == []
    (polled,) = client.poll_for_jobs(actionTypeId=CUSTOM, queryParam={"Name": "a"})["jobs"]
    assert polled["id"] == job_id
    assert polled["data"]["artifactCredentials"]["sessionToken"]
    assert aws.job(job_id).status == "Dispatched"
    assert client.poll_for_jobs(actionTypeId=CUSTOM)["jobs"] == []
    with refused("InvalidJobStateException", 400):
        client.put_job_success_result(jobId=job_id)
    with refused("InvalidNonceException", 400):
        client.acknowledge_job(jobId=job_id, nonce="3")
    for _ in range(2):
        answer = client.acknowledge_job(jobId=job_id, nonce=polled["nonce"])
        assert answer["status"] == "InProgress"
    client.put_job_success_result(
        jobId=job_id,
        executionDetails={"summary": "done", "externalExecutionId": "e1", "percentComplete": 100},
        currentRevision={"revision": "1.0", "changeIdentifier": "c1"},
        outputVariables={"Version": "1.0"},
    )
    state = aws.job(job_id)
    assert state.status == "Succeeded"
    assert state.result is not None
    assert state.result["executionDetails"]["summary"] == "done"
    assert state.result["outputVariables"] == {"Version": "1.0"}
    with refused("InvalidJobStateException", 400):
        client.put_job_failure_result(
            jobId=job_id, failureDetails={"type": "JobFailed", "message": "late"}
        )


def test_a_job_polled_again_cannot_be_acknowledged_with_the_old_nonce(aws: LocalAWS) -> None:
    client = codepipeline(aws.environment)
    job_id = aws.add_job(status="Queued")
    (first,) = client.poll_for_jobs(actionTypeId=CUSTOM, maxBatchSize=5)["jobs"]
    aws.set_status(job_id, "Queued")
    (second,) = client.poll_for_jobs(actionTypeId=CUSTOM, maxBatchSize=5)["jobs"]
    with refused("InvalidNonceException", 400):
        client.acknowledge_job(jobId=job_id, nonce=first["nonce"])
    aws.set_status(job_id, "TimedOut")
    answer = client.acknowledge_job(jobId=job_id, nonce=second["nonce"])
    assert answer["status"] == "TimedOut"


def test_a_failure_is_kept_as_it_was_put(aws: LocalAWS, job: str) -> None:
    details: Any = {
        "type": "ConfigurationError",
        "message": "No such target",
        "externalExecutionId": "e",
    }
    codepipeline(aws.environment).put_job_failure_result(jobId=job, failureDetails=details)
    assert aws.job(job).status == "Failed"
    assert aws.job(job).result == {"failureDetails": details}


def test_a_continuation_token_brings_a_new_job(aws: LocalAWS, job: str) -> None:
    client = codepipeline(aws.environment)
    with refused("ValidationException", 400):
        client.put_job_success_result(
            jobId=job, continuationToken="part-2", outputVariables={"A": "b"}
        )
    client.put_job_success_result(jobId=job, continuationToken="part-2")
    (following,) = client.poll_for_jobs(actionTypeId=CUSTOM)["jobs"]
    assert following["id"] == aws.job(job).continued_as != job
    assert following["data"]["continuationToken"] == "part-2"
    assert aws.job(job).status == "Succeeded"
    assert aws.job(following["id"]).outputs == aws.job(job).outputs


def test_requests_are_checked_against_the_service_s_model(aws: LocalAWS, job: str) -> None:
    client = codepipeline(aws.environment)
    with refused("ValidationException", 400, "'failureDetails.message'"):
        client.put_job_failure_result(
            jobId=job, failureDetails={"type": "JobFailed", "message": "x" * 5001}
        )
    wrong: Any = {"type": "Whatever", "message": "x"}
    with refused("ValidationException", 400, "enum value set"):
        client.put_job_failure_result(jobId=job, failureDetails=wrong)
    with refused("ValidationException", 400, "less than or equal to 100"):
        client.put_job_success_result(jobId=job, executionDetails={"percentComplete": 101})
    with refused("OutputVariablesSizeExceededException", 400):
        client.put_job_success_result(jobId=job, outputVariables={"A": "x" * 122_880})
    with refused("ActionTypeNotFoundException", 400):
        client.poll_for_jobs(actionTypeId={**CUSTOM, "provider": "Other"})
    with refused("ValidationException", 400, "'queryParam'"):
        client.poll_for_jobs(actionTypeId=CUSTOM, queryParam={"A": "1", "B": "2"})
    careless = boto3.client(
        "codepipeline", config=Config(parameter_validation=False), **options(aws.environment)
    )
    nothing: Any = {}
    with refused("ValidationException", 400, "'jobId' failed to satisfy constraint"):
        careless.get_job_details(**nothing)
    assert aws.job(job).status == "InProgress"


def test_a_third_party_job_goes_by_its_client_token(aws: LocalAWS, job: str) -> None:
    client = codepipeline(aws.environment)
    job_id = aws.add_job([Input("AppSource", b"x")], third_party=True, status="Queued")
    token = str(aws.job(job_id).client_token)
    (polled,) = client.poll_for_third_party_jobs(actionTypeId=THIRD_PARTY)["jobs"]
    assert polled == {"clientId": aws.job(job_id).client_id, "jobId": job_id}
    with refused("InvalidClientTokenException", 400):
        client.get_third_party_job_details(jobId=job_id, clientToken="wrong")
    with refused("InvalidJobException", 400):
        client.get_third_party_job_details(jobId=job, clientToken=token)
    with refused("JobNotFoundException", 400):
        client.get_job_details(jobId=job_id)
    details = client.get_third_party_job_details(jobId=job_id, clientToken=token)["jobDetails"]
    assert "pipelineExecutionId" not in details["data"]["pipelineContext"]
    nonce = details["nonce"]
    acknowledged = client.acknowledge_third_party_job(jobId=job_id, nonce=nonce, clientToken=token)
    assert acknowledged["status"] == "InProgress"
    client.put_third_party_job_success_result(
        jobId=job_id, clientToken=token, continuationToken="more"
    )
    again = str(aws.job(job_id).continued_as)
    aws.set_status(again, "InProgress")
    client.put_third_party_job_failure_result(
        jobId=again,
        clientToken=str(aws.job(again).client_token),
        failureDetails={"type": "JobFailed", "message": "no"},
    )
    assert [aws.job(each).status for each in (job_id, again)] == ["Succeeded", "Failed"]


def test_the_aws_cli_works_a_whole_job(aws: LocalAWS, tmp_path: Path) -> None:
    job_id = aws.add_job([Input("AppSource", b"from the cli")], ["AppBuild"], status="Queued")

    def cli(*arguments: str) -> Any:
        return json.loads(aws_cli(aws.environment, *arguments, cwd=tmp_path) or "null")

    shorthand = ",".join(f"{name}={value}" for name, value in CUSTOM.items())
    (polled,) = cli("codepipeline", "poll-for-jobs", "--action-type-id", shorthand)["jobs"]
    cli("codepipeline", "acknowledge-job", "--job-id", job_id, "--nonce", polled["nonce"])
    worker = session(aws, job_id)
    source, output = aws.job(job_id).inputs[0], aws.job(job_id).outputs[0]
    aws_cli(worker, "s3", "cp", f"s3://{source.bucket}/{source.key}", "got", cwd=tmp_path)
    assert (tmp_path / "got").read_bytes() == b"from the cli"
    # Large enough for the CLI to upload in parts.
    (tmp_path / "built").write_bytes(b"b" * (9 << 20))
    target = f"s3://{output.bucket}/{output.key}"
    encrypted = ("--sse", "aws:kms", "--sse-kms-key-id", aws.key_arn)
    aws_cli(worker, "s3", "cp", "built", target, *encrypted, cwd=tmp_path)
    cli("codepipeline", "put-job-success-result", "--job-id", job_id)
    assert aws.job(job_id).status == "Succeeded"
    kept = s3(aws.admin_environment).head_object(Bucket=output.bucket, Key=output.key)
    assert (kept["ContentLength"], kept["SSEKMSKeyId"]) == (9 << 20, aws.key_arn)
    uploads = [call for call in aws.calls() if call.action == "CreateMultipartUpload"]
    assert [(call.identity, call.kms_key_id) for call in uploads] == [
        (f"job:{job_id}", aws.key_arn)
    ]


# The record


def test_the_record_tells_who_called_what_and_no_secret(aws: LocalAWS, job: str) -> None:
    environment = session(aws, job)
    client = s3(environment)
    client.get_object(**get_options(aws, job), Range="bytes=0-3")
    with refused("AccessDenied", 403):
        client.put_object(Bucket=aws.bucket, Key="elsewhere", Body=b"x")
    calls = aws.calls()
    source = aws.job(job).inputs[0]
    assert calls == [
        Call(1, "codepipeline", "GetJobDetails", "caller", job_id=job, status=200),
        Call(
            2,
            "s3",
            "GetObject",
            f"job:{job}",
            session=1,
            job_id=job,
            bucket=source.bucket,
            key=source.key,
            byte_range="bytes=0-3",
            status=206,
        ),
        Call(
            3,
            "s3",
            "PutObject",
            f"job:{job}",
            session=1,
            job_id=job,
            bucket=aws.bucket,
            key="elsewhere",
            status=403,
            error="AccessDenied",
        ),
    ]
    for name in ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        assert environment[name] not in repr(calls)


# The server itself


def test_another_process_adds_a_job_and_reads_the_record(aws: LocalAWS) -> None:
    client = LocalAWSClient(aws.endpoint_url)
    job_id = client.add_job(
        [Input("AppSource", b"\x00\xff", ".tar.gz"), Input("Gone", None)],
        ["AppBuild"],
        encryption_key=None,
        session_actions=frozenset({"s3:GetObject", "kms:Decrypt"}),
    )
    state = aws.job(job_id)
    assert state.encryption_key is None
    assert state.session_actions == {"s3:GetObject", "kms:Decrypt"}
    got = s3(session(aws, job_id)).get_object(**get_options(aws, job_id))
    assert got["Body"].read() == b"\x00\xff"
    document = client.job(job_id)
    assert (document["status"], document["outputs"][0]["name"]) == ("InProgress", "AppBuild")
    assert client.calls() == aws.calls()
    with pytest.raises(ValueError, match="nothing here"):
        client.job("unknown")
    with pytest.raises(ValueError, match="cannot be Lost"):
        client.add_job(status="Lost")
    with pytest.raises(ValueError, match="no bucket nowhere"):
        client.add_job([Input("AppSource")], bucket="nowhere")
    with pytest.raises(ValueError, match="no key nothing"):
        client.add_job([Input("AppSource", kms_key_id="nothing")])


def test_the_control_endpoint_is_closed_to_web_pages(aws: LocalAWS) -> None:
    ours = {"X-Cpstage-Local": "1"}
    assert _send(aws, "GET", "/_cpstage/record", ours)[0] == 200
    assert _send(aws, "GET", "/_cpstage/record", {})[0] == 403
    assert _send(aws, "GET", "/_cpstage/record", {**ours, "Host": "evil.example"})[0] == 403
    assert _send(aws, "POST", "/_cpstage/jobs", {}, b"{}")[0] == 403
    assert _send(aws, "POST", "/_cpstage/jobs", ours, b'{"wrong": 1}')[0] == 400
    preflight = {"Origin": "http://evil.example", "Access-Control-Request-Method": "GET"}
    assert _send(aws, "OPTIONS", "/_cpstage/record", preflight)[0] == 403


def test_it_listens_on_the_loopback_address_only(aws: LocalAWS) -> None:
    assert aws.endpoint_url.startswith("http://127.0.0.1:")
    port = urlsplit(aws.endpoint_url).port
    assert port is not None
    # Another address of the same machine: a server bound to all of them would answer.
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.2", port), timeout=5)


def test_stopping_ends_connections_and_starting_again_is_empty() -> None:
    with LocalAWS() as first:
        job_id = first.add_job([Input("AppSource", b"x")])
        url, environment = first.endpoint_url, first.environment
        lasting = codepipeline(environment)
        lasting.get_job_details(jobId=job_id)
        with pytest.raises(RuntimeError, match="running already"):
            LocalAWS().start()
    with pytest.raises(ConnectionError):
        LocalAWSClient(url).calls()
    with LocalAWS(port=int(url.rpartition(":")[2])) as second:
        assert second.endpoint_url == url
        with refused("UnrecognizedClientException", 400):
            lasting.get_job_details(jobId=job_id)
        assert (
            s3(second.admin_environment).list_object_versions(Bucket=second.bucket)[
                "ResponseMetadata"
            ]["HTTPStatusCode"]
            == 200
        )
        assert [call.identity for call in second.calls()] == ["unknown", "admin"]


def test_the_package_imports_without_moto_and_botocore() -> None:
    code = (
        "import sys, cpstage.local; from cpstage.local import LocalAWSClient;"
        "print(sorted({'moto', 'flask', 'botocore'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"


# The sample


def test_the_sample_builds_from_its_archives(aws: LocalAWS, tmp_path: Path) -> None:
    job_id = sample.add_sample_job(aws)
    state = aws.job(job_id)
    assert [artifact.name for artifact in state.outputs] == ["AppBuild", "AppReport"]
    assert "not-a-real-secret" in state.configuration["DeployToken"]
    client = s3(session(aws, job_id))
    for artifact, unpack in zip(state.inputs, (["unzip", "-q"], ["tar", "-xzf"]), strict=True):
        directory = tmp_path / "in" / artifact.name
        directory.mkdir(parents=True)
        archive = tmp_path / "archive"
        answer = client.get_object(Bucket=artifact.bucket, Key=artifact.key)
        archive.write_bytes(answer["Body"].read())
        subprocess.run([*unpack, str(archive)], cwd=directory, check=True, timeout=60)
    source = tmp_path / "in" / "AppSource"
    assert (source / "build.sh").stat().st_mode & 0o111
    assert os.readlink(source / "CHANGES.txt") == "docs/changes.txt"
    assert (source / "docs" / "grüße.txt").is_file()
    assert list((source / "build").iterdir()) == []
    environment = {**os.environ, "PYTHON": sys.executable}
    subprocess.run(
        sample.BUILD_COMMAND,
        cwd=tmp_path,
        env=environment,
        check=True,
        stdout=subprocess.DEVNULL,
        timeout=60,
    )
    built = tmp_path / "out" / "AppBuild" / "greeter-latest.pyz"
    greeting = subprocess.run(
        [sys.executable, str(built), "Ada"], capture_output=True, check=True, timeout=60
    )
    assert greeting.stdout.decode() == "Grüß Gott, Ada!\n"
    report = tmp_path / "out" / "AppReport"
    assert json.loads((report / "tests.json").read_text())["passed"] is True
    assert (report / "warnings.log").read_bytes() == b""


def test_the_sample_s_archives_are_the_same_every_time() -> None:
    assert sample.source_archive() == sample.source_archive()
    assert sample.config_archive() == sample.config_archive()
