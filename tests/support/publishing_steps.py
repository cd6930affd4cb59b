"""Processes that publish in a workspace, and are killed before one of their steps.

A test has many of them, so they are forked by one that has loaded what they need::

    python publishing_steps.py
    publish /the/workspace 3 swapping
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cpstage import Workspace
from cpstage.workspace.publishing import Move
from denied_system_calls import deny
from stop_at_step import stop_before

if TYPE_CHECKING:
    from collections.abc import Iterator

NAMES = ("One", "Two", "Three")


class Steps:
    """Runs processes that are killed before a step."""

    def __init__(self, server: subprocess.Popen[str]) -> None:
        self._server = server

    def __call__(self, work: str, place: Path, step: int, how: str = "swapping") -> int:
        """Run one; 0 is returned where it has no such step."""
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        print(work, place, step, how, file=self._server.stdin, flush=True)
        return int(self._server.stdout.readline())


@contextmanager
def running_steps() -> Iterator[Steps]:
    with subprocess.Popen(
        [sys.executable, __file__],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as server:
        yield Steps(server)
        server.communicate()


def publish(root: Path, step: int) -> None:
    """Publish three artifacts and what is recorded of them."""
    stop_before(signal.SIGKILL, "publishing", step)
    place = Workspace(root)
    with place.locked(), place.staging() as staging:
        moves = []
        for name in NAMES:
            (staging / name).mkdir()
            (staging / name / "which").write_text("new")
            moves.append(Move(staging / name, place.input(name)))
        place.publish(moves + place.record_moves({"id": "new"}, {"One": {}}, staging))


def roll_back(root: Path, step: int) -> None:
    """Do what the next run does before anything else."""
    left = step

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal left
        if event in ("os.rename", "os.remove", "os.rmdir") or arguments[1:2] == ("renameat2",):
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)
    with Workspace(root).locked():
        pass


def _serve() -> None:
    for line in sys.stdin:
        work, place, step, how = line.split()
        pid = os.fork()
        if not pid:
            if how == "renaming":
                deny("renameat2", "ENOSYS")
            (publish if work == "publish" else roll_back)(Path(place), int(step))
            os._exit(0)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


if __name__ == "__main__":
    _serve()
