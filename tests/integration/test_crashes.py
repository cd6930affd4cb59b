"""Runs that are stopped or killed at every stage: the workspace is old or complete, and goes on."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from itertools import count, cycle
from typing import TYPE_CHECKING

import pytest

from aws_clients import s3
from cpstage.local import Input, LocalAWS
from fault_plans import Rule
from fault_proxy import FaultProxy
from faults import Stall
from samples import zip_of
from stop_at_step import stopping
from trees import listing

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from command_line import Cli

pytestmark = pytest.mark.e2e

MIB = 1 << 20
KILLS = 50
SEED = 5

Done = subprocess.CompletedProcess[str]
Listing = dict[str, tuple[str, bool, bytes]]

each_signal = pytest.mark.parametrize(
    "number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda number: number.name
)


def files(version: str, number: int = 20, size: int = 9000) -> dict[str, bytes]:
    noise = random.Random(version)
    return {f"d{n % 3}/f{n}": version.encode() + noise.randbytes(size) for n in range(number)}


OLD, NEW = files("old"), files("new")
VERSIONS = {"old": OLD, "new": NEW}
STATE = ".cpstage"


def add_job(aws: LocalAWS, content: Mapping[str, bytes]) -> str:
    """A job of two artifacts; a new one has one output more than an old one."""
    outputs = ["Built"] if content is OLD else ["Built", "Report"]
    inputs = [Input(name, zip_of(content)) for name in ("App", "Lib")]
    return aws.add_job(inputs, outputs=outputs)


def start(cli: Cli, command: Sequence[str], **variables: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command,
        cwd=cli.directory,
        env={**cli.environment, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(running: subprocess.Popen[str]) -> Done:
    texts = running.communicate(timeout=60)
    return subprocess.CompletedProcess(running.args, running.returncode, *texts)


def stopped_in_transit(
    aws: LocalAWS, cli: Cli, rule: Rule, number: signal.Signals, *arguments: str
) -> Done:
    """Run a command, and send it a signal when it waits for an answer that never comes."""
    with FaultProxy(aws.endpoint_url, [rule]) as proxy:
        command = [sys.executable, "-m", "cpstage", *arguments]
        with start(cli, command, AWS_ENDPOINT_URL=proxy.url) as running:
            assert proxy.stalled.wait(60)
            running.send_signal(number)
            return finish(running)


def expect_stop(done: Done, number: signal.Signals) -> None:
    if number is signal.SIGKILL:
        assert done.returncode == -number
    else:
        assert done.returncode == 128 + number, done.stderr
        assert done.stderr.splitlines()[-1] == f"cpstage: error: stopped by {number.name}"


# Fetch


def content_of(place: Path) -> dict[str, bytes]:
    return {
        path.relative_to(place).as_posix(): path.read_bytes()
        for path in place.rglob("*")
        if path.is_file()
    }


def what_is_in(root: Path) -> Listing:
    """Everything but the lock, and a directory for staging that has nothing in it."""
    found = listing(root)
    for name in (".cpstage/lock", ".cpstage/staging"):
        found.pop(name, None)
    return found


@pytest.fixture
def before(aws: LocalAWS, cli: Cli) -> Listing:
    """A workspace with the old artifacts."""
    done = cli("fetch", add_job(aws, OLD))
    assert done.returncode == 0, done.stderr
    return what_is_in(cli.directory)


def expect_old_or_whole(cli: Cli, before: Listing, number: signal.Signals) -> None:
    """All is as it was; a killed run has cleared up nothing, but no artifact is a mixture."""
    if number is signal.SIGKILL:
        for name in ("App", "Lib"):
            assert content_of(cli.directory / "in" / name) in (OLD, NEW)
    else:
        assert what_is_in(cli.directory) == before


def expect_complete(cli: Cli, job_id: str) -> None:
    """The next run succeeds, and leaves nothing of the one before."""
    done = cli("fetch", job_id, "--replace")
    assert done.returncode == 0, done.stderr
    for name in ("App", "Lib"):
        assert content_of(cli.directory / "in" / name) == NEW
    state = {name for name in what_is_in(cli.directory) if name.startswith(".cpstage/")}
    assert state == {".cpstage/job.json", ".cpstage/manifest.json"}
    outputs = sorted(path.name for path in (cli.directory / "out").iterdir())
    assert outputs == ["Built", "Report"]


IN_TRANSIT = {
    "after GetJobDetails": Rule(Stall(None), when=lambda request: not request.is_json),
    "in the first download": Rule(Stall(0.5), "GetObject"),
    "in the second download": Rule(Stall(0.5), "GetObject", path="*/Lib/*"),
}


@each_signal
@pytest.mark.parametrize("rule", IN_TRANSIT.values(), ids=IN_TRANSIT)
def test_a_fetch_that_is_stopped_while_it_reads(
    aws: LocalAWS, cli: Cli, before: Listing, rule: Rule, number: signal.Signals
) -> None:
    job_id = add_job(aws, NEW)

    done = stopped_in_transit(aws, cli, rule, number, "fetch", job_id, "--replace")

    expect_stop(done, number)
    expect_old_or_whole(cli, before, number)
    expect_complete(cli, job_id)


@each_signal
def test_a_fetch_that_is_stopped_while_it_unpacks(
    aws: LocalAWS, cli: Cli, before: Listing, number: signal.Signals
) -> None:
    """The second artifact is half there, the first one whole, and the file of variables to come."""
    job_id = add_job(aws, NEW)
    arguments = ("fetch", job_id, "--replace", "--env-file", "job.env")

    done = finish(start(cli, stopping(number, "opening f7", 2, *arguments)))

    expect_stop(done, number)
    expect_old_or_whole(cli, before, number)
    assert cli(*arguments).returncode == 0
    (cli.directory / "job.env").unlink()
    assert sorted(os.listdir(cli.directory)) == [STATE, "in", "out"]
    expect_complete(cli, job_id)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
@pytest.mark.parametrize("file", ["--save", "--env-file"])
def test_a_file_that_is_stopped_while_it_is_written_leaves_nothing(
    aws: LocalAWS, cli: Cli, number: signal.Signals, file: str
) -> None:
    job_id = add_job(aws, OLD)
    command = ["get-job-details", "--job-id"] if file == "--save" else ["fetch"]
    (cli.directory / "target").mkdir()
    arguments = (*command, job_id, file, "target/file")

    done = finish(start(cli, stopping(number, "opening .cpstage-new-*", 1, *arguments)))

    expect_stop(done, number)
    assert os.listdir(cli.directory / "target") == []


def test_a_file_that_a_killed_process_left_is_removed_by_the_next(aws: LocalAWS, cli: Cli) -> None:
    job_id = add_job(aws, OLD)
    arguments = ("get-job-details", "--job-id", job_id, "--save", "job.json")
    (cli.directory / ".cpstage-new-mine").touch()

    done = finish(
        start(cli, stopping(signal.SIGKILL, "making .cpstage-new-[0-9a-f]*", 1, *arguments))
    )

    assert done.returncode == -signal.SIGKILL
    assert len(os.listdir(cli.directory)) == 2
    assert cli(*arguments).returncode == 0
    assert sorted(os.listdir(cli.directory)) == [".cpstage-new-mine", "job.json"]


@each_signal
def test_a_fetch_that_is_stopped_before_any_step_of_publishing(
    aws: LocalAWS, cli: Cli, before: Listing, number: signal.Signals
) -> None:
    """Before the first rename, between any two of them, and before the end is made of it."""
    job_id = add_job(aws, NEW)
    old = json.loads((cli.directory / STATE / "job.json").read_text())
    for step in count(1):
        command = stopping(number, "publishing", step, "fetch", job_id, "--replace")
        expect_stop(finish(start(cli, command)), number)
        if number is signal.SIGKILL:
            expect_old_or_whole(cli, before, number)
            assert cli("fetch", old["id"]).returncode in {0, 73}
        else:
            assert os.listdir(cli.directory / STATE / "staging") == []
        if what_is_in(cli.directory) != before:
            break

    assert step > 7  # the journal, two artifacts, an output, two documents, the end of the journal
    done = cli("fetch", job_id, "--json")
    assert [one["status"] for one in json.loads(done.stdout)["inputs"]] == ["unchanged"] * 2
    expect_complete(cli, job_id)


def test_a_run_that_is_stopped_while_it_removes_what_its_command_got(
    aws: LocalAWS, cli: Cli
) -> None:
    job_id = aws.add_job(configuration={"Password": "secret"})
    arguments = ("run", job_id, "--pass-configuration", "--", "true")

    command = stopping(signal.SIGTERM, "removing configuration.json", 1, *arguments)
    done = finish(start(cli, command))

    expect_stop(done, signal.SIGTERM)
    assert not (cli.directory / STATE / "run").exists()


def test_a_fetch_that_is_killed_at_random_moments(aws: LocalAWS, cli: Cli) -> None:
    """Fifty times; each artifact is always of one version, and every tenth run is let through."""
    jobs = {version: add_job(aws, content) for version, content in VERSIONS.items()}
    moments = random.Random(SEED)
    versions = cycle(jobs)
    seconds = timed(cli, jobs[next(versions)])
    for kill in range(KILLS):
        running = start(cli, fetch_command(jobs[next(versions)]))
        with suppress(subprocess.TimeoutExpired):
            running.communicate(timeout=moments.uniform(0, seconds))
        running.kill()
        done = finish(running)
        assert done.returncode in (0, -signal.SIGKILL), done.stderr
        for name in ("App", "Lib"):
            assert content_of(cli.directory / "in" / name) in VERSIONS.values()
        if kill % 10 == 9:
            seconds = timed(cli, jobs[next(versions)])
    assert os.listdir(cli.directory / STATE / "staging") == []


def fetch_command(job_id: str) -> list[str]:
    return [sys.executable, "-m", "cpstage", "fetch", job_id, "--replace"]


def timed(cli: Cli, job_id: str) -> float:
    """Let a run through, and return how many seconds it took."""
    begun = time.monotonic()
    done = finish(start(cli, fetch_command(job_id)))
    assert done.returncode == 0, done.stderr
    return time.monotonic() - begun


# Push


NOISE = files("noise", 3, 8 * MIB)
ON_THE_WAY_UP = {
    "in the upload of a part": Rule(
        Stall(0.5, side="request"), "UploadPart", query="*partNumber=2*"
    ),
    "before the upload is complete": Rule(Stall(0, side="request"), "CompleteMultipartUpload"),
}


def outputs(cli: Cli) -> None:
    for name, content in NOISE.items():
        path = cli.directory / "out/Built" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def expect_nothing_there(aws: LocalAWS, job_id: str, number: signal.Signals) -> None:
    """No object; and no part of one, but after a kill, for which S3 has its lifecycle rules."""
    there, store = aws.job(job_id).outputs[0], s3(aws.admin_environment)
    found = store.list_object_versions(Bucket=there.bucket, Prefix=there.key).get("Versions", [])
    uploads = store.list_multipart_uploads(Bucket=there.bucket).get("Uploads", [])
    assert found == []
    if number is not signal.SIGKILL:
        assert [one for one in uploads if one["Key"] == there.key] == []


def expect_pushed(aws: LocalAWS, cli: Cli, job_id: str) -> None:
    """The next run succeeds, and what is there can be unpacked."""
    done = cli("push", job_id)
    assert done.returncode == 0, done.stderr
    there = aws.job(job_id).outputs[0]
    stored = s3(aws.admin_environment).get_object(Bucket=there.bucket, Key=there.key)
    (cli.directory / "pushed.zip").write_bytes(stored["Body"].read())
    assert cli("unpack", "pushed.zip", "--into", "there").returncode == 0
    assert content_of(cli.directory / "there") == NOISE


@each_signal
def test_a_push_that_is_stopped_while_it_packs(
    aws: LocalAWS, cli: Cli, number: signal.Signals
) -> None:
    job_id = aws.add_job(outputs=["Built"])
    outputs(cli)

    done = finish(start(cli, stopping(number, "opening f2", 1, "push", job_id)))

    expect_stop(done, number)
    expect_nothing_there(aws, job_id, number)
    expect_pushed(aws, cli, job_id)


@each_signal
@pytest.mark.parametrize("rule", ON_THE_WAY_UP.values(), ids=ON_THE_WAY_UP)
def test_a_push_that_is_stopped_while_it_uploads(
    aws: LocalAWS, cli: Cli, rule: Rule, number: signal.Signals
) -> None:
    job_id = aws.add_job(outputs=["Built"])
    outputs(cli)

    done = stopped_in_transit(aws, cli, rule, number, "push", job_id)

    expect_stop(done, number)
    expect_nothing_there(aws, job_id, number)
    expect_pushed(aws, cli, job_id)
