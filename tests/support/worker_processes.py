"""A worker as an operator has it: a process, whose log tells what it does."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from secret_markers import descendants

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from command_line import Cli
    from cpstage.local import LocalAWS

LONGEST = 60
"""Seconds that any worker of a test may take."""

Line = dict[str, Any]
ACTION = ("--category", "Build", "--provider", "CpstageLocal", "--version", "1")
QUICK = ("--poll-interval", "0.2", "--log-format", "json")


class Working:
    """A worker that runs, and the lines of its log so far."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.log: list[Line] = []
        self.said: list[str] = []
        self._reader: threading.Thread | None = None

    def until(self, event: str, **members: Any) -> Line:
        """Read the log up to a line, which may have been read before."""
        for line in self.log:
            if _is(line, event, members):
                return line
        for line in self._lines():
            if _is(line, event, members):
                return line
        raise AssertionError(f"the worker ended without {event} {members}: {self.said}")

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def follow(self, tell: Callable[[str], object], event: str) -> None:
        """Read the log to its end in a thread, and tell the job of each line with an event."""

        def read() -> None:
            for line in self._lines():
                if line["event"] == event:
                    tell(line["job_id"])

        self._reader = threading.Thread(target=read)
        self._reader.start()

    def end(self) -> int:
        """Read the log to its end, and return the exit code."""
        if self._reader:
            self._reader.join()
        for _ in self._lines():
            pass
        return self.process.wait(LONGEST)

    def events(self, job_id: str | None = None) -> list[str]:
        """The names of what has happened, to one job if that is given."""
        return [line["event"] for line in self.log if job_id in (None, line.get("job_id"))]

    def _lines(self) -> Iterator[Line]:
        assert self.process.stderr is not None
        for text in self.process.stderr:
            self.said.append(text)
            if text.startswith("{"):
                line = json.loads(text)
                self.log.append(line)
                yield line


@contextmanager
def worker(
    cli: Cli,
    *arguments: str,
    action: tuple[str, ...] = ACTION,
    prefix: tuple[str, ...] = (),
    **environment: str,
) -> Iterator[Working]:
    """Start a worker; workers that are left at the end are killed."""
    process = subprocess.Popen(
        [*prefix, sys.executable, "-m", "cpstage", "work", *action, *QUICK, *arguments],
        cwd=cli.directory,
        env={**cli.environment, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )

    def kill() -> None:
        """End it with its jobs, which would go on without it."""
        if process.poll() is None:
            for pid in descendants(process.pid):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    watchdog = threading.Timer(LONGEST, kill)
    watchdog.start()
    with process:
        try:
            yield Working(process)
        finally:
            watchdog.cancel()
            kill()


def work(cli: Cli, *arguments: str, **options: Any) -> Working:
    """Run a worker to its end."""
    with worker(cli, *arguments, **options) as running:
        running.end()
    return running


def calls(aws: LocalAWS, job_id: str, action: str) -> list[tuple[int, str | None]]:
    """The answers to the calls of an operation that name a job."""
    return [
        (call.status, call.error)
        for call in aws.calls()
        if call.job_id == job_id and call.action == action
    ]


def result(aws: LocalAWS, job_id: str) -> tuple[str, str]:
    """How a job has ended, and what was said of it."""
    job = aws.job(job_id)
    failure = (job.result or {}).get("failureDetails") or {}
    return (
        job.status,
        failure.get("type", ""),
    )


def message(aws: LocalAWS, job_id: str) -> str:
    return str((aws.job(job_id).result or {})["failureDetails"]["message"])


def kept(cli: Cli, job_id: str) -> Path:
    return cli.directory / job_id


def _is(line: Line, event: str, members: dict[str, Any]) -> bool:
    return line["event"] == event and members.items() <= line.items()
