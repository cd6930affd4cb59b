"""A result that cannot be printed: stdout is closed, or the disk behind it is full."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from cpstage.local import Input, LocalAWS
from samples import zip_of

if TYPE_CHECKING:
    from command_line import Cli

pytestmark = pytest.mark.slow

COMMANDS = [
    "--version",
    "--help",
    "fetch --help",
    "fetch JOB",
    "show JOB --json",
    "get-job-details --job-id JOB",
    "ls JOB",
    "cat JOB App f",
    "doctor JOB",
    "env JOB",
    "credentials JOB",
    "push JOB Built=tree",
    "report success JOB",
    "pack tree --output tree.zip",
    "diff --local tree tree",
]


def _by_shell(cli: Cli, line: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", "-c", f"{sys.executable} -m cpstage {line}"],
        cwd=cli.directory,
        env=dict(cli.environment),
        capture_output=True,
        text=True,
        timeout=120,
    )


def _job(aws: LocalAWS, *outputs: str) -> str:
    return aws.add_job([Input("App", zip_of({"f": "x"}))], outputs)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_result_for_a_closed_stdout_is_an_error(aws: LocalAWS, cli: Cli, command: str) -> None:
    (cli.directory / "tree").mkdir()
    (cli.directory / "tree/f").write_text("x")

    done = _by_shell(cli, f"{command.replace('JOB', _job(aws, 'Built'))} >&-")

    assert done.returncode == 74
    assert done.stderr.splitlines()[-1] == (
        "cpstage: error: cannot write to stdout: it is closed; "
        "redirect it to a file or to /dev/null"
    )
    assert "Traceback" not in done.stderr


def test_without_a_result_a_closed_stdout_is_no_error(aws: LocalAWS, cli: Cli) -> None:
    done = _by_shell(cli, f"run {_job(aws)} -- true >&-")

    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("command", ["cat JOB App f", "get-job-details --job-id JOB"])
def test_a_full_disk_is_said_to_be_behind_stdout(aws: LocalAWS, cli: Cli, command: str) -> None:
    done = _by_shell(cli, f"{command.replace('JOB', _job(aws))} >/dev/full")

    assert done.returncode == 74
    assert done.stderr.splitlines()[-1] == (
        "cpstage: error: cannot write to stdout: No space left on device"
    )


@pytest.mark.parametrize("stdout", [">&-", ">/dev/full"])
def test_the_failure_of_a_run_counts_more_than_its_result(
    aws: LocalAWS, cli: Cli, stdout: str
) -> None:
    done = _by_shell(cli, f"run {_job(aws)} --json {stdout} -- sh -c 'exit 3'")

    assert done.returncode == 3
    assert "cannot write to stdout" in done.stderr
    assert "exit code 3" in done.stderr.splitlines()[-1]


def test_a_worker_runs_jobs_where_stdout_is_closed(aws: LocalAWS, cli: Cli) -> None:
    job_id = aws.add_job([Input("App", zip_of({"f": "x"}))], status="Queued")
    action = "--category Build --provider CpstageLocal --version 1"

    done = _by_shell(cli, f"work {action} --once --job-output stdout >&- -- echo built")

    assert done.returncode == 0
    assert aws.job(job_id).status == "Succeeded", done.stderr
