"""Several workers on one queue: nonces divide the jobs, whatever befalls a worker."""

from __future__ import annotations

import os
import signal
from contextlib import ExitStack
from pathlib import Path
from queue import Queue
from typing import TYPE_CHECKING

import pytest

from aws_clients import codepipeline
from cpstage.local import Input, LocalAWS
from job_outcomes import WORKER_ACTIONS, fates
from samples import zip_of
from secret_markers import descendants
from worker_processes import LONGEST, Working, worker

if TYPE_CHECKING:
    from collections.abc import Iterator

    from command_line import Cli

pytestmark = pytest.mark.e2e

JOBS = 20
BUILD = ("sh", "-c", 'cp "$CPSTAGE_IN_SOURCE/a" "$CPSTAGE_OUT_BUILT/b"')


@pytest.fixture(scope="module")
def aws() -> Iterator[LocalAWS]:
    with LocalAWS(redeliver_seconds=1) as running:
        yield running


def kill_all(running: Working) -> None:
    """Take a worker's machine away: all its processes at once."""
    for pid in descendants(running.process.pid):
        os.kill(pid, signal.SIGKILL)


def start(stack: ExitStack, cli: Cli, aws: LocalAWS, name: str, *command: str) -> Working:
    there = cli.with_variables(aws.add_user(name, WORKER_ACTIONS))
    root = str(cli.directory / name)
    return stack.enter_context(worker(there, "--workspace-root", root, "--", *command))


def test_a_fleet_that_loses_a_worker_works_every_job_once(aws: LocalAWS, cli: Cli) -> None:
    fifo = cli.directory / "fifo"
    os.mkfifo(fifo)
    source = Input("Source", zip_of({"a": "source"}))

    with ExitStack() as stack:
        jobs = [aws.add_job([source], ["Built"], status="Queued")]
        lost = start(stack, cli, aws, "lost", "sh", "-c", 'read x <"$0"', str(fifo))
        lost.until("started", job_id=jobs[0])
        jobs += [aws.add_job([source], ["Built"], status="Queued") for _ in range(JOBS - 1)]
        others = [start(stack, cli, aws, name, *BUILD) for name in ("one", "two")]
        succeeded: Queue[str] = Queue()
        for other in others:
            other.follow(succeeded.put, "succeeded")
        succeeded.get(timeout=LONGEST)
        kill_all(lost)
        for _ in jobs[1:-1]:  # one has been read already
            succeeded.get(timeout=LONGEST)
        for other in others:
            other.send(signal.SIGTERM)
        codes = [other.end() for other in others]

    found = fates(aws, jobs)
    wrong = {job_id: fate for job_id, fate in found.items() if not fate.is_right(["lost"])}
    assert wrong == {}
    assert found[jobs[0]].status == "InProgress"
    assert codes == [0, 0]
    workers = {name for fate in found.values() for name in fate.reported_by}
    assert workers == {"one", "two"}


def test_a_job_that_nobody_acknowledged_goes_to_the_next_poll(aws: LocalAWS, cli: Cli) -> None:
    job_id = aws.add_job([], [], status="Queued")
    polled = codepipeline(aws.environment).poll_for_jobs(
        actionTypeId={
            "category": "Build",
            "owner": "Custom",
            "provider": "CpstageLocal",
            "version": "1",
        }
    )["jobs"]
    assert [job["id"] for job in polled] == [job_id]

    with worker(cli, "--max-jobs", "1", "--", "true") as running:
        running.until("succeeded", job_id=job_id)


def test_workers_on_one_machine_may_share_a_root(aws: LocalAWS, cli: Cli) -> None:
    jobs = [aws.add_job([], [], status="Queued") for _ in range(4)]

    with ExitStack() as stack:
        running = [
            stack.enter_context(worker(cli, "--keep", "always", "--max-jobs", "2", "--", "true"))
            for _ in range(2)
        ]
        codes = [one.end() for one in running]

    assert codes == [0, 0]
    assert [aws.job(job_id).status for job_id in jobs] == ["Succeeded"] * 4
    assert sorted(path.name for path in Path(cli.directory).iterdir()) == sorted(jobs)
