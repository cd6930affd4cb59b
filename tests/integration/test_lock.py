"""The lock of a workspace: who is refused is told by whom, or that the disk has no locks."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from cpstage.local import Input, LocalAWS
from denied_system_calls import can_deny, without
from samples import zip_of
from trees import names

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from command_line import Cli

pytestmark = pytest.mark.slow

TAKE_THE_LOCK_ALONE = """
import fcntl, sys
lock = open(sys.argv[1], "w")
fcntl.flock(lock, fcntl.LOCK_EX)
print("locked", flush=True)
sys.stdin.read()
"""


def add_job(aws: LocalAWS) -> str:
    return aws.add_job([Input("App", zip_of({"f": "x"}))])


WAIT_BEFORE_THE_SECOND_LOOK = """
import os, sys
looks = 0
def watch(event, arguments):
    global looks
    if event == "open" and os.path.basename(str(arguments[0])) == "holder.json":
        looks += 1
        if looks == 2:
            print("looked", flush=True)
            sys.stdin.readline()
from cpstage.__main__ import main
sys.addaudithook(watch)
main(["fetch", sys.argv[1]])
"""


@contextmanager
def fetch_that_has_looked(cli: Cli, job_id: str) -> Iterator[subprocess.Popen[str]]:
    """A fetch that finds the lock taken, and has read the holder's record once."""
    with subprocess.Popen(
        [sys.executable, "-c", WAIT_BEFORE_THE_SECOND_LOOK, job_id],
        cwd=cli.directory,
        env=cli.environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "looked\n"
        yield running


@contextmanager
def holder(state: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that has the lock, as a run has it that has only just taken it."""
    state.mkdir(exist_ok=True)
    with subprocess.Popen(
        [sys.executable, "-c", TAKE_THE_LOCK_ALONE, str(state / "lock")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "locked\n"
        yield running
        running.communicate()


def write_record(state: Path, pid: int, host: str) -> None:
    """Name a process as the holder, all at once."""
    record = {"pid": pid, "host": host, "since": "2026-01-01T00:00:00+00:00"}
    (state / "record").write_text(json.dumps(record))
    (state / "record").replace(state / "holder.json")


def test_a_holder_that_has_not_yet_named_itself_is_asked_again(aws: LocalAWS, cli: Cli) -> None:
    state = cli.directory / ".cpstage"
    with holder(state) as first:
        (state / "holder.json").write_text("{")
        with fetch_that_has_looked(cli, add_job(aws)) as second:
            write_record(state, first.pid, socket.gethostname())
            said = second.communicate("go on\n", timeout=60)[1]

    assert second.returncode == 73
    assert f"is in use by process {first.pid} on {socket.gethostname()} since 2026-" in said


def test_the_record_of_a_killed_run_names_nobody(aws: LocalAWS, cli: Cli) -> None:
    """Another one has the lock since, and is about to name itself."""
    state = cli.directory / ".cpstage"
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as gone:
        gone.send_signal(signal.SIGKILL)
    with holder(state) as first:
        write_record(state, gone.pid, socket.gethostname())
        with fetch_that_has_looked(cli, add_job(aws)) as second:
            write_record(state, first.pid, socket.gethostname())
            said = second.communicate("go on\n", timeout=60)[1]

    assert f"is in use by process {first.pid} on " in said


def test_a_holder_on_another_host_is_believed(aws: LocalAWS, cli: Cli) -> None:
    """Whether its process is there cannot be seen from here."""
    with holder(cli.directory / ".cpstage"):
        write_record(cli.directory / ".cpstage", 1 << 22, "another")
        done = cli("fetch", add_job(aws))

    assert done.returncode == 73
    assert f"in use by process {1 << 22} on another since 2026-" in done.stderr


def test_a_holder_that_never_names_itself_is_another_run(aws: LocalAWS, cli: Cli) -> None:
    with holder(cli.directory / ".cpstage"):
        done = cli("fetch", add_job(aws))

    assert done.returncode == 73
    assert "in use by another run, whose process is unknown; wait for" in done.stderr


def fetch_without(
    call: str, code: str, aws: LocalAWS, cli: Cli
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*without(call, code), sys.executable, "-m", "cpstage", "fetch", add_job(aws)],
        cwd=cli.directory,
        env=cli.environment,
        capture_output=True,
        text=True,
    )


@can_deny
@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("ENOLCK", "No locks available"),
        ("ENOSYS", "Function not implemented"),
        ("EOPNOTSUPP", "Operation not supported"),
    ],
)
def test_a_file_system_without_locks_is_named(
    aws: LocalAWS, cli: Cli, code: str, says: str
) -> None:
    """As on NFS where nobody serves locks."""
    done = fetch_without("flock", code, aws, cli)

    assert done.returncode == 73
    [line] = done.stderr.splitlines()
    assert line.startswith(f"cpstage: error: cannot lock {cli.directory}: {says}; its file system")
    assert names(cli.directory) == []


@can_deny
def test_a_lock_that_the_disk_refuses_is_a_failure_of_the_machine(aws: LocalAWS, cli: Cli) -> None:
    done = fetch_without("flock", "EIO", aws, cli)

    assert done.returncode == 74
    assert f"cannot lock {cli.directory}: Input/output error" in done.stderr
    assert "no locks" not in done.stderr


@can_deny
def test_a_file_system_that_cannot_sync_is_good_enough(aws: LocalAWS, cli: Cli) -> None:
    done = fetch_without("fsync", "EINVAL", aws, cli)

    assert done.returncode == 0, done.stderr
    assert names(cli.directory) == ["in", "in/App", "in/App/f"]


@can_deny
def test_a_place_on_another_file_system_is_named(aws: LocalAWS, cli: Cli) -> None:
    """As a directory in the image of a container, which overlayfs does not rename."""
    job_id = add_job(aws)
    assert cli("fetch", job_id).returncode == 0
    (cli.directory / "in/App/f").write_text("edited")
    command = [sys.executable, "-m", "cpstage", "fetch", job_id, "--replace"]

    done = subprocess.run(
        [*without("renameat2", "EXDEV"), *command],
        cwd=cli.directory,
        env=cli.environment,
        capture_output=True,
        text=True,
    )

    assert done.returncode == 73
    assert "in/App: Invalid cross-device link; a mount or a lower layer of an" in done.stderr
    assert (cli.directory / "in/App/f").read_text() == "edited"
    assert names(cli.directory) == ["in", "in/App", "in/App/f"]


@can_deny
def test_a_disk_that_fails_is_named_before_anything_is_published(aws: LocalAWS, cli: Cli) -> None:
    done = fetch_without("fsync", "EIO", aws, cli)

    assert done.returncode == 74
    assert "/.cpstage/journal.json: Input/output error" in done.stderr
    assert names(cli.directory) == []


@can_deny
def test_unpack_and_pack_do_without_locks(cli: Cli, tmp_path: Path) -> None:
    """They have one name each to publish; and sweep nothing, since they cannot know."""
    (tmp_path / "app.zip").write_bytes(zip_of({"f": "x"}))
    stale = cli.directory / ".cpstage-staging-stale"
    stale.mkdir()
    for arguments in (
        ("unpack", str(tmp_path / "app.zip"), "--into", "into"),
        ("pack", "into", "--output", "again.zip"),
    ):
        command = [sys.executable, "-m", "cpstage", *arguments]
        subprocess.run(
            [*without("flock", "ENOLCK"), *command],
            cwd=cli.directory,
            env=cli.environment,
            check=True,
        )

    assert sorted(os.listdir(cli.directory)) == [stale.name, "again.zip", "into"]
