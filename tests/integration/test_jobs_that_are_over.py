"""Jobs that are over, have no artifacts, go on from an earlier job, or say when they expire."""

from __future__ import annotations

import json
import threading
import time
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import pytest

import cpstage
from run_jobs import BUILD, add_job, puts, reports, run, shell

if TYPE_CHECKING:
    from command_line import Cli
    from cpstage.local import LocalAWS


def saved(cli: Cli, job_id: str, **changes: Any) -> str:
    """Save the document of a job."""
    done = cli("get-job-details", "--job-id", job_id, "--reveal-secrets")
    document = json.loads(done.stdout)
    document["jobDetails"]["data"].update(changes)
    (cli.directory / "job.json").write_text(json.dumps(document))
    return "job.json"


def test_a_push_by_a_saved_document_asks_whether_the_job_is_in_progress(
    aws: LocalAWS, cli: Cli
) -> None:
    job_id = add_job(aws)
    file = saved(cli, job_id)
    assert run(cli, job_id, "--report").returncode == 0

    refused = cli("push", "--job-file", file)
    assert refused.returncode == 75
    assert f"job {job_id} is no longer in progress" in refused.stderr
    assert len(puts(aws, job_id)) == 1
    refused = cli("run", "--job-file", file, "--", *BUILD)
    assert refused.returncode == 75
    assert len(puts(aws, job_id)) == 1

    assert cli("push", "--job-file", file, "--force").returncode == 0
    assert len(puts(aws, job_id)) == 2


def test_a_caller_who_may_not_ask_goes_on(aws: LocalAWS, cli: Cli) -> None:
    job_id = add_job(aws)
    file = saved(cli, job_id)
    callers = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")

    done = cli("run", "--job-file", file, "--", *BUILD, without=callers)

    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("credentials", [None, {}])
def test_a_job_without_artifacts_needs_no_credentials(
    aws: LocalAWS, cli: Cli, credentials: Any
) -> None:
    job_id = add_job(aws, inputs=[], outputs=[])
    file = saved(cli, job_id, artifactCredentials=credentials)

    checked = cli("doctor", "--job-file", file)
    assert "needs none" in checked.stdout
    assert cli("fetch", "--job-file", file).returncode == 0
    done = cli("run", "--job-file", file, "--report", "--", "true")
    assert done.returncode == 0, done.stderr
    assert aws.job(job_id).status == "Succeeded"


def test_a_job_that_ends_meanwhile_ends_its_command(
    aws: LocalAWS, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = add_job(aws)
    for name, value in cli.environment.items():
        monkeypatch.setenv(name, value)
    begun = cli.directory / "begun"

    def end() -> None:
        while not begun.exists():
            time.sleep(0.01)
        aws.set_status(job_id, "TimedOut")

    ending = threading.Thread(target=end)
    ending.start()
    result = cpstage.run(
        job_id,
        shell(f"{BUILD[2]}; touch begun; exec sleep 60"),
        cli.directory,
        report=cpstage.Details(),
        watch_seconds=0.2,
    )
    ending.join()

    assert result.failure
    assert result.failure.exit_code == 75
    assert puts(aws, job_id) == []
    assert reports(aws, job_id) == []


@pytest.mark.parametrize(
    ("choice", "first", "second"),
    [("always", True, True), ("first", True, False), ("never", False, False)],
)
def test_inputs_of_a_job_that_goes_on_need_not_be_fetched(
    aws: LocalAWS, cli: Cli, choice: str, first: bool, second: bool
) -> None:
    for token, is_fetched in ((None, first), ("token", second)):
        job_id = add_job(aws, continuation_token=token)
        command = shell('echo built > "$CPSTAGE_OUT_BUILT/f"')
        done = run(cli, job_id, "--fetch", choice, "-w", str(token), command=command)
        assert done.returncode == 0, done.stderr
        assert (cli.directory / str(token) / "in/App").exists() == is_fetched


def test_credentials_expire_when_the_event_says(aws: LocalAWS, cli: Cli) -> None:
    job_id = add_job(aws)
    document = json.loads((cli.directory / saved(cli, job_id)).read_text())["jobDetails"]
    now = time.time()
    for seconds, code in ((120, 0), (-1, 77)):
        data = document["data"]
        data["artifactCredentials"]["expirationTime"] = int((now + seconds) * 1000)
        event = {"CodePipeline.job": {"id": job_id, "accountId": "1", "data": data}}
        (cli.directory / "event.json").write_text(json.dumps(event))
        done = cli("credentials", "--job-file", "event.json")
        assert done.returncode == code, done.stderr
        if code == 0:
            expiry = datetime.strptime(json.loads(done.stdout)["Expiration"], "%Y-%m-%dT%H:%M:%SZ")
            assert expiry.replace(tzinfo=timezone.utc).timestamp() == int(now + seconds)


def test_doctor_says_once_that_a_saved_job_is_over(aws: LocalAWS, cli: Cli) -> None:
    job_id = add_job(aws)
    file = saved(cli, job_id)
    assert cli("doctor", "--job-file", file).returncode == 0
    aws.set_status(job_id, "TimedOut")

    done = cli("doctor", "--job-file", file, "--json")

    checks = json.loads(done.stdout)["checks"]
    assert done.returncode == 75
    failed = [one for one in checks if one["status"] == "failed"]
    assert [one["name"] for one in failed] == ["job"]
    assert "is no longer in progress" in failed[0]["detail"]
    left_out = {one["name"] for one in checks if one["status"] == "skipped"}
    assert {"credentials", "input", "output", "key"} <= left_out
