"""The examples, run as a user would run them."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from aws_clients import s3
from cpstage.local.sample import BUILD_COMMAND, add_sample_job
from job_outcomes import WORKER_ACTIONS

if TYPE_CHECKING:
    from command_line import Cli
    from cpstage.local import LocalAWS

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"


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


def _commands(page: Path) -> dict[str, str]:
    """The blocks of a page that are named by the comment above them."""
    named = r"<!-- command: (\w+) -->\n```sh\n(.*?)```"
    return dict(re.findall(named, page.read_text(), re.DOTALL))


def test_the_walk_through_of_the_worker_ends_well(user: Cli) -> None:
    commands = _commands(ROOT / "docs/worker.md")
    (user.directory / "examples").symlink_to(EXAMPLES)
    variables = {
        name: value for name, value in user.environment.items() if not name.startswith("AWS_")
    }

    done = subprocess.run(
        ["bash", "-e", "-c", "\n".join(commands.values())],
        cwd=user.directory,
        env=variables,
        capture_output=True,
        text=True,
        timeout=100,
    )

    assert list(commands) == ["serve", "job", "work", "record", "drain", "stop"]
    assert done.returncode == 0, done.stderr
    assert "built by BuildWithCpstage of sample-pipeline" in done.stdout
    assert "codepipeline:PutJobSuccessResult\t200" in done.stdout
    [log] = [line for line in done.stderr.splitlines() if " succeeded job_id=" in line]
    assert "draining" in done.stderr
    assert log.rpartition("workspace=")[2].startswith(str(user.directory / "jobs"))


def test_the_script_that_cpstage_replaces_makes_the_same_calls(aws: LocalAWS, user: Cli) -> None:
    missing = [one for one in ("jq", "file", "zip", "unzip") if shutil.which(one) is None]
    if missing:
        pytest.skip(f"missing: {', '.join(missing)}")
    script = _commands(ROOT / "docs/build-scripts.md")["by_hand"]
    path = f"{Path(sys.executable).parent}:{user.environment['PATH']}"

    def calls_of(job_id: str, *command: str) -> Counter[tuple[str, int, str | None, str | None]]:
        workspace = user.directory / job_id
        workspace.mkdir()
        environment = {**user.environment, "PATH": path, "PYTHON": sys.executable}
        done = subprocess.run(command, cwd=workspace, env=environment, capture_output=True)
        assert done.returncode == 0, done.stderr
        return Counter(
            (call.action, call.status // 100, call.server_side_encryption, call.kms_key_id)
            for call in aws.calls()
            if call.job_id == job_id
        )

    by_hand, ours = add_sample_job(aws), add_sample_job(aws)
    assert len(script.splitlines()) == 46
    expected = calls_of(ours, "cpstage", "run", ours, "--report", "--", *BUILD_COMMAND)
    assert calls_of(by_hand, "bash", "-c", script, "build", by_hand) == expected
    assert {key[0]: count for key, count in expected.items()} == {
        "GetJobDetails": 1,
        "HeadObject": 2,
        "GetObject": 2,
        "PutObject": 2,
        "PutJobSuccessResult": 1,
    }


def test_systemd_understands_the_unit(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is missing (Debian package systemd)")
    unit = (EXAMPLES / "worker/cpstage-worker.service").read_text()
    copy = tmp_path / "cpstage-worker.service"
    copy.write_text(unit.replace("/opt/cpstage/bin/cpstage", str(shutil.which("true"))))

    done = subprocess.run(
        ["systemd-analyze", "verify", str(copy)], capture_output=True, text=True, timeout=60
    )

    assert (done.returncode, done.stderr) == (0, "")


def test_others_can_read_what_the_builds_of_the_service_write(aws: LocalAWS, user: Cli) -> None:
    unit = (EXAMPLES / "worker/cpstage-worker.service").read_text()
    [umask] = re.findall(r"^UMask=(\d+)$", unit, re.MULTILINE)
    job_id = aws.add_job([], ["App"])
    build = ("sh", "-c", "mkdir out/App/site && echo x >out/App/site/page")

    subprocess.run(
        [sys.executable, "-m", "cpstage", "run", job_id, "--", *build],
        cwd=user.directory,
        env=dict(user.environment),
        check=True,
        umask=int(umask, 8),
    )

    [app] = aws.job(job_id).outputs
    stored = s3(aws.admin_environment).get_object(Bucket=app.bucket, Key=app.key)["Body"].read()
    (user.directory / "app.zip").write_bytes(stored)
    listed = user("ls", "--archive", "app.zip", "site/page").stdout.splitlines()
    assert listed[-1].startswith("-rw-r--r--")


def test_the_role_of_the_worker_allows_what_workers_do_and_no_more() -> None:
    template = (EXAMPLES / "worker/pipeline.yaml").read_text()

    assert {*re.findall(r"codepipeline:[A-Z]\w+", template)} == {*WORKER_ACTIONS}


def _options(text: str) -> set[str]:
    return set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", text))


@pytest.mark.parametrize("name", ["cpstage-worker.service", "kubernetes.yaml"])
def test_examples_give_the_worker_options_that_it_has(user: Cli, name: str) -> None:
    text = (EXAMPLES / "worker" / name).read_text()
    given = text[text.index("--category") : text.index("in/Source/build.sh")]

    assert _options(given) - _options(user("work", "--help").stdout) == set()
