"""``cpstage credentials``: other AWS tools work with a job's session."""

from __future__ import annotations

import json
import re
import sys
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING

import pytest

from aws_clients import aws_cli
from cpstage.local import Input, LocalAWS
from terminals import on_terminal

if TYPE_CHECKING:
    from command_line import Cli

CALLER = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")

pytestmark = pytest.mark.slow


def _now() -> datetime:
    return datetime.now(timezone.utc)


def test_the_aws_cli_reads_an_artifact_through_a_profile(aws: LocalAWS, cli: Cli) -> None:
    job_id = aws.add_job([Input("App", b"the artifact")])
    source = aws.job(job_id).inputs[0]
    home = cli.directory
    (home / ".aws").mkdir()
    command = f"{sys.executable} -m cpstage credentials {job_id} --profile worker"
    (home / ".aws/config").write_text(
        f"[profile job]\ncredential_process = {command}\n"
        "[profile worker]\n"
        f"aws_access_key_id = {aws.environment['AWS_ACCESS_KEY_ID']}\n"
        f"aws_secret_access_key = {aws.environment['AWS_SECRET_ACCESS_KEY']}\n"
    )
    keys = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    environment = {name: value for name, value in cli.environment.items() if name not in keys}

    said = aws_cli(
        environment,
        *("s3", "cp", f"s3://{source.bucket}/{source.key}", "-", "--profile", "job"),
        cwd=home,
    )

    assert said == "the artifact"
    readers = {call.identity for call in aws.calls() if call.key == source.key}
    assert f"job:{job_id}" in readers
    assert "caller" not in readers


def test_it_is_a_version_1_document_that_expires_in_time(aws: LocalAWS, cli: Cli) -> None:
    job_id = aws.add_job()

    done = cli("credentials", job_id)

    document = json.loads(done.stdout)
    assert (done.stderr, document["Version"]) == ("", 1)
    assert list(document) == [
        "Version",
        "AccessKeyId",
        "SecretAccessKey",
        "SessionToken",
        "Expiration",
    ]
    expiration = datetime.fromisoformat(document["Expiration"].replace("Z", "+00:00"))
    assert timedelta(minutes=12) < expiration - _now() <= timedelta(minutes=14)


def test_the_expiry_can_be_set(aws: LocalAWS, cli: Cli) -> None:
    document = json.loads(cli("credentials", aws.add_job(), "--expires-in", "60").stdout)

    expiration = datetime.fromisoformat(document["Expiration"].replace("Z", "+00:00"))
    assert expiration - _now() <= timedelta(minutes=1)


def test_a_saved_document_says_how_old_its_credentials_are(aws: LocalAWS, cli: Cli) -> None:
    saved = cli.directory / "job.json"
    assert cli("get-job-details", "--job-id", aws.add_job(), "--save", "job.json").stdout == ""
    assert saved.stat().st_mode & 0o777 == 0o600
    document = json.loads(cli("credentials", "--job-file", str(saved)).stdout)
    expiration = datetime.fromisoformat(document["Expiration"].replace("Z", "+00:00"))
    assert timedelta(minutes=12) < expiration - _now() <= timedelta(minutes=14)

    issued = (_now() - timedelta(minutes=15)).isoformat()
    document = {**json.loads(saved.read_text()), "cpstage": {"credentialsIssuedAt": issued}}
    saved.write_text(json.dumps(document))
    done = cli("credentials", "--job-file", str(saved))

    assert (done.returncode, done.stdout) == (77, "")
    assert re.search(r"are 9[0-9]{2} seconds old", done.stderr)


def test_the_age_is_unknown_where_the_clock_was_set_back_since(aws: LocalAWS, cli: Cli) -> None:
    """They may have expired: without an answer of CodePipeline, they are good for a minute."""
    saved = cli.directory / "job.json"
    cli("get-job-details", "--job-id", aws.add_job(), "--save", "job.json")
    text = saved.read_text()
    for issued, least, most in (timedelta(days=1), 0, 1), (timedelta(minutes=2), 12, 14):
        ours = {"credentialsIssuedAt": (_now() + issued).isoformat()}
        saved.write_text(json.dumps({**json.loads(text), "cpstage": ours}))
        done = cli("credentials", "--job-file", str(saved), without=CALLER)
        expiration = json.loads(done.stdout)["Expiration"].replace("Z", "+00:00")
        left = datetime.fromisoformat(expiration) - _now()
        assert timedelta(minutes=least) < left <= timedelta(minutes=most)


def test_credentials_of_unknown_age_are_asked_for_again_or_expire_soon(
    aws: LocalAWS, cli: Cli
) -> None:
    job_id = aws.add_job()
    text = cli("get-job-details", "--job-id", job_id, "--reveal-secrets").stdout
    for without, least, most in ((), 12, 14), (CALLER, 0, 1):
        done = cli("credentials", "--job-file", "-", stdin=text, without=without)
        expiration = json.loads(done.stdout)["Expiration"].replace("Z", "+00:00")
        left = datetime.fromisoformat(expiration) - _now()
        assert timedelta(minutes=least) < left <= timedelta(minutes=most)

    aws.set_status(job_id, "TimedOut")
    assert cli("credentials", "--job-file", "-", stdin=text).returncode == 75


@pytest.mark.parametrize("file", ["/dev/null", "directory", "link", "missing/job.json"])
def test_a_document_is_saved_in_regular_files_alone(aws: LocalAWS, cli: Cli, file: str) -> None:
    (cli.directory / "directory").mkdir()
    (cli.directory / "link").symlink_to("/dev/null")

    done = cli("get-job-details", "--job-id", aws.add_job(), "--save", file)

    assert done.returncode in (73, 74)
    assert file in done.stderr


@pytest.mark.parametrize("force", [False, True])
def test_they_are_not_printed_to_a_terminal_unless_told(
    aws: LocalAWS, cli: Cli, force: bool
) -> None:
    job_id = aws.add_job()
    before = len(aws.calls())
    done = on_terminal(cli, "credentials", job_id, *(["--force"] if force else []))

    if force:
        assert (done.returncode, "SecretAccessKey" in done.terminal) == (0, True)
    else:
        assert done.returncode == 2
        assert "secrets are not printed to a terminal" in done.other
        assert len(aws.calls()) == before
