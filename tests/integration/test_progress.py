"""Progress: bars on a terminal, lines in a log, and silence; never on stdout."""

from __future__ import annotations

import io
import zipfile
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

import cpstage
from cpstage import progress_to
from cpstage.local import Input, LocalAWS
from cpstage.progress import LogLines
from samples import zip_of
from terminals import on_terminal

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from command_line import Cli
    from cpstage.progress import Advance, Unit


def _job(aws: LocalAWS) -> str:
    return aws.add_job([Input("App", zip_of({"f": "x" * 5000}))], outputs=["Built"])


def test_a_small_job_has_one_line_for_each_artifact_in_a_log(aws: LocalAWS, cli: Cli) -> None:
    job_id = _job(aws)

    fetched = cli("fetch", job_id)
    (cli.directory / "out/Built/result").write_text("y" * 3000)
    pushed = cli("push", job_id)

    assert fetched.stderr + pushed.stderr == ""
    assert [line.split("\t")[:2] for line in fetched.stdout.splitlines()] == [
        ["staged", "in/App"],
        ["output", "out/Built"],
    ]
    assert [line.split("\t")[:2] for line in pushed.stdout.splitlines()] == [
        ["pushed", "out/Built"]
    ]
    assert max(map(len, (fetched.stdout + pushed.stdout).splitlines())) <= 80


def test_a_dumb_terminal_gets_no_bars(aws: LocalAWS, cli: Cli) -> None:
    done = on_terminal(cli.with_variables({"TERM": "dumb"}), "fetch", _job(aws), stream="stderr")

    assert done.returncode == 0
    assert "100%" not in done.terminal


def test_a_terminal_gets_bars(aws: LocalAWS, cli: Cli) -> None:
    done = on_terminal(cli, "fetch", _job(aws), stream="stderr")

    assert done.returncode == 0
    assert "\rApp: fetching: 100%|" in done.terminal
    assert done.other.startswith("staged\t")


@pytest.mark.parametrize("options", [["--progress", "none"], ["-q"]])
def test_silence_when_it_is_asked_for(aws: LocalAWS, cli: Cli, options: list[str]) -> None:
    done = cli("fetch", _job(aws), *options)

    assert done.returncode == 0
    assert done.stderr == ""


def test_a_long_phase_says_something_every_few_seconds() -> None:
    stream = io.StringIO()
    now = 0.0
    with LogLines(stream, clock=lambda: now).phase("App: fetching", 100 << 20) as advance:
        for _ in range(20):
            now += 1.0
            advance(5 << 20)

    lines = stream.getvalue().splitlines()
    assert lines[0] == "App: fetching: 25.0 MiB of 100.0 MiB, 5.0 MiB/s"
    assert lines[-1] == "App: fetching: 100.0 MiB of 100.0 MiB, 5.0 MiB/s: done"
    assert len(lines) == 5


def test_a_closed_stream_gets_nothing() -> None:
    stream = io.StringIO()
    stream.close()

    for shown in (progress_to(stream, "auto"), progress_to(None, "bar")):
        with shown.phase("App: fetching", 10) as advance:
            assert advance(10) is None


_MANY = 50_000


@pytest.mark.slow
def test_work_on_very_many_entries_has_phases_of_its_own(tmp_path: Path) -> None:
    """Without them nothing moves before the first file is written, and after the last one."""
    body = io.BytesIO()
    with zipfile.ZipFile(body, "w") as archive:
        for number in range(10):
            archive.writestr(f"{number}/", b"")
        for number in range(_MANY - 10):
            archive.writestr(f"{number % 10}/{number}", b"")
    (tmp_path / "many.zip").write_bytes(body.getvalue())
    phases = _Recorded()

    cpstage.unpack(tmp_path / "many.zip", tmp_path / "there", progress=phases)

    told = {label: (total, sum(steps)) for label, total, steps in phases.found}
    assert told["many.zip: reading the directory"] == (_MANY, _MANY)
    assert told["many.zip: checking the names"] == (_MANY, _MANY)
    assert told["finishing directories"] == (10, 10)
    assert max(step for _, _, steps in phases.found[1:] for step in steps) <= 1000


class _Recorded:
    """Progress as a caller of the API has it: label, total and steps of each phase."""

    def __init__(self) -> None:
        self.found: list[tuple[str, int | None, list[int]]] = []

    @contextmanager
    def phase(self, label: str, total: int | None, unit: Unit = "B") -> Iterator[Advance]:
        assert unit in ("B", "entries")
        steps: list[int] = []
        self.found.append((label, total, steps))
        yield steps.append
