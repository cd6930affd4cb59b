"""A worker whose machine or whose builds misbehave: it claims what it can work on."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest

from cpstage.local import Input
from mounts import mounted
from samples import zip_of
from stalled_server import stalling_server
from worker_processes import kept, result, work, worker

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from command_line import Cli
    from cpstage.local import LocalAWS
    from worker_processes import Working

pytestmark = pytest.mark.e2e

BUILD = 'cp "$CPSTAGE_IN_SOURCE/a" "$CPSTAGE_OUT_BUILT/b"'


@pytest.fixture(autouse=True)
def empty_queue(aws: LocalAWS) -> Iterator[None]:
    """No test leaves a job for the next."""
    yield
    while _QUEUED:
        aws.set_status(_QUEUED.pop(), "TimedOut")


_QUEUED: list[str] = []


def queued(aws: LocalAWS) -> str:
    job_id = aws.add_job([Input("Source", zip_of({"a": "source"}))], ["Built"], status="Queued")
    _QUEUED.append(job_id)
    return job_id


def until_it_ends(aws: LocalAWS, job_id: str) -> None:
    """Wait a minute at most for the result of a job whose worker is gone."""
    until = time.monotonic() + 60
    while aws.job(job_id).status == "InProgress":
        assert time.monotonic() < until
        time.sleep(0.02)  # for the threads of the local AWS


def build(script: str) -> tuple[str, ...]:
    return ("--", "sh", "-c", script)


def health(address: str) -> tuple[int, dict[str, Any]]:
    try:
        with urllib.request.urlopen(address) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def test_a_worker_whose_disk_is_full_claims_nothing_and_says_why(
    aws: LocalAWS, cli: Cli, tmp_path: Path
) -> None:
    with mounted(tmp_path / "full", "size=4m") as full:
        fill = f"head -c 4194304 /dev/zero > {full.place}/filler; true"
        subprocess.run([*full.prefix, "sh", "-c", fill], check=True, stderr=subprocess.DEVNULL)
        job_id = queued(aws)
        root = ("--workspace-root", str(full.place))
        arguments = ("--health-port", "0", "--max-jobs", "1", *root, *build(BUILD))
        with worker(cli, *arguments, prefix=full.prefix) as running:
            address = running.until("health")["message"]
            why = running.until("unwell")["message"]
            status, document = health(address)
            assert (status, document["healthy"]) == (503, False)
            assert "No space left on device" in document["problem"] == why
            assert aws.job(job_id).status == "Queued"
            (full.view / "filler").unlink()
            running.until("well")
            running.until("succeeded")
            assert running.end() == 0
    assert result(aws, job_id) == ("Succeeded", "")


def test_a_worker_whose_root_disappears_stops_claiming(aws: LocalAWS, cli: Cli) -> None:
    root = cli.directory / "jobs"
    with worker(cli, "--workspace-root", "jobs", *build(BUILD)) as running:
        running.until("polling")
        first = queued(aws)
        running.until("succeeded", job_id=first)
        shutil.rmtree(root)
        running.until("unwell")
        second = queued(aws)
        root.mkdir()
        running.until("succeeded", job_id=second)
        running.send(signal.SIGTERM)
        assert running.end() == 0
    assert running.events().count("failed") == 0


def test_a_poll_that_never_ends_is_given_up(aws: LocalAWS, cli: Cli) -> None:
    with (
        stalling_server() as server,
        worker(
            cli,
            *("--health-port", "0", "--read-timeout", "1"),
            *build(BUILD),
            AWS_ENDPOINT_URL_CODEPIPELINE=server.url,
        ) as running,
    ):
        address = running.until("health")["message"]
        running.until("poll-failed")
        document = health(address)[1]
        running.send(signal.SIGTERM)
        running.end()

    assert document["failing_seconds"] >= 1
    assert document["problem"]


# It is stopped while it waits

LONG = ("--poll-interval", "3600", "--health-port", "0")
AT_ONCE = 10
"""Seconds: more than a busy machine takes, and far less than any wait of these workers."""


def stopped_at_once(running: Working) -> bool:
    began = time.monotonic()
    running.send(signal.SIGTERM)
    return running.end() == 0 and time.monotonic() - began < AT_ONCE


def test_it_stops_at_once_after_a_poll_without_jobs(aws: LocalAWS, cli: Cli) -> None:
    with worker(cli, *LONG, *build(BUILD)) as running:
        address = running.until("health")["message"]
        while not health(address)[1]["last_poll"]:
            pass
        assert stopped_at_once(running)


def test_it_stops_at_once_after_a_failed_poll(cli: Cli) -> None:
    nowhere = "http://127.0.0.1:1"
    quick = ("--retry-timeout", "0.1")
    with worker(cli, *LONG, *quick, *build(BUILD), AWS_ENDPOINT_URL=nowhere) as running:
        running.until("poll-failed")
        assert stopped_at_once(running)


def test_it_stops_at_once_where_no_job_can_run(aws: LocalAWS, cli: Cli, tmp_path: Path) -> None:
    with mounted(tmp_path / "small", "size=16k") as small:
        root = ("--workspace-root", str(small.place))
        with worker(cli, *LONG, *root, *build(BUILD), prefix=small.prefix) as running:
            running.until("unwell")
            assert stopped_at_once(running)


def test_it_stops_at_once_during_a_poll_that_is_not_answered(cli: Cli) -> None:
    endless = ("--read-timeout", "0")
    with (
        stalling_server() as server,
        worker(cli, *LONG, *endless, *build(BUILD), AWS_ENDPOINT_URL=server.url) as running,
    ):
        assert server.stalled.wait(AT_ONCE)
        assert stopped_at_once(running)


def test_a_drain_has_a_limit(aws: LocalAWS, cli: Cli) -> None:
    job_id = queued(aws)
    with worker(cli, "--drain-timeout", "0.5", *build("sleep 60")) as running:
        running.until("started")
        running.send(signal.SIGTERM)
        running.until("failed", job_id=job_id)
        assert running.end() == 128 + signal.SIGTERM

    assert result(aws, job_id) == ("Failed", "JobFailed")


def test_a_build_that_stops_the_process_of_its_job_does_not_hold_it(
    aws: LocalAWS, cli: Cli
) -> None:
    job_id = queued(aws)

    done = work(cli, "--once", *build(f"kill -STOP $PPID; {BUILD}"))

    assert done.process.returncode == 0
    assert result(aws, job_id) == ("Succeeded", "")


def test_what_a_job_leaves_read_only_is_removed(aws: LocalAWS, cli: Cli) -> None:
    job_id = queued(aws)

    work(cli, "--once", *build(f"{BUILD}; chmod -R a-w ."))

    assert result(aws, job_id) == ("Succeeded", "")
    assert not kept(cli, job_id).exists()


def test_processes_that_a_job_leaves_are_killed(aws: LocalAWS, cli: Cli) -> None:
    job_id = queued(aws)
    pids = cli.directory / "pids"
    script = (
        f"exec >/dev/null 2>&1; setsid sleep 60 & echo $! > {pids}; sleep 60 & echo $! >> {pids}"
    )

    done = work(cli, "--once", *build(f"{script}; {BUILD}"))

    assert result(aws, job_id) == ("Succeeded", "")
    assert "were killed" in done.until("warning")["message"]
    for pid in pids.read_text().split():
        with pytest.raises(ProcessLookupError):
            os.kill(int(pid), 0)


def test_workspaces_that_a_killed_worker_left_are_named_once(aws: LocalAWS, cli: Cli) -> None:
    job_id = queued(aws)
    with worker(cli, *build("echo $$ > ../pid; exec sleep 60")) as running:
        running.until("started", job_id=job_id)
        while not (cli.directory / "pid").exists() or not (cli.directory / "pid").read_text():
            pass
        running.process.kill()
        running.process.wait()
        with worker(cli, "--max-jobs", "1", "--health-port", "0", *build(BUILD)) as second:
            second.until("health")
            queued(aws)
            second.until("succeeded")
            assert "left" not in second.events()  # the process of the job still lives
        os.kill(int((cli.directory / "pid").read_text()), signal.SIGKILL)
        until_it_ends(aws, job_id)

    (kept(cli, job_id) / ".cpstage/ended.json").unlink(missing_ok=True)
    with worker(cli, "--health-port", "0", *build(BUILD)) as third:
        address = third.until("health")["message"]
        assert third.until("left")["workspace"] == str(kept(cli, job_id))
        queued(aws)
        third.until("succeeded")
        assert health(address)[1]["left"] == 1
        third.send(signal.SIGTERM)
        third.end()
    assert "left" not in work(cli, "--once", *build(BUILD)).events()


def test_a_job_that_survives_its_worker_is_reported(aws: LocalAWS, cli: Cli) -> None:
    job_id = queued(aws)
    for name in ("begun", "end"):
        os.mkfifo(cli.directory / name)
    with worker(cli, *build(f"echo > ../begun; read x < ../end; {BUILD}")) as running:
        running.until("started", job_id=job_id)
        (cli.directory / "begun").read_text()
        running.process.kill()
        running.process.wait()
        (cli.directory / "end").write_text("now\n")
        until_it_ends(aws, job_id)

    assert result(aws, job_id) == ("Succeeded", "")


def test_a_workspace_of_a_job_that_ended_well_is_swept(aws: LocalAWS, cli: Cli) -> None:
    place = cli.directory / "5af48dbb-522e-493f-b3c0-cb2c6efd32f8"
    (place / ".cpstage").mkdir(parents=True)
    (place / ".cpstage/ended.json").write_text('{"succeeded": true}')

    done = work(cli, "--once", *build(BUILD))

    assert "left" not in done.events()
    assert not place.exists()
