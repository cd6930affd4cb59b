"""``cpstage credentials``: other AWS tools work with a job's session."""

from __future__ import annotations

import json
import os
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


def test_a_saved_document_is_as_old_as_its_file(aws: LocalAWS, cli: Cli) -> None:
    saved = cli.directory / "job.json"
    saved.write_text(cli("get-job-details", "--job-id", aws.add_job(), "--reveal-secrets").stdout)
    old = _now().timestamp() - 15 * 60
    os.utime(saved, (old, old))

    done = cli("credentials", "--job-file", str(saved))

    assert (done.returncode, done.stdout) == (77, "")
    assert re.search(r"are 9[0-9]{2} seconds old", done.stderr)


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
