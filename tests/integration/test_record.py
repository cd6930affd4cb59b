"""Who called what: the caller's credentials for CodePipeline only, the job's for S3 only."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from cpstage.local import Call, Input, LocalAWS
from samples import tar_of, zip_of

if TYPE_CHECKING:
    from command_line import Cli


def _whole_way(aws: LocalAWS, cli: Cli, job_id: str) -> tuple[list[Call], list[Call]]:
    """Fetch and push a job, and return what each of them called."""
    before = len(aws.calls())
    fetched = cli("fetch", job_id)
    between = len(aws.calls())
    for name in ("Built", "Report"):
        (cli.directory / "out" / name / "result").write_text("x" * 100)
    pushed = cli("push", job_id)
    assert fetched.returncode == pushed.returncode == 0, fetched.stderr + pushed.stderr
    calls = aws.calls()
    return calls[before:between], calls[between:]


def test_one_call_by_the_caller_and_all_of_s3_by_the_job(aws: LocalAWS, cli: Cli) -> None:
    job_id = aws.add_job(
        [Input("App", zip_of({"f": "x"})), Input("Lib", tar_of({"g": "y"}), ".tar")],
        outputs=["Built", "Report"],
    )

    for calls in _whole_way(aws, cli, job_id):
        by_caller = [call for call in calls if call.identity == "caller"]
        assert [(call.service, call.action) for call in by_caller] == [
            ("codepipeline", "GetJobDetails")
        ]
        others = {call.identity for call in calls if call not in by_caller}
        assert others == {f"job:{job_id}"}
        assert {call.service for call in calls if call not in by_caller} == {"s3"}
        assert [call for call in calls if call.status >= 400] == []


def test_every_put_asks_for_sse_kms_under_the_jobs_key(aws: LocalAWS, cli: Cli) -> None:
    job_id = aws.add_job([Input("App", zip_of({"f": "x"}))], outputs=["Built", "Report"])

    _, pushed = _whole_way(aws, cli, job_id)

    puts = [call for call in pushed if call.action == "PutObject"]
    assert [(call.server_side_encryption, call.kms_key_id) for call in puts] == [
        ("aws:kms", aws.key_arn)
    ] * 2


def test_only_calls_that_sessions_are_sure_to_be_allowed(aws: LocalAWS, cli: Cli) -> None:
    job_id = aws.add_job([Input("App", zip_of({"f": "x"}))], outputs=["Built", "Report"])

    fetched, pushed = _whole_way(aws, cli, job_id)

    assert Counter(call.action for call in fetched) == {
        "GetJobDetails": 1,
        "HeadObject": 1,
        "GetObject": 1,
    }
    assert Counter(call.action for call in pushed) == {"GetJobDetails": 1, "PutObject": 2}
