"""What unpack and pack stage beside their target: gone at the end, and swept after a kill."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from itertools import count
from typing import TYPE_CHECKING

import pytest

from samples import zip_of
from stop_at_step import stopping
from trees import names

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from command_line import Cli

pytestmark = pytest.mark.slow

FILES = {f"f{number}": f"content {number}" for number in range(4)}
PREFIX = ".cpstage-staging-"

HOLD_STAGING = """
import sys
from pathlib import Path
from cpstage.workspace.publishing import staging_in
with staging_in(Path("."), Path("target")) as staging:
    (staging / "tree").mkdir()
    print(staging.name, flush=True)
    sys.stdin.read()
"""


def left_in(directory: Path) -> list[str]:
    return [path.name for path in directory.rglob(f"{PREFIX}*")]


def stopped(
    cli: Cli, number: signal.Signals, steps: str, nth: int, *arguments: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        stopping(number, steps, nth, *arguments),
        cwd=cli.directory,
        env=cli.environment,
        capture_output=True,
        text=True,
        timeout=60,
    )


def killed(cli: Cli, steps: str, nth: int, *arguments: str) -> int:
    return stopped(cli, signal.SIGKILL, steps, nth, *arguments).returncode


def content_of(directory: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in directory.iterdir()}


@pytest.mark.parametrize("there", [True, False], ids=["into an empty directory", "into a new one"])
def test_an_unpack_that_was_killed_is_swept_by_the_next(cli: Cli, there: bool) -> None:
    archive, into = cli.directory / "app.zip", cli.directory / "into"
    archive.write_bytes(zip_of(FILES))
    if there:
        into.mkdir()

    assert killed(cli, "opening f2", 1, "unpack", str(archive), "--into", "into") == -signal.SIGKILL
    assert len(left_in(cli.directory)) == 1
    assert list(into.glob("f*")) == []

    done = cli("unpack", str(archive), "--into", "into")
    assert done.returncode == 0, done.stderr
    assert content_of(into) == FILES
    assert left_in(cli.directory) == []


@pytest.mark.parametrize("steps", [f"opening {PREFIX}*", f"removing {PREFIX}*"])
@pytest.mark.parametrize("command", ["unpack", "pack"])
def test_a_signal_while_staging_is_made_or_removed_leaves_none(
    cli: Cli, steps: str, command: str
) -> None:
    archive = cli.directory / "app.zip"
    archive.write_bytes(zip_of(FILES))
    arguments = {"unpack": ["app.zip", "--into", "into"], "pack": [".", "--output", "new.zip"]}

    done = stopped(cli, signal.SIGTERM, steps, 1, command, *arguments[command])

    assert done.returncode == 128 + signal.SIGTERM
    assert done.stderr == "cpstage: error: stopped by SIGTERM\n"
    assert left_in(cli.directory) == []


def test_an_unpack_into_an_empty_directory_is_whole_or_taken_back(cli: Cli) -> None:
    """What it holds is published entry by entry, and may be killed between any two of them."""
    archive, into = cli.directory / "app.zip", cli.directory / "into"
    archive.write_bytes(zip_of(FILES))
    into.mkdir()
    inode = into.stat().st_ino
    for step in count(1):
        code = killed(cli, "publishing", step, "unpack", str(archive), "--into", "into")
        assert code == -signal.SIGKILL
        done = cli("unpack", str(archive), "--into", "into")
        assert left_in(cli.directory) == []
        assert content_of(into) == FILES
        assert into.stat().st_ino == inode
        if done.returncode != 0:
            break
        for name in FILES:
            (into / name).unlink()

    assert done.returncode == 73  # it was whole already
    assert step == len(FILES) + 3  # the journal, each file, the end of the journal, what is next


def test_an_unpack_of_the_longest_name_is_taken_back(cli: Cli) -> None:
    files = {"a": "x", "n" * 255: "x"}
    (cli.directory / "app.zip").write_bytes(zip_of(files))
    (cli.directory / "into").mkdir()
    unpack = ("unpack", "app.zip", "--into", "into")
    assert killed(cli, "publishing", 3, *unpack) == -signal.SIGKILL

    done = cli(*unpack)

    assert done.returncode == 0, done.stderr
    assert left_in(cli.directory) == []
    assert content_of(cli.directory / "into") == files


def test_a_pack_that_was_killed_is_swept_by_the_next_and_not_packed(cli: Cli) -> None:
    for name, content in FILES.items():
        (cli.directory / name).write_text(content)

    assert killed(cli, "opening packed", 1, "pack", ".", "--output", "app.zip") == -signal.SIGKILL
    assert len(left_in(cli.directory)) == 1

    done = cli("pack", ".", "--output", "app.zip")
    assert done.returncode == 0, done.stderr
    assert sorted(os.listdir(cli.directory)) == ["app.zip", *FILES]
    assert cli("unpack", "app.zip", "--into", "there").returncode == 0
    assert content_of(cli.directory / "there") == FILES


@contextmanager
def staging_in_use(cli: Cli) -> Iterator[Path]:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD_STAGING],
        cwd=cli.directory,
        env=cli.environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as holder:
        assert holder.stdout is not None
        yield cli.directory / holder.stdout.readline().strip()
        holder.communicate()


def test_staging_that_is_in_use_is_left_alone(cli: Cli, tmp_path: Path) -> None:
    archive = tmp_path / "app.zip"
    archive.write_bytes(zip_of(FILES))

    with staging_in_use(cli) as staging:
        done = cli("unpack", str(archive), "--into", "into")
        assert (staging / "tree").is_dir()

    assert done.returncode == 0, done.stderr
    assert os.listdir(cli.directory) == ["into"]


def test_what_is_not_ours_is_left_alone(cli: Cli, tmp_path: Path) -> None:
    archive = tmp_path / "app.zip"
    archive.write_bytes(zip_of(FILES))
    (cli.directory / ".cpstage-settings").mkdir()
    (cli.directory / f"{PREFIX}file").write_text("mine")
    (tmp_path / "elsewhere").mkdir()
    (cli.directory / f"{PREFIX}link").symlink_to(tmp_path / "elsewhere")
    before = names(tmp_path)

    assert cli("unpack", str(archive), "--into", "into").returncode == 0

    assert [name for name in names(tmp_path) if not name.startswith("workspace/into")] == before


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory to somebody else")
def test_what_is_somebody_elses_is_left_alone(cli: Cli, tmp_path: Path) -> None:
    archive = tmp_path / "app.zip"
    archive.write_bytes(zip_of(FILES))
    theirs = cli.directory / f"{PREFIX}theirs"
    theirs.mkdir()
    os.chown(theirs, 65534, 65534)

    assert cli("unpack", str(archive), "--into", "into").returncode == 0

    assert theirs.is_dir()


def test_a_journal_that_cannot_be_believed_stays_where_it_is(cli: Cli, tmp_path: Path) -> None:
    archive = tmp_path / "app.zip"
    archive.write_bytes(zip_of(FILES))
    stale = cli.directory / f"{PREFIX}stale"
    stale.mkdir()
    (stale / "journal.json").write_text('{"moves": [{"staged": "/etc/x", "target": "y", "is": 1}]}')

    assert cli("unpack", str(archive), "--into", "into").returncode == 0

    assert (stale / "journal.json").exists()
