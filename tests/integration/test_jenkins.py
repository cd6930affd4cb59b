"""The examples for Jenkins, on a stub of its steps: support/jenkins/build.groovy.

What they do with ``sh`` is done for real, against the local AWS.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cpstage.local import SESSION_ACTIONS, Input, LocalAWS
from cpstage.local.sample import add_sample_job
from run_jobs import failure, puts
from samples import zip_of

if TYPE_CHECKING:
    from command_line import Cli

EXAMPLES = Path(__file__).parents[2] / "examples/jenkins"
PIPELINES = ("Jenkinsfile", "with-library/Jenkinsfile")
READING = SESSION_ACTIONS & {"s3:GetObject", "kms:Decrypt"}
STUB = Path(__file__).parents[1] / "support/jenkins/build.groovy"
URL = "https://jenkins.example.com/job/app/7/"
JAVA_OPTIONS = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC")
"""Runs of a second or two are not worth an optimising compiler."""

LINT = shutil.which("npm-groovy-lint")
pytestmark = [
    pytest.mark.skipif(LINT is None, reason="npm-groovy-lint is missing (npm install -g)"),
    pytest.mark.skipif(shutil.which("java") is None, reason="java is missing"),
]


def _build(
    user: Cli, pipeline: str, agent: str = "unix", **parameters: str
) -> subprocess.CompletedProcess[str]:
    assert LINT is not None
    package = Path(os.path.realpath(LINT)).parent.parent
    (groovy,) = package.glob("lib/java/groovy/lib/groovy-[0-9]*.jar")
    return subprocess.run(
        [
            *("java", *JAVA_OPTIONS, "-cp", str(groovy), "groovy.ui.GroovyMain", str(STUB)),
            *(str(EXAMPLES / pipeline), str(EXAMPLES / "vars"), str(user.directory)),
            *(f"{name}={value}" for name, value in parameters.items()),
        ],
        cwd=user.directory,
        env={**user.environment, "AGENT": agent},
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_a_build_that_succeeds_is_delivered_and_reported(
    aws: LocalAWS, user: Cli, pipeline: str
) -> None:
    job_id = add_sample_job(aws)

    done = _build(user, pipeline, JOB_ID=job_id)

    assert done.returncode == 0, done.stdout + done.stderr
    assert [call.status for call in puts(aws, job_id)] == [200, 200]
    job = aws.job(job_id)
    assert job.status == "Succeeded"
    assert (job.result or {})["executionDetails"] == {
        "summary": URL,
        "externalExecutionId": "jenkins-app-7",
    }
    assert list(user.directory.iterdir()) == []


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_a_build_that_fails_is_reported_and_nothing_of_it_delivered(
    aws: LocalAWS, user: Cli, pipeline: str
) -> None:
    job_id = add_sample_job(aws)

    done = _build(user, pipeline, JOB_ID=job_id, COMMAND='ls "$CPSTAGE_IN_APPSOURCE"; exit 7')

    assert done.returncode == 1
    assert "greeter" in done.stdout
    assert "ERROR: script returned exit code 7" in done.stdout
    assert puts(aws, job_id) == []
    assert URL in failure(aws, job_id)["message"]
    assert list(user.directory.iterdir()) == []


def test_the_library_tells_what_has_failed(aws: LocalAWS, user: Cli) -> None:
    hostile = aws.add_job([Input("AppSource", zip_of({"../up": "x"}))])
    empty = aws.add_job([Input("AppSource", zip_of({"f": "x"}))], ["Built"])
    denied = aws.add_job(
        [Input("AppSource", zip_of({"f": "x"}))], ["Built"], session_actions=READING
    )

    for job_id, failure_type, code in [
        (hostile, "JobFailed", "fetch ended with exit code 65"),
        (empty, "ConfigurationError", "push ended with exit code 66"),
        (denied, "PermissionError", "push ended with exit code 77"),
    ]:
        command = ":" if job_id == empty else 'echo x > "$CPSTAGE_OUT_BUILT/f"'
        done = _build(user, "with-library/Jenkinsfile", JOB_ID=job_id, COMMAND=command)
        assert done.returncode == 1
        told = failure(aws, job_id)
        assert (told["type"], told["message"]) == (failure_type, f"cpstage {code}, see {URL}")


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_no_parameter_is_taken_for_a_script(user: Cli, pipeline: str) -> None:
    done = _build(user, pipeline, JOB_ID="'; touch taken; '$(touch taken)")

    assert done.returncode == 1
    assert list(user.directory.rglob("taken")) == []


def test_the_library_says_on_windows_what_it_needs(user: Cli) -> None:
    done = _build(user, "with-library/Jenkinsfile", "windows", JOB_ID="any")

    assert done.returncode == 1
    assert "ERROR: cpstage stages jobs on Unix agents alone" in done.stdout


def test_the_linter_finds_no_error(user: Cli) -> None:
    done = subprocess.run(
        [str(LINT), "--noserver", "--path", str(EXAMPLES), "--failon", "none", "--output", "json"],
        env={**user.environment, "JAVA_TOOL_OPTIONS": " ".join(JAVA_OPTIONS)},
        capture_output=True,
        text=True,
    )

    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout[done.stdout.index("{") :])["files"]
    assert len(found) == len([*EXAMPLES.rglob("*.groovy"), *PIPELINES])
    errors = [
        (error["rule"], error["msg"])
        for file in found.values()
        for error in file["errors"]
        if error["severity"] == "error" and "variable [_]" not in error["msg"]  # as @Library has it
    ]
    assert errors == []
