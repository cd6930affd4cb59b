"""The examples for Jenkins, on a stub of its steps: support/jenkins/build.groovy.

What they do with ``sh`` is done for real, against the local AWS.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from cpstage.local import SESSION_ACTIONS, Input, LocalAWS
from cpstage.local.sample import OUTPUTS, config_archive, source_archive
from run_jobs import failure, puts
from samples import zip_of

if TYPE_CHECKING:
    from command_line import Cli

    Built = subprocess.CompletedProcess[str]

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples/jenkins"
PIPELINES = ("Jenkinsfile", "with-library/Jenkinsfile")
READING = SESSION_ACTIONS & {"s3:GetObject", "kms:Decrypt"}
STUB = Path(__file__).parents[1] / "support/jenkins/build.groovy"
URL = "https://jenkins.example.com/job/app/7/"
JAVA_OPTIONS = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xshare:auto")
"""Runs of a second or two are not worth an optimising compiler."""

LINT = shutil.which("npm-groovy-lint")
JENKINS_GROOVY = Path("/usr/share/java/groovy-all-2.4.21.jar")
"""The version of Groovy that Jenkins runs pipelines with (Debian package groovy)."""

needs_groovy = pytest.mark.skipif(
    shutil.which("java") is None or not (JENKINS_GROOVY.exists() or LINT),
    reason="Groovy is missing (Debian package groovy)",
)


def _groovy() -> Path:
    if JENKINS_GROOVY.exists() or not LINT:
        return JENKINS_GROOVY
    package = Path(os.path.realpath(LINT)).parent.parent
    (groovy,) = package.glob("lib/java/groovy/lib/groovy-[0-9]*.jar")
    return groovy


@dataclass
class Jenkins:
    """A controller with one job, as far as the examples use one."""

    user: Cli
    scripts: Path

    def build(self, pipeline: str, job: str = "app", **variables: str) -> Built:
        """Build with one of the examples, or with a script."""
        script = (EXAMPLES / pipeline).read_text() if pipeline in PIPELINES else pipeline
        file = self.scripts / "Jenkinsfile"
        file.write_text(re.sub("(--wait(?:', ')? ?)240", r"\g<1>0", script))  # tests do not wait
        return subprocess.run(
            [
                *("java", *JAVA_OPTIONS, "-cp", str(_groovy()), "groovy.ui.GroovyMain", str(STUB)),
                *(str(file), str(EXAMPLES / "vars"), str(self.user.directory), job),
            ],
            cwd=self.user.directory,
            env={**self.user.environment, **variables},
            capture_output=True,
            text=True,
        )


@pytest.fixture
def jenkins(user: Cli, tmp_path_factory: pytest.TempPathFactory) -> Jenkins:
    return Jenkins(user, tmp_path_factory.mktemp("scripts"))


def _waiting(aws: LocalAWS, script: str | None = None, **job: Any) -> str:
    """Add a job of the project app; its source is the sample, or has this build script."""
    source = source_archive() if script is None else zip_of({"build.sh": script, "f": "x"})
    job.setdefault("inputs", [Input("AppSource", source), Input("AppConfig", config_archive())])
    job.setdefault("outputs", OUTPUTS)
    return aws.add_job(
        configuration={"ProjectName": "app"}, provider="Jenkins", status="Queued", **job
    )


@needs_groovy
@pytest.mark.parametrize("pipeline", PIPELINES)
def test_a_build_that_succeeds_is_delivered_and_reported(
    aws: LocalAWS, jenkins: Jenkins, pipeline: str
) -> None:
    job_id = _waiting(aws)

    done = jenkins.build(pipeline, "team/app")

    assert done.returncode == 0, done.stdout + done.stderr
    assert [call.status for call in puts(aws, job_id)] == [200, 200]
    job = aws.job(job_id)
    assert job.status == "Succeeded"
    assert (job.result or {})["executionDetails"] == {"summary": URL, "externalExecutionId": "7"}
    assert list(jenkins.user.directory.iterdir()) == []


@needs_groovy
@pytest.mark.parametrize("pipeline", PIPELINES)
def test_a_build_for_which_no_job_waits_ends_quietly(
    aws: LocalAWS, jenkins: Jenkins, pipeline: str
) -> None:
    of_another_project = _waiting(aws)

    done = jenkins.build(pipeline, "other")

    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "Finished: NOT_BUILT")
    assert "[post]" not in done.stdout
    assert "no job waits for action type" in done.stderr
    assert aws.job(of_another_project).status == "Queued"
    aws.set_status(of_another_project, "TimedOut")


@needs_groovy
@pytest.mark.parametrize("pipeline", PIPELINES)
def test_a_build_that_cannot_claim_fails(user: Cli, jenkins: Jenkins, pipeline: str) -> None:
    done = jenkins.build(pipeline, "a job's name; $(touch taken)")

    assert (done.returncode, done.stdout.splitlines()[-1]) == (1, "Finished: FAILURE")
    assert "--query" in done.stderr
    assert list(user.directory.rglob("taken")) == []


@needs_groovy
@pytest.mark.parametrize("pipeline", PIPELINES)
def test_a_build_that_fails_is_reported_and_nothing_of_it_delivered(
    aws: LocalAWS, jenkins: Jenkins, pipeline: str
) -> None:
    job_id = _waiting(aws, 'ls "$CPSTAGE_IN_APPSOURCE"; exit 7')

    done = jenkins.build(pipeline)

    assert (done.returncode, done.stdout.splitlines()[-1]) == (1, "Finished: FAILURE")
    assert "build.sh" in done.stdout
    assert puts(aws, job_id) == []
    told = failure(aws, job_id)
    assert told["message"].endswith(f"script returned exit code 7, see {URL}")
    assert (told["type"], told["externalExecutionId"]) == ("JobFailed", "7")
    assert list(jenkins.user.directory.iterdir()) == []


@needs_groovy
@pytest.mark.parametrize("pipeline", PIPELINES)
def test_an_abort_is_reported_with_who_aborted(
    aws: LocalAWS, jenkins: Jenkins, pipeline: str
) -> None:
    job_id = _waiting(aws, "exit 143")

    done = jenkins.build(pipeline)

    assert done.stdout.splitlines()[-1] == "Finished: ABORTED"
    message = failure(aws, job_id)["message"]
    assert message.removeprefix("Build: ") == f"Aborted by alice, see {URL}"


@needs_groovy
def test_an_abort_whose_message_is_empty_is_explained(aws: LocalAWS, jenkins: Jenkins) -> None:
    """As in versions of Jenkins' plugins before September 2025."""
    for pipeline, message in zip(
        PIPELINES, ("Build: aborted, or timed out", "Aborted by alice"), strict=True
    ):
        job_id = _waiting(aws, "exit 143")

        jenkins.build(pipeline, NO_MESSAGE="1")

        assert failure(aws, job_id)["message"] == f"{message}, see {URL}"


@needs_groovy
@pytest.mark.parametrize("pipeline", PIPELINES)
def test_codepipeline_is_told_what_has_failed(
    aws: LocalAWS, jenkins: Jenkins, pipeline: str
) -> None:
    output = 'echo x > "$CPSTAGE_OUT_BUILT/f"'
    hostile: dict[str, Any] = {"inputs": [Input("AppSource", zip_of({"../up": "x"}))]}
    for job, script, failure_type, code in [
        (hostile, "", "JobFailed", "fetch ended with exit code 65"),
        ({}, ":", "ConfigurationError", "push ended with exit code 66"),
        ({"session_actions": READING}, output, "PermissionError", "push ended with exit code 77"),
    ]:
        job_id = _waiting(aws, script, **{"outputs": ["Built"], **job})

        done = jenkins.build(pipeline)

        assert done.returncode == 1
        told = failure(aws, job_id)
        message = told["message"].removeprefix("Fetch: ").removeprefix("Push: ")
        assert (told["type"], message) == (failure_type, f"cpstage {code}, see {URL}")


@needs_groovy
@pytest.mark.parametrize("pipeline", PIPELINES)
def test_an_unstable_build_delivers_nothing(aws: LocalAWS, jenkins: Jenkins, pipeline: str) -> None:
    job_id = _waiting(aws)
    script = (EXAMPLES / pipeline).read_text()
    build = re.search(r"sh in/AppSource/build.sh\n *'''\n", script)
    assert build

    done = jenkins.build(script.replace(build[0], f"{build[0]}unstable 'tests failed'\n"))

    assert done.returncode == 1
    assert puts(aws, job_id) == []
    assert failure(aws, job_id)["message"] in (
        f"the build is not stable, see {URL}",
        f"the build is UNSTABLE, see {URL}",
    )


def _take_keys_from_the_agent(jenkins: Jenkins) -> Jenkins:
    """Keep the caller's access key as the credential `codepipeline` of Jenkins."""
    environment = dict(jenkins.user.environment)
    credential = jenkins.scripts / "codepipeline"
    credential.mkdir()
    (credential / "username").write_text(environment.pop("AWS_ACCESS_KEY_ID"))
    (credential / "password").write_text(environment.pop("AWS_SECRET_ACCESS_KEY"))
    return replace(jenkins, user=replace(jenkins.user, environment=environment))


def _snippet(start: str) -> str:
    """A block of the page on Jenkins that begins like this."""
    blocks = re.findall(r"```groovy\n(.*?)```", (ROOT / "docs/jenkins.md").read_text(), re.DOTALL)
    (found,) = [block for block in blocks if block.startswith(start)]
    return str(found)


_SEES = 'test -z "$AWS_ACCESS_KEY_ID$AWS_SECRET_ACCESS_KEY"; cp in/AppSource/f out/Built/f'


@needs_groovy
def test_in_the_scripted_pipeline_of_the_page_the_block_sees_no_credentials(
    aws: LocalAWS, jenkins: Jenkins
) -> None:
    job_id = _waiting(aws, _SEES, outputs=["Built"])

    done = _take_keys_from_the_agent(jenkins).build(_snippet("@Library"))

    assert aws.job(job_id).status == "Succeeded", done.stdout + done.stderr


@needs_groovy
def test_with_the_functions_of_the_page_the_build_stage_sees_no_credentials(
    aws: LocalAWS, jenkins: Jenkins
) -> None:
    job_id = _waiting(aws, _SEES, outputs=["Built"])
    script = (EXAMPLES / "Jenkinsfile").read_text()
    function = re.search(r"void cpstage\(.*?\n}\n", script, re.DOTALL)
    assert function
    script = script.replace(function[0], _snippet("Object withAws"))
    for call in (
        r"sh\(returnStdout: true, script: '''.*?'''\)",
        r"sh 'cpstage report success .*?'(?=\n)",
        r"sh '''\s+cpstage report failure .*?'''",
    ):
        script, wrapped = re.subn(
            call, lambda found: f"withAws {{ {found[0]} }}", script, flags=re.DOTALL
        )
        assert wrapped == 1

    done = _take_keys_from_the_agent(jenkins).build(script)

    assert aws.job(job_id).status == "Succeeded", done.stdout + done.stderr


@needs_groovy
def test_no_argument_is_taken_for_a_script(user: Cli, jenkins: Jenkins) -> None:
    done = jenkins.build("withCodePipelineJob(jobId: '\\'; touch taken; \\'$(touch taken)') { }")

    assert done.returncode == 1
    assert list(user.directory.rglob("taken")) == []


@needs_groovy
def test_the_library_says_on_windows_what_it_needs(jenkins: Jenkins) -> None:
    done = jenkins.build("with-library/Jenkinsfile", AGENT="windows")

    assert done.returncode == 1
    assert "ERROR: cpstage stages jobs on Unix agents alone" in done.stdout


@pytest.mark.skipif(
    LINT is None or shutil.which("java") is None,
    reason="npm-groovy-lint is missing (npm install -g)",
)
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
