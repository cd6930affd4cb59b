"""Several runs at once, and machines that let a run down: the workspace is whole, or as it was."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from aws_clients import s3
from cpstage.local import Input, LocalAWS
from mounts import mounted, without_privileges
from samples import tar_of, zip_of
from stalled_server import StallingServer, stalling_server
from trees import names

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from command_line import Cli

pytestmark = pytest.mark.e2e

MIB = 1 << 20
MANY = 10
FILES = {f"d{number % 7}/f{number}": f"content {number}" * 50 for number in range(60)}

Done = subprocess.CompletedProcess[str]


def add_job(aws: LocalAWS, body: bytes | None = None, suffix: str = ".zip") -> str:
    found = zip_of(FILES) if body is None else body
    return aws.add_job([Input("App", found, suffix)], outputs=["Built"])


def start(cli: Cli, *arguments: str, **variables: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "cpstage", *arguments],
        cwd=cli.directory,
        env={**cli.environment, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(*running: subprocess.Popen[str]) -> list[Done]:
    """Wait until all have ended, and return what became of them."""
    return [
        subprocess.CompletedProcess(one.args, one.wait(), *texts)
        for one in running
        for texts in [one.communicate(timeout=120)]
    ]


def content_below(root: Path) -> dict[str, str]:
    return {
        path.relative_to(root).as_posix(): path.read_text()
        for path in root.rglob("*")
        if path.is_file()
    }


def staged_by(place: Path) -> list[str]:
    staging = place / ".cpstage/staging"
    return sorted(os.listdir(staging)) if staging.exists() else []


# Many at once


def test_ten_runs_in_one_workspace_leave_it_whole(aws: LocalAWS, cli: Cli) -> None:
    job_id = add_job(aws)

    done = finish(*(start(cli, "fetch", job_id) for _ in range(MANY)))

    codes = sorted({one.returncode for one in done})
    assert codes in ([0], [0, 73]), [one.stderr for one in done]
    for refused in (one for one in done if one.returncode == 73):
        said = refused.stderr.splitlines()[-1]
        assert f"the workspace {cli.directory} is in use by process " in said
    assert content_below(cli.directory / "in/App") == FILES
    assert os.listdir(cli.directory / "out") == ["Built"]
    assert staged_by(cli.directory) == []
    since = len(aws.calls())
    again = cli("fetch", job_id, "--json")
    assert json.loads(again.stdout)["inputs"][0]["status"] == "unchanged"
    assert [call for call in aws.calls()[since:] if call.action == "GetObject"] == []


def test_ten_runs_in_ten_workspaces_all_succeed(aws: LocalAWS, cli: Cli) -> None:
    job_id = add_job(aws)
    places = [cli.directory / f"w{number}" for number in range(MANY)]

    done = finish(*(start(cli, "fetch", job_id, "--workspace", str(one)) for one in places))

    assert [one.returncode for one in done] == [0] * MANY, [one.stderr for one in done]
    for place in places:
        assert content_below(place / "in/App") == FILES


def test_some_that_wait_for_one_another_all_succeed(aws: LocalAWS, cli: Cli) -> None:
    jobs = [add_job(aws, zip_of({"which": str(number)})) for number in range(4)]

    done = finish(*(start(cli, "fetch", job, "--replace", "--wait") for job in jobs))

    assert [one.returncode for one in done] == [0] * len(jobs), [one.stderr for one in done]
    which = content_below(cli.directory / "in/App")["which"]
    manifest = json.loads((cli.directory / ".cpstage/manifest.json").read_text())
    known = json.loads((cli.directory / ".cpstage/job.json").read_text())
    assert known["id"] == jobs[int(which)]
    assert manifest["artifacts"]["App"]["location"]["key"] == aws.job(known["id"]).inputs[0].key
    assert staged_by(cli.directory) == []


def test_a_push_and_a_fetch_at_once_do_not_disturb_one_another(aws: LocalAWS, cli: Cli) -> None:
    job_id = add_job(aws)
    (cli.directory / "out/Built").mkdir(parents=True)
    for number in range(200):
        (cli.directory / f"out/Built/{number}").write_text(f"{number}" * 1000)

    done = finish(*(start(cli, command, job_id) for command in ("push", "fetch", "push")))

    assert [one.returncode for one in done] == [0, 0, 0], [one.stderr for one in done]
    assert content_below(cli.directory / "in/App") == FILES
    pushed = aws.job(job_id).outputs[0]
    stored = s3(aws.admin_environment).get_object(Bucket=pushed.bucket, Key=pushed.key)
    (cli.directory / "pushed.zip").write_bytes(stored["Body"].read())
    assert cli("unpack", "pushed.zip", "--into", "there").returncode == 0
    assert content_below(cli.directory / "there") == content_below(cli.directory / "out/Built")


# One that is in the middle


@contextmanager
def in_the_middle(cli: Cli, job_id: str, server: StallingServer) -> Iterator[subprocess.Popen[str]]:
    """A fetch that holds the workspace, and waits for the rest of an object."""
    with start(cli, "fetch", job_id, AWS_ENDPOINT_URL_S3=server.url) as running:
        try:
            assert server.stalled.wait(60)
            yield running
        finally:
            running.kill()
            running.communicate()


def test_who_comes_second_is_told_who_is_there(aws: LocalAWS, cli: Cli) -> None:
    job_id = add_job(aws)
    with stalling_server() as server, in_the_middle(cli, job_id, server) as first:
        second = cli("fetch", job_id)
        elsewhere = cli("fetch", job_id, "--workspace", "other")
        looked = cli("fetch", job_id, "--dry-run", "--json")
        waited = cli("fetch", job_id, "--wait", "0.1")

    said = second.stderr.splitlines()[-1]
    holder = f"in use by process {first.pid} on {socket.gethostname()} since "
    assert second.returncode == waited.returncode == 73
    assert holder in said
    assert holder in waited.stderr
    assert re.search(r" since \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00; ", said)
    assert (second.stdout, names(cli.directory / "in")) == ("", [])
    assert elsewhere.returncode == looked.returncode == 0
    assert content_below(cli.directory / "other/in/App") == FILES


def test_a_push_goes_up_while_a_fetch_is_in_the_middle(aws: LocalAWS, cli: Cli) -> None:
    job_id = add_job(aws)
    (cli.directory / "out/Built").mkdir(parents=True)
    (cli.directory / "out/Built/result").write_text("done")

    with stalling_server() as server, in_the_middle(cli, job_id, server):
        done = cli("push", job_id, "--format", "raw")

    pushed = aws.job(job_id).outputs[0]
    stored = s3(aws.admin_environment).get_object(Bucket=pushed.bucket, Key=pushed.key)
    assert done.returncode == 0, done.stderr
    assert stored["Body"].read() == b"done"


def test_after_a_kill_the_next_run_sweeps_and_succeeds(aws: LocalAWS, cli: Cli) -> None:
    job_id = add_job(aws)
    with stalling_server() as server, in_the_middle(cli, job_id, server) as first:
        first.send_signal(signal.SIGKILL)
        first.communicate()
        left = staged_by(cli.directory)

    assert first.returncode == -signal.SIGKILL
    assert left
    assert names(cli.directory) == []
    done = cli("fetch", job_id)
    assert done.returncode == 0, done.stderr
    assert staged_by(cli.directory) == []
    assert content_below(cli.directory / "in/App") == FILES


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_who_waits_goes_on_when_the_other_is_stopped(
    aws: LocalAWS, cli: Cli, number: signal.Signals
) -> None:
    job_id = add_job(aws)
    with stalling_server() as server, in_the_middle(cli, job_id, server) as first:
        waiting = start(cli, "fetch", job_id, "--wait", "-v")
        assert waiting.stderr is not None
        while "HeadObject" not in waiting.stderr.readline():
            assert waiting.poll() is None
        first.send_signal(number)
        [done] = finish(waiting)

    assert done.returncode == 0, done.stderr
    assert content_below(cli.directory / "in/App") == FILES
    assert staged_by(cli.directory) == []


TELL_OF_FORKS = """
import os
def tell():
    with open(os.environ["FORKED"], "w") as fifo:
        fifo.write("forked")
os.register_at_fork(after_in_child=tell)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="processes write archives on Linux alone")
def test_the_writers_of_a_killed_run_end_with_it(aws: LocalAWS, cli: Cli, tmp_path: Path) -> None:
    """They hold the workspace as long as they live, and see that there is nobody left to serve."""
    (tmp_path / "hook").mkdir()
    (tmp_path / "hook/sitecustomize.py").write_text(TELL_OF_FORKS)
    os.mkfifo(tmp_path / "fifo")
    job_id = add_job(aws, zip_of({f"d/{number}": "x" for number in range(1200)}))
    path = f"{tmp_path / 'hook'}{os.pathsep}{cli.environment['PYTHONPATH']}"
    told = {"PYTHONPATH": path, "FORKED": str(tmp_path / "fifo")}

    fifo = os.open(tmp_path / "fifo", os.O_RDWR)
    with start(cli, "fetch", job_id, **told) as running:
        has_forked = select.select([fifo], [], [], 60)[0]
        running.kill()
        # Its children have its stdout too: that ends when the last of them has.
        _, said = running.communicate(timeout=60)
    os.close(fifo)
    assert has_forked, said

    done = cli("fetch", job_id)
    assert done.returncode == 0, done.stderr
    assert len(content_below(cli.directory / "in/App")) == 1200
    assert staged_by(cli.directory) == []


# Machines that let it down


def test_a_workspace_that_may_not_be_written_to_is_named(aws: LocalAWS, cli: Cli) -> None:
    cli.directory.chmod(0o500)

    done = subprocess.run(
        [*without_privileges(), sys.executable, "-m", "cpstage", "fetch", add_job(aws)],
        cwd=cli.directory,
        env=dict(cli.environment),
        capture_output=True,
        text=True,
        timeout=60,
    )

    cli.directory.chmod(0o700)
    assert done.returncode == 73
    assert f"cannot create {cli.directory}/.cpstage: Permission denied" in done.stderr
    assert list(cli.directory.iterdir()) == []


@pytest.mark.parametrize("closed", ["in", "out"])
def test_a_place_in_it_that_a_build_made_read_only_is_made_writable(
    aws: LocalAWS, cli: Cli, closed: str
) -> None:
    job_id = add_job(aws)
    for name in ("in", "out"):
        (cli.directory / name).mkdir()
    (cli.directory / closed).chmod(0o500)
    command = [sys.executable, "-m", "cpstage", "fetch", job_id]

    done = subprocess.run(
        [*without_privileges(), *command],
        cwd=cli.directory,
        env=dict(cli.environment),
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert done.returncode == 0, done.stderr
    assert (cli.directory / "in/App").is_dir()
    assert (cli.directory / "out/Built").is_dir()


def within(cli: Cli, prefix: Sequence[str], *arguments: str) -> Done:
    """Run a command in another namespace, whose current directory is not ours."""
    return subprocess.run(
        [*prefix, sys.executable, "-m", "cpstage", *arguments],
        env=dict(cli.environment),
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_a_read_only_file_system_is_named(aws: LocalAWS, cli: Cli, tmp_path: Path) -> None:
    job_id = add_job(aws)
    with mounted(tmp_path / "disk", "size=4m") as disk:
        disk.make_read_only()
        at = ("--workspace", str(disk.place))
        new = within(cli, disk.prefix, "fetch", job_id, *at)
        below = within(cli, disk.prefix, "fetch", job_id, "--workspace", str(disk.place / "new"))
        looked = within(cli, disk.prefix, "fetch", job_id, *at, "--dry-run")

        assert disk.names() == []
    assert (new.returncode, below.returncode, looked.returncode) == (73, 73, 0), looked.stderr
    for done in (new, below):
        assert "Read-only file system; give a path on another file system" in done.stderr
        assert str(disk.place) in done.stderr.splitlines()[-1]


def test_a_workspace_that_became_read_only_still_serves(
    aws: LocalAWS, cli: Cli, tmp_path: Path
) -> None:
    job_id = add_job(aws)
    with mounted(tmp_path / "disk", "size=4m") as disk:
        at = ("--workspace", str(disk.place))
        assert within(cli, disk.prefix, "fetch", job_id, *at).returncode == 0
        (disk.view / "out/Built/result").write_text("done")
        disk.make_read_only()
        before = disk.names()
        fetched = within(cli, disk.prefix, "fetch", job_id, *at)
        pushed = within(cli, disk.prefix, "push", job_id, *at)

        assert disk.names() == before
    assert fetched.returncode == 73
    assert "Read-only file system" in fetched.stderr
    assert pushed.returncode == 0, pushed.stderr


def noise(size: int) -> dict[str, bytes]:
    return {"noise": os.urandom(size)}


TOO_LARGE = {
    "zip": (zip_of(noise(6 * MIB)), ".zip"),
    "tar.gz": (tar_of(noise(6 * MIB), mode="w:gz"), ".tar.gz"),
    "file": (noise(6 * MIB)["noise"], ".bin"),
}


@pytest.mark.parametrize(("body", "suffix"), TOO_LARGE.values(), ids=TOO_LARGE)
def test_an_object_that_is_larger_than_the_disk_is_not_even_read(
    aws: LocalAWS, cli: Cli, tmp_path: Path, body: bytes, suffix: str
) -> None:
    job_id = add_job(aws, body, suffix)
    since = len(aws.calls())

    with mounted(tmp_path / "disk", "size=4m") as disk:
        done = within(cli, disk.prefix, "fetch", job_id, "--workspace", str(disk.place))

        left = disk.names()
    assert done.returncode == 74
    assert f"{len(body):,} bytes are to be staged in {disk.place}" in done.stderr
    assert set(left) <= {".cpstage", ".cpstage/lock", ".cpstage/staging"}
    assert [call for call in aws.calls()[since:] if call.action == "GetObject"] == []


UNFORESEEN = {
    "zip": (zip_of({"zeros": bytes(8 * MIB)}), ".zip", "size=4m"),
    "zip of many": (zip_of({f"{n}": bytes(4096) for n in range(1500)}), ".zip", "size=4m"),
    "tar": (tar_of({f"{n}": "x" for n in range(60)}), ".tar", "size=4m,nr_inodes=40"),
    "tar.gz": (tar_of({"zeros": bytes(8 * MIB)}, mode="w:gz"), ".tar.gz", "size=4m"),
    "file": (b"text", ".txt", "size=4m,nr_inodes=9"),
}
"""What the size of the object does not tell: it unpacks to more, or is more files."""


@pytest.mark.parametrize(("body", "suffix", "options"), UNFORESEEN.values(), ids=UNFORESEEN)
def test_a_disk_that_is_full_in_the_middle_leaves_nothing(
    aws: LocalAWS, cli: Cli, tmp_path: Path, body: bytes, suffix: str, options: str
) -> None:
    job_id, small = add_job(aws, body, suffix), aws.add_job([])

    with mounted(tmp_path / "disk", options) as disk:
        at = ("--workspace", str(disk.place))
        done = within(cli, disk.prefix, "fetch", job_id, *at)
        left = disk.names()
        next_one = within(cli, disk.prefix, "fetch", small, *at)

    assert done.returncode == 74, done.stderr
    assert "No space left on device" in done.stderr.splitlines()[-1]
    assert done.stdout == ""
    assert set(left) <= {".cpstage", ".cpstage/lock", ".cpstage/staging"}
    assert next_one.returncode == 0, next_one.stderr


def test_a_disk_that_is_full_from_the_start_is_named(
    aws: LocalAWS, cli: Cli, tmp_path: Path
) -> None:
    job_id = aws.add_job([], outputs=["Built"])
    with mounted(tmp_path / "disk", "size=64k") as disk:
        (disk.view / "other").write_bytes(bytes(64 << 10))
        done = within(cli, disk.prefix, "fetch", job_id, "--workspace", str(disk.place))

        left = disk.names()
    assert done.returncode == 74
    assert "No space left on device" in done.stderr.splitlines()[-1]
    assert set(left) <= {".cpstage", ".cpstage/lock", ".cpstage/staging", "other"}
