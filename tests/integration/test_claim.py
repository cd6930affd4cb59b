"""``cpstage claim``: one waiting job for a build server that starts its builds itself."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from cpstage import AwsConfig
from cpstage.job import ActionTypeId
from cpstage.local import Input, LocalAWS
from cpstage.worker import JobQueue, claim_job
from fault_plans import Rule
from fault_proxy import FaultProxy
from faults import Meanwhile
from samples import zip_of
from worker_processes import ACTION

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from command_line import Cli


@pytest.fixture(autouse=True)
def empty_queue(aws: LocalAWS) -> Iterator[None]:
    yield
    while _QUEUED:
        aws.set_status(_QUEUED.pop(), "TimedOut")


_QUEUED: list[str] = []


def queued(aws: LocalAWS, **options: Any) -> str:
    job_id = aws.add_job([Input("Source", zip_of({"a": "x"}))], status="Queued", **options)
    _QUEUED.append(job_id)
    return job_id


def test_a_waiting_job_is_acknowledged_and_its_id_is_all_of_stdout(aws: LocalAWS, cli: Cli) -> None:
    job_id = queued(aws)

    done = cli("claim", *ACTION)

    assert (done.returncode, done.stdout) == (0, f"{job_id}\n"), done.stderr
    assert aws.job(job_id).status == "InProgress"
    assert cli("fetch", job_id).returncode == 0


def claim_into(cli: Cli, stdout: int) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "cpstage", "claim", *ACTION],
        env=dict(cli.environment),
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("why", ["the disk is full", "the reader has ended"])
def test_a_job_whose_id_cannot_be_printed_is_named(aws: LocalAWS, cli: Cli, why: str) -> None:
    """It is in progress, and nobody else would know."""
    job_id = queued(aws)
    if why == "the disk is full":
        stdout = os.open("/dev/full", os.O_WRONLY)
    else:
        reader, stdout = os.pipe()
        os.close(reader)

    done = claim_into(cli, stdout)

    os.close(stdout)
    assert done.returncode in (74, 128 + signal.SIGPIPE)
    assert f"job {job_id} is acknowledged, and was not printed: report its result" in done.stderr


def test_without_stdout_no_job_is_claimed(aws: LocalAWS, cli: Cli) -> None:
    job_id = queued(aws)

    done = subprocess.run(
        ["sh", "-c", f"{sys.executable} -m cpstage claim {' '.join(ACTION)} >&-"],
        env=dict(cli.environment),
        capture_output=True,
        text=True,
    )

    assert done.returncode == 74
    assert done.stderr == (
        "cpstage: error: stdout is closed: no job is claimed; the job's id goes there\n"
    )
    assert aws.job(job_id).status == "Queued"


def test_the_document_says_where_the_job_runs(aws: LocalAWS, cli: Cli) -> None:
    job_id = queued(aws)

    document = json.loads(cli("claim", *ACTION, "--json").stdout)

    assert document["job_id"] == job_id
    assert document["status"] == "InProgress"
    assert document["pipeline_context"]["pipeline_name"] == aws.job(job_id).pipeline
    assert document["client_token"] is None


def test_where_no_job_waits_stdout_stays_empty(cli: Cli) -> None:
    done = cli("claim", *ACTION)

    assert (done.returncode, done.stdout) == (75, "")
    assert "no job waits for action type" in done.stderr
    assert "--wait" in done.stderr


def test_a_job_that_comes_while_it_waits_is_claimed(
    aws: LocalAWS, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The job is added after the first poll and before the second one."""
    added: list[str] = []
    rule = Rule(Meanwhile(lambda: added.append(queued(aws))), "PollForJobs", first=2)
    for name, value in aws.environment.items():
        monkeypatch.setenv(name, value)

    with FaultProxy(aws.endpoint_url, [rule]) as proxy:
        queue = JobQueue(
            ActionTypeId("Build", "Custom", "CpstageLocal", "1"),
            AwsConfig(endpoint_url=proxy.url),
        )
        claimed = claim_job(queue, wait=60, interval=0.05, tell=lambda _: None)

    assert [claimed.job_id] == added


@pytest.mark.parametrize("waiting", [1, 2])
def test_where_another_worker_was_faster_the_next_job_is_claimed(
    aws: LocalAWS, cli: Cli, waiting: int
) -> None:
    job_ids = [queued(aws) for _ in range(waiting)]
    first = Meanwhile(lambda: aws.set_status(job_ids[0], "TimedOut"))

    with FaultProxy(aws.endpoint_url, [Rule(first, "AcknowledgeJob")]) as proxy:
        done = cli("claim", *ACTION, AWS_ENDPOINT_URL=proxy.url)

    assert done.returncode == (0 if waiting == 2 else 75), done.stderr
    assert done.stdout == "".join(f"{job_id}\n" for job_id in job_ids[1:])
    assert f"job {job_ids[0]} was not claimed" in done.stderr


def test_only_jobs_with_the_value_of_the_property_are_claimed(aws: LocalAWS, cli: Cli) -> None:
    queued(aws, configuration={"ProjectName": "other"})
    job_id = queued(aws, configuration={"ProjectName": "release"})

    done = cli("claim", *ACTION, "--query", "ProjectName=release")

    assert done.stdout == f"{job_id}\n"


def test_the_client_token_of_a_third_party_job_is_in_the_document_alone(
    aws: LocalAWS, cli: Cli, tmp_path: Path
) -> None:
    job_id = queued(aws, third_party=True)
    job = aws.job(job_id)
    tokens = tmp_path / "tokens.json"
    tokens.write_text(json.dumps({str(job.client_id): job.client_token}))
    action = [*ACTION, "--owner", "ThirdParty", "--client-tokens", str(tokens)]

    done = cli("claim", *action, "--json", "-v")

    assert json.loads(done.stdout)["client_token"] == job.client_token
    assert str(job.client_token) not in done.stderr


def test_a_job_whose_client_is_unknown_is_left_for_others(
    aws: LocalAWS, cli: Cli, tmp_path: Path
) -> None:
    job_id = queued(aws, third_party=True)
    tokens = tmp_path / "tokens.json"
    tokens.write_text("{}")

    done = cli("claim", *ACTION, "--owner", "ThirdParty", "--client-tokens", str(tokens))

    assert (done.returncode, done.stdout) == (77, "")
    assert "whose token is not known" in done.stderr
    assert aws.job(job_id).status == "Dispatched"
