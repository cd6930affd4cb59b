"""A machine without what commands expect: a current directory, a umask, time to start."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from cpstage.local import Input, LocalAWS
from mounts import without_privileges
from samples import zip_of
from stop_at_step import stopping

if TYPE_CHECKING:
    from command_line import Cli

pytestmark = pytest.mark.slow

CPSTAGE = (sys.executable, "-m", "cpstage")


def _run(cli: Cli, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=cli.directory,
        env=dict(cli.environment),
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.parametrize("command", ["fetch JOB", "push JOB", "env", "pack . --output a.zip"])
def test_a_current_directory_that_was_removed_is_named(
    aws: LocalAWS, cli: Cli, command: str
) -> None:
    words = command.replace("JOB", aws.add_job([Input("App", zip_of({"f": "x"}))], ["Built"]))
    script = 'mkdir gone && cd gone && rmdir ../gone && exec "$@"'

    done = _run(cli, "sh", "-c", script, "sh", *CPSTAGE, *words.split())

    assert done.returncode == 74
    assert done.stderr == (
        "cpstage: error: the current directory was removed; change to a directory that exists\n"
    )


def test_doctor_goes_on_where_the_current_directory_was_removed(aws: LocalAWS, cli: Cli) -> None:
    script = 'mkdir gone && cd gone && rmdir ../gone && exec "$@"'
    job_id = aws.add_job([Input("App", zip_of({"f": "x"}))])

    done = _run(cli, "sh", "-c", script, "sh", *CPSTAGE, "doctor", job_id)

    assert done.returncode == 74
    assert "failed   workspace: the current directory was removed" in done.stdout
    assert done.stderr == ""


def test_staging_is_removed_whatever_the_umask(cli: Cli) -> None:
    (cli.directory / "a.zip").write_bytes(zip_of({"d/f": "x"}))
    script = 'umask 777; exec "$@"'

    _run(
        cli,
        *without_privileges(),
        "sh",
        "-c",
        script,
        "sh",
        *CPSTAGE,
        *["unpack", "a.zip", "--into", "d"],
    )

    assert [name for name in os.listdir(cli.directory) if name.startswith(".")] == []


@pytest.mark.parametrize("module", ["click", "cpstage.cli"])
def test_an_interrupt_during_the_start_shows_no_traceback(cli: Cli, module: str) -> None:
    done = _run(cli, *stopping(signal.SIGINT, f"importing {module}", 1, "--help"))

    assert done.returncode == -signal.SIGINT
    assert (done.stdout, done.stderr) == ("", "")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize(
    "command",
    [
        "get-job-details --job-id JOB --save file",
        "fetch JOB --env-file file",
        "work --category Build --provider Mine --version 1 --health-file file -- true",
    ],
)
def test_a_signal_leaves_nothing_of_a_file_that_is_written(
    aws: LocalAWS, cli: Cli, number: signal.Signals, command: str
) -> None:
    words = command.replace("JOB", aws.add_job()).split()

    done = _run(cli, *stopping(number, "making .cpstage-*", 1, *words))

    assert done.returncode == 128 + number
    assert {*os.listdir(cli.directory)} <= {".cpstage"}  # what a workspace has
