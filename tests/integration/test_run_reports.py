"""What CodePipeline is told of a run: each failure type for real, and results that fail."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from aws_clients import codepipeline
from constant_server import answering_server
from cpstage.local import SESSION_ACTIONS, Input, LocalAWS
from fault_plans import Rule
from fault_proxy import FaultProxy
from faults import ACCESS_DENIED, PRECONDITION_FAILED, Answer, Close, Meanwhile
from run_jobs import BUILD, add_job, document, failure, puts, reports, run, shell
from samples import zip_of

if TYPE_CHECKING:
    from command_line import Cli

pytestmark = pytest.mark.slow

_SUCCESS, _FAILURE = "PutJobSuccessResult", "PutJobFailureResult"
_THROTTLED = Answer(400, "ThrottlingException", "Rate exceeded")
_BROKEN = Answer(500, "InternalFailure")


def test_an_artifact_that_is_rejected_is_a_failure_of_the_job(aws: LocalAWS, cli: Cli) -> None:
    job_id = add_job(aws, inputs=[Input("App", zip_of({"../f": "x"}))])

    done = run(cli, job_id, "--report")

    assert done.returncode == 65
    details = failure(aws, job_id)
    assert details["type"] == "JobFailed"
    assert done.stderr == f"reported\tfailure\ncpstage: error: {details['message']}\n"


def test_an_object_that_is_not_there_is_a_revision_that_is_not_available(
    aws: LocalAWS, cli: Cli
) -> None:
    actions = SESSION_ACTIONS | {"s3:ListBucket"}  # without, it is denied and not missing
    job_id = add_job(aws, inputs=[Input("App", None)], session_actions=actions)

    done = run(cli, job_id, "--report")

    assert done.returncode == 66
    assert failure(aws, job_id)["type"] == "RevisionUnavailable"


def test_an_object_that_does_not_stop_changing_is_a_revision_out_of_sync(
    aws: LocalAWS, cli: Cli
) -> None:
    job_id = add_job(aws)
    with FaultProxy(
        aws.endpoint_url, [Rule(PRECONDITION_FAILED, "GetObject", times=None)]
    ) as proxy:
        done = run(cli, job_id, "--report", AWS_ENDPOINT_URL_S3=proxy.url)

    assert done.returncode == 75
    assert failure(aws, job_id)["type"] == "RevisionOutOfSync"


def test_an_upload_that_is_denied_is_a_permission_error_and_never_a_success(
    aws: LocalAWS, cli: Cli
) -> None:
    job_id = add_job(aws, session_actions=SESSION_ACTIONS - {"s3:PutObject"})

    done = run(cli, job_id, "--report")

    assert done.returncode == 77
    assert failure(aws, job_id)["type"] == "PermissionError"
    assert reports(aws, job_id) == [_FAILURE]


def test_a_job_that_may_not_be_asked_for_is_reported_all_the_same(aws: LocalAWS, cli: Cli) -> None:
    job_id = add_job(aws)
    with FaultProxy(aws.endpoint_url, [Rule(ACCESS_DENIED, "GetJobDetails", times=None)]) as proxy:
        done = run(cli, job_id, "--report", AWS_ENDPOINT_URL_CODEPIPELINE=proxy.url)

    assert done.returncode == 77
    assert failure(aws, job_id)["type"] == "PermissionError"


def test_nothing_to_push_is_a_configuration_error(aws: LocalAWS, cli: Cli) -> None:
    job_id = add_job(aws)

    done = run(cli, job_id, "--report", command=("true",))

    assert done.returncode == 66
    assert failure(aws, job_id)["type"] == "ConfigurationError"


def test_a_workspace_that_is_taken_is_a_configuration_error(aws: LocalAWS, cli: Cli) -> None:
    job_id = add_job(aws)
    (cli.directory / "in/App").mkdir(parents=True)
    (cli.directory / "in/App/mine").write_text("x")

    done = run(cli, job_id, "--report")

    assert done.returncode == 73
    assert failure(aws, job_id)["type"] == "ConfigurationError"


def test_a_service_that_is_not_available_is_told(aws: LocalAWS, cli: Cli) -> None:
    job_id = add_job(aws)
    with answering_server(503) as silent:
        done = run(cli, job_id, "--report", "--retry-timeout", "0.1", AWS_ENDPOINT_URL_S3=silent)

    assert done.returncode == 69
    assert failure(aws, job_id)["type"] == "SystemUnavailable"


def test_a_result_is_put_again_when_that_helps(aws: LocalAWS, cli: Cli) -> None:
    job_id = add_job(aws)
    faults = [
        Rule(_THROTTLED, _SUCCESS, times=1),
        Rule(_BROKEN, _SUCCESS, first=2, times=2),
    ]
    with FaultProxy(aws.endpoint_url, faults) as proxy:
        done = run(cli, job_id, "--report", AWS_ENDPOINT_URL_CODEPIPELINE=proxy.url)

    assert done.returncode == 0, done.stderr
    assert aws.job(job_id).status == "Succeeded"


@pytest.mark.parametrize("fault", [_BROKEN, Close(0, side="request")])
def test_a_result_that_cannot_be_put_is_no_success(aws: LocalAWS, cli: Cli, fault: Answer) -> None:
    job_id = add_job(aws)
    with FaultProxy(aws.endpoint_url, [Rule(fault, _SUCCESS, times=None)]) as proxy:
        done = run(
            cli,
            job_id,
            *("--report", "--json", "--retry-timeout", "0.5"),
            AWS_ENDPOINT_URL_CODEPIPELINE=proxy.url,
        )

    assert done.returncode == 69
    assert "cannot report the success of job" in done.stderr.splitlines()[-1]
    found = document(done)
    assert (found["error"], found["report"]) == (None, None)
    assert found["report_error"]["exit_code"] == 69
    assert [call.status for call in puts(aws, job_id)] == [200]
    assert reports(aws, job_id) == []


def test_a_job_that_has_ended_meanwhile_changes_the_exit_code(aws: LocalAWS, cli: Cli) -> None:
    job_id = add_job(aws)

    def end() -> None:
        details = {"type": "JobFailed", "message": "by hand"}
        codepipeline(aws.environment).put_job_failure_result(
            jobId=job_id,
            failureDetails=details,  # type: ignore[arg-type]
        )

    with FaultProxy(aws.endpoint_url, [Rule(Meanwhile(end), "PutObject")]) as proxy:
        done = run(cli, job_id, "--report", AWS_ENDPOINT_URL_S3=proxy.url)

    assert done.returncode == 75
    assert "InvalidJobStateException" in done.stderr.splitlines()[-1]
    assert failure(aws, job_id)["message"] == "by hand"
    assert reports(aws, job_id) == [_FAILURE, _SUCCESS]


@pytest.mark.parametrize(("command", "result"), [("true", _SUCCESS), ("exit 3", _FAILURE)])
def test_a_result_whose_answer_is_lost_counts_as_reported(
    aws: LocalAWS, cli: Cli, command: str, result: str
) -> None:
    job_id = add_job(aws)
    with FaultProxy(aws.endpoint_url, [Rule(Close(None), result)]) as proxy:
        done = run(
            cli,
            job_id,
            "--report",
            command=shell(f"echo x >$CPSTAGE_OUT_BUILT/f; {command}"),
            AWS_ENDPOINT_URL_CODEPIPELINE=proxy.url,
        )

    assert done.returncode == (0 if result == _SUCCESS else 3), done.stderr
    assert f"job {job_id} has ended: a try whose answer was lost counts as reported" in done.stderr
    assert aws.job(job_id).status == ("Succeeded" if result == _SUCCESS else "Failed")


@pytest.mark.parametrize("missing", [["AWS_REGION", "AWS_DEFAULT_REGION"], ["AWS_ACCESS_KEY_ID"]])
def test_what_prevents_run_and_report_is_said_once(
    aws: LocalAWS, cli: Cli, missing: list[str]
) -> None:
    done = cli("run", add_job(aws), "--report", "--", "true", without=tuple(missing))

    assert done.returncode in (77, 78)
    assert done.stderr.count("cpstage: error: ") == 1


def test_a_result_of_which_no_answer_comes_may_have_been_put(aws: LocalAWS, cli: Cli) -> None:
    job_id = add_job(aws)
    with FaultProxy(aws.endpoint_url, [Rule(Close(None), _SUCCESS, times=None)]) as proxy:
        done = run(
            cli,
            job_id,
            *("--report", "--retry-timeout", "1"),
            AWS_ENDPOINT_URL_CODEPIPELINE=proxy.url,
        )

    assert done.returncode == 69
    assert done.stderr.endswith("may have put the result: look at the pipeline\n")
    assert aws.job(job_id).status == "Succeeded"


def test_the_commands_exit_code_stays_when_the_report_fails_too(aws: LocalAWS, cli: Cli) -> None:
    job_id = add_job(aws)
    with FaultProxy(aws.endpoint_url, [Rule(ACCESS_DENIED, _FAILURE, times=None)]) as proxy:
        done = run(
            cli,
            job_id,
            *("-q", "--report"),
            command=shell("exit 3"),
            AWS_ENDPOINT_URL_CODEPIPELINE=proxy.url,
        )

    assert done.returncode == 3
    report, command = done.stderr.splitlines()
    assert report.startswith(f"cpstage: error: cannot report the failure of job {job_id}")
    assert report.endswith("the caller needs codepipeline:PutJobFailureResult")
    assert command == "cpstage: error: sh failed with exit code 3"


def test_a_success_that_is_refused_as_invalid_becomes_a_failure(aws: LocalAWS, cli: Cli) -> None:
    job_id = add_job(aws)
    invalid = Answer(400, "ValidationException", "1 validation error detected")
    with FaultProxy(aws.endpoint_url, [Rule(invalid, _SUCCESS, times=None)]) as proxy:
        done = run(cli, job_id, "--report", AWS_ENDPOINT_URL_CODEPIPELINE=proxy.url)

    assert done.returncode == 78
    assert failure(aws, job_id)["type"] == "ConfigurationError"


def test_what_is_to_be_reported_is_checked_before_anything_is_done(aws: LocalAWS, cli: Cli) -> None:
    job_id = add_job(aws)

    done = run(cli, job_id, "--report", "--external-execution-id", "x" * 1501)

    assert done.returncode == 78
    assert "the external execution id has 1,501 characters" in failure(aws, job_id)["message"]
    assert [call.action for call in aws.calls() if call.job_id == job_id] == [_FAILURE]


def test_a_token_that_is_left_makes_the_action_go_on(aws: LocalAWS, cli: Cli) -> None:
    job_id = add_job(aws)
    leave = shell('printf 17 > "$CPSTAGE_NEXT_CONTINUATION_TOKEN_FILE"')

    done = run(cli, job_id, "--report", "--json", command=leave)

    job = aws.job(job_id)
    assert (job.status, job.result) == ("Succeeded", {"continuationToken": "17"})
    assert job.continued_as
    assert puts(aws, job_id) == []
    assert document(done)["report"]["continued"] is True
    assert "17" not in json.dumps(document(done)["report"]["output_variables"])


def test_a_job_that_goes_on_shows_its_token_and_may_end(aws: LocalAWS, cli: Cli) -> None:
    job_id = add_job(aws, continuation_token="canary-17")
    look = 'stat -c %a "$CPSTAGE_CONTINUATION_TOKEN_FILE"; cat "$CPSTAGE_CONTINUATION_TOKEN_FILE"'

    done = run(cli, job_id, "--report", command=shell(f"{look}; {BUILD[2]}"))

    assert done.stdout == "600\ncanary-17"
    assert "canary" not in done.stderr
    assert aws.job(job_id).result == {}
    assert [call.status for call in puts(aws, job_id)] == [200]


def test_a_job_may_go_on_with_the_token_that_it_came_with(aws: LocalAWS, cli: Cli) -> None:
    job_id = add_job(aws, continuation_token="17")
    hand_on = 'cp "$CPSTAGE_CONTINUATION_TOKEN_FILE" "$CPSTAGE_NEXT_CONTINUATION_TOKEN_FILE"'

    run(cli, job_id, "--report", command=shell(hand_on))

    assert aws.job(job_id).result == {"continuationToken": "17"}


@pytest.mark.parametrize(
    ("script", "options", "words"),
    [
        ('echo a=b > "$CPSTAGE_OUTPUT_VARIABLES"; echo 1 > "$N"', ["--report"], "takes one of"),
        ('echo > "$N"', ["--report"], "the continuation token has 0 characters"),
        ('yes | head -c 3000 > "$N"', ["--report"], "and not 1 to 2,048"),
        ('echo 1 > "$N"', [], "the result is not reported; give --report"),
    ],
)
def test_a_token_that_cannot_be_reported_is_a_failure(
    aws: LocalAWS, cli: Cli, script: str, options: list[str], words: str
) -> None:
    job_id = add_job(aws)
    command = shell(f'N="$CPSTAGE_NEXT_CONTINUATION_TOKEN_FILE"; {script}')

    done = run(cli, job_id, *options, command=command)

    assert done.returncode == 78
    assert words in done.stderr.splitlines()[-1]
    assert aws.job(job_id).status == ("Failed" if options else "InProgress")
