"""``cpstage ls`` and ``cat``: remote artifacts looked into without being fetched."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import sys
import tarfile
from typing import TYPE_CHECKING

import pytest

from cpstage.archive.blob import FileBlob
from cpstage.aws.s3 import ObjectInfo
from cpstage.inspect.content import Counted, OpenArtifact
from cpstage.inspect.listing import list_remote
from cpstage.job import Artifact, S3Location, check_artifact_name
from cpstage.local import SESSION_ACTIONS, Call, Input, LocalAWS, Output
from cpstage.transfer.options import Unpacking
from samples import tar_member, tar_of, tar_of_members, zip_of, zip_with_link
from terminals import on_terminal
from zip_bytes import Entry, file, zip_bytes

if TYPE_CHECKING:
    from pathlib import Path

    from command_line import Cli

pytestmark = pytest.mark.slow

MIB = 1 << 20
DOS_EPOCH = "1980-01-01T00:00:00Z"
LARGE = 40 * MIB
MODES = {"bin/run": stat.S_IFREG | 0o755, "latest": stat.S_IFLNK | 0o777}


def _reads(calls: list[Call]) -> list[int]:
    """How many bytes each GET of an object asked for."""
    reads = []
    for call in calls:
        if call.action == "GetObject":
            first, _, last = (call.byte_range or "").removeprefix("bytes=").partition("-")
            reads.append(int(last) - int(first) + 1)
    return reads


def test_ls_lists_a_zip_in_columns(aws: LocalAWS, cli: Cli) -> None:
    body = zip_of({"bin/run": "echo", "text": "hello\n", "latest": "text"}, modes=MODES)
    job_id = aws.add_job([Input("App", body)])

    done = cli("ls", job_id, TZ="UTC")

    assert done.returncode == 0, done.stderr
    rows = [line.split() for line in done.stdout.splitlines()]
    assert done.stdout.startswith(f"App: zip, {len(body)} bytes at s3://")
    assert rows[1:] == [
        ["-rwxr-xr-x", "4", "6", "17043032", DOS_EPOCH, "bin/run"],
        ["-rw-r--r--", "6", "8", "363a3020", DOS_EPOCH, "text"],
        ["lrwxrwxrwx", "4", "6", "3b8ba7c7", DOS_EPOCH, "latest", "->", "text"],
    ]


@pytest.mark.parametrize("format", ["zip", "tar.gz"])
def test_ls_shows_the_permission_bits_that_unpack_restores(cli: Cli, format: str) -> None:
    modes = {"own": 0o600, "group": 0o640, "read": 0o444, "run": 0o750, "sub": 0o700}
    tree = cli.directory / "tree"
    (tree / "sub").mkdir(parents=True)
    for name, mode in modes.items():
        if name != "sub":
            (tree / name).touch()
        (tree / name).chmod(mode)
    assert cli("pack", "tree", "--output", "packed", "--format", format).returncode == 0

    listed = cli("ls", "--archive", "packed").stdout.splitlines()[1:]
    cli("unpack", "packed", "--into", "copy")

    shown = {row.split()[-1].rstrip("/"): row.split()[0] for row in listed}
    copies = {path.name: path for path in (cli.directory / "copy").iterdir()}
    assert shown == {name: stat.filemode(path.stat().st_mode) for name, path in copies.items()}
    assert shown["own"] == "-rw-------"


def test_a_large_zip_is_listed_and_read_by_a_few_small_requests(aws: LocalAWS, cli: Cli) -> None:
    body = zip_bytes(file("large", os.urandom(LARGE)), file("small", b"needle\n"))
    job_id = aws.add_job([Input("App", body)])

    before = len(aws.calls())
    listed = cli("ls", job_id, "--json")
    between = len(aws.calls())
    read = cli("cat", job_id, "App", "small", "-v")
    calls = aws.calls()

    entries = json.loads(listed.stdout)["artifacts"][0]["entries"]
    assert [(one["name"], one["size"]) for one in entries] == [("large", LARGE), ("small", 7)]
    assert read.stdout == "needle\n"
    artifact = aws.job(job_id).inputs[0]
    where = f"s3.GetObject artifact App at s3://{artifact.bucket}/{artifact.key}"
    said = rf"{where} bytes=\d+-\d+: status 206, 0 retries"
    assert len(re.findall(said, read.stderr)) == len(_reads(calls[between:]))
    for some in (calls[before:between], calls[between:]):
        assert len(_reads(some)) <= 3
        assert sum(_reads(some)) < 3 * MIB
    assert json.loads(listed.stdout)["artifacts"][0]["bytes_read"] == sum(
        _reads(calls[before:between])
    )


def test_a_zip_of_2_gib_is_listed_by_its_end(tmp_path: Path) -> None:
    size = 2 << 30
    sizes = {"packed": size, "size": size}
    header = zip_bytes(Entry("large", local=sizes), end={"count": 0}).partition(b"PK\1\2")[0]
    whole = zip_bytes(
        Entry("large", local=sizes, central=sizes), end={"offset": len(header) + size}
    )
    path = tmp_path / "large.zip"
    with path.open("wb") as sparse:
        sparse.write(header)
        sparse.seek(size, os.SEEK_CUR)
        sparse.write(whole[len(header) :])
    blob = FileBlob(path)
    artifact = Artifact(check_artifact_name("App"), S3Location("bucket", "key"))
    counted = Counted(blob)

    listing = list_remote(
        OpenArtifact(
            artifact, ObjectInfo(blob.size, '"e"', None, "", None, None), "zip", counted, counted
        ),
        Unpacking(),
    )
    blob.close()

    assert [(one.name, one.size) for one in listing.entries] == [("large", size)]
    assert counted.bytes_read <= 4 * MIB


def test_a_tar_is_read_as_a_whole_and_that_is_said(aws: LocalAWS, cli: Cli) -> None:
    members: list[tuple[tarfile.TarInfo, str | bytes]] = [
        (tar_member("dir/", tarfile.DIRTYPE), ""),
        (tar_member("link", tarfile.SYMTYPE, "dir"), ""),
    ]
    body = tar_of_members(members, "w:gz")
    job_id = aws.add_job([Input("App", body, ""), Input("Lib", tar_of({"f": "hello\n"}), "")])

    done = cli("ls", job_id, "--json")

    app, lib = json.loads(done.stdout)["artifacts"]
    assert (app["format"], lib["format"], app["read"]) == ("tar.gz", "tar", "stream")
    assert [(one["kind"], one["target"]) for one in app["entries"]] == [
        ("directory", None),
        ("link", "dir"),
    ]
    assert lib["entries"][0]["crc32"] == "363a3020"
    assert "App is tar.gz, which has no central directory: all of it was read" in done.stderr


def test_a_file_that_is_no_archive_is_listed_as_itself(aws: LocalAWS, cli: Cli) -> None:
    job_id = aws.add_job([Input("App", b"plain", key="some/report.txt")])

    assert cli("ls", job_id).stdout.splitlines()[1].split() == [
        "-rw-r--r--", "5", "5", "-", "-", "report.txt",
    ]  # fmt: skip
    assert cli("cat", job_id, "App", "report.txt").stdout == "plain"


def test_hostile_names_are_shown_as_text_and_named(aws: LocalAWS, cli: Cli) -> None:
    body = zip_of({"../up": "x", "\x1b[2Jclear": "x"})
    job_id = aws.add_job([Input("App", body), Input("Out", zip_with_link("out", "/etc"))])

    done = cli("ls", job_id)

    assert done.returncode == 0
    assert "../up" in done.stdout
    assert "\x1b" not in done.stdout + done.stderr
    assert "fetch would refuse App: the entry '../up' has an unsafe name" in done.stderr
    assert "fetch would refuse Out: the entry 'out' is a link that leaves the tree" in done.stderr


@pytest.mark.parametrize("body", [b"PK\3\4 cut off", zip_of({"f": "x"})[:-4]])
def test_a_damaged_archive_is_one_line(aws: LocalAWS, cli: Cli, body: bytes) -> None:
    job_id = aws.add_job([Input("App", body)])

    for arguments in (["ls", job_id], ["cat", job_id, "App", "f"]):
        done = cli(*arguments)
        assert done.returncode == 65
        assert done.stdout == ""
        assert len(done.stderr.splitlines()) == 1
        assert "artifact App at s3://" in done.stderr


def test_names_choose_inputs_and_outputs(aws: LocalAWS, cli: Cli) -> None:
    body = zip_of({"f": "x"})
    job_id = aws.add_job([Input("AppA", body), Input("AppB", body), Input("Lib", body)], ["Built"])

    some = json.loads(cli("ls", job_id, "App*", "--json").stdout)["artifacts"]
    by_variable = json.loads(cli("ls", "Lib", "--json", CPSTAGE_JOB_ID=job_id).stdout)["artifacts"]
    unknown = cli("ls", job_id, "Nope")
    output = cli("ls", job_id, "Built")

    assert [one["name"] for one in some] == ["AppA", "AppB"]
    assert [one["name"] for one in by_variable] == ["Lib"]
    assert unknown.returncode == 2
    assert "the job has: AppA, AppB, Lib, Built" in unknown.stderr
    assert output.returncode == 77
    assert "may usually write its outputs but not read them" in output.stderr


def test_an_output_is_listed_where_the_session_may_read_it(aws: LocalAWS, cli: Cli) -> None:
    key = "sample-pipeline/both/one"
    job_id = aws.add_job(
        [Input("App", zip_of({"f": "x"}), key=key)],
        [Output("Built", key=key)],
        session_actions=SESSION_ACTIONS,
    )

    done = cli("ls", job_id, "Built")

    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Built: zip")


def test_cat_takes_members_of_tars_and_of_zips(aws: LocalAWS, cli: Cli) -> None:
    files = {"a/one": "1\n", "two": "2\n"}
    job_id = aws.add_job(
        [Input("Zip", zip_of(files)), Input("Tar", tar_of(files, mode="w:gz"), "")],
    )

    for artifact in ("Zip", "Tar"):
        assert cli("cat", job_id, artifact, "a/one").stdout == "1\n"
        assert cli("cat", artifact, "./two", CPSTAGE_JOB_ID=job_id).stdout == "2\n"
        missing = cli("cat", job_id, artifact, "three")
        assert missing.returncode == 66
        assert " does not contain 'three'; see cpstage ls" in missing.stderr


def test_a_large_member_comes_whole(aws: LocalAWS, cli: Cli) -> None:
    data = os.urandom(9 * MIB)
    job_id = aws.add_job([Input("App", zip_of({"before": "x", "large": data, "after": "x"}))])

    with subprocess.Popen(
        [sys.executable, "-m", "cpstage", "cat", job_id, "App", "large"],
        env=cli.environment,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.read() == data
    assert process.returncode == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["App", "link"], "'link' is a link and not a file"),
        (["A*", "f"], "'A*' matches several artifacts; give one of App, Also"),
        (["App"], "ARTIFACT and PATH are missing"),
    ],
)
def test_cat_of_what_is_no_file(aws: LocalAWS, cli: Cli, arguments: list[str], words: str) -> None:
    job_id = aws.add_job([Input("App", zip_with_link("link", "f", {"f": "x"})), Input("Also")])

    given = [job_id, *arguments] if len(arguments) > 1 else arguments
    done = cli("cat", *given)

    assert done.returncode == 2
    assert words in done.stderr


def test_a_wrong_crc_is_an_error_behind_the_data(aws: LocalAWS, cli: Cli) -> None:
    wrong = {"crc": 1}
    body = zip_bytes(Entry("f", b"content", local=wrong, central=wrong))
    job_id = aws.add_job([Input("App", body)])

    done = cli("cat", job_id, "App", "f")

    assert done.returncode == 65
    assert done.stdout == "content"
    assert "the entry 'f' does not have the CRC-32 that it declares" in done.stderr


def test_what_cannot_be_written_is_an_error(aws: LocalAWS, cli: Cli) -> None:
    job_id = aws.add_job([Input("App", zip_of({"f": "x"}))])

    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "cpstage", "cat", job_id, "App", "f"],
            env=cli.environment,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )

    assert done.returncode == 74
    assert "No space left on device" in done.stderr


def test_limits_hold_for_what_is_only_looked_at(aws: LocalAWS, cli: Cli) -> None:
    job_id = aws.add_job([Input("App", tar_of({"a": "x", "f": "x" * 5000}), "")])

    for arguments in (["ls", job_id], ["cat", job_id, "App", "f"]):
        done = cli(*arguments, "--max-size", "1000")
        assert done.returncode == 65
        assert "--max-size" in done.stderr


def test_binary_data_is_kept_off_a_terminal(aws: LocalAWS, cli: Cli) -> None:
    job_id = aws.add_job(
        [Input("App", zip_of({"binary": b"a\x1b]0;b\x07", "text": "h\u00e9\tx\n"}))]
    )

    refused = on_terminal(cli, "cat", job_id, "App", "binary")
    forced = on_terminal(cli, "cat", job_id, "App", "binary", "--force")
    text = on_terminal(cli, "cat", job_id, "App", "text")

    assert refused[:2] == (2, "")
    assert "'binary' is not plain text, and stdout is a terminal" in refused[2]
    assert forced[:2] == (0, "a\x1b]0;b\x07")
    assert text[:2] == (0, "h\u00e9\tx\r\n")


def test_nothing_in_color_on_a_terminal(aws: LocalAWS, cli: Cli) -> None:
    job_id = aws.add_job([Input("App", zip_of({"f": "x"}))])

    for variables in ({}, {"NO_COLOR": "1"}, {"FORCE_COLOR": "1", "TERM": "xterm-256color"}):
        given = cli.with_variables(variables)
        code, shown, said = on_terminal(given, "show", job_id)
        assert code == 0
        assert "\x1b" not in shown + said
        assert "\x1b" not in on_terminal(given, "--help").terminal
