"""The examples, run as a user would run them."""

from __future__ import annotations

import subprocess
from pathlib import Path

from conftest import Cli
from cpstage.local import LocalAWS
from cpstage.local.sample import BUILD_COMMAND, add_sample_job

EXAMPLES = Path(__file__).parent.parent / "examples"


def _run(user: Cli, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(EXAMPLES / "build-step.sh"), *arguments],
        cwd=user.directory,
        env=dict(user.environment),
        capture_output=True,
        text=True,
    )


def test_the_build_step_builds_and_pushes(aws: LocalAWS, user: Cli) -> None:
    job_id = add_sample_job(aws)

    done = _run(user, job_id, *BUILD_COMMAND)

    assert done.returncode == 0, done.stderr
    puts = [call for call in aws.calls() if call.action == "PutObject" and call.job_id == job_id]
    assert [call.status for call in puts] == [200, 200]
    assert list(Path(user.environment["TMPDIR"]).iterdir()) == []


def test_the_build_step_pushes_nothing_when_the_command_fails(aws: LocalAWS, user: Cli) -> None:
    job_id = add_sample_job(aws)

    done = _run(user, job_id, "sh", "-c", 'ls "$CPSTAGE_IN_APPSOURCE"; exit 7')

    assert done.returncode == 7
    assert "build.sh" in done.stdout
    assert "the workspace is kept in" in done.stderr
    assert [
        call for call in aws.calls() if call.action == "PutObject" and call.job_id == job_id
    ] == []
