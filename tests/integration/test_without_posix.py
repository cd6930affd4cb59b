"""A system that is not POSIX, as Windows is not: what works there, and how the rest refuses.

tests/support/without_posix takes from Python what such systems lack. That is no Windows.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from command_line import Cli, plain_environment
from cpstage.cli import GROUPS
from samples import zip_of

COMMANDS = [name for group in GROUPS.values() for name in group]
DOCUMENT = {
    "id": "f4f4ff82-2d11-EXAMPLE",
    "data": {
        "pipelineContext": {"pipelineName": "P", "stage": {"name": "S"}, "action": {"name": "A"}},
        "inputArtifacts": [],
        "outputArtifacts": [],
        "artifactCredentials": {"accessKeyId": "a", "secretAccessKey": "b", "sessionToken": "c"},
    },
}


@pytest.fixture
def bare(tmp_path: Path) -> Cli:
    """A user of such a system, with a saved job, an archive and a directory to pack."""
    (tmp_path / "job.json").write_text(json.dumps(DOCUMENT))
    (tmp_path / "a.zip").write_bytes(zip_of({"f": "content"}))
    (tmp_path / "d").mkdir()
    environment = plain_environment(tmp_path)
    path = f"{Path(__file__).parents[1] / 'support/without_posix'}:{environment['PYTHONPATH']}"
    return Cli({**environment, "PYTHONPATH": path, "AWS_REGION": "eu-central-1"}, tmp_path)


@pytest.mark.parametrize("command", [(), *((name,) for name in COMMANDS)])
def test_every_command_explains_itself(bare: Cli, command: tuple[str, ...]) -> None:
    done = bare(*command, "--help")

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Usage: ")


def test_a_saved_job_is_shown(bare: Cli) -> None:
    done = bare("show", "--job-file", "job.json")

    assert done.returncode == 0, done.stderr
    assert "f4f4ff82-2d11-EXAMPLE" in done.stdout


@pytest.mark.parametrize(
    "command",
    [
        ("fetch", "--job-file", "job.json"),
        ("push", "--job-file", "job.json"),
        ("run", "--job-file", "job.json", "--", "true"),
        ("work", "--category=Build", "--provider=P", "--version=1", "--once", "--", "true"),
        ("unpack", "a.zip", "--into", "new"),
        ("pack", "d", "--output", "new.tar.gz"),
    ],
    ids=lambda command: command[0],
)
def test_what_stages_refuses_on_one_line(bare: Cli, command: tuple[str, ...]) -> None:
    before = sorted(bare.directory.rglob("*"))

    done = bare(*command)

    assert done.returncode == 78
    assert "this system is not POSIX" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert sorted(bare.directory.rglob("*")) == before
