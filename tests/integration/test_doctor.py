"""``cpstage doctor``: what a run needs, in its order, and what to change for each failure."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from aws_clients import kms, s3
from constant_server import answering_server
from cpstage.local import SESSION_ACTIONS, Input, LocalAWS
from mounts import without_privileges
from samples import zip_of

if TYPE_CHECKING:
    from command_line import Cli

pytestmark = pytest.mark.slow

CRC64NVME_OF_TEXT = "rCixvM1b9Xc="
ORDER = ["region", "network", "clock", "caller", "job", "credentials"]


def _examined(cli: Cli, *arguments: str, **variables: str) -> tuple[int, list[dict[str, Any]]]:
    """Run the doctor; return its exit code and its checks."""
    done = cli.with_variables(variables)("doctor", *arguments, "--json")
    document = json.loads(done.stdout)
    assert document["exit_code"] == done.returncode
    return done.returncode, document["checks"]


def _failures(checks: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {one["name"]: one for one in checks if one["status"] == "failed"}


def _caller(checks: list[dict[str, Any]]) -> dict[str, Any]:
    return next(one for one in checks if one["name"] == "caller")


def _uploads(aws: LocalAWS) -> list[Any]:
    admin = s3(aws.admin_environment)
    return [*admin.list_multipart_uploads(Bucket=aws.bucket).get("Uploads", [])]


@pytest.mark.skipif(bool(find_spec("awscrt")), reason="awscrt computes the checksum")
def test_a_checksum_that_cannot_be_computed_is_named(aws: LocalAWS, cli: Cli) -> None:
    job_id = aws.add_job([Input("App", b"", ".txt")])
    artifact = aws.job(job_id).inputs[0]
    s3(aws.admin_environment).put_object(
        Bucket=artifact.bucket,
        Key=artifact.key,
        Body=b"text",
        ServerSideEncryption="aws:kms",
        SSEKMSKeyId=aws.key_arn,
        ChecksumAlgorithm="CRC64NVME",
        ChecksumCRC64NVME=CRC64NVME_OF_TEXT,
    )

    fetched = cli("fetch", job_id, "--json", "-v")
    shown = cli("show", job_id, "--json")
    code, checks = _examined(cli, job_id)

    for done in (fetched, shown):
        (one,) = json.loads(done.stdout)["inputs"]
        assert one["checksum"] == f"CRC64NVME:{CRC64NVME_OF_TEXT}"
        assert one["unverified_checksum"] == "CRC64NVME"
    assert "the CRC64NVME of the object is not verified; in a clone, install" in fetched.stderr
    assert "pip install '.[crt]'" in fetched.stderr
    (read,) = [one for one in checks if one["name"] == "input"]
    assert (code, read["status"]) == (0, "ok")
    assert "its CRC64NVME is not verified without the extra crt" in read["detail"]


@pytest.mark.skipif(not find_spec("awscrt"), reason="needs the extra crt")
def test_a_checksum_of_the_extra_crt_is_verified(aws: LocalAWS, cli: Cli) -> None:
    job_id = aws.add_job([Input("App", b"", ".txt")])
    artifact = aws.job(job_id).inputs[0]
    s3(aws.admin_environment).put_object(
        Bucket=artifact.bucket,
        Key=artifact.key,
        Body=b"text",
        ServerSideEncryption="aws:kms",
        SSEKMSKeyId=aws.key_arn,
        ChecksumAlgorithm="CRC64NVME",
        ChecksumCRC64NVME=CRC64NVME_OF_TEXT,
    )

    fetched = cli("fetch", job_id, "--json")

    (one,) = json.loads(fetched.stdout)["inputs"]
    assert one["unverified_checksum"] is None
    assert "CRC64NVME of the object" in one["verified"]


def test_a_job_in_good_health(aws: LocalAWS, cli: Cli) -> None:
    job_id = aws.add_job([Input("App", zip_of({"f": "x"})), Input("Lib", b"")], ["Built", "Report"])
    before = len(aws.calls())

    code, checks = _examined(cli, job_id)

    assert code == 0
    assert [one["name"] for one in checks] == [
        *ORDER, "input", "input", "output", "output", "key", "workspace",
    ]  # fmt: skip
    assert {one["status"] for one in checks} == {"ok"}
    assert checks[0]["detail"] == "us-east-1"
    assert aws.key_arn in checks[-2]["detail"]
    assert [*cli.directory.iterdir()] == []
    assert _uploads(aws) == []
    actions = [call.action for call in aws.calls()[before:]]
    assert actions.count("CreateMultipartUpload") == actions.count("AbortMultipartUpload") == 2
    assert "PutObject" not in actions


def test_it_goes_on_after_a_failure(aws: LocalAWS, cli: Cli) -> None:
    job_id = aws.add_job([Input("Gone", None), Input("App", zip_of({"f": "x"}))], ["Built"])

    done = cli("doctor", job_id)

    lines = done.stdout.splitlines()
    assert done.returncode == 77
    failed = next(index for index, line in enumerate(lines) if line.startswith("failed "))
    assert lines[failed].startswith("failed   input Gone: cannot read artifact Gone")
    assert "s3:GetObject" in lines[failed + 1]
    assert any(line.startswith("ok       input App") for line in lines)
    assert lines[-1].startswith("ok       workspace")


def test_what_a_session_may_not_do(aws: LocalAWS, cli: Cli) -> None:
    body = zip_of({"f": "x"})

    def examined(missing: str) -> tuple[int, dict[str, dict[str, Any]], list[dict[str, Any]]]:
        actions = SESSION_ACTIONS - {missing}
        job_id = aws.add_job([Input("App", body)], ["Built"], session_actions=actions)
        code, checks = _examined(cli, job_id)
        return code, _failures(checks), checks

    code, failed, _ = examined("s3:PutObject")
    assert (code, [*failed]) == (77, ["output"])
    assert "s3:PutObject" in failed["output"]["fix"]
    code, failed, _ = examined("kms:GenerateDataKey")
    assert (code, [*failed]) == (77, ["output", "key"])
    code, failed, _ = examined("kms:Decrypt")
    assert (code, [*failed]) == (77, ["input"])
    assert _uploads(aws) == []

    code, failed, checks = examined("s3:AbortMultipartUpload")
    warned = [one for one in checks if one["status"] == "warning"]
    assert (code, failed) == (0, {})
    assert "stays open, without parts" in warned[0]["detail"]
    assert "lifecycle rule" in warned[0]["fix"]
    assert len(_uploads(aws)) == 1


def test_a_key_that_is_disabled(aws: LocalAWS, cli: Cli) -> None:
    keys = kms(aws.admin_environment)
    key = keys.create_key()["KeyMetadata"]["Arn"]
    job_id = aws.add_job(outputs=["Built"], encryption_key=key)
    keys.disable_key(KeyId=key.rpartition("/")[2])

    code, checks = _examined(cli, job_id)

    assert code == 77
    assert "is disabled" in _failures(checks)["key"]["detail"]
    assert _failures(checks)["key"]["fix"].startswith("check that the key is enabled")


def test_no_region_no_credentials_no_job(aws: LocalAWS, cli: Cli) -> None:
    job_id = aws.add_job(outputs=["Built"])

    arguments, regions = ("doctor", job_id, "--json"), ("AWS_REGION", "AWS_DEFAULT_REGION")
    without = json.loads(cli(*arguments, without=regions).stdout)
    nobody = json.loads(cli(*arguments, without=("AWS_ACCESS_KEY_ID",)).stdout)
    code, checks = _examined(cli, job_id, AWS_REGION="eu-west-1")

    assert [*_failures(without["checks"])] == ["region", "job"]
    assert without["exit_code"] == 78
    assert "AWS_REGION" in _failures(without["checks"])["region"]["fix"]
    assert [*_failures(nobody["checks"])] == ["caller", "job"]
    assert "AWS_PROFILE" in _failures(nobody["checks"])["caller"]["fix"]
    assert (code, [*_failures(checks)]) == (66, ["job"])
    skipped = [one["name"] for one in checks if one["status"] == "skipped"]
    assert skipped == ["credentials", "input", "output", "key"]
    assert checks[-1]["detail"].endswith(" bytes are free")  # what inputs need is not known
    assert cli("doctor").returncode == 2


def test_it_names_the_caller(aws: LocalAWS, cli: Cli) -> None:
    job_id = aws.add_job()
    stranger = aws.add_user("stranger", ["codepipeline:GetJobDetails"])
    before = len(aws.calls())

    _, ours = _examined(cli, job_id)
    code, theirs = _examined(cli, job_id, **stranger)

    (caller, other) = (_caller(checks)["detail"] for checks in (ours, theirs))
    user = "arn:aws:iam::123456789012:user/"
    said = "of account 123456789012, by credentials of the environment, AWS_ACCESS_KEY_ID"
    assert caller == f"{user}caller {said}"
    assert (code, other) == (0, f"{user}stranger {said}")
    asked = [call for call in aws.calls()[before:] if call.service == "sts"]
    assert [call.action for call in asked] == ["GetCallerIdentity"] * 2


def test_an_sts_that_does_not_tell_fails_nothing(aws: LocalAWS, cli: Cli) -> None:
    job_id = aws.add_job()
    error = b"<Error><Code>AccessDenied</Code><Message>no way</Message></Error>"
    error = b"<ErrorResponse>%s</ErrorResponse>" % error

    with answering_server(403, error) as refusing, answering_server(200, b"<x/>") as other:
        for url, why in [
            ("http://127.0.0.1:9", "cannot ask STS who the caller is: "),
            (refusing, "AccessDenied: no way"),
            (other, "the answer cannot be read"),
        ]:
            arguments = ("--retry-timeout", "1")
            code, checks = _examined(cli, job_id, *arguments, AWS_ENDPOINT_URL_STS=url)
            assert (code, _caller(checks)["status"]) == (0, "ok")
            detail = _caller(checks)["detail"]
            assert "the identity, which a run does not need, is unknown" in detail
            assert why in detail


@pytest.mark.parametrize("closed", ["", ".cpstage"])
def test_a_workspace_of_another_user_fails_its_check_alone(
    aws: LocalAWS, cli: Cli, closed: str
) -> None:
    job_id = aws.add_job(outputs=["Built"])
    assert cli("fetch", job_id, "--workspace", "theirs").returncode == 0
    place = cli.directory / "theirs" / closed
    place.chmod(0)

    done = subprocess.run(
        [
            *(*without_privileges(), sys.executable, "-m", "cpstage"),
            *("doctor", job_id, "--workspace", "theirs", "--json"),
        ],
        cwd=cli.directory,
        env=dict(cli.environment),
        capture_output=True,
        text=True,
    )

    place.chmod(0o700)
    assert done.returncode == 73, done.stderr
    failures = _failures(json.loads(done.stdout)["checks"])
    assert [*failures] == ["workspace"]
    assert "Permission denied" in failures["workspace"]["detail"]


def test_credentials_that_sts_does_not_accept_fail(aws: LocalAWS, cli: Cli) -> None:
    job_id = aws.add_job()
    unknown, wrong = {"AWS_ACCESS_KEY_ID": "AKIA" + "X" * 16}, {"AWS_SECRET_ACCESS_KEY": "wrong"}

    for variables, why in ((unknown, "InvalidClientTokenId"), (wrong, "SignatureDoesNotMatch")):
        code, checks = _examined(cli, job_id, **variables)
        assert (code, [*_failures(checks)]) == (77, ["caller", "job"])
        assert why in _caller(checks)["detail"]
        assert _caller(checks)["fix"]


def test_a_clock_that_is_off_and_a_network_that_is_not_there(aws: LocalAWS, cli: Cli) -> None:
    job_id = aws.add_job(outputs=["Built"])
    saved = cli("get-job-details", "--job-id", job_id, "--reveal-secrets").stdout
    (cli.directory / "job.json").write_text(saved)
    file = ("--job-file", "job.json")
    long_ago = {"Date": "Tue, 01 Jan 2019 00:00:00 GMT"}

    with answering_server(403, headers=long_ago) as url:
        code, checks = _examined(cli, *file, AWS_ENDPOINT_URL_CODEPIPELINE=url)
    assert (code, [*_failures(checks)]) == (77, ["clock"])
    assert "set the clock" in _failures(checks)["clock"]["fix"]

    nowhere = "http://127.0.0.1:9"
    code, checks = _examined(
        cli, *file, "--retry-timeout", "1", AWS_ENDPOINT_URL_CODEPIPELINE=nowhere
    )
    assert (code, [*_failures(checks)]) == (69, ["network"])
    assert next(one for one in checks if one["name"] == "output")["status"] == "ok"


def test_a_workspace_that_cannot_be_written_to(aws: LocalAWS, cli: Cli) -> None:
    job_id = aws.add_job(outputs=["Built"])
    (cli.directory / "file").write_text("")

    code, checks = _examined(cli, job_id, "--workspace", "file")
    missing, others = _examined(cli, job_id, "--workspace", "not/yet")

    assert code in (73, 74)
    assert [*_failures(checks)] == ["workspace"]
    assert (missing, _failures(others)) == (0, {})
    assert not Path(cli.directory, "not").exists()
