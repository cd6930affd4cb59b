"""A tree with everything that archives lose goes up, and comes back as it was.

Independent readers (Info-ZIP, libarchive) say the same of what lies in the bucket.
"""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from aws_clients import s3
from cpstage.local import Input, LocalAWS
from trees import awkward_tree, listing, needs

if TYPE_CHECKING:
    from pathlib import Path

    from command_line import Cli

pytestmark = pytest.mark.slow

FORMATS = ["zip", "tar", "tar.gz"]


def _push(aws: LocalAWS, cli: Cli, tree: Path, kind: str, *options: str) -> bytes:
    job_id = aws.add_job(outputs=["Built"])
    done = cli("push", job_id, f"Built={tree}", "--format", kind, *options)
    assert done.returncode == 0, done.stderr
    artifact = aws.job(job_id).outputs[0]
    answer = s3(aws.admin_environment).get_object(Bucket=artifact.bucket, Key=artifact.key)
    return answer["Body"].read()


@pytest.mark.parametrize("level", ["0", "6", "9"])
@pytest.mark.parametrize("kind", FORMATS)
def test_push_and_fetch_give_the_same_tree(
    aws: LocalAWS, cli: Cli, tmp_path: Path, kind: str, level: str
) -> None:
    tree = awkward_tree(tmp_path / "tree")

    body = _push(aws, cli, tree, kind, "--compression-level", level)
    done = cli("fetch", aws.add_job([Input("Back", body, "")]))

    assert done.returncode == 0, done.stderr
    assert listing(cli.directory / "in/Back") == listing(tree)


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("reader", ["unzip", "bsdtar"])
def test_independent_readers_unpack_the_same_tree(
    aws: LocalAWS, cli: Cli, tmp_path: Path, kind: str, reader: str
) -> None:
    if reader == "unzip" and kind != "zip":
        reader = "tar"
    needs(reader)
    tree = awkward_tree(tmp_path / "tree")
    archive = tmp_path / "archive"
    archive.write_bytes(_push(aws, cli, tree, kind))
    into = tmp_path / "into"
    into.mkdir()
    command = {
        "unzip": ["unzip", "-q", str(archive), "-d", str(into)],
        "bsdtar": ["bsdtar", "-xpf", str(archive), "-C", str(into)],
        "tar": ["tar", "-xpf", str(archive), "-C", str(into)],
    }[reader]

    subprocess.run(command, check=True, env={"LC_ALL": "C.UTF-8", "PATH": "/usr/bin:/bin"})

    assert listing(into) == listing(tree)


def test_zipinfo_sees_modes_and_a_sound_archive(aws: LocalAWS, cli: Cli, tmp_path: Path) -> None:
    needs("unzip", "zipinfo")
    archive = tmp_path / "archive.zip"
    archive.write_bytes(_push(aws, cli, awkward_tree(tmp_path / "tree"), "zip"))

    tested = subprocess.run(["unzip", "-tq", str(archive)], capture_output=True, text=True)
    listed = subprocess.run(["zipinfo", str(archive)], capture_output=True, text=True, check=True)

    assert tested.returncode == 0, tested.stdout + tested.stderr
    modes = {line.split()[-1]: line.split()[0] for line in listed.stdout.splitlines()[2:-1]}
    assert modes["bin/run.sh"] == "-rwxr-xr-x"
    assert modes["bin/latest"] == "lrwxrwxrwx"
    assert modes["empty.txt"] == "-rw-r--r--"
    assert modes["empty/inside/"] == "drwxr-xr-x"


@pytest.mark.parametrize("packer", ["zip", "bsdtar-zip", "bsdtar-tar", "tar-gz"])
def test_archives_of_other_tools_come_out_as_packed(
    aws: LocalAWS, cli: Cli, tmp_path: Path, packer: str
) -> None:
    needs(packer.partition("-")[0])
    tree = awkward_tree(tmp_path / "tree")
    archive = tmp_path / "archive"
    command = {
        "zip": ["zip", "-qry", f"{archive}.zip", "."],
        "bsdtar-zip": ["bsdtar", "--format", "zip", "-cf", f"{archive}.zip", "."],
        "bsdtar-tar": ["bsdtar", "--format", "pax", "-cf", f"{archive}.zip", "."],
        "tar-gz": ["tar", "--format", "gnu", "-czf", f"{archive}.zip", "."],
    }[packer]
    environment = {"LC_ALL": "C.UTF-8", "PATH": "/usr/bin:/bin"}
    subprocess.run(command, cwd=tree, check=True, env=environment)
    body = archive.with_suffix(".zip").read_bytes()

    done = cli("fetch", aws.add_job([Input("Back", body, "")]))

    assert done.returncode == 0, done.stderr
    assert listing(cli.directory / "in/Back") == listing(tree)
