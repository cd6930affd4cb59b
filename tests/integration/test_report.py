"""``cpstage report``: every member of the two results, checked before they are put."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, get_args

import pytest

import cpstage
from aws_clients import codepipeline
from cpstage import Details
from cpstage.errors import ConfigurationError, FailureType, OutOfSync, UsageError
from cpstage.job.result import MOST_BYTES, Revision

if TYPE_CHECKING:
    from pathlib import Path

    from command_line import Cli
    from cpstage.local import LocalAWS


@pytest.fixture
def caller(aws: LocalAWS, monkeypatch: pytest.MonkeyPatch) -> LocalAWS:
    """The local AWS, with the tests themselves as its caller."""
    for name, value in aws.environment.items():
        monkeypatch.setenv(name, value)
    return aws


def _longest() -> Details:
    made = Revision("r" * 1500, "c" * 100, "s" * 2048, datetime(2030, 1, 31, tzinfo=timezone.utc))
    return Details("s" * 2048, "e" * 1500, 100, made)


def test_every_member_of_a_success_as_long_as_it_may_be(caller: LocalAWS) -> None:
    job_id = caller.add_job()
    variables = {"a": "x" * (MOST_BYTES - 1)}

    reported = cpstage.report_success(job_id, details=_longest(), output_variables=variables)

    assert caller.job(job_id).result == {
        "executionDetails": {
            "summary": "s" * 2048,
            "externalExecutionId": "e" * 1500,
            "percentComplete": 100,
        },
        "currentRevision": {
            "revision": "r" * 1500,
            "changeIdentifier": "c" * 100,
            "revisionSummary": "s" * 2048,
            "created": 1896048000,
        },
        "outputVariables": variables,
    }
    assert reported.document()["output_variables"] == ["a"]


def test_a_success_of_a_third_party_job(caller: LocalAWS) -> None:
    job_id = caller.add_job(third_party=True)
    token = caller.job(job_id).client_token

    cpstage.report_success(job_id, details=_longest(), client_token=token)

    assert caller.job(job_id).status == "Succeeded"


def test_a_failure_of_a_third_party_job(caller: LocalAWS) -> None:
    job_id = caller.add_job(third_party=True)
    token = caller.job(job_id).client_token

    cpstage.report_failure(job_id, "why", external_execution_id="e", client_token=token)

    assert caller.job(job_id).result == {
        "failureDetails": {"type": "JobFailed", "message": "why", "externalExecutionId": "e"}
    }


@pytest.mark.parametrize("failure_type", get_args(FailureType))
def test_every_failure_type(caller: LocalAWS, failure_type: FailureType) -> None:
    job_id = caller.add_job()

    reported = cpstage.report_failure(job_id, "why", failure_type=failure_type)

    assert caller.job(job_id).result == {"failureDetails": {"type": failure_type, "message": "why"}}
    assert reported.failure_type == failure_type


@pytest.mark.parametrize("character", ["x", "ß", "🎉"])
def test_of_a_long_message_the_end_is_kept(caller: LocalAWS, character: str) -> None:
    job_id = caller.add_job()

    cpstage.report_failure(job_id, character * 6000 + "the end")

    result = caller.job(job_id).result
    assert result
    message = result["failureDetails"]["message"]
    # The service may count as Java does, where some characters count twice.
    assert 4998 <= len(message.encode("utf-16-le")) // 2 <= 5000
    assert message.endswith(f"{character}the end")


@pytest.mark.parametrize(
    ("details", "words"),
    [
        (Details(external_execution_id="x" * 1501), "execution id has 1,501"),
        (Details(percent_complete=101), "101 percent"),
        (Details(percent_complete=-1), "-1 percent"),
        (Details(revision=Revision("x" * 1501, "c")), "revision has 1,501"),
        (Details(revision=Revision("r", "x" * 101)), "change identifier has 101"),
    ],
)
def test_what_the_service_would_refuse_is_not_sent(
    caller: LocalAWS, details: Details, words: str
) -> None:
    job_id = caller.add_job()
    before = len(caller.calls())

    with pytest.raises((UsageError, ConfigurationError), match=words):
        cpstage.report_success(job_id, details=details)

    assert len(caller.calls()) == before


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ({"output_variables": {"a b": "c"}}, "cannot be an output variable"),
        ({"output_variables": {"a": "x" * MOST_BYTES}}, "122,881 bytes"),
        ({"output_variables": {"a": "b"}, "continuation_token": "t"}, "takes one of them"),
        ({"output_variables": {"a": "b"}, "client_token": "t"}, "third-party"),
        ({"continuation_token": ""}, "0 characters"),
        ({"continuation_token": "x" * 2049}, "2,049 characters"),
    ],
)
def test_variables_and_tokens_that_the_service_would_refuse(
    caller: LocalAWS, members: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigurationError, match=words):
        cpstage.report_success(caller.add_job(), **members)


@pytest.mark.parametrize(
    ("message", "how"),
    [("", {}), (" \n", {}), ("x", {"external_execution_id": ""})],
)
def test_a_failure_is_reported_without_what_the_service_would_refuse(
    caller: LocalAWS, message: str, how: dict[str, Any]
) -> None:
    job_id = caller.add_job()

    cpstage.report_failure(job_id, message, **how)

    assert caller.job(job_id).status == "Failed"


def test_a_failure_type_is_one_of_those_of_the_service(caller: LocalAWS) -> None:
    with pytest.raises(UsageError):
        cpstage.report_failure(caller.add_job(), "x", failure_type="Other")  # type: ignore[arg-type]


def test_only_a_job_in_progress_has_a_result(caller: LocalAWS) -> None:
    job_id = caller.add_job(status="Queued")

    with pytest.raises(OutOfSync) as refused:
        cpstage.report_success(job_id)

    assert "was never acknowledged" in str(refused.value)


def test_a_success_by_hand(aws: LocalAWS, cli: Cli) -> None:
    job_id = aws.add_job()
    (cli.directory / "more").write_text('version=1.1\n# nothing\nname="app"\n')

    done = cli(
        *("report", "success", job_id, "--json", "--summary", "built"),
        *("--execution-id", "e-1", "--percent-complete", "50"),
        *("--revision", "r-1", "--change-identifier", "c-1", "--revision-summary", "first"),
        *("--created", "2030-01-31T12:00:00Z"),
        *("--output-variables-file", "more", "--output-variable", "version=1.2"),
    )

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["result"] == "success"
    assert aws.job(job_id).result == {
        "executionDetails": {
            "summary": "built",
            "externalExecutionId": "e-1",
            "percentComplete": 50,
        },
        "currentRevision": {
            "revision": "r-1",
            "changeIdentifier": "c-1",
            "revisionSummary": "first",
            "created": 1896091200,
        },
        "outputVariables": {"version": "1.2", "name": "app"},
    }


@pytest.mark.parametrize("way", ["file", "variable"])
def test_a_continuation_token_is_not_on_the_command_line(aws: LocalAWS, cli: Cli, way: str) -> None:
    job_id = aws.add_job()
    (cli.directory / "token").write_text("canary\n")
    if way == "file":
        options = ["--continuation-token-file", "token"]
    else:
        cli, options = cli.with_variables({"CPSTAGE_CONTINUATION_TOKEN": "canary"}), []

    done = cli("report", "success", job_id, "-v", *options)

    assert aws.job(job_id).result == {"continuationToken": "canary"}
    assert "canary" not in done.stdout + done.stderr


def test_a_failure_out_of_a_log(aws: LocalAWS, cli: Cli) -> None:
    job_id = aws.add_job()
    log = "".join(f"line {number}\n" for number in range(2000))

    done = cli(
        *("report", "failure", job_id, "--failure-type", "ConfigurationError"),
        *("--message-file", "-"),
        stdin=log,
    )

    assert (done.returncode, done.stdout) == (0, f"reported\tfailure\t{job_id}\n")
    result = aws.job(job_id).result
    assert result
    assert result["failureDetails"] == {
        "type": "ConfigurationError",
        "message": log.rstrip()[-5000:],
    }


def test_a_saved_document_names_the_job(aws: LocalAWS, cli: Cli) -> None:
    job_id = aws.add_job()
    saved = cli("get-job-details", "--job-id", job_id).stdout

    done = cli("report", "failure", "--job-file", "-", "-m", "why", stdin=saved)

    assert done.returncode == 0, done.stderr
    assert aws.job(job_id).status == "Failed"


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["failure", "JOB"], 2, "give --message or --message-file"),
        (["failure", "JOB", "-m", "x"], 75, "job JOB is not in progress, or does not exist"),
        (["failure", "-m", "x"], 2, "no job is given"),
        (["success", "JOB", "--revision", "r"], 2, "--change-identifier"),
        (
            ["success", "J", "--revision", "r", "--change-identifier", "c", "--created", "now"],
            2,
            "'now' is not a time such as",
        ),
        (["success", "JOB", "--output-variable", "x"], 2, "not of the form K=V"),
        (["success", "JOB", "--continuation-token-file", "none"], 78, "cannot read the contin"),
    ],
)
def test_bad_input_is_one_line(cli: Cli, arguments: list[str], code: int, words: str) -> None:
    done = cli("report", *arguments)

    assert done.returncode == code
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_job_that_has_a_result_already(aws: LocalAWS, cli: Cli) -> None:
    job_id = aws.add_job()
    codepipeline(aws.environment).put_job_success_result(jobId=job_id)

    for arguments in ([], ["--force"]):
        done = cli("report", "failure", job_id, "-m", "late", *arguments)

        assert done.returncode == 75
        assert "it has a result already, timed out, or was never acknowledged" in done.stderr
    actions = [call.action for call in aws.calls() if call.job_id == job_id]
    assert actions.count("PutJobFailureResult") == 1


def test_who_may_not_report(cli: Cli, tmp_path: Path) -> None:
    done = cli("report", "success", "JOB", AWS_ACCESS_KEY_ID="AKIAUNKNOWN000000000")

    assert done.returncode == 77


def test_a_log_that_is_missing_does_not_leave_the_job_open(aws: LocalAWS, cli: Cli) -> None:
    job_id = aws.add_job()

    done = cli("report", "failure", job_id, "--message-file", "none")

    assert done.returncode == 78
    assert "cannot read the message none" in done.stderr
    assert (aws.job(job_id).result or {})["failureDetails"]["message"] == (
        "cannot read the message none: No such file or directory"
    )


REVISION = ["--revision", "r", "--change-identifier", "c"]


MALFORMED = [
    ([*REVISION, "--created", "yesterday"], "'yesterday' is not a time"),
    ([*REVISION, "--created", ""], "'' is not a time"),
    (["--percent-complete", "150"], "'150' percent complete is not 0 to 100"),
    (["--percent-complete", "all"], "'all' percent complete is not 0 to 100"),
    (["--percent-complete", ""], "'' percent complete is not 0 to 100"),
    (["--output-variable", "version"], "not of the form K=V"),
    (["--output-variable", "a b=c"], "cannot be an output variable"),
    (["--output-variable", "a=\udcff"], "is not Unicode text"),
    (["--output-variable", "a=" + "x" * 130_000], "CodePipeline allows"),
    (["--output-variables-file", "missing"], "cannot read the output variables"),
    (["--output-variables-file", ""], "cannot read the output variables"),
    (["--external-execution-id", "\udcff"], "is not Unicode text"),
    (["--external-execution-id", ""], "has 0 characters"),
    (["--revision", "\udcff", "--change-identifier", "c"], "is not Unicode text"),
    (["--revision", "r", "--change-identifier", ""], "has 0 characters"),
    (["--continuation-token-file", "."], "cannot read the continuation token"),
]


@pytest.mark.parametrize(
    ("command", "arguments", "words"),
    [("report", *case) for case in MALFORMED]
    # A run takes output variables and the token from files of CMD.
    + [("run", *case) for case in MALFORMED if not re.search("variable|token", case[0][0])],
)
def test_what_a_build_can_put_into_a_result_does_not_leave_the_job_open(
    aws: LocalAWS, cli: Cli, command: str, arguments: list[str], words: str
) -> None:
    job_id = aws.add_job()
    if command == "run":
        done = cli("run", job_id, "--report", *arguments, "--", "true")
    else:
        done = cli("report", "success", job_id, *arguments)

    assert done.returncode in (2, 78), done.stderr
    assert words in done.stderr
    assert aws.job(job_id).status == "Failed"
    details = (aws.job(job_id).result or {})["failureDetails"]
    assert details["type"] == "ConfigurationError"
    assert words in details["message"]


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["-m", "\udcff"], 0),
        (["-m", "x", "--external-execution-id", "\udcff"], 0),
        (["-m", "x", "--failure-type", "Odd"], 2),
        (["-m", "x", "--failure-type", ""], 2),
        (["--message-file", "."], 78),
    ],
)
def test_what_a_build_can_put_into_a_failure_does_not_leave_the_job_open(
    aws: LocalAWS, cli: Cli, arguments: list[str], code: int
) -> None:
    job_id = aws.add_job()

    done = cli("report", "failure", job_id, *arguments)

    assert done.returncode == code, done.stderr
    assert aws.job(job_id).status == "Failed"


def test_a_caller_who_may_not_ask_about_a_job_can_report_it(aws: LocalAWS, cli: Cli) -> None:
    job_id = aws.add_job()
    reporter = aws.add_user("reporter", {"codepipeline:PutJobSuccessResult"})

    done = replace(cli, environment={**cli.environment, **reporter})(
        "report", "success", job_id, "--summary", "\udcff"
    )

    assert done.returncode == 0, done.stderr
    assert aws.job(job_id).status == "Succeeded"
