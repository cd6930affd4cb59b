"""Commands one of whose outputs is a terminal."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
from contextlib import suppress
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    from command_line import Cli


class Shown(NamedTuple):
    """What a command did.

    Attributes:
        returncode: Its exit code.
        terminal: What the terminal showed.
        other: What it wrote to its other output.
    """

    returncode: int
    terminal: str
    other: str


def on_terminal(
    cli: Cli,
    *arguments: str,
    program: Sequence[str] = (sys.executable, "-m", "cpstage"),
    stream: Literal["stdout", "stderr"] = "stdout",
    columns: int = 80,
) -> Shown:
    """Run a command with a terminal for one of its outputs, and a file for the other."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    with (cli.directory.parent / "other-output").open("w+b") as other:
        with subprocess.Popen(
            [*program, *arguments],
            cwd=cli.directory,
            env=dict(cli.environment),
            stdout=theirs if stream == "stdout" else other,
            stderr=theirs if stream == "stderr" else other,
        ) as process:
            os.close(theirs)
            shown = b""
            with suppress(OSError):  # how Linux says that nobody holds the other end any more
                while piece := os.read(ours, 1 << 16):
                    shown += piece
        os.close(ours)
        other.seek(0)
        return Shown(process.returncode, shown.decode(errors="replace"), other.read().decode())
