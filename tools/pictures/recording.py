"""Record the README's session: ``python tools/pictures/recording.py`` writes docs/session.svg.

The sample job of the local AWS is worked on for real, each command on a new terminal. What
is random, or of this machine, is shown by a stand-in (:class:`StandIns`), so that two recordings
differ in timing and little else.
"""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import sys
import tempfile
import termios
import time
from dataclasses import dataclass
from pathlib import Path

if __name__ == "__main__":
    sys.path.extend(str(Path(__file__).parents[2] / one) for one in ("tools", "tests/support"))

from typing import TYPE_CHECKING

from command_line import plain_environment
from cpstage.local import Input, LocalAWS, Output
from cpstage.local.sample import CONFIGURATION, config_archive, source_archive
from pictures import player, screen

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

PICTURE = Path(__file__).resolve().parents[2] / "docs/session.svg"
JOB_ID = "5af48dbb-522e-493f-b3c0-cb2c6efd32f8"
COMMANDS = (
    f"cpstage show {JOB_ID}",
    f"cpstage fetch {JOB_ID}",
    "sh in/AppSource/build.sh",
    f"cpstage push {JOB_ID}",
    f"cpstage report success {JOB_ID}",
)
_ROWS = 23
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_TIME = re.compile(r"20[0-9]{2}-[0-9]{2}-[0-9]{2}T[0-9:]{8}Z")
_STORED = "2026-11-02T03:12:45Z"
_UUIDS = (JOB_ID, "6e0d4b7a-1f2d-4a6b-9c3e-7d5a2b8e4f10", "c93a51f8-5e7c-4d19-8a2f-3c6b9d0e7f24")


class StandIns:
    """What is shown in place of what is random, or tells of the machine.

    Identifiers become those of a list in the order in which they appear, the job's the first; the
    workspace is shown as ``/srv/job``, and every time is the same one.
    """

    def __init__(self, job_id: str, workspace: Path) -> None:
        self._workspace = str(workspace)
        self._shown = {job_id: JOB_ID}

    def shown(self, text: str) -> str:
        """Return the shown form of a text."""
        text = _TIME.sub(_STORED, text.replace(self._workspace, "/srv/job"))
        return _UUID.sub(self._identifier, text)

    def _identifier(self, found: re.Match[str]) -> str:
        return self._shown.setdefault(found[0], _UUIDS[len(self._shown) % len(_UUIDS)])


@dataclass(frozen=True)
class Piece:
    """Some output, and when it came: seconds after the command began."""

    seconds: float
    text: str


@dataclass(frozen=True)
class Ran:
    """A command line, and all that it showed."""

    line: str
    pieces: tuple[Piece, ...]


def record(aws: LocalAWS, directory: Path) -> list[Ran]:
    """Run the commands on a new job, and return what a terminal was sent.

    Args:
        aws: Where the job is.
        directory: An empty one, for the workspace and what else the commands need.

    Raises:
        RuntimeError: A command failed.
    """
    workspace = directory / "job"
    workspace.mkdir()
    job_id = _add_job(aws)
    stand_ins = StandIns(job_id, workspace)
    environment = {**_environment(directory), **aws.environment}
    return [
        Ran(line, tuple(_run(line.replace(JOB_ID, job_id), workspace, environment, stand_ins)))
        for line in COMMANDS
    ]


def _add_job(aws: LocalAWS) -> str:
    """Add the sample job, with keys that are always the same."""
    return aws.add_job(
        inputs=[
            Input("AppSource", source_archive(), key=_key("AppSource/UUWPDJm.zip")),
            Input("AppConfig", config_archive(), key=_key("AppConfig/k3QzB0a.tar.gz")),
        ],
        outputs=[
            Output("AppBuild", key=_key("AppBuild/JG0Py6O")),
            Output("AppReport", key=_key("AppReport/x81LmNc")),
        ],
        configuration=CONFIGURATION,
    )


def _key(name: str) -> str:
    return f"sample-pipeline/{name}"


def _environment(directory: Path) -> dict[str, str]:
    """Return the environment of a user who has ``cpstage`` on the path."""
    command = directory / "bin/cpstage"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m cpstage "$@"\n', encoding="utf-8")
    command.chmod(0o755)
    plain = plain_environment(directory)
    path = f"{command.parent}:{plain['PATH']}"
    named = {"PATH": path, "PYTHON": sys.executable, "TERM": "xterm", "LANG": "C.UTF-8"}
    return {**plain, **named}


def _run(
    line: str, workspace: Path, environment: Mapping[str, str], stand_ins: StandIns
) -> Iterator[Piece]:
    began = time.monotonic()
    pid, terminal = pty.fork()
    if pid == 0:
        try:
            os.chdir(workspace)
            fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", _ROWS, screen.COLUMNS, 0, 0))
            os.execve("/bin/sh", ["sh", "-c", line], dict(environment))
        finally:
            os._exit(99)
    for data in _whole_lines(terminal):
        yield Piece(time.monotonic() - began, stand_ins.shown(data.decode()))
    os.close(terminal)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code:
        raise RuntimeError(f"exit code {code}: {line}")


def _whole_lines(terminal: int) -> Iterator[bytes]:
    """Yield what comes, never cut inside of a line, since what a stand-in is for may be there."""
    rest = b""
    try:
        while data := os.read(terminal, 1 << 16):
            rest += data
            whole = max(rest.rfind(b"\n"), rest.rfind(b"\r")) + 1
            if whole:
                yield rest[:whole]
            rest = rest[whole:]
    except OSError:  # what Linux says when the last process has closed the terminal
        pass
    if rest:
        yield rest


def rows(session: list[Ran]) -> list[screen.Row]:
    """Return what the rows of a long terminal show during a session, and when."""
    shown = screen.Screen()
    for ran in session:
        shown.type(ran.line)
        for piece in ran.pieces:
            shown.show(piece.text, after=piece.seconds)
        shown.read()
    shown.prompt()
    return shown.rows()


def main() -> None:
    """Record, and write the picture."""
    with LocalAWS() as aws, tempfile.TemporaryDirectory() as directory:
        session = record(aws, Path(directory).resolve())
    PICTURE.write_text(player.svg(rows(session), height=_ROWS), encoding="utf-8")


if __name__ == "__main__":
    main()
