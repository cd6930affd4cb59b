"""``cpstage run`` on a terminal: the command reads from it, and its keys are the command's."""

from __future__ import annotations

import os
import pty
import select
import shlex
import signal
import sys
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import pytest

from run_jobs import add_job, failure

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from command_line import Cli
    from cpstage.local import LocalAWS

pytestmark = pytest.mark.e2e

_SECONDS = 30
_READ = 'stty sane; echo read""y; until read line; do :; done; echo "got $line"'
"""Says ``ready``, which the echo of the command line does not, when the terminal is its own.

A signal may end a ``read``, or come before it."""


class Screen:
    """A terminal, and the process that it is the controlling one of."""

    def __init__(self, pid: int, descriptor: int) -> None:
        self._pid, self._descriptor = pid, descriptor
        self.shown = ""

    def type(self, text: str) -> None:
        os.write(self._descriptor, text.encode())

    def wait_for(self, text: str) -> None:
        """Return when something is shown, and forget what was up to it."""
        until = time.monotonic() + _SECONDS
        while text not in self.shown:
            ready, _, _ = select.select([self._descriptor], [], [], until - time.monotonic())
            assert ready, f"{text!r} is not shown, but {self.shown!r}"
            self.shown += os.read(self._descriptor, 1 << 16).decode()
        self.shown = self.shown.partition(text)[2]

    def end(self) -> int:
        """Return the exit code, when all is shown."""
        try:
            while data := os.read(self._descriptor, 1 << 16):
                self.shown += data.decode()
        except OSError:  # what Linux says when the last process has closed the terminal
            pass
        return os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])


@contextmanager
def _screen(
    argv: Sequence[str], environment: Mapping[str, str], directory: os.PathLike[str]
) -> Iterator[Screen]:
    pid, descriptor = pty.fork()
    if pid == 0:
        try:
            os.chdir(directory)
            os.execve(argv[0], list(argv), dict(environment))
        finally:
            os._exit(99)
    try:
        yield Screen(pid, descriptor)
    finally:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        with suppress(ChildProcessError):
            os.waitpid(pid, 0)
        os.close(descriptor)


@contextmanager
def _run_on_screen(cli: Cli, job_id: str, script: str, *options: str) -> Iterator[Screen]:
    """Run a command that says when it reads."""
    words = _words(job_id, script, *options)
    with _screen(words, cli.environment, cli.directory) as screen:
        screen.wait_for("ready")
        yield screen


def _words(job_id: str, script: str, *options: str) -> list[str]:
    words = [sys.executable, "-m", "cpstage", "run", job_id, "--report", "-q"]
    return [*words, *options, "--", "sh", "-c", script]


@pytest.mark.parametrize("tail", ["0", "5"])
def test_the_command_reads_from_the_terminal(aws: LocalAWS, cli: Cli, tail: str) -> None:
    job_id = add_job(aws, outputs=[])
    script = f"{_READ}; tty >/dev/null && echo mine"

    with _run_on_screen(cli, job_id, script, "--report-tail", tail) as screen:
        screen.type("typed\n")
        screen.wait_for("got typed")
        screen.wait_for("mine")
        assert screen.end() == 0

    assert aws.job(job_id).status == "Succeeded"


def test_control_c_ends_the_command_and_is_reported(aws: LocalAWS, cli: Cli) -> None:
    job_id = add_job(aws)

    with _run_on_screen(cli, job_id, _READ) as screen:
        screen.type("\x03")
        assert screen.end() == 130

    assert failure(aws, job_id) == {"type": "JobFailed", "message": "sh was ended by SIGINT"}


def test_control_c_is_the_commands_to_heed(aws: LocalAWS, cli: Cli) -> None:
    job_id = add_job(aws, outputs=[])

    with _run_on_screen(cli, job_id, f"trap 'echo not now' INT; {_READ}") as screen:
        screen.type("\x03")
        screen.wait_for("not now")
        screen.type("typed\n")
        screen.wait_for("got typed")
        assert screen.end() == 0

    assert aws.job(job_id).status == "Succeeded"


@pytest.fixture
def shell(cli: Cli) -> Iterator[Screen]:
    """A shell for people, with job control."""
    variables = {**cli.environment, "PS1": "prompt> ", "TERM": "dumb"}
    with _screen(
        ["/bin/bash", "--norc", "--noprofile", "--noediting", "-i"], variables, cli.directory
    ) as screen:
        screen.wait_for("prompt> ")
        yield screen


def _goes_on_in_the_foreground(shell: Screen, shows: str) -> None:
    shell.type("fg\n")
    shell.wait_for(shows)
    shell.type("typed\n")
    shell.wait_for("got typed")
    shell.wait_for("prompt> ")
    shell.type("exit\n")
    assert shell.end() == 0


def test_control_z_stops_it_all_and_fg_goes_on(aws: LocalAWS, shell: Screen) -> None:
    job_id = add_job(aws, outputs=[])

    shell.type(shlex.join(_words(job_id, _READ)) + "\n")
    shell.wait_for("ready")
    shell.type("\x1a")
    shell.wait_for("Stopped")
    shell.wait_for("prompt> ")
    _goes_on_in_the_foreground(shell, "-m cpstage run")

    assert aws.job(job_id).status == "Succeeded"


def test_in_the_background_it_waits_for_the_terminal(aws: LocalAWS, shell: Screen) -> None:
    job_id = add_job(aws, outputs=[])

    shell.type("set -b\n" + shlex.join(_words(job_id, _READ)) + " &\n")
    shell.wait_for("Stopped")
    _goes_on_in_the_foreground(shell, "ready")

    assert aws.job(job_id).status == "Succeeded"
