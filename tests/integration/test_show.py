"""``cpstage show``: the job for a person, without its secrets."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING

from cpstage.local import Input, LocalAWS
from samples import zip_of

if TYPE_CHECKING:
    from command_line import Cli

SECRETS = {"Password": "canary-password", "Url": "canary-url"}


def test_show_tells_what_a_person_wants_to_know(aws: LocalAWS, cli: Cli) -> None:
    job_id = aws.add_job(
        [Input("App", zip_of({"f": "x"}), ".zip", revision="rev-1"), Input("Gone", None)],
        outputs=["Built"],
        configuration=SECRETS,
        continuation_token="canary-continuation",
    )

    done = cli("show", job_id)

    assert done.returncode == 0, done.stderr
    for text in (
        job_id,
        "sample-pipeline / Build / BuildWithCpstage",
        "Build/Custom/CpstageLocal/1",
        aws.key_arn,
        "Password = ********",
        "handed out just now, masked",
        "rev-1",
        "bytes, zip",
        f"aws:kms {aws.key_arn}",
        f"s3://{aws.bucket}/{aws.job(job_id).outputs[0].key}",
    ):
        assert text in done.stdout
    assert "cannot read artifact Gone" in done.stdout
    assert "canary" not in done.stdout + done.stderr


def test_show_as_json(aws: LocalAWS, cli: Cli) -> None:
    body = zip_of({"f": "x"})
    job_id = aws.add_job([Input("App", body)], outputs=["Built"], configuration=SECRETS)

    document = json.loads(cli("show", job_id, "--json").stdout)

    assert document["id"] == job_id
    assert document["inputs"][0]["size"] == len(body)
    assert document["inputs"][0]["format"] == "zip"
    assert document["inputs"][0]["kms_key_id"] == aws.key_arn
    assert document["outputs"][0]["location"]["bucket"] == aws.bucket
    assert document["configuration"] == dict.fromkeys(SECRETS, "********")
    assert document["credentials"].pop("age_seconds") < 60
    assert document["credentials"] == {"present": True, "expires_at": None}


def test_show_of_a_saved_document_tells_its_age(aws: LocalAWS, cli: Cli) -> None:
    saved = cli.directory / "job.json"
    cli("get-job-details", "--job-id", aws.add_job(outputs=["Built"]), "--save", "job.json")
    document = json.loads(saved.read_text())
    for member, words in (
        ({}, "handed out just now"),
        ({"credentialsIssuedAt": _stamp(-3)}, "180 minutes old: may have expired"),
        ({"credentialsIssuedAt": "yesterday"}, "of unknown age"),
    ):
        saved.write_text(json.dumps({**document, "cpstage": {**document["cpstage"], **member}}))
        assert words in cli("show", "--job-file", "job.json").stdout

    credentials = document["jobDetails"]["data"]["artifactCredentials"]
    credentials["expirationTime"] = datetime.fromisoformat(_stamp(1)).timestamp() * 1000
    saved.write_text(json.dumps(document))
    assert f"expire at {_stamp(1)[:16]}" in cli("show", "--job-file", "job.json").stdout


def _stamp(hours: float) -> str:
    return (datetime.now(timezone.utc) + timedelta(hours=hours)).isoformat()


def test_show_of_a_masked_document_still_shows(aws: LocalAWS, cli: Cli) -> None:
    job_id = aws.add_job([Input("App", zip_of({"f": "x"}))])
    saved = cli("get-job-details", "--job-id", job_id).stdout

    done = cli("show", "--job-file", "-", stdin=saved)

    assert done.returncode == 0, done.stderr
    assert "carries no session credentials" in done.stdout
