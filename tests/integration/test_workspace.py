"""The workspace: it is as it was, or complete; one run at a time; nothing left behind."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cpstage.local import Input, LocalAWS
from cpstage.workspace.publishing import exchange
from mounts import without_privileges
from samples import zip_of
from trees import names

if TYPE_CHECKING:
    from command_line import Cli

pytestmark = pytest.mark.slow

HOLD_THE_LOCK = """
import sys
from cpstage import Workspace
with Workspace(sys.argv[1]).locked():
    print("locked", flush=True)
    sys.stdin.read()
"""


def _job(aws: LocalAWS) -> str:
    return aws.add_job([Input("App", zip_of({"f": "x"}))], outputs=["Built"])


def test_a_missing_workspace_is_made_for_its_owner_only(aws: LocalAWS, cli: Cli) -> None:
    place = cli.directory / "new/place"

    done = cli("fetch", _job(aws), "--workspace", str(place))

    assert done.returncode == 0, done.stderr
    assert place.stat().st_mode & 0o777 == 0o700
    assert (place / "in/App/f").read_text() == "x"


def test_a_second_run_is_told_who_holds_the_workspace(aws: LocalAWS, cli: Cli) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD_THE_LOCK, str(cli.directory)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "locked\n"
        job_id = _job(aws)
        done = cli("fetch", job_id)
        holder.communicate()

    assert done.returncode == 73
    assert f"in use by process {holder.pid} on " in done.stderr
    assert names(cli.directory) == []
    assert cli("fetch", job_id).returncode == 0


def test_stale_staging_is_swept_by_the_next_run(aws: LocalAWS, cli: Cli) -> None:
    stale = cli.directory / ".cpstage/staging/killed/App"
    stale.mkdir(parents=True)
    (stale / "half").write_text("half")

    assert cli("fetch", _job(aws)).returncode == 0
    assert not stale.parent.exists()


@pytest.mark.parametrize("linked", ["in", "out", ".cpstage"])
def test_a_link_in_the_layout_is_refused(
    aws: LocalAWS, cli: Cli, tmp_path: Path, linked: str
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (cli.directory / linked).symlink_to(elsewhere)

    done = cli("fetch", _job(aws))

    assert done.returncode == 73
    assert "is a symbolic link" in done.stderr
    assert not (elsewhere / "App").exists()


def test_a_workspace_that_is_a_link_itself_is_followed(aws: LocalAWS, cli: Cli) -> None:
    (cli.directory / "real").mkdir()
    (cli.directory / "link").symlink_to("real")

    assert cli("fetch", _job(aws), "--workspace", "link").returncode == 0
    assert (cli.directory / "real/in/App/f").read_text() == "x"


def test_a_workspace_that_is_a_file_is_named(aws: LocalAWS, cli: Cli) -> None:
    (cli.directory / "file").write_text("")

    done = cli("fetch", _job(aws), "--workspace", "file")

    assert done.returncode == 73
    assert f"{cli.directory / 'file'}" in done.stderr


DAMAGED = [
    "{",
    "[" * 100_000,
    '{"artifacts": 5}',
    '{"artifacts": {"App": 5}}',
]


@pytest.mark.parametrize("text", DAMAGED, ids=range(len(DAMAGED)))
def test_a_damaged_manifest_counts_as_none(aws: LocalAWS, cli: Cli, text: str) -> None:
    job_id = _job(aws)
    cli("fetch", job_id)
    (cli.directory / ".cpstage/manifest.json").write_text(text)

    refused = cli("fetch", job_id)
    replaced = cli("fetch", job_id, "--replace", "--json")

    assert refused.returncode == 73
    assert json.loads(replaced.stdout)["inputs"][0]["status"] == "staged"


@pytest.mark.parametrize("member", ["directories", "verified", "format"])
def test_a_manifest_that_lost_a_member_counts_as_none(aws: LocalAWS, cli: Cli, member: str) -> None:
    job_id = _job(aws)
    cli("fetch", job_id)
    path = cli.directory / ".cpstage/manifest.json"
    manifest = json.loads(path.read_text())
    del manifest["artifacts"]["App"][member]
    path.write_text(json.dumps(manifest))

    assert cli("fetch", job_id).returncode == 73
    assert cli("fetch", job_id, "--replace").returncode == 0


@pytest.mark.parametrize(
    ("member", "value"), [("directories", "many"), ("directories", math.inf), ("verified", 5)]
)
def test_a_manifest_with_another_kind_of_member_counts_as_none(
    aws: LocalAWS, cli: Cli, member: str, value: object
) -> None:
    job_id = _job(aws)
    cli("fetch", job_id)
    path = cli.directory / ".cpstage/manifest.json"
    manifest = json.loads(path.read_text())
    manifest["artifacts"]["App"][member] = value
    path.write_text(json.dumps(manifest))

    assert cli("fetch", job_id).returncode == 73
    assert cli("fetch", job_id, "--replace").returncode == 0


@pytest.mark.parametrize("obstacle", ["out", "in", "out/Built"])
def test_a_file_in_the_place_of_a_directory_is_known_before_the_fetch(
    aws: LocalAWS, cli: Cli, obstacle: str
) -> None:
    (cli.directory / obstacle).parent.mkdir(exist_ok=True)
    (cli.directory / obstacle).write_text("mine")

    done = cli("fetch", _job(aws), "--replace")

    assert done.returncode == 73
    assert "is in the way of a directory" in done.stderr
    assert not (cli.directory / "in/App").exists()
    assert (cli.directory / obstacle).read_text() == "mine"


def test_a_workspace_whose_links_lead_in_a_circle_is_named(aws: LocalAWS, cli: Cli) -> None:
    (cli.directory / "loop").symlink_to("loop")

    done = cli("fetch", _job(aws), "--workspace", "loop")

    assert done.returncode in {73, 74}
    assert "loop" in done.stderr


def test_a_workspace_whose_name_is_not_utf8(aws: LocalAWS, cli: Cli) -> None:
    place = os.fsdecode(os.fsencode(cli.directory) + b"/caf\xe9")

    done = cli("fetch", _job(aws), "--workspace", place, "--json")

    assert done.returncode == 0, done.stderr
    assert Path(place, "in/App/f").read_text() == "x"


def test_the_state_is_closed_to_others_even_where_it_was_open(aws: LocalAWS, cli: Cli) -> None:
    state = cli.directory / ".cpstage"
    state.mkdir()
    state.chmod(0o777)

    cli("fetch", _job(aws))

    assert state.stat().st_mode & 0o777 == 0o700


def test_exchange_swaps_two_directories(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).write_text(name)

    assert exchange(tmp_path / "one", tmp_path / "two")

    assert names(tmp_path) == ["one", "one/two", "two", "two/one"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere: needs another user")
def test_a_read_only_workspace_is_named(aws: LocalAWS, cli: Cli) -> None:
    cli.directory.chmod(0o500)

    done = cli("fetch", _job(aws))

    cli.directory.chmod(0o700)
    assert done.returncode == 73
    assert "Permission denied" in done.stderr


@pytest.mark.parametrize(
    "command",
    ["fetch JOB", "fetch JOB --dry-run", "push JOB", "run JOB -- true", "diff JOB", "env"],
)
@pytest.mark.parametrize("closed", ["", ".cpstage"])
def test_a_workspace_of_another_user_is_not_an_empty_one(
    aws: LocalAWS, cli: Cli, command: str, closed: str
) -> None:
    job_id = _job(aws)
    assert cli("fetch", job_id, "--workspace", "theirs").returncode == 0
    place = cli.directory / "theirs" / closed
    words = command.replace("JOB", job_id).split()
    place.chmod(0)

    done = subprocess.run(
        [*without_privileges(), sys.executable, "-m", "cpstage", *words],
        cwd=cli.directory,
        env={**cli.environment, "CPSTAGE_WORKSPACE": "theirs"},
        capture_output=True,
        text=True,
    )

    place.chmod(0o700)
    assert done.returncode == 73, done.stderr
    assert str(cli.directory / "theirs") in done.stderr
    assert "Permission denied; check the owner and mode of it" in done.stderr
