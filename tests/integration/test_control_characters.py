"""Names and texts with control characters: none moves a cursor, and none forges a line."""

from __future__ import annotations

import io
import os
import re
from typing import TYPE_CHECKING

import pytest

from cpstage.local import ActionRun, Input, LocalAWS
from cpstage.progress import Bars, LogLines
from samples import zip_of
from terminals import on_terminal

if TYPE_CHECKING:
    import subprocess

    from command_line import Cli

HOSTILE = "a\x1b[2J\nforged\x7f\x9bb\u202ec"
"""An order to a terminal, a line's end, DEL, a control of Latin 1, a change of direction."""

ESCAPED = r"a\x1b[2J\nforged\x7f\x9bb\u202ec"

_RAW = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]|^forged", re.MULTILINE)


def _shown(done: subprocess.CompletedProcess[str], code: int = 0) -> str:
    """Return all that a command printed, which has no control character."""
    assert done.returncode == code, done.stderr
    assert not _RAW.search(done.stdout)
    assert not _RAW.search(done.stderr)
    return done.stdout + done.stderr


@pytest.mark.slow
def test_names_of_directories_and_files(aws: LocalAWS, cli: Cli) -> None:
    job_id = aws.add_job([Input("App", zip_of({"f": "x"}))], ["Built"])
    place = cli.directory / HOSTILE
    where = (job_id, "-w", HOSTILE)

    for command in ("fetch", "doctor", "diff"):
        assert ESCAPED in _shown(cli(command, *where))
    (place / "in/App/f").write_text("y")
    assert rf"{ESCAPED}/in/App was modified" in _shown(cli("fetch", *where))
    assert "differs from its object" in _shown(cli("fetch", *where, "--verify"))
    assert ESCAPED in _shown(cli("push", *where, "--if-empty", "warn"))
    os.mkfifo(place / "out/Built" / HOSTILE)
    (place / "out/Built/f").write_text("x")
    assert f"the FIFO '{ESCAPED}' was left out" in _shown(cli("push", *where))
    assert ESCAPED in _shown(cli("run", *where, "--replace", "--", "sh", "-c", "exit 3"), 3)
    assert ESCAPED in _shown(cli("env", aws.add_job(), "-w", HOSTILE, "--format", "json"))
    assert ESCAPED in _shown(cli("fetch", job_id, "-w", f"{HOSTILE}/in/App/f", "--debug"), 73)


@pytest.mark.slow
def test_names_of_local_archives_and_members(cli: Cli) -> None:
    tree = cli.directory / HOSTILE
    tree.mkdir()
    (tree / HOSTILE).write_text(HOSTILE)
    (tree / "link").symlink_to(HOSTILE)
    archive = f"{HOSTILE}.tar.gz"

    for name in (archive, f"{HOSTILE}.zip"):
        assert ESCAPED in _shown(cli("pack", HOSTILE, "--output", name))
        assert f" -> {ESCAPED}" in _shown(cli("ls", "--archive", name))
        assert ESCAPED in _shown(cli("unpack", name, "--into", f"{name}.d"))
    assert ESCAPED in _shown(cli("cat", "--archive", archive, "none"), 66)
    (tree / HOSTILE).write_text("other")
    assert ESCAPED in _shown(cli("diff", "--local", archive, HOSTILE, "-u"), 1)


@pytest.mark.slow
def test_texts_of_providers(aws: LocalAWS, cli: Cli) -> None:
    debug = cli.with_variables(aws.debugger_environment)
    failed = ActionRun(
        "Build",
        status="Failed",
        error=("JobFailed", HOSTILE),
        external_id=HOSTILE,
        external_url=HOSTILE,
    )
    execution = aws.history.add(
        "hostile", [failed], status="Failed", status_summary=HOSTILE, stop_reason=HOSTILE
    )

    for command in ("executions hostile", f"executions hostile {execution}"):
        assert ESCAPED in _shown(debug(*command.split()))
    shown = _shown(debug("show", "--pipeline", "hostile", "--action", "Build"))
    assert f"Error         JobFailed: {ESCAPED}" in shown


@pytest.mark.slow
def test_a_control_character_in_two_pieces_is_kept_off_a_terminal(cli: Cli) -> None:
    """U+009B is two bytes in UTF-8, and a member is read in pieces."""
    (cli.directory / "tree").mkdir()
    for size in (2**power - 1 for power in (16, 18, 20)):
        (cli.directory / f"tree/{size}").write_bytes(b"x" * size + b"\xc2\x9b31m")
    assert cli("pack", "tree", "--output", "a.zip", "--compression-level", "0").returncode == 0

    for name in os.listdir(cli.directory / "tree"):
        done = on_terminal(cli, "cat", "--archive", "a.zip", name)
        assert done.returncode == 2
        assert "is not plain text" in done.other


def test_labels_of_progress() -> None:
    now, lines, bars = 0.0, io.StringIO(), io.StringIO()
    with LogLines(lines, clock=lambda: now).phase(HOSTILE, 10):
        now += 10
    with Bars(bars).phase(HOSTILE, 10) as advance:
        advance(10)

    for stream in (lines, bars):
        assert ESCAPED in stream.getvalue()
        assert not _RAW.search(stream.getvalue().replace("\r", ""))
