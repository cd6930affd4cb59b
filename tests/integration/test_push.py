"""``cpstage push`` as a user sees it: what goes up, how, and what never does."""

from __future__ import annotations

import base64
import io
import json
import os
import socket
import subprocess
import zipfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from aws_clients import s3
from trees import listing

if TYPE_CHECKING:
    from command_line import Cli
    from cpstage.local import LocalAWS

PUTS = {"PutObject", "CreateMultipartUpload"}


def _put(aws: LocalAWS, job_id: str) -> list[str]:
    return [call.key or "" for call in aws.calls() if call.action in PUTS and call.job_id == job_id]


def _object(aws: LocalAWS, job_id: str, name: str) -> dict[str, object]:
    """What lies at the location of an output, read as the administrator."""
    artifact = next(one for one in aws.job(job_id).outputs if one.name == name)
    answer = s3(aws.admin_environment).get_object(Bucket=artifact.bucket, Key=artifact.key)
    return {**answer, "Body": answer["Body"].read()}


def _crc32(aws: LocalAWS, job_id: str, name: str) -> str:
    body = _object(aws, job_id, name)["Body"]
    assert isinstance(body, bytes)
    return "CRC32:" + base64.b64encode(zlib.crc32(body).to_bytes(4, "big")).decode()


def _unzipped(aws: LocalAWS, job_id: str, name: str) -> dict[str, bytes]:
    body = _object(aws, job_id, name)["Body"]
    assert isinstance(body, bytes)
    with zipfile.ZipFile(io.BytesIO(body)) as archive:
        return {info.filename: archive.read(info) for info in archive.infolist()}


def _write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_every_output_goes_to_its_location_as_a_zip(aws: LocalAWS, cli: Cli) -> None:
    job_id = aws.add_job(outputs=["Built", "Report"])
    _write(cli.directory / "out/Built/bin/app", "binary")
    _write(cli.directory / "out/Report/index.html", "<p>")

    done = cli("push", job_id, "--json")

    assert done.returncode == 0, done.stderr
    assert _unzipped(aws, job_id, "Built") == {"bin/": b"", "bin/app": b"binary"}
    assert _unzipped(aws, job_id, "Report") == {"index.html": b"<p>"}
    stored = _object(aws, job_id, "Built")
    assert stored["ContentType"] == "application/zip"
    assert stored["ServerSideEncryption"] == "aws:kms"
    assert stored["SSEKMSKeyId"] == aws.key_arn
    pushed = json.loads(done.stdout)["outputs"][0]
    assert pushed["etag"] == stored["ETag"]
    assert pushed["version_id"] == stored["VersionId"]
    assert pushed["kms_key_id"] == aws.key_arn
    assert pushed["size"] == stored["ContentLength"]
    assert pushed["checksum"] == _crc32(aws, job_id, "Built")


def test_paths_name_other_directories_and_files(aws: LocalAWS, cli: Cli) -> None:
    job_id = aws.add_job(outputs=["Built", "Notes"])
    _write(cli.directory / "dist/app", "binary")
    _write(cli.directory / "NOTES.txt", "one regular file")

    done = cli("push", job_id, "Built=dist", "Notes=NOTES.txt")

    assert done.returncode == 0, done.stderr
    assert _unzipped(aws, job_id, "Built") == {"app": b"binary"}
    notes = _object(aws, job_id, "Notes")
    assert notes["Body"] == b"one regular file"
    assert notes["ContentType"] == "text/plain"


def test_the_job_id_may_come_from_the_environment(aws: LocalAWS, cli: Cli) -> None:
    job_id = aws.add_job(outputs=["Built"])
    _write(cli.directory / "dist/app", "binary")

    done = cli("push", "Built=dist", CPSTAGE_JOB_ID=job_id)

    assert done.returncode == 0, done.stderr
    assert _unzipped(aws, job_id, "Built") == {"app": b"binary"}


@pytest.mark.parametrize(
    ("kind", "content_type", "magic"),
    [
        ("zip", "application/zip", b"PK\x03\x04"),
        ("tar", "application/tar", b"app"),
        ("tar.gz", "application/gzip", b"\x1f\x8b\x08"),
        ("raw", "application/octet-stream", b"binary"),
    ],
)
def test_each_format_has_its_bytes_and_content_type(
    aws: LocalAWS, cli: Cli, kind: str, content_type: str, magic: bytes
) -> None:
    job_id = aws.add_job(outputs=["Built"])
    _write(cli.directory / "out/Built/app", "binary")

    done = cli("push", job_id, "--format", kind, "--mtime", "fixed")

    assert done.returncode == 0, done.stderr
    stored = _object(aws, job_id, "Built")
    body = stored["Body"]
    assert isinstance(body, bytes)
    assert body.startswith(magic)
    assert stored["ContentType"] == content_type


def test_raw_takes_one_file_only(aws: LocalAWS, cli: Cli) -> None:
    job_id = aws.add_job(outputs=["Built"])
    _write(cli.directory / "out/Built/a", "a")
    _write(cli.directory / "out/Built/b", "b")

    done = cli("push", job_id, "--format", "raw")

    assert done.returncode == 78
    assert "2 entries" in done.stderr
    assert _put(aws, job_id) == []


def test_an_archive_given_as_a_file_keeps_its_type(aws: LocalAWS, cli: Cli) -> None:
    job_id = aws.add_job(outputs=["Built"])
    with zipfile.ZipFile(cli.directory / "ready.bin", "w") as archive:
        archive.writestr("a", "a")

    done = cli("push", job_id, "Built=ready.bin")

    assert done.returncode == 0, done.stderr
    assert _object(aws, job_id, "Built")["ContentType"] == "application/zip"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--exclude", "*.o"], ["a.c", "lib/", "lib/b.c", "lib/deep/", "lib/deep/c.h"]),
        (["--exclude", "lib"], ["a.c", "a.o"]),
        (["--include", "*.c"], ["a.c", "lib/b.c"]),
        (["--include", "lib/**", "--exclude", "lib/deep"], ["lib/b.c", "lib/b.o"]),
        (["--include", "lib/*.[ch]"], ["lib/b.c"]),
        (["--include", "**/c.h"], ["lib/deep/c.h"]),
        (["--include", "[a&&b].[c-]"], ["a.c", "lib/b.c"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_globs_choose_what_is_packed(
    aws: LocalAWS, cli: Cli, options: list[str], expected: list[str]
) -> None:
    job_id = aws.add_job(outputs=["Built"])
    for name in ("a.c", "a.o", "lib/b.c", "lib/b.o", "lib/deep/c.h"):
        _write(cli.directory / "out/Built" / name, name)

    done = cli("push", job_id, *options)

    assert done.returncode == 0, done.stderr
    assert sorted(_unzipped(aws, job_id, "Built")) == expected


def test_a_malformed_glob_is_a_usage_error(aws: LocalAWS, cli: Cli) -> None:
    job_id = aws.add_job(outputs=["Built"])
    _write(cli.directory / "out/Built/app", "x")

    done = cli("push", job_id, "--include", "[z-a]")

    assert done.returncode == 2
    assert "'[z-a]'" in done.stderr


def test_nothing_goes_up_while_one_output_is_missing(aws: LocalAWS, cli: Cli) -> None:
    job_id = aws.add_job(outputs=["Built", "Report"])
    _write(cli.directory / "out/Built/app", "x")
    (cli.directory / "out/Report").mkdir()

    done = cli("push", job_id)

    assert done.returncode == 66
    assert "output Report" in done.stderr
    assert _put(aws, job_id) == []


def test_a_workspace_that_is_not_there_is_said(aws: LocalAWS, cli: Cli) -> None:
    job_id = aws.add_job(outputs=["Built"])

    done = cli("push", job_id, "--workspace", "mistyped")

    assert done.returncode == 66
    assert (
        "mistyped/out/Built, which is not there; put the results there, look at --w" in done.stderr
    )
    assert not (cli.directory / "mistyped").exists()


@pytest.mark.parametrize(("mode", "warned"), [("warn", True), ("ignore", False)])
def test_an_empty_output_can_be_left_out(aws: LocalAWS, cli: Cli, mode: str, warned: bool) -> None:
    job_id = aws.add_job(outputs=["Built", "Report"])
    _write(cli.directory / "out/Built/app", "x")

    done = cli("push", job_id, "--if-empty", mode, "--json")

    assert done.returncode == 0, done.stderr
    assert ("warning: nothing to push for output Report" in done.stderr) is warned
    statuses = [output["status"] for output in json.loads(done.stdout)["outputs"]]
    assert statuses == ["pushed", "skipped"]
    assert len(_put(aws, job_id)) == 1


@pytest.mark.parametrize(
    ("arguments", "directory", "says"),
    [
        (["Typo=dist"], None, "Typo is not an output"),
        ([], "Typo", "out/Typo is for no output"),
    ],
    ids=["path", "directory"],
)
def test_what_the_job_has_no_output_for_is_refused(
    aws: LocalAWS, cli: Cli, arguments: list[str], directory: str | None, says: str
) -> None:
    job_id = aws.add_job(outputs=["Built"])
    _write(cli.directory / "out/Built/app", "x")
    _write(cli.directory / "dist/app", "x")
    if directory:
        (cli.directory / "out" / directory).mkdir()

    done = cli("push", job_id, *arguments)

    assert done.returncode == 78
    assert says in done.stderr
    assert "the job declares Built" in done.stderr
    assert _put(aws, job_id) == []


@pytest.mark.parametrize("argument", ["Built", "=dist", "Built="])
def test_a_path_without_its_name_is_a_usage_error(aws: LocalAWS, cli: Cli, argument: str) -> None:
    done = cli("push", aws.add_job(outputs=["Built"]), argument)

    assert done.returncode == 2
    assert "NAME=PATH" in done.stderr


def test_a_path_that_does_not_exist_is_named(aws: LocalAWS, cli: Cli) -> None:
    done = cli("push", aws.add_job(outputs=["Built"]), "Built=nowhere")

    assert done.returncode == 66
    assert "nowhere" in done.stderr


@pytest.mark.parametrize("target", ["/etc/passwd", "../../outside", "sub/../../x", "loop/../../x"])
def test_a_link_that_leaves_the_tree_is_refused_by_name(
    aws: LocalAWS, cli: Cli, target: str
) -> None:
    job_id = aws.add_job(outputs=["Built"])
    _write(cli.directory / "out/Built/app", "x")
    (cli.directory / "out/Built/leak").symlink_to(target)
    (cli.directory / "out/Built/loop").symlink_to(".")

    done = cli("push", job_id)

    assert done.returncode == 65
    assert "'leak'" in done.stderr
    assert _put(aws, job_id) == []


def test_links_can_be_followed_inside_the_tree(aws: LocalAWS, cli: Cli) -> None:
    job_id = aws.add_job(outputs=["Built"])
    _write(cli.directory / "out/Built/real/file", "content")
    (cli.directory / "out/Built/link").symlink_to("real/file")
    (cli.directory / "out/Built/again").symlink_to("real")

    done = cli("push", job_id, "--symlinks", "follow")

    assert done.returncode == 0, done.stderr
    unzipped = _unzipped(aws, job_id, "Built")
    assert unzipped["link"] == unzipped["again/file"] == b"content"


@pytest.mark.parametrize("target", ["..", ".", "../../../../outside"])
def test_a_followed_link_that_leads_back_or_out_is_refused(
    aws: LocalAWS, cli: Cli, tmp_path: Path, target: str
) -> None:
    job_id = aws.add_job(outputs=["Built"])
    _write(cli.directory / "out/Built/sub/file", "content")
    _write(cli.directory.parent / "outside/file", "not yours")
    (cli.directory / "out/Built/sub/link").symlink_to(target)

    done = cli("push", job_id, "--symlinks", "follow")

    assert done.returncode == 65
    assert "sub/link" in done.stderr
    assert _put(aws, job_id) == []


def test_what_cannot_be_packed_is_refused_before_anything_is_uploaded(
    aws: LocalAWS, cli: Cli
) -> None:
    job_id = aws.add_job(outputs=["First", "Second"])
    _write(cli.directory / "out/First/app", "x")
    (_write(cli.directory / "out/Second/app", "x").parent / "secret").symlink_to("/etc/passwd")

    done = cli("push", job_id)

    assert done.returncode == 65
    assert "'secret'" in done.stderr
    assert _put(aws, job_id) == []


def test_a_fifo_is_left_out_with_a_warning(aws: LocalAWS, cli: Cli) -> None:
    job_id = aws.add_job(outputs=["Built"])
    os.mkfifo(_write(cli.directory / "out/Built/app", "x").parent / "pipe")

    done = cli("push", job_id)

    assert done.returncode == 0, done.stderr
    assert "the FIFO 'pipe' was left out" in done.stderr
    assert _unzipped(aws, job_id, "Built") == {"app": b"x"}


def test_many_files_of_several_outputs_go_up_when_all_are_listed(aws: LocalAWS, cli: Cli) -> None:
    """The first of them are packed while the others are still looked for."""
    job_id = aws.add_job(outputs=["First", "Second"])
    for name in ("First", "Second"):
        for number in range(1200):
            _write(cli.directory / f"out/{name}/{number:04}", name * number)
    link = cli.directory / "out/Second/link"
    link.symlink_to("/etc/passwd")

    refused = cli("push", job_id)

    assert refused.returncode == 65
    assert "'link'" in refused.stderr
    assert _put(aws, job_id) == []

    link.unlink()
    assert cli("push", job_id).returncode == 0
    for name in ("First", "Second"):
        expected = {f"{number:04}": (name * number).encode() for number in range(1200)}
        assert _unzipped(aws, job_id, name) == expected


def test_a_socket_can_be_left_out(aws: LocalAWS, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    job_id = aws.add_job(outputs=["Built"])
    directory = _write(cli.directory / "out/Built/app", "x").parent
    monkeypatch.chdir(directory)  # the path of a socket has 107 bytes at most
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("s.sock")
        done = cli("push", job_id, "--exclude", "*.sock")

    assert done.returncode == 0, done.stderr
    assert list(_unzipped(aws, job_id, "Built")) == ["app"]


def test_a_name_that_is_not_utf8_is_refused(aws: LocalAWS, cli: Cli) -> None:
    job_id = aws.add_job(outputs=["Built"])
    (cli.directory / "out/Built").mkdir(parents=True)
    Path(os.fsdecode(os.fsencode(cli.directory / "out/Built") + b"/caf\xe9")).write_text("x")

    done = cli("push", job_id)

    assert done.returncode == 65
    assert r"caf\xe9" in done.stderr


def test_an_output_of_empty_directories_is_empty(aws: LocalAWS, cli: Cli) -> None:
    job_id = aws.add_job(outputs=["Built"])
    (cli.directory / "out/Built/only/directories").mkdir(parents=True)

    assert cli("push", job_id).returncode == 66
    dry = cli("push", job_id, "--if-empty", "warn", "--dry-run")
    assert dry.stdout.startswith("skipped\t")
    assert "nothing to push for output Built" in dry.stderr


def test_a_very_deep_tree_goes_up(aws: LocalAWS, cli: Cli) -> None:
    job_id = aws.add_job(outputs=["Built"])
    deep = f"{cli.directory}/out/Built"
    Path(deep).mkdir(parents=True)
    for _ in range(1100):  # one by one: the library's own way down is a recursion
        deep += "/d"
        os.mkdir(deep)
    Path(deep, "f").write_text("x")

    done = cli("push", job_id)
    # pytest's own way of removing it would be a recursion, too.
    subprocess.run(["rm", "-rf", str(cli.directory / "out")], check=True)

    assert done.returncode == 0, done.stderr
    assert _unzipped(aws, job_id, "Built")["d/" * 1100 + "f"] == b"x"


def test_a_link_in_a_circle_is_refused_by_name(aws: LocalAWS, cli: Cli) -> None:
    job_id = aws.add_job(outputs=["Built"])
    _write(cli.directory / "out/Built/app", "x")
    (cli.directory / "out/Built/loop").symlink_to("loop")

    done = cli("push", job_id, "--symlinks", "follow")

    assert done.returncode in {65, 74}
    assert "loop" in done.stderr


def test_a_dry_run_lists_and_sends_nothing(aws: LocalAWS, cli: Cli) -> None:
    job_id = aws.add_job(outputs=["Built"])
    _write(cli.directory / "out/Built/app", "x" * 1000)

    done = cli("push", job_id, "--dry-run", "--json")

    assert done.returncode == 0, done.stderr
    planned = json.loads(done.stdout)["outputs"][0]
    assert (planned["status"], planned["files"], planned["unpacked_size"]) == ("planned", 1, 1000)
    assert _put(aws, job_id) == []


@pytest.mark.parametrize("fixing", [["--mtime", "fixed"], ["--mtime", "2024-01-31"], []])
def test_the_same_contents_give_the_same_bytes(
    aws: LocalAWS, cli: Cli, tmp_path: Path, fixing: list[str]
) -> None:
    bodies = set()
    pushing = cli if fixing else cli.with_variables({"SOURCE_DATE_EPOCH": "500"})
    for attempt in range(2):
        job_id = aws.add_job(outputs=["Built"])
        source = tmp_path / f"tree-{attempt}"
        for name in ("b", "a", "c/d")[:: -1 if attempt else 1]:
            mtime = 1000 + attempt * 1000
            os.utime(_write(source / name, name * 1000), (mtime, mtime))
        assert pushing("push", job_id, f"Built={source}", *fixing).returncode == 0
        bodies.add(_object(aws, job_id, "Built")["Body"])

    assert len(bodies) == 1


def test_a_large_output_goes_up_in_parts_under_the_key(aws: LocalAWS, cli: Cli) -> None:
    job_id = aws.add_job(outputs=["Built"])
    noise = cli.directory / "out/Built/noise"
    noise.parent.mkdir(parents=True)
    noise.write_bytes(os.urandom(20 << 20))

    done = cli("push", job_id, "--json")

    assert done.returncode == 0, done.stderr
    calls = [call for call in aws.calls() if call.job_id == job_id and call.service == "s3"]
    assert [call.action for call in calls].count("UploadPart") == 3
    pushed = json.loads(done.stdout)["outputs"][0]
    assert pushed["checksum"] == _crc32(aws, job_id, "Built")
    (created,) = [call for call in calls if call.action == "CreateMultipartUpload"]
    assert (created.server_side_encryption, created.kms_key_id) == ("aws:kms", aws.key_arn)
    assert _unzipped(aws, job_id, "Built") == {"noise": noise.read_bytes()}


@pytest.mark.parametrize("key", [None, {"id": "", "type": "KMS"}, {"type": "KMS"}])
def test_without_a_key_id_none_is_sent(aws: LocalAWS, cli: Cli, key: dict[str, str] | None) -> None:
    job_id = aws.add_job(outputs=["Built"], encryption_key=key)
    _write(cli.directory / "out/Built/app", "x")

    done = cli("push", job_id)

    assert done.returncode == 0, done.stderr
    (put,) = [call for call in aws.calls() if call.job_id == job_id and call.action == "PutObject"]
    assert (put.server_side_encryption, put.kms_key_id) == ("aws:kms", None)


def test_pushing_leaves_the_workspace_alone(aws: LocalAWS, cli: Cli) -> None:
    job_id = aws.add_job(outputs=["Built"])
    _write(cli.directory / "out/Built/app", "x")
    before = listing(cli.directory)

    assert cli("push", job_id).returncode == 0
    assert listing(cli.directory) == before
