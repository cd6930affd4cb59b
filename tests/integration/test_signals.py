"""Signals while AWS does not answer: the command ends at once, and cleans up."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from aws_clients import s3
from cpstage.local import Input, LocalAWS
from stalled_server import stalling_server
from trees import names

if TYPE_CHECKING:
    from pathlib import Path

    from command_line import Cli

pytestmark = pytest.mark.e2e

PROMPT_SECONDS = 25
"""Less than any time-out of botocore: who has to wait for one has not been heeded."""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    ("variable", "command"),
    [
        ("AWS_ENDPOINT_URL_CODEPIPELINE", "fetch"),
        ("AWS_ENDPOINT_URL_CODEPIPELINE", "show"),
        ("AWS_ENDPOINT_URL_S3", "fetch"),
        ("AWS_ENDPOINT_URL_S3", "show"),
        ("AWS_ENDPOINT_URL_S3", "push"),
    ],
)
def test_a_signal_is_heeded_while_aws_is_silent(
    aws: LocalAWS, cli: Cli, number: signal.Signals, variable: str, command: str
) -> None:
    job_id = aws.add_job([Input("App", b"x")], outputs=["Built"])
    (cli.directory / "out/Built").mkdir(parents=True)
    (cli.directory / "out/Built/result").write_text("x" * 1000)
    with (
        stalling_server() as server,
        subprocess.Popen(
            [sys.executable, "-m", "cpstage", command, job_id],
            cwd=cli.directory,
            env={**cli.environment, variable: server.url},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as running,
    ):
        assert server.stalled.wait(60)
        running.send_signal(number)
        _, said = running.communicate(timeout=PROMPT_SECONDS)

    assert running.returncode == 128 + number
    assert said.splitlines()[-1] == f"cpstage: error: stopped by {number.name}"
    assert names(cli.directory) == ["out", "out/Built", "out/Built/result"]
    staging = cli.directory / ".cpstage/staging"
    assert not staging.exists() or list(staging.iterdir()) == []


@pytest.mark.parametrize("command", [("fetch",), ("run", "--", "true")])
def test_a_first_fetch_that_is_stopped_leaves_no_new_workspace(
    aws: LocalAWS, cli: Cli, command: tuple[str, ...]
) -> None:
    job_id = aws.add_job([Input("App", b"x")], outputs=["Built"])
    with (
        stalling_server() as server,
        subprocess.Popen(
            [sys.executable, "-m", "cpstage", command[0], job_id, "-w", "new/deeper", *command[1:]],
            cwd=cli.directory,
            env={**cli.environment, "AWS_ENDPOINT_URL_S3": server.url},
            stderr=subprocess.DEVNULL,
        ) as running,
    ):
        assert server.stalled.wait(60)
        running.send_signal(signal.SIGINT)

    assert running.returncode == 128 + signal.SIGINT
    assert list(cli.directory.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("kind", ["zip", "tar.gz", "raw"])
def test_a_signal_in_a_multipart_upload_leaves_no_parts(
    aws: LocalAWS, cli: Cli, number: signal.Signals, kind: str
) -> None:
    job_id = aws.add_job(outputs=["Built"])
    source = cli.directory / "out/Built/noise"
    source.parent.mkdir(parents=True)
    source.write_bytes(os.urandom(1 << 20) * 300)
    with subprocess.Popen(
        [sys.executable, "-m", "cpstage", "push", job_id, "-v", "--format", kind],
        cwd=cli.directory,
        env=cli.environment,
        stderr=subprocess.PIPE,
        text=True,
    ) as running:
        assert running.stderr is not None
        while "s3.UploadPart" not in running.stderr.readline():
            assert running.poll() is None
        running.send_signal(number)
        said = running.communicate(timeout=60)[1]

    artifact = aws.job(job_id).outputs[0]
    store = s3(aws.admin_environment)
    uploads = store.list_multipart_uploads(Bucket=artifact.bucket).get("Uploads", [])
    assert running.returncode == 128 + number, said
    assert f"stopped by {number.name}" in said
    assert [upload for upload in uploads if upload["Key"] == artifact.key] == []


STOP_AT_EXIT = """
import atexit, os, signal
atexit.register(os.kill, os.getpid(), signal.SIGTERM)
"""


def test_a_signal_when_the_command_has_ended_shows_no_traceback(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(STOP_AT_EXIT)

    path = f"{tmp_path}{os.pathsep}{cli.environment['PYTHONPATH']}"
    done = cli("pack", "--help", PYTHONPATH=path)

    assert done.returncode == -signal.SIGTERM
    assert done.stdout.startswith("Usage: cpstage pack")
    assert done.stderr == ""


FAIL_ON_THE_WAY_OUT = """
import os, signal, sys
class Failing:
    def __del__(self):
        raise OSError("Signal 15 ignored due to race condition")
def stop(event, arguments):
    if event == "open" and str(arguments[0]).endswith("app.zip"):
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        finally:
            Failing()
sys.addaudithook(stop)
"""


def test_what_fails_after_a_signal_is_not_shown(cli: Cli, tmp_path: Path) -> None:
    """As what Python says of two signals at once: it cannot be made to say so in a test."""
    (tmp_path / "sitecustomize.py").write_text(FAIL_ON_THE_WAY_OUT)
    (cli.directory / "app.zip").touch()

    path = f"{tmp_path}{os.pathsep}{cli.environment['PYTHONPATH']}"
    done = cli("unpack", "app.zip", "--into", "app", PYTHONPATH=path)

    assert done.returncode == 128 + signal.SIGTERM
    assert done.stderr == "cpstage: error: stopped by SIGTERM\n"


INTERRUPT_CHILDREN = """
import os, signal
def interrupt():
    os.kill(os.getpid(), signal.SIGINT)
os.register_at_fork(after_in_child=interrupt)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="processes pack archives on Linux alone")
def test_ctrl_c_that_reaches_a_child_just_forked_is_for_its_parent(
    cli: Cli, tmp_path: Path
) -> None:
    """It still has what its parent does about signals: to clean up, and to say that it stopped."""
    (tmp_path / "sitecustomize.py").write_text(INTERRUPT_CHILDREN)
    (cli.directory / "out").mkdir()
    for number in range(1200):
        (cli.directory / f"out/{number:04}").touch()

    path = f"{tmp_path}{os.pathsep}{cli.environment['PYTHONPATH']}"
    done = cli("pack", "out", "--output", "app.zip", "--progress", "none", PYTHONPATH=path)

    assert (done.returncode, done.stderr) == (0, "")
    assert "1,200 files" in done.stdout
