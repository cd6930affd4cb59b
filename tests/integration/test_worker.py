"""A worker on the local AWS: what it claims, what becomes of the jobs, and how it ends."""

from __future__ import annotations

import json
import os
import select
import signal
import threading
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest

import cpstage.worker
from aws_clients import codepipeline
from constant_server import answering_server
from cpstage import AwsConfig
from cpstage.job import ActionTypeId
from cpstage.local import Input, LocalAWS
from fault_plans import Rule
from fault_proxy import FaultProxy
from faults import INTERNAL_ERROR, Close, Drop, Meanwhile
from samples import zip_of
from secret_markers import is_in, planted_aws
from worker_processes import ACTION, LONGEST, calls, kept, message, result, work, worker

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from command_line import Cli

pytestmark = pytest.mark.e2e

BUILD = ("--", "sh", "-c", 'cp "$CPSTAGE_IN_SOURCE/a" "$CPSTAGE_OUT_BUILT/b"')


@pytest.fixture(scope="module")
def aws() -> Iterator[LocalAWS]:
    with planted_aws() as running:
        yield running


@pytest.fixture(autouse=True)
def empty_queue(aws: LocalAWS) -> Iterator[None]:
    """No test leaves a job for the next."""
    yield
    while _QUEUED:
        aws.set_status(_QUEUED.pop(), "TimedOut")


_QUEUED: list[str] = []


def queued(aws: LocalAWS, **options: Any) -> str:
    job_id = aws.add_job(
        [Input("Source", zip_of({"a": "source"}))], ["Built"], status="Queued", **options
    )
    _QUEUED.append(job_id)
    return job_id


def results(aws: LocalAWS, job_id: str) -> list[tuple[str, int]]:
    return [
        (call.action, call.status)
        for call in aws.calls()
        if call.job_id == job_id and "Result" in call.action
    ]


# A job


def test_a_job_is_claimed_built_pushed_and_reported(aws: LocalAWS, cli: Cli) -> None:
    job_id = queued(aws)

    done = work(cli, "--once", *BUILD)

    assert done.process.returncode == 0
    assert result(aws, job_id) == ("Succeeded", "")
    assert calls(aws, job_id, "AcknowledgeJob") == [(200, None)]
    assert calls(aws, job_id, "PutObject") == [(200, None)]
    assert results(aws, job_id) == [("PutJobSuccessResult", 200)]
    assert done.events(job_id) == ["claimed", "started", "reported", "succeeded"]
    assert done.events()[0] == "polling"
    assert done.events()[-1] == "stopped"
    last = done.until("succeeded")
    assert (last["pipeline"], last["stage"]) == ("sample-pipeline", "Build")
    assert last["seconds"] > 0
    assert list(cli.directory.iterdir()) == []


def test_the_log_is_text_for_people(aws: LocalAWS, cli: Cli) -> None:
    job_id = queued(aws)

    done = cli("work", *ACTION, "--once", *BUILD)

    [line] = [line for line in done.stderr.splitlines() if " claimed " in line]
    where = "pipeline=sample-pipeline stage=Build action=BuildWithCpstage"
    assert line.endswith(f"Z claimed job_id={job_id} {where}")
    assert done.stdout == ""


@pytest.mark.parametrize(("keep", "stays"), [("failed", True), ("never", False)])
def test_the_workspace_of_a_failed_job(aws: LocalAWS, cli: Cli, keep: str, stays: bool) -> None:
    job_id = queued(aws)

    done = work(cli, "--once", "--keep", keep, "--", "sh", "-c", "echo oh; echo no >&2; exit 3")

    assert done.process.returncode == 0
    assert result(aws, job_id) == ("Failed", "JobFailed")
    assert done.until("failed")["exit_code"] == 3
    assert kept(cli, job_id).exists() == stays
    if stays:
        assert done.until("failed")["workspace"] == str(kept(cli, job_id))
        log = kept(cli, job_id) / ".cpstage/output.log"
        assert log.read_text().split() == ["oh", "no"]
        assert (kept(cli, job_id).stat().st_mode & 0o077, log.stat().st_mode & 0o077) == (0, 0)


def test_the_workspace_of_a_job_that_went_well_can_be_kept(aws: LocalAWS, cli: Cli) -> None:
    job_id = queued(aws)

    work(cli, "--once", "--keep", "always", *BUILD)

    assert (kept(cli, job_id) / "out/Built/b").read_text() == "source"


def test_output_of_jobs_can_go_to_stdout(aws: LocalAWS, cli: Cli) -> None:
    queued(aws)

    done = cli("work", *ACTION, "--once", "--job-output", "stdout", "--keep", "never",
               "--", "sh", "-c", "echo said; echo complained >&2; exit 1")  # fmt: skip

    assert done.stdout.split() == ["said", "complained"]


def test_options_of_a_run_are_for_every_job(aws: LocalAWS, cli: Cli) -> None:
    job_id = queued(aws, configuration={"Target": "release"})

    command = 'grep -o release "$CPSTAGE_CONFIGURATION"; echo first; echo last; exit 1'

    work(cli, "--once", "--pass-configuration", "--report-tail", "1", "--", "sh", "-c", command)

    assert message(aws, job_id).endswith("\nlast")
    assert "release" in (kept(cli, job_id) / ".cpstage/output.log").read_text()


def test_no_job_no_work(aws: LocalAWS, cli: Cli) -> None:
    done = work(cli, "--once", *BUILD)

    assert done.process.returncode == 0
    assert done.events() == ["polling", "stopped"]


def test_a_job_that_cannot_be_worked_on_is_reported(aws: LocalAWS, cli: Cli) -> None:
    job_id = aws.add_job([], ["../out"], status="Queued")

    done = work(cli, "--once", "--", "true")

    assert result(aws, job_id) == ("Failed", "ConfigurationError")
    assert "'../out'" in message(aws, job_id)
    assert done.events(job_id) == ["claimed", "reported", "failed"]
    assert list(cli.directory.iterdir()) == []


def test_a_job_whose_process_is_killed_fails_alone(aws: LocalAWS, cli: Cli) -> None:
    job_id = queued(aws)
    command = 'test -e "$0" || { touch "$0"; kill -9 $PPID; }; touch "$CPSTAGE_OUT_BUILT/b"'

    with worker(
        cli, "--max-jobs", "2", "--", "sh", "-c", command, str(cli.directory / "seen")
    ) as running:
        running.until("failed", job_id=job_id)
        other = queued(aws)
        code = running.end()

    assert code == 0
    assert result(aws, job_id) == ("Failed", "JobFailed")
    assert message(aws, job_id) == "stopped by SIGKILL"
    assert results(aws, job_id) == [("PutJobFailureResult", 200)]
    assert result(aws, other) == ("Succeeded", ""), message(aws, other)


def test_what_a_killed_job_has_started_is_ended_too(aws: LocalAWS, cli: Cli) -> None:
    queued(aws)
    fifo = cli.directory / "fifo"
    os.mkfifo(fifo)
    command = 'echo $$ $PPID >"$0"; exec cat "$0"'

    with worker(cli, "--max-jobs", "1", "--", "sh", "-c", command, str(fifo)) as running:
        pid, parent = map(int, fifo.read_text().split())
        process = os.pidfd_open(pid)
        os.kill(parent, signal.SIGKILL)
        running.until("failed")
        ended, _, _ = select.select([process], [], [], LONGEST)
        os.close(process)

    assert ended == [process]


def test_jobs_run_at_the_same_time(aws: LocalAWS, cli: Cli) -> None:
    jobs = [queued(aws), queued(aws)]
    fifo = cli.directory / "fifo"
    os.mkfifo(fifo)
    # Each opens its end when the other does: who comes first reads, who comes second writes.
    command = (
        'if mkdir "$0.first" 2>/dev/null; then read x <"$0"; else echo x >"$0"; fi; '
        'touch "$CPSTAGE_OUT_BUILT/b"'
    )

    done = work(cli, "--once", "--concurrency", "2", "--", "sh", "-c", command, str(fifo))

    assert done.process.returncode == 0
    assert [aws.job(job_id).status for job_id in jobs] == ["Succeeded", "Succeeded"]


def test_no_more_jobs_are_claimed_than_wanted(aws: LocalAWS, cli: Cli) -> None:
    jobs = [queued(aws) for _ in range(3)]

    done = work(cli, "--max-jobs", "2", "--concurrency", "8", "--batch-size", "1", *BUILD)

    assert done.process.returncode == 0
    assert sorted(aws.job(job_id).status for job_id in jobs) == ["Queued", "Succeeded", "Succeeded"]
    assert (
        len(
            [
                call
                for call in aws.calls()
                if call.job_id in jobs and call.action == "AcknowledgeJob"
            ]
        )
        == 2
    )


def test_only_jobs_that_match_are_claimed(aws: LocalAWS, cli: Cli) -> None:
    other = queued(aws, configuration={"Fleet": "arm"})
    ours = queued(aws, configuration={"Fleet": "big"})

    work(cli, "--once", "--concurrency", "2", "--query", "Fleet=big", *BUILD)

    assert aws.job(other).status == "Queued"
    assert aws.job(ours).status == "Succeeded"


def test_a_third_party_job_is_worked_on_with_the_token_of_its_client(
    aws: LocalAWS, cli: Cli, tmp_path: Path
) -> None:
    known, unknown = queued(aws, third_party=True), queued(aws, third_party=True)
    job = aws.job(known)
    tokens = tmp_path / "tokens.json"
    tokens.write_text(json.dumps({str(job.client_id): job.client_token}))
    show = 'tr "\\0" "\\n" </proc/$PPID/cmdline; tr "\\0" "\\n" </proc/$PPID/environ; env; '

    done = work(cli, "--once", "--owner", "ThirdParty", "--concurrency", "2", "--keep", "always",
                "--client-tokens", str(tokens), "--", "sh", "-c", show + BUILD[-1])  # fmt: skip

    assert result(aws, known) == ("Succeeded", "")
    assert done.events(unknown) == ["dropped"]
    assert calls(aws, unknown, "AcknowledgeThirdPartyJob") == []
    output = (kept(cli, known) / ".cpstage/output.log").read_text()
    assert "CPSTAGE_JOB_ID" in output
    assert str(job.client_token) not in output + "".join(done.said)


def test_no_secret_reaches_arguments_variables_or_the_log(aws: LocalAWS, cli: Cli) -> None:
    job_id = queued(aws, configuration={"Password": "hidden-" * 5})
    clean = dict.fromkeys(("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"), "")
    profile = cli.directory.parent / "home/.aws/credentials"
    profile.parent.mkdir()
    profile.write_text(
        "[default]\n"
        f"aws_access_key_id = {cli.environment['AWS_ACCESS_KEY_ID']}\n"
        f"aws_secret_access_key = {cli.environment['AWS_SECRET_ACCESS_KEY']}\n"
    )
    show = 'tr "\\0" "\\n" </proc/$PPID/cmdline; tr "\\0" "\\n" </proc/$PPID/environ; env; cat; '

    done = work(cli, "--once", "--keep", "always", "--", "sh", "-c", show + "exit 1", **clean)

    output = (kept(cli, job_id) / ".cpstage/output.log").read_text()
    assert "CPSTAGE_JOB_ID" in output
    secrets = ("hidden-" * 5,)
    assert not is_in(output, secrets)
    assert not is_in("".join(done.said), secrets)


def test_an_action_goes_on_in_another_job(aws: LocalAWS, cli: Cli) -> None:
    job_id = queued(aws)
    command = (
        'touch "$CPSTAGE_OUT_BUILT/b"; '
        'test -n "${CPSTAGE_CONTINUATION_TOKEN_FILE-}" || '
        'echo again >"$CPSTAGE_NEXT_CONTINUATION_TOKEN_FILE"'
    )

    done = work(cli, "--max-jobs", "2", "--", "sh", "-c", command)

    following = str(aws.job(job_id).continued_as)
    assert done.process.returncode == 0
    assert result(aws, job_id) == ("Succeeded", "")
    assert result(aws, following) == ("Succeeded", "")
    assert aws.job(following).continued_as is None


# What is not ours


def test_a_job_whose_id_leads_elsewhere_is_not_claimed(cli: Cli) -> None:
    job = {"id": "../evil", "nonce": "1", "data": {}}
    body = json.dumps({"jobs": [job], "status": "InProgress"}).encode()

    with answering_server(200, body, {"Content-Type": "application/x-amz-json-1.1"}) as url:
        done = work(cli, "--once", "--", "true", AWS_ENDPOINT_URL=url)

    assert done.process.returncode == 0
    assert done.events() == ["polling", "dropped", "stopped"]
    assert "'../evil', which cannot name a directory" in done.until("dropped")["message"]


def test_a_job_that_is_over_by_then_is_dropped(aws: LocalAWS, cli: Cli) -> None:
    job_id = queued(aws)
    over = Meanwhile(lambda: aws.set_status(job_id, "TimedOut"))

    with FaultProxy(aws.endpoint_url, [Rule(over, "AcknowledgeJob")]) as proxy:
        done = work(cli, "--once", *BUILD, AWS_ENDPOINT_URL=proxy.url)

    assert done.process.returncode == 0
    assert done.events(job_id) == ["dropped"]
    assert "TimedOut" in done.until("dropped")["message"]
    assert results(aws, job_id) == []


def test_a_job_that_another_worker_has_polled_since_is_dropped(aws: LocalAWS, cli: Cli) -> None:
    job_id = queued(aws)

    def other_worker() -> None:
        aws.set_status(job_id, "Queued")
        codepipeline(aws.environment).poll_for_jobs(
            actionTypeId={
                "category": "Build",
                "owner": "Custom",
                "provider": "CpstageLocal",
                "version": "1",
            }
        )

    with FaultProxy(aws.endpoint_url, [Rule(Meanwhile(other_worker), "AcknowledgeJob")]) as proxy:
        done = work(cli, "--once", *BUILD, AWS_ENDPOINT_URL=proxy.url)

    assert done.events(job_id) == ["dropped"]
    assert "InvalidNonce" in done.until("dropped")["message"]
    assert results(aws, job_id) == []


def test_a_claim_whose_answer_is_lost_is_asked_for_again(aws: LocalAWS, cli: Cli) -> None:
    job_id = queued(aws)

    with FaultProxy(aws.endpoint_url, [Rule(Close(None), "AcknowledgeJob")]) as proxy:
        work(cli, "--once", *BUILD, AWS_ENDPOINT_URL=proxy.url)

    assert calls(aws, job_id, "AcknowledgeJob") == [(200, None), (200, None)]
    assert results(aws, job_id) == [("PutJobSuccessResult", 200)]


def test_a_result_that_nobody_wants_any_more_is_told(aws: LocalAWS, cli: Cli) -> None:
    job_id = queued(aws)
    over = Meanwhile(lambda: aws.set_status(job_id, "TimedOut"))

    with FaultProxy(aws.endpoint_url, [Rule(over, "PutJobSuccessResult")]) as proxy:
        done = work(cli, "--once", *BUILD, AWS_ENDPOINT_URL=proxy.url)

    assert done.process.returncode == 0
    assert done.events(job_id) == ["claimed", "started", "report-failed", "failed"]
    assert done.until("failed")["exit_code"] == 75


def test_a_worker_that_is_cut_off_leaves_its_job_in_progress(aws: LocalAWS, cli: Cli) -> None:
    job_id = queued(aws)
    cut = threading.Event()
    rule = Rule(Drop(), when=lambda _: cut.is_set(), times=None)
    fifo = cli.directory / "fifo"
    os.mkfifo(fifo)
    command = 'echo x >"$0"; read x <"$0"; touch "$CPSTAGE_OUT_BUILT/b"'

    with (
        FaultProxy(aws.endpoint_url, [rule]) as proxy,
        worker(
            cli, "--retry-timeout", "1", "--", "sh", "-c", command, str(fifo),
            AWS_ENDPOINT_URL=proxy.url,
        ) as running,
    ):  # fmt: skip
        running.until("started", job_id=job_id)
        fifo.read_text()  # the command runs
        cut.set()
        fifo.write_text("go\n")
        running.until("report-failed", job_id=job_id)
        running.until("failed", job_id=job_id, exit_code=69)
        running.until("poll-failed")
        running.send(signal.SIGTERM)
        code = running.end()

    assert code == 0
    assert aws.job(job_id).status == "InProgress"
    assert results(aws, job_id) == []


# How it ends


def test_a_signal_lets_the_running_job_end_and_claims_no_other(aws: LocalAWS, cli: Cli) -> None:
    fifo = cli.directory / "fifo"
    os.mkfifo(fifo)
    job_id = queued(aws)
    command = 'read x <"$0"; touch "$CPSTAGE_OUT_BUILT/b"'

    with worker(cli, "--concurrency", "2", "--", "sh", "-c", command, str(fifo)) as running:
        running.until("started", job_id=job_id)
        running.send(signal.SIGTERM)
        running.until("draining")
        other = queued(aws)
        fifo.write_text("go\n")
        code = running.end()

    assert code == 0
    assert result(aws, job_id) == ("Succeeded", "")
    assert calls(aws, other, "AcknowledgeJob") == []


def test_a_worker_that_is_stopped_before_its_first_poll_says_so(tmp_path: Path) -> None:
    events: list[str] = []
    worker = cpstage.worker.Worker(
        cpstage.worker.JobQueue(ActionTypeId("Build", "Custom", "Any", "1"), AwsConfig()),
        cpstage.worker.JobCommand(["true"]),
        cpstage.worker.JobPlaces(tmp_path / "jobs"),
        tell=lambda event: events.append(event.name),
    )

    worker.stop()
    worker.work()

    assert events == ["polling", "draining", "stopped"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_stops_the_running_jobs_and_reports_them(
    aws: LocalAWS, cli: Cli, number: signal.Signals
) -> None:
    fifo = cli.directory / "fifo"
    os.mkfifo(fifo)
    job_id = queued(aws)

    with worker(cli, "--", "sh", "-c", 'echo x >"$0"; exec cat "$0"', str(fifo)) as running:
        running.until("started", job_id=job_id)
        fifo.read_text()  # the command runs
        running.send(number)
        running.until("draining")
        running.send(number)
        code = running.end()

    assert code == 128 + number
    assert result(aws, job_id) == ("Failed", "JobFailed")
    assert "SIGTERM" in message(aws, job_id)
    assert running.said[-1] == f"cpstage: error: stopped by {number.name}\n"


def test_a_job_that_does_not_want_to_stop_is_killed(aws: LocalAWS, cli: Cli) -> None:
    fifo = cli.directory / "fifo"
    os.mkfifo(fifo)
    job_id = queued(aws)
    command = 'trap "" TERM; echo x >"$0"; while :; do read x <"$0"; done'

    with worker(cli, "--grace", "0.5", "--", "sh", "-c", command, str(fifo)) as running:
        running.until("started", job_id=job_id)
        fifo.read_text()
        running.send(signal.SIGTERM)
        running.until("draining")
        running.send(signal.SIGTERM)
        code = running.end()

    assert code == 128 + signal.SIGTERM
    assert result(aws, job_id) == ("Failed", "JobFailed")


# What is wrong from the start


def test_an_action_type_that_is_not_there_ends_it(aws: LocalAWS, cli: Cli) -> None:
    done = cli("work", "--category", "Build", "--provider", "Nobodys", "--version", "1", *BUILD)

    assert done.returncode == 78
    last = done.stderr.splitlines()[-1]
    assert last.startswith("cpstage: error: cannot poll for jobs of Build/Custom/Nobodys/1 in us-")
    assert "create the action type, or check category, provider, version and region" in last


def test_a_caller_who_may_not_poll_is_told(aws: LocalAWS, cli: Cli) -> None:
    stranger = cli.with_variables(aws.add_user("stranger", ["codepipeline:GetJobDetails"]))

    done = stranger("work", *ACTION, *BUILD)

    assert done.returncode == 77
    assert "codepipeline:PollForJobs" in done.stderr.splitlines()[-1]


def test_a_health_file_that_cannot_be_written_is_told(cli: Cli) -> None:
    done = cli("work", *ACTION, "--health-file", "missing/health.json", *BUILD)

    assert done.returncode == 74
    assert "cannot write missing/health.json: No such file or directory" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--query", "Fleet"], "'Fleet' is not of the form KEY=VALUE"),
        (["--query", "Fleet=a b"], "the value of 'Fleet' is not 1 to 50 of"),
        (["--owner", "ThirdParty"], "--client-tokens and --owner ThirdParty belong together"),
        (["--concurrency", "0"], "--concurrency"),
    ],
)
def test_a_mistake_on_the_command_line(cli: Cli, arguments: list[str], words: str) -> None:
    done = cli("work", *ACTION, *arguments, *BUILD)

    assert done.returncode == 2
    assert words in done.stderr


def test_client_tokens_that_are_none(cli: Cli, tmp_path: Path) -> None:
    tokens = tmp_path / "tokens.json"
    tokens.write_text('["secret-token"]')

    done = cli("work", *ACTION, "--owner", "ThirdParty", "--client-tokens", str(tokens), *BUILD)

    assert done.returncode == 78
    assert "not a JSON object of strings" in done.stderr
    assert "secret-token" not in done.stderr


# Its health


def test_polling_that_fails_is_told_once_and_gone_on_with(aws: LocalAWS, cli: Cli) -> None:
    job_id = queued(aws)

    with FaultProxy(aws.endpoint_url, [Rule(INTERNAL_ERROR, "PollForJobs", times=8)]) as proxy:
        done = work(cli, "--max-jobs", "1", *BUILD, AWS_ENDPOINT_URL=proxy.url)

    assert result(aws, job_id) == ("Succeeded", "")
    assert done.events().count("poll-failed") == 1
    assert done.events()[1] == "poll-failed"


def test_health_is_a_page_and_a_file(aws: LocalAWS, cli: Cli) -> None:
    file = cli.directory / "health.json"
    fifo = cli.directory / "fifo"
    os.mkfifo(fifo)
    queued(aws)

    with worker(
        cli,
        "--health-port",
        "0",
        "--health-file",
        str(file),
        "--",
        "sh",
        "-c",
        'read x <"$0"',
        str(fifo),
    ) as running:
        url = running.until("health")["message"]
        running.until("started")
        status, document = page(url)
        assert (status, document["healthy"], document["claimed"]) == (200, True, 1)
        assert document.keys() == json.loads(file.read_text()).keys()
        assert page(f"{url}/other")[0] == 404
        running.send(signal.SIGTERM)
        running.until("draining")
        assert url.startswith("http://127.0.0.1:")
        fifo.write_text("go\n")
        running.end()

    assert not file.exists()


def test_health_has_all_members_before_the_first_poll(tmp_path: Path) -> None:
    file = tmp_path / "health.json"
    queue = cpstage.worker.JobQueue(ActionTypeId("Build", "Custom", "CpstageLocal", "1"))
    command = cpstage.worker.JobCommand(["true"])

    cpstage.worker.Worker(queue, command, cpstage.worker.JobPlaces(tmp_path), health_file=file)

    document = json.loads(file.read_text())
    assert (document["healthy"], document["status"], document["running"]) == (True, "polling", 0)
    counts = ("claimed", "dropped", "succeeded", "failed", "left")
    assert [document[name] for name in counts] == [0] * 5


def test_a_worker_whose_polls_fail_is_unwell(aws: LocalAWS, cli: Cli) -> None:
    rule = Rule(INTERNAL_ERROR, "PollForJobs", times=None)
    with (
        FaultProxy(aws.endpoint_url, [rule]) as proxy,
        worker(
            cli,
            "--health-port",
            "0",
            "--unhealthy-after",
            "0.01",
            *BUILD,
            AWS_ENDPOINT_URL=proxy.url,
        ) as running,  # fmt: skip
    ):
        url = running.until("health")["message"]
        running.until("poll-failed")
        status = 200
        while status == 200:
            status, document = page(url)
        running.send(signal.SIGTERM)
        code = running.end()

    assert (status, document["healthy"]) == (503, False)
    assert code == 0


def test_the_address_of_a_health_page_can_be_asked(aws: LocalAWS, cli: Cli) -> None:
    with worker(cli, "--health-port", "0", "--health-host", "::1", *BUILD) as running:
        url = running.until("health")["message"]
        assert url.startswith("http://[::1]:")
        assert page(url)[0] == 200
        running.send(signal.SIGTERM)
        assert running.end() == 0


def test_a_port_that_is_taken_is_told(aws: LocalAWS, cli: Cli) -> None:
    port = aws.endpoint_url.rpartition(":")[2]

    done = cli("work", *ACTION, "--health-port", port, *BUILD)

    assert done.returncode == 78
    assert f"cannot listen on 127.0.0.1 port {port}" in done.stderr


@pytest.mark.parametrize("host", ["ä" * 64, "\udcff"])
def test_a_malformed_health_host_is_named(cli: Cli, host: str) -> None:
    done = cli("work", *ACTION, "--health-port", "0", "--health-host", host, *BUILD)

    assert done.returncode == 78
    assert "the host name is malformed; give another --health-port or" in done.stderr


def page(url: str) -> tuple[int, dict[str, Any]]:
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)
