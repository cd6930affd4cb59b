"""Encrypted artifacts, through ``push --encrypt`` and ``fetch``, as a user sees them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from base64 import b64encode
from typing import TYPE_CHECKING

import pytest

from aws_clients import kms, s3
from constant_server import answering_server
from cpstage import AwsConfig, get_job
from cpstage.archive.workers import thread_count
from cpstage.aws.job_session import JobSession
from cpstage.local import SESSION_ACTIONS, Input, LocalAWS
from encrypted_artifacts import encrypt_artifact, flipped_at, header_length
from encrypted_messages import LEGACY, administrator
from samples import zip_of
from trees import awkward_tree, listing, names

if TYPE_CHECKING:
    from pathlib import Path

    from command_line import Cli

pytestmark = pytest.mark.slow

MIB = 1 << 20


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return awkward_tree(tmp_path / "tree")


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
def test_a_sealed_tree_comes_back_as_it_was(aws: LocalAWS, cli: Cli, tree: Path, kind: str) -> None:
    message = encrypt_artifact(aws, cli, tree, "--format", kind)

    done = cli("fetch", aws.add_job([Input("App", message, "")]), "--json")

    assert done.returncode == 0, done.stderr
    assert listing(cli.directory / "in/App") == listing(tree)
    staged = json.loads(done.stdout)["inputs"][0]
    assert staged["format"] == kind
    assert staged["envelope"]["keys"] == [aws.key_arn]
    assert staged["envelope"]["encryption_context"]["cpstage:artifact"] == "App"
    assert "authentication tag of every frame" in staged["verified"]
    assert list((cli.directory / ".cpstage/staging").iterdir()) == []


def test_what_goes_up_is_no_plaintext(aws: LocalAWS, cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain/file").write_text("the very secret content " * 100)

    message = encrypt_artifact(aws, cli, tmp_path / "plain", "--format", "tar")

    assert b"very secret" not in message
    assert b"ustar" not in message


def test_an_artifact_that_is_not_sealed_can_be_refused(aws: LocalAWS, cli: Cli) -> None:
    done = cli("fetch", aws.add_job([Input("App", zip_of({"f": "x"}))]), "--require-encrypted")

    assert done.returncode == 65
    assert "artifact App at s3://" in done.stderr
    assert "it is not encrypted with the AWS Encryption SDK" in done.stderr
    assert names(cli.directory) == []


def test_a_message_without_key_commitment_takes_an_option(aws: LocalAWS, cli: Cli) -> None:
    context = {"cpstage:pipeline": "sample-pipeline", "cpstage:artifact": "App"}
    message = administrator(aws).by_sdk(zip_of({"f": "x"}), LEGACY, 4096, context)
    job_id = aws.add_job([Input("App", message, "")])

    refused = cli("fetch", job_id)
    allowed = cli("fetch", job_id, "--commitment-policy", "require-encrypt-allow-decrypt")

    assert refused.returncode == 65
    assert "without key commitment" in refused.stderr
    assert "--commitment-policy require-encrypt-allow-decrypt" in refused.stderr
    assert allowed.returncode == 0, allowed.stderr
    assert (cli.directory / "in/App/f").read_text() == "x"


def test_a_message_can_be_staged_as_it_is(aws: LocalAWS, cli: Cli, tree: Path) -> None:
    message = encrypt_artifact(aws, cli, tree)
    job_id = aws.add_job(
        [Input("App", message, ".zip")], session_actions=frozenset({"s3:GetObject", "kms:Decrypt"})
    )
    file_name = aws.job(job_id).inputs[0].key.rpartition("/")[2]

    done = cli("fetch", job_id, "--no-decrypt")

    assert done.returncode == 0, done.stderr
    assert (cli.directory / "in/App" / file_name).read_bytes() == message


def test_opened_and_kept_are_not_the_same_fetch(aws: LocalAWS, cli: Cli, tree: Path) -> None:
    job_id = aws.add_job([Input("App", encrypt_artifact(aws, cli, tree), "")])
    assert cli("fetch", job_id).returncode == 0

    again = cli("fetch", job_id, "--no-decrypt")
    replaced = cli("fetch", job_id, "--no-decrypt", "--replace")

    assert again.returncode == 73
    assert replaced.returncode == 0, replaced.stderr
    assert len(names(cli.directory / "in/App")) == 1


@pytest.mark.parametrize(
    "damage",
    [
        lambda message: flipped_at(message, header_length(message) - 3),
        lambda message: flipped_at(message, header_length(message) + 100),
        lambda message: flipped_at(message, len(message) - 20),
        lambda message: message[: len(message) // 2],
        lambda message: message[:-1],
        lambda message: message + b"x",
        lambda message: message + message,
    ],
    ids=["header", "body", "last frame", "half", "one byte less", "one byte more", "twice"],
)
def test_a_damaged_message_leaves_the_workspace_alone(
    aws: LocalAWS, cli: Cli, tree: Path, damage: object
) -> None:
    assert callable(damage)
    message = encrypt_artifact(aws, cli, tree)

    done = cli("fetch", aws.add_job([Input("App", damage(message), "")]), "--require-encrypted")

    assert done.returncode == 65
    assert "artifact App at s3://" in done.stderr
    assert names(cli.directory) == []


def test_a_message_of_another_artifact_is_refused(aws: LocalAWS, cli: Cli, tree: Path) -> None:
    message = encrypt_artifact(aws, cli, tree, name="Tests")

    done = cli("fetch", aws.add_job([Input("App", message, "")]))

    assert done.returncode == 65
    assert "cpstage:artifact" in done.stderr
    assert names(cli.directory) == []


def test_a_message_of_another_pipeline_is_refused(aws: LocalAWS, cli: Cli, tree: Path) -> None:
    message = encrypt_artifact(aws, cli, tree)

    done = cli("fetch", aws.add_job([Input("App", message, "")], pipeline="other-pipeline"))

    assert done.returncode == 65
    assert "cpstage:pipeline" in done.stderr


def test_more_of_the_context_can_be_asked_for(aws: LocalAWS, cli: Cli, tree: Path) -> None:
    message = encrypt_artifact(aws, cli, tree, "--encrypt-context", "release=7")
    job_id = aws.add_job([Input("App", message, "")])

    other = cli("fetch", job_id, "--decrypt-context", "release=8")
    same = cli("fetch", job_id, "--decrypt-context", "release=7")
    later = cli("fetch", job_id, "--decrypt-context", "release=8", "--replace")

    assert other.returncode == later.returncode == 65
    assert "release" in other.stderr
    assert same.returncode == 0, same.stderr
    assert listing(cli.directory / "in/App") == listing(tree)


@pytest.mark.parametrize("form", ["arn", "id", "alias"])
def test_the_jobs_key_opens_it_in_whatever_form_it_is_named(
    aws: LocalAWS, cli: Cli, tree: Path, form: str
) -> None:
    admin = kms(aws.admin_environment)
    arn = admin.create_key()["KeyMetadata"]["Arn"]
    alias = f"alias/encrypting-{arn[-6:]}"
    admin.create_alias(AliasName=alias, TargetKeyId=arn)
    key = {
        "arn": arn,
        "id": arn.rpartition("/")[2],
        "alias": f"{arn.rpartition(':')[0]}:{alias}",
    }[form]
    job_id = aws.add_job(outputs=["App"], encryption_key=key)
    pushed = cli("push", job_id, f"App={tree}", "--encrypt")
    output = aws.job(job_id).outputs[0]

    done = cli("fetch", aws.add_job([Input("App", None, key=output.key)], encryption_key=key))

    assert pushed.returncode == 0, pushed.stderr
    assert done.returncode == 0, done.stderr
    assert listing(cli.directory / "in/App") == listing(tree)


def test_kms_says_why_a_message_cannot_be_opened(aws: LocalAWS, cli: Cli, tree: Path) -> None:
    admin = kms(aws.admin_environment)
    encrypting = admin.create_key()["KeyMetadata"]["Arn"]
    job_id = aws.add_job(outputs=["App"], encryption_key=encrypting)
    assert cli("push", job_id, f"App={tree}", "--encrypt").returncode == 0
    output = aws.job(job_id).outputs[0]
    body = s3(aws.admin_environment).get_object(Bucket=output.bucket, Key=output.key)
    message = body["Body"].read()
    with_another_key = aws.add_job([Input("App", message, "")])
    admin.disable_key(KeyId=encrypting)

    denied = cli("fetch", with_another_key)

    assert denied.returncode == 77
    assert encrypting in denied.stderr
    assert "kms:Decrypt" in denied.stderr or "DisabledException" in denied.stderr
    assert names(cli.directory) == []


def test_a_job_without_a_key_cannotencrypt_artifact(aws: LocalAWS, cli: Cli, tree: Path) -> None:
    job_id = aws.add_job(outputs=["App"], encryption_key=None)

    done = cli("push", job_id, f"App={tree}", "--encrypt")

    assert done.returncode == 78
    assert "--encrypt-key" in done.stderr
    assert [call for call in aws.calls() if call.job_id == job_id and call.service == "s3"] == []


def test_a_key_can_be_given(aws: LocalAWS, cli: Cli, tree: Path) -> None:
    message = encrypt_artifact(aws, cli, tree, "--encrypt-key", aws.key_arn)

    assert cli("fetch", aws.add_job([Input("App", message, "")])).returncode == 0


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--encrypt-key", "arn:aws:kms:us-east-1:1:key/x"], "add --encrypt"),
        (["--encrypt-context", "a=b"], "add --encrypt"),
        (["--encrypt", "--encrypt-context", "a"], "K=V"),
    ],
)
def test_options_that_make_no_sense_alone(
    aws: LocalAWS, cli: Cli, options: list[str], says: str
) -> None:
    done = cli("push", aws.add_job(outputs=["App"]), *options)

    assert done.returncode == 2
    assert says in done.stderr


KEY_ARN = "arn:aws:kms:us-east-1:123456789012:key/11111111-2222-3333-4444-555555555555"


@pytest.mark.parametrize(
    ("changed", "code", "why"),
    [
        ({"Plaintext": bytes(16)}, 69, "KMS answered a data key of another length"),
        ({"CiphertextBlob": b""}, 69, "KMS answered a data key of another length"),
        ({"CiphertextBlob": bytes(70_000)}, 69, "KMS answered a data key of another length"),
        ({"KeyId": KEY_ARN.replace("1111", "2222")}, 77, "KMS encrypted under arn:aws:kms:"),
    ],
)
@pytest.mark.parametrize("key_id", [KEY_ARN, KEY_ARN.rpartition("/")[2]])
def test_a_data_key_that_would_not_decrypt_is_refused(
    cli: Cli, tree: Path, key_id: str, changed: dict[str, bytes | str], code: int, why: str
) -> None:
    made = {"KeyId": KEY_ARN, "Plaintext": bytes(32), "CiphertextBlob": b"wrapped", **changed}
    answer = {
        name: one if isinstance(one, str) else b64encode(one).decode() for name, one in made.items()
    }
    with answering_server(200, json.dumps(answer).encode()) as url:
        given = {"AWS_DEFAULT_REGION": "us-east-1", "AWS_ENDPOINT_URL_KMS": url}
        keys = ("--encrypt", "--encrypt-key", key_id, "--retry-timeout", "1")
        packing = cli.with_variables(given)
        done = packing("pack", str(tree), "--output", "packed.zip", *keys)

    assert done.returncode == code, done.stderr
    assert f"cannot encrypt under the KMS key {key_id}: {why}" in done.stderr
    assert not (cli.directory / "packed.zip").exists()


@pytest.mark.parametrize("key_id", ["arn:aws:kms:us-east-1:1:key/x", "no-such-key"])
def test_a_key_that_is_none_stops_before_the_upload(
    aws: LocalAWS, cli: Cli, tree: Path, key_id: str
) -> None:
    job_id = aws.add_job(outputs=["App"])

    done = cli("push", job_id, f"App={tree}", "--encrypt", "--encrypt-key", key_id)

    assert done.returncode in {77, 78}
    assert key_id in done.stderr
    assert [call for call in aws.calls() if call.job_id == job_id and call.service == "s3"] == []


def test_objects_of_the_s3_encryption_client_are_called_by_their_name(
    aws: LocalAWS, cli: Cli
) -> None:
    body = os.urandom(5000)
    job_id = aws.add_job([Input("App", body, ".zip")])
    artifact = aws.job(job_id).inputs[0]
    s3(aws.admin_environment).put_object(
        Bucket=artifact.bucket,
        Key=artifact.key,
        Body=body,
        ServerSideEncryption="aws:kms",
        SSEKMSKeyId=aws.key_arn,
        Metadata={"x-amz-key-v2": "wrapped", "x-amz-cek-alg": "AES/GCM/NoPadding"},
    )

    refused = cli("fetch", job_id)
    shown = cli("show", job_id)
    kept = cli("fetch", job_id, "--no-decrypt", "--no-unpack")

    assert refused.returncode == 65
    assert "Amazon S3 Encryption Client" in refused.stderr
    assert "Amazon S3 Encryption Client" in shown.stdout
    assert kept.returncode == 0, kept.stderr


def test_show_tells_of_an_encrypted_message(aws: LocalAWS, cli: Cli, tree: Path) -> None:
    job_id = aws.add_job([Input("App", encrypt_artifact(aws, cli, tree), "")])

    shown = cli("show", job_id).stdout

    assert "bytes, encrypted" in shown
    assert f"AWS Encryption SDK, message format 2, under {aws.key_arn}" in shown


def test_kms_calls_go_on_when_the_session_expires(
    aws: LocalAWS, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in aws.environment.items():
        monkeypatch.setenv(name, value)
    job_id = aws.add_job(outputs=["App"])
    session = JobSession(get_job(job_id), AwsConfig())
    since = len(aws.calls())

    for _ in range(2):
        aws.expire_sessions(job_id)
        answer = session.kms(None).call(
            "GenerateDataKey", {"KeyId": aws.key_arn, "KeySpec": "AES_256"}
        )
        assert answer["KeyId"] == aws.key_arn

    calls = aws.calls()[since:]
    assert [call.error for call in calls if call.service == "kms"] == [
        "ExpiredTokenException",
        None,
    ] * 2
    assert len([call for call in calls if call.action == "GetJobDetails"]) == 2


def test_sealing_and_opening_with_the_least_privileges(aws: LocalAWS, cli: Cli, tree: Path) -> None:
    actions = frozenset({"s3:PutObject", "kms:GenerateDataKey", "kms:Decrypt"})
    job_id = aws.add_job(outputs=["App"], session_actions=actions)
    pushed = cli("push", job_id, f"App={tree}", "--encrypt")
    key = aws.job(job_id).outputs[0].key
    fetching = SESSION_ACTIONS & {"s3:GetObject", "kms:Decrypt"}

    done = cli("fetch", aws.add_job([Input("App", None, key=key)], session_actions=fetching))

    assert pushed.returncode == done.returncode == 0, pushed.stderr + done.stderr


_PEAK = """
import resource, subprocess, sys
code = subprocess.call(sys.argv[1:])
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(code)
"""
"""Runs a command, and prints how many KiB it had in memory at most."""


def test_a_large_artifact_is_sealed_as_a_stream(aws: LocalAWS, cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "large").mkdir()
    with (tmp_path / "large/noise").open("wb") as file:
        for _ in range(12):
            file.write(os.urandom(16 * MIB))
    (tmp_path / "tmp").mkdir()
    job_id = aws.add_job(outputs=["App"])
    push = ("push", job_id, f"App={tmp_path / 'large'}", "--encrypt", "--compression-level", "0")

    # A separate process measures: a child of this one begins with what this one has in memory.
    done = subprocess.run(
        [sys.executable, "-c", _PEAK, sys.executable, "-m", "cpstage", *push],
        cwd=cli.directory,
        env={**cli.environment, "TMPDIR": str(tmp_path / "tmp")},
        capture_output=True,
        text=True,
    )

    assert done.returncode == 0, done.stderr
    more_parts = thread_count() - 2  # a faster machine has more of them on their way
    assert int(done.stdout.splitlines()[-1]) < (160 + 8 * more_parts) * 1024
    assert names(cli.directory) == []
