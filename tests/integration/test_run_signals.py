"""Signals to ``cpstage run`` at every stage: the command gets them, and the result is put."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fault_plans import Rule
from fault_proxy import FaultProxy
from faults import Stall
from run_jobs import BUILD, add_job, failure, puts, reports, shell
from stop_at_step import stopping

if TYPE_CHECKING:
    from collections.abc import Iterator

    from command_line import Cli
    from cpstage.local import LocalAWS

pytestmark = pytest.mark.e2e

_SECONDS = 60
STOPPING = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT]
_REPORT = ("--report", "--progress", "none")


@contextmanager
def _started(
    cli: Cli, job_id: str, *options: str, command: tuple[str, ...] = BUILD, **variables: str
) -> Iterator[subprocess.Popen[str]]:
    arguments = ["run", job_id, *_REPORT, *options, "--", *command]
    with subprocess.Popen(
        [sys.executable, "-m", "cpstage", *arguments],
        cwd=cli.directory,
        env={**cli.environment, **variables},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as running:
        try:
            yield running
        finally:
            running.kill()


def _wait_for(running: subprocess.Popen[str], line: str) -> None:
    assert running.stdout is not None
    assert running.stdout.readline() == f"{line}\n"


def _end(running: subprocess.Popen[str]) -> tuple[int, str, str]:
    said, errors = running.communicate(timeout=_SECONDS)
    return running.returncode, said, errors


@pytest.mark.parametrize("number", STOPPING)
def test_a_signal_is_the_commands_and_ends_the_run(
    aws: LocalAWS, cli: Cli, number: signal.Signals
) -> None:
    job_id = add_job(aws)
    name = number.name.removeprefix("SIG")
    # A command that ends well all the same has been stopped nevertheless.
    command = shell(f"trap 'echo caught; exit 0' {name}; echo ready; while :; do sleep 0.05; done")

    with _started(cli, job_id, command=command) as running:
        _wait_for(running, "ready")
        running.send_signal(number)
        code, said, errors = _end(running)

    assert (code, said) == (128 + number, "caught\n")
    assert errors.splitlines()[-1] == f"cpstage: error: stopped by {number.name}"
    assert failure(aws, job_id) == {"type": "JobFailed", "message": f"stopped by {number.name}"}
    assert puts(aws, job_id) == []


def test_a_second_signal_kills_the_command_and_all_its_children(aws: LocalAWS, cli: Cli) -> None:
    job_id = add_job(aws)
    ignoring = "trap '' TERM; trap 'echo first' INT; sleep 600 & echo $!; wait; wait; wait"

    with _started(cli, job_id, command=shell(ignoring)) as running:
        assert running.stdout is not None
        child = Path("/proc", running.stdout.readline().strip())
        running.send_signal(signal.SIGINT)
        _wait_for(running, "first")
        running.send_signal(signal.SIGTERM)
        code, _, _ = _end(running)

    assert code == 128 + signal.SIGINT
    assert failure(aws, job_id)["message"] == "stopped by SIGINT"
    # It is nobody's to wait for, so init may not have done so yet.
    assert not child.exists() or "(zombie)" in (child / "status").read_text()


def test_a_command_that_goes_on_after_a_signal_is_killed_when_that_is_wanted(
    aws: LocalAWS, cli: Cli
) -> None:
    job_id = add_job(aws)
    ignoring = shell("trap '' TERM; echo ready; while :; do sleep 0.05; done")

    with _started(cli, job_id, "--kill-after", "0.2", command=ignoring) as running:
        _wait_for(running, "ready")
        running.send_signal(signal.SIGTERM)
        code, _, _ = _end(running)

    assert code == 128 + signal.SIGTERM
    assert failure(aws, job_id)["message"] == "stopped by SIGTERM"


@pytest.mark.parametrize("number", STOPPING)
@pytest.mark.parametrize("module", ["click", "cpstage.runner.signals", "cpstage.transfer.fetch"])
def test_a_signal_before_the_command_is_loaded_is_reported(
    aws: LocalAWS, cli: Cli, number: signal.Signals, module: str
) -> None:
    job_id = add_job(aws)
    arguments = ["run", job_id, *_REPORT, "--", *BUILD]

    done = subprocess.run(
        stopping(number, f"importing {module}", 1, *arguments),
        cwd=cli.directory,
        env=dict(cli.environment),
        capture_output=True,
        text=True,
    )

    assert done.returncode == 128 + number, done.stderr
    assert failure(aws, job_id) == {"type": "JobFailed", "message": f"stopped by {number.name}"}
    assert puts(aws, job_id) == []


def test_no_signal_is_held_back_from_the_command(aws: LocalAWS, cli: Cli) -> None:
    job_id = add_job(aws, outputs=[])
    script = "grep SigBlk /proc/self/status"
    ours = subprocess.run(["sh", "-c", script], capture_output=True, text=True)

    with _started(cli, job_id, command=shell(script)) as running:
        code, said, _ = _end(running)

    assert (code, said) == (0, ours.stdout)


def test_a_stopped_command_can_be_ended(aws: LocalAWS, cli: Cli) -> None:
    job_id = add_job(aws)

    with _started(cli, job_id, command=shell("echo $$; kill -STOP $$; echo never")) as running:
        assert running.stdout is not None
        running.stdout.readline()
        running.send_signal(signal.SIGTERM)
        code, said, _ = _end(running)

    assert (code, said) == (128 + signal.SIGTERM, "")


@pytest.mark.parametrize(
    ("operation", "number"),
    [
        ("GetJobDetails", signal.SIGINT),
        ("GetObject", signal.SIGTERM),
        ("PutObject", signal.SIGHUP),
    ],
)
def test_a_signal_while_aws_is_silent_is_reported(
    aws: LocalAWS, cli: Cli, number: signal.Signals, operation: str
) -> None:
    job_id = add_job(aws)
    with FaultProxy(aws.endpoint_url, [Rule(Stall(None), operation)]) as proxy:
        with _started(cli, job_id, AWS_ENDPOINT_URL=proxy.url) as running:
            assert proxy.stalled.wait(_SECONDS)
            running.send_signal(number)
            code, _, errors = _end(running)
        proxy.release()

    assert code == 128 + number, errors
    assert failure(aws, job_id) == {"type": "JobFailed", "message": f"stopped by {number.name}"}
    assert not (cli.directory / ".cpstage/run").exists()


def test_a_signal_while_the_result_is_put_waits_for_it(aws: LocalAWS, cli: Cli) -> None:
    job_id = add_job(aws)
    with (
        FaultProxy(aws.endpoint_url, [Rule(Stall(None), "PutJobSuccessResult")]) as proxy,
        _started(cli, job_id, AWS_ENDPOINT_URL=proxy.url) as running,
    ):
        assert proxy.stalled.wait(_SECONDS)
        running.send_signal(signal.SIGTERM)
        proxy.release()
        code, _, _ = _end(running)

    assert code == 0
    assert reports(aws, job_id) == ["PutJobSuccessResult"]
    assert aws.job(job_id).status == "Succeeded"


def test_a_second_signal_while_the_result_is_put_does_not(aws: LocalAWS, cli: Cli) -> None:
    job_id = add_job(aws)
    with FaultProxy(aws.endpoint_url, [Rule(Stall(None), "PutJobSuccessResult")]) as proxy:
        with _started(cli, job_id, AWS_ENDPOINT_URL=proxy.url) as running:
            assert proxy.stalled.wait(_SECONDS)
            for number in (signal.SIGTERM, signal.SIGINT):
                running.send_signal(number)
            code, _, errors = _end(running)
        proxy.release()

    # Signals that are there together are taken in no order.
    assert code in (128 + signal.SIGINT, 128 + signal.SIGTERM), errors
    assert errors.splitlines()[-1].startswith("cpstage: error: stopped by SIG")


def test_an_ignored_signal_stays_ignored(aws: LocalAWS, cli: Cli) -> None:
    job_id = add_job(aws, outputs=[])
    command = shell("echo ready; cat fifo; kill -HUP $$; echo alive")
    os.mkfifo(cli.directory / "fifo")
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with _started(cli, job_id, command=command) as running:
            _wait_for(running, "ready")
            running.send_signal(signal.SIGHUP)
            (cli.directory / "fifo").write_text("")
            code, said, _ = _end(running)
    finally:
        signal.signal(signal.SIGHUP, before)

    assert (code, said) == (0, "alive\n")


def test_sigkill_leaves_the_job_in_progress_and_the_workspace_to_the_next_run(
    aws: LocalAWS, cli: Cli
) -> None:
    job_id = add_job(aws, outputs=[])

    with _started(cli, job_id, command=shell("echo $$; exec sleep 600")) as running:
        assert running.stdout is not None
        command = int(running.stdout.readline())
        running.kill()
        running.wait(_SECONDS)
        os.kill(command, signal.SIGKILL)

    with _started(cli, job_id, command=("true",)) as again:
        assert _end(again)[0] == 0
    assert aws.job(job_id).status == "Succeeded"
