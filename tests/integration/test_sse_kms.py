"""SSE-KMS: what an upload asks for, what is made of S3's answer, and keys that cannot be used."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from aws_clients import kms
from constant_server import answering_server
from cpstage.local import SESSION_ACTIONS, Call, Input, LocalAWS
from samples import zip_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from mypy_boto3_kms import KMSClient

    from command_line import Cli

pytestmark = pytest.mark.slow

MIB = 1 << 20
SIZES = pytest.mark.parametrize("size", [1000, 20 * MIB], ids=["single", "multipart"])


def _asked(aws: LocalAWS, job_id: str) -> Call:
    """The one call that decided how an upload is encrypted."""
    (call,) = [
        call
        for call in aws.calls()
        if call.job_id == job_id and call.action in {"PutObject", "CreateMultipartUpload"}
    ]
    return call


def _new_key(aws: LocalAWS, alias: str | None = None) -> str:
    admin = kms(aws.admin_environment)
    arn = admin.create_key()["KeyMetadata"]["Arn"]
    if alias:
        admin.create_alias(AliasName=alias, TargetKeyId=arn)
    return arn


def _push(cli: Cli, job_id: str, size: int, *options: str) -> tuple[int, str, str]:
    (cli.directory / "noise").write_bytes(os.urandom(size))
    done = cli("push", job_id, "Built=noise", "--json", "--progress", "none", *options)
    return done.returncode, done.stdout, done.stderr


@SIZES
@pytest.mark.parametrize(
    "form", [lambda arn: arn, lambda arn: arn.rpartition("/")[2]], ids=["arn", "id"]
)
def test_a_key_is_sent_as_the_job_names_it(
    aws: LocalAWS, cli: Cli, size: int, form: Callable[[str], str]
) -> None:
    arn = _new_key(aws)
    job_id = aws.add_job(outputs=["Built"], encryption_key=form(arn))

    code, said, error = _push(cli, job_id, size)

    assert code == 0, error
    asked = _asked(aws, job_id)
    assert (asked.server_side_encryption, asked.kms_key_id) == ("aws:kms", form(arn))
    assert json.loads(said)["outputs"][0]["kms_key_id"] == arn


@SIZES
def test_an_alias_arn_is_sent_as_it_is(aws: LocalAWS, cli: Cli, size: int) -> None:
    name = f"alias/pipeline-{size}"
    arn = _new_key(aws, name)
    alias = f"{arn.rpartition(':')[0]}:{name}"
    job_id = aws.add_job(outputs=["Built"], encryption_key=alias)

    code, said, error = _push(cli, job_id, size)

    assert code == 0, error
    assert _asked(aws, job_id).kms_key_id == alias
    assert json.loads(said)["outputs"][0]["kms_key_id"] == arn


@SIZES
@pytest.mark.parametrize(
    "key",
    [None, {"type": "KMS"}, {"id": "", "type": "KMS"}, {"id": "a-key", "type": "Other"}],
    ids=["null", "no id", "empty id", "another type"],
)
def test_without_a_kms_key_id_s3_chooses(
    aws: LocalAWS, cli: Cli, size: int, key: dict[str, str] | None
) -> None:
    job_id = aws.add_job(outputs=["Built"], encryption_key=key)

    code, said, error = _push(cli, job_id, size)

    assert code == 0, error
    asked = _asked(aws, job_id)
    assert (asked.server_side_encryption, asked.kms_key_id) == ("aws:kms", None)
    assert json.loads(said)["outputs"][0]["encryption"] == "aws:kms"


def test_a_key_of_another_account_and_region_is_sent_whole(aws: LocalAWS, cli: Cli) -> None:
    foreign = "arn:aws:kms:eu-west-1:999999999999:key/11111111-2222-3333-4444-555555555555"
    job_id = aws.add_job(outputs=["Built"], encryption_key=foreign)

    code, _, error = _push(cli, job_id, 1000)

    assert _asked(aws, job_id).kms_key_id == foreign
    assert code == 77
    assert f"under {foreign}" in error


@SIZES
def test_a_bucket_key_is_used_when_it_is_asked_for(aws: LocalAWS, cli: Cli, size: int) -> None:
    asked = []
    for options in ([], ["--bucket-key"]):
        job_id = aws.add_job(outputs=["Built"])
        assert _push(cli, job_id, size, *options)[0] == 0
        asked.append(_asked(aws, job_id).bucket_key)

    assert asked == [False, True]


def _disable(admin: KMSClient, arn: str) -> None:
    admin.disable_key(KeyId=arn)


def _schedule_deletion(admin: KMSClient, arn: str) -> None:
    admin.schedule_key_deletion(KeyId=arn, PendingWindowInDays=7)


@pytest.mark.parametrize(
    ("break_key", "says"),
    [(_disable, "KMS.DisabledException"), (_schedule_deletion, "KMS.KMSInvalidStateException")],
)
def test_a_key_in_the_wrong_state_is_named(
    aws: LocalAWS, cli: Cli, break_key: Callable[[KMSClient, str], None], says: str
) -> None:
    arn = _new_key(aws)
    job_id = aws.add_job([Input("App", zip_of({"f": "x"}))], outputs=["Built"], encryption_key=arn)
    break_key(kms(aws.admin_environment), arn)

    fetched = cli("fetch", job_id)
    code, _, pushed = _push(cli, job_id, 1000)

    assert fetched.returncode == code == 77
    for error in (fetched.stderr, pushed):
        assert says in error
        assert arn in error
        assert aws.bucket in error
        assert "is enabled and lies in the bucket's region" in error


def test_a_key_that_the_session_may_not_use_is_named(aws: LocalAWS, cli: Cli) -> None:
    foreign = _new_key(aws)
    job_id = aws.add_job([Input("App", zip_of({"f": "x"}), kms_key_id=foreign)])

    done = cli("fetch", job_id)

    assert done.returncode == 77
    assert f"kms:Decrypt on its key {foreign}" in done.stderr
    assert aws.bucket in done.stderr


def test_nothing_is_uploaded_unencrypted_when_the_key_is_denied(aws: LocalAWS, cli: Cli) -> None:
    actions = SESSION_ACTIONS - {"kms:GenerateDataKey"}
    job_id = aws.add_job(outputs=["Built"], session_actions=actions)

    code, _, error = _push(cli, job_id, 1000)

    assert code == 77
    assert "kms:GenerateDataKey" in error
    puts = [call for call in aws.calls() if call.job_id == job_id and call.action == "PutObject"]
    assert [call.server_side_encryption for call in puts] == ["aws:kms"]


def test_show_and_the_manifest_name_encryption_and_key(aws: LocalAWS, cli: Cli) -> None:
    arn = _new_key(aws)
    job_id = aws.add_job([Input("App", zip_of({"f": "x"}))], encryption_key=arn)

    shown = cli("show", job_id).stdout
    cli("fetch", job_id)

    manifest = json.loads((cli.directory / ".cpstage/manifest.json").read_text())
    assert f"encryption  aws:kms {arn}" in shown
    assert manifest["artifacts"]["App"]["encryption"] == "aws:kms"
    assert manifest["artifacts"]["App"]["kms_key_id"] == arn


SSE = "x-amz-server-side-encryption"
OTHER_KEY = "arn:aws:kms:us-east-1:123456789012:key/another"


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ({}, "with encryption none, but aws:kms was requested"),
        ({SSE: "AES256"}, "with encryption AES256, but aws:kms was requested"),
        (
            {SSE: "aws:kms", f"{SSE}-aws-kms-key-id": OTHER_KEY},
            f"under the key {OTHER_KEY}, but",
        ),
        ({SSE: "aws:kms"}, "under the key None, but"),
    ],
    ids=["nothing", "AES256", "another key", "no key"],
)
def test_an_upload_that_s3_encrypted_otherwise_is_an_error(
    aws: LocalAWS, cli: Cli, answer: dict[str, str], says: str
) -> None:
    job_id = aws.add_job(outputs=["Built"])

    with answering_server(200, headers={"ETag": '"etag"', **answer}) as url:
        there = cli.with_variables({"AWS_ENDPOINT_URL_S3": url})
        code, said, error = _push(there, job_id, 1000)

    assert code == 77
    assert says in error
    assert said == ""
