"""--unsafe-links, --no-unpack GLOB, archives with unreadable members, and the notes of push."""

from __future__ import annotations

import json
import os
import socket
from typing import TYPE_CHECKING

import pytest

import tar_bytes
from aws_clients import s3
from cpstage.local import Input, LocalAWS
from samples import zip_of, zip_with_link
from trees import names
from zip_bytes import ENCRYPTED, Entry, file, link, zip_bytes

if TYPE_CHECKING:
    from pathlib import Path

    from command_line import Cli

WITH_LINK = zip_with_link("etc", "/etc", {"f": "f"})


@pytest.mark.parametrize("handling", ["skip", "keep"])
def test_unsafe_links_are_skipped_or_kept_and_listed(
    aws: LocalAWS, cli: Cli, handling: str
) -> None:
    job_id = aws.add_job([Input("App", WITH_LINK)])

    done = cli("fetch", job_id, "--json", "--unsafe-links", handling)

    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)["inputs"][0]
    did = {"skip": "skipped", "keep": "kept"}[handling]
    assert found["unsafe_links"] == [{"path": "etc", "target": "/etc", "handling": did}]
    assert len(found["notes"]) == 1
    assert done.stderr.count("the symlink 'etc' to '/etc' leaves the tree") == 1
    assert (cli.directory / "in/App/etc").is_symlink() == (handling == "keep")
    again = cli("fetch", job_id, "--json", "--unsafe-links", handling)
    unchanged = json.loads(again.stdout)["inputs"][0]
    assert unchanged["status"] == "unchanged"
    assert unchanged["unsafe_links"] == found["unsafe_links"]
    assert cli("diff", job_id).returncode == 0
    assert cli("fetch", job_id).returncode == 73, "reject would stage something else"


def test_run_takes_unsafe_links_too(aws: LocalAWS, cli: Cli) -> None:
    job_id = aws.add_job([Input("App", WITH_LINK)])

    done = cli("run", job_id, "--unsafe-links", "skip", "--", "test", "-f", "in/App/f")

    assert done.returncode == 0, done.stderr


def test_unpack_takes_unsafe_links_too(cli: Cli) -> None:
    (cli.directory / "a.zip").write_bytes(WITH_LINK)

    refused = cli("unpack", "a.zip", "--into", "d")
    done = cli("unpack", "a.zip", "--into", "d", "--unsafe-links", "keep", "--json")

    assert refused.returncode == 65
    assert "--unsafe-links skip" in refused.stderr
    assert os.readlink(cli.directory / "d/etc") == "/etc"
    assert json.loads(done.stdout)["unsafe_links"][0]["handling"] == "kept"


def test_artifacts_that_match_a_glob_are_staged_as_files(aws: LocalAWS, cli: Cli) -> None:
    inputs = [Input(name, zip_of({"f": name})) for name in ("App", "WarMain", "WarTest", "Wheel")]
    job_id = aws.add_job(inputs)
    globs = ["--no-unpack", "War*", "--no-unpack=Wheel"]

    done = cli("fetch", job_id, "--json", *globs)

    assert done.returncode == 0, done.stderr
    assert [one["format"] for one in json.loads(done.stdout)["inputs"]] == ["zip", None, None, None]
    assert (cli.directory / "in/App/f").read_text() == "App"
    again = cli("fetch", job_id, "--json", *globs)
    assert {one["status"] for one in json.loads(again.stdout)["inputs"]} == {"unchanged"}
    assert cli("diff", job_id).returncode == 0
    other = cli("fetch", job_id, "--no-unpack", "War*", "--artifact", "Wheel")
    assert other.returncode == 73, "Wheel would be unpacked now"


def test_no_unpack_before_a_command_means_all(aws: LocalAWS, cli: Cli) -> None:
    job_id = aws.add_job([Input("App", zip_of({"f": "x"}))])

    done = cli("run", job_id, "--no-unpack", "--", "sh", "-c", "test ! -e in/App/f")

    assert done.returncode == 0, done.stderr


def test_a_glob_that_matches_no_input_or_is_the_job_id_is_an_error(aws: LocalAWS, cli: Cli) -> None:
    job_id = aws.add_job([Input("App", zip_of({"f": "x"}))])

    unknown = cli("fetch", job_id, "--no-unpack", "Ap")
    swallowed = cli("fetch", "--no-unpack", job_id)

    assert (unknown.returncode, swallowed.returncode) == (2, 2)
    assert "no input artifact matches 'Ap'" in unknown.stderr
    assert "give JOB_ID before --no-unpack" in swallowed.stderr


UNREADABLE = {
    "encrypted": (Entry("bad", b"x", flags=ENCRYPTED), "is encrypted"),
    "of an unknown method": (Entry("bad", b"x", method=95, stream=b"x"), "compressed with"),
    "a device": (Entry("bad", mode=0o020644), "neither a file"),
    "of an unsafe name": (file("../bad"), "leads upwards"),
    "of a flagged name that is not UTF-8": (Entry(b"bad\xff", b"x", flags=0x800), "not UTF-8"),
    "a link with a wrong CRC": (
        Entry("bad", b"good", mode=0o120777, local={"crc": 1}, central={"crc": 1}),
        "CRC-32",
    ),
    "on another volume": (Entry("bad", b"x", central={"disk": 3}), "multi-disk"),
}


@pytest.mark.parametrize("case", UNREADABLE)
def test_a_zip_is_listed_and_read_beside_a_member_that_cannot_be_read(
    aws: LocalAWS, cli: Cli, case: str
) -> None:
    bad, why = UNREADABLE[case]
    body = zip_bytes(file("a", b"first"), bad, link("l", b"a"), file("z", b"last"))
    job_id = aws.add_job([Input("App", body)])

    listed = cli("ls", job_id, "--json")

    assert listed.returncode == 0, listed.stderr
    [artifact] = json.loads(listed.stdout)["artifacts"]
    entries = {one["name"]: one["refused"] for one in artifact["entries"]}
    assert len(entries) == 4
    assert [name for name, refused in entries.items() if refused is None] == ["a", "l", "z"]
    assert any(why in (refused or "") for refused in entries.values())
    assert any(why in refused for refused in artifact["refused"])
    assert "fetch would refuse App: the entry" in listed.stderr
    assert "?---------" in cli("ls", job_id).stdout
    assert cli("cat", job_id, "App", "a").stdout == "first"
    assert cli("cat", job_id, "App", "z").stdout == "last"
    if entries.keys() & {"bad"} and "link" not in case:
        refused = cli("cat", job_id, "App", "bad")
        assert refused.returncode == 65
        assert why in refused.stderr
    assert cli("fetch", job_id).returncode == 65


def test_a_tar_is_listed_and_read_beside_a_device(aws: LocalAWS, cli: Cli) -> None:
    devices = [tar_bytes.header("null", kind=b"3"), tar_bytes.header("pipe", kind=b"6")]
    body = tar_bytes.tar(tar_bytes.member("a", "first"), *devices, tar_bytes.member("z", "last"))
    job_id = aws.add_job([Input("App", tar_bytes.gzip(body), "")])

    listed = json.loads(cli("ls", job_id, "--json").stdout)["artifacts"][0]

    assert [one["name"] for one in listed["entries"] if one["refused"]] == ["null", "pipe"]
    assert "a character device" in listed["refused"][0]
    assert cli("cat", job_id, "App", "z").stdout == "last"
    assert cli("cat", job_id, "App", "null").returncode == 65


def test_notes_of_push_are_in_its_json(aws: LocalAWS, cli: Cli) -> None:
    job_id = aws.add_job(outputs=["Site"])
    site = cli.directory / "out/Site"
    site.mkdir(parents=True)
    (site / "index.html").write_text("x")
    os.mkfifo(site / "pipe")
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(os.path.relpath(site / "s"))
        done = cli("push", job_id, "--json")

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["outputs"][0]["notes"] == [
        "the FIFO 'pipe' was left out",
        "the socket 's' was left out",
    ]
    assert done.stderr.count("was left out") == 2


def _limits_exceeded(root: Path, case: str) -> None:
    root.mkdir(parents=True)
    if case == "ratio":
        with (root / "zeros").open("wb") as sparse:
            sparse.truncate(96 << 20)
    else:
        (root / "/".join("d" * 129)).mkdir(parents=True)
        (root / "f").touch()


@pytest.mark.parametrize("case", ["ratio", "depth"])
def test_what_fetch_would_refuse_is_pushed_with_a_warning_that_helps(
    aws: LocalAWS, cli: Cli, case: str
) -> None:
    job_id = aws.add_job(outputs=["Site"])
    _limits_exceeded(cli.directory / "out/Site", case)

    done = cli("push", job_id, "--json", "--compression-level", "9")

    assert done.returncode == 0, done.stderr
    [note] = json.loads(done.stdout)["outputs"][0]["notes"]
    assert f"--max-{case} " in note
    assert note in done.stderr
    place = aws.job(job_id).outputs[0]
    stored = s3(aws.admin_environment).get_object(Bucket=place.bucket, Key=place.key)
    (cli.directory / "site.zip").write_bytes(stored["Body"].read())
    option, value = note.split()[-2:]
    assert cli("unpack", "site.zip", "--into", "d").returncode == 65
    assert cli("unpack", "site.zip", "--into", "d", option, value).returncode == 0


def test_an_output_that_is_a_symlink_is_pushed_only_by_its_name(
    aws: LocalAWS, cli: Cli, tmp_path: Path
) -> None:
    job_id = aws.add_job(outputs=["Site"])
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/f").write_text("x")
    (cli.directory / "out").mkdir()
    (cli.directory / "out/Site").symlink_to(tmp_path / "elsewhere")

    refused = cli("push", job_id)
    given = cli("push", job_id, "Site=out/Site")

    assert refused.returncode == 65
    assert "out/Site is a symlink to" in refused.stderr
    assert "Site=PATH" in refused.stderr
    assert given.returncode == 0, given.stderr
    assert names(tmp_path / "elsewhere") == ["f"]


def test_a_tree_without_unsafe_links_is_the_same_for_each_handling(aws: LocalAWS, cli: Cli) -> None:
    job_id = aws.add_job([Input("App", zip_of({"f": "x"}))])
    assert cli("fetch", job_id, "--unsafe-links", "skip").returncode == 0

    again = cli("fetch", job_id)

    assert again.returncode == 0, again.stderr
    assert again.stdout.startswith("unchanged\tin/App\t")
