"""``cpstage fetch`` as a user sees it: what lies in the workspace, what is printed, what is not."""

from __future__ import annotations

import base64
import json
import os
import shlex
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from aws_clients import s3
from cpstage.local import Input, LocalAWS
from samples import tar_of, zip_of
from trees import names

if TYPE_CHECKING:
    from command_line import Cli

FORMATS = {
    "zip": zip_of({"bin/run": "#!/bin/sh\n", "a.txt": "a"}, modes={"bin/run": 0o100755}),
    "tar": tar_of({"a.txt": "a"}),
    "tar.gz": tar_of({"a.txt": "a"}, mode="w:gz"),
}


def _no_read(aws: LocalAWS, since: int) -> bool:
    return not [call for call in aws.calls()[since:] if call.action == "GetObject"]


def test_every_input_lands_unpacked_in_its_own_directory(aws: LocalAWS, cli: Cli) -> None:
    inputs = [Input(f"In-{kind[:3]}", body, f".{kind}") for kind, body in FORMATS.items()][:2]
    inputs += [Input("Packed", FORMATS["tar.gz"], ""), Input("Notes", b"plain text", ".txt")]
    job_id = aws.add_job(inputs, outputs=["Built", "Report"])

    done = cli("fetch", job_id)

    assert done.returncode == 0, done.stderr
    root = cli.directory
    notes = aws.job(job_id).inputs[-1].key.rpartition("/")[2]
    assert (root / "in/In-zip/a.txt").read_text() == "a"
    assert os.access(root / "in/In-zip/bin/run", os.X_OK)
    assert (root / "in/In-tar/a.txt").read_text() == "a"
    assert (root / "in/Packed/a.txt").read_text() == "a"
    assert (root / "in/Notes" / notes).read_bytes() == b"plain text"
    assert sorted(os.listdir(root / "out")) == ["Built", "Report"]
    assert [line.split("\t")[0] for line in done.stdout.splitlines()] == ["staged"] * 4 + [
        "output"
    ] * 2


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("suffix", ["", ".zip", ".tar", ".bin"])
def test_the_bytes_decide_the_format_and_not_the_name(
    aws: LocalAWS, cli: Cli, kind: str, suffix: str
) -> None:
    job_id = aws.add_job([Input("App", FORMATS[kind], suffix, content_type="application/zip")])

    done = cli("fetch", job_id, "--json")

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["inputs"][0]["format"] == kind
    assert (cli.directory / "in/App/a.txt").read_text() == "a"


def test_artifacts_are_selected_by_name_and_glob(aws: LocalAWS, cli: Cli) -> None:
    inputs = [Input(name, zip_of({"f": name})) for name in ("AppCore", "AppWeb", "Docs", "Other")]
    job_id = aws.add_job(inputs)

    done = cli("fetch", job_id, "--artifact", "App*", "--artifact", "Docs")

    assert done.returncode == 0, done.stderr
    assert sorted(os.listdir(cli.directory / "in")) == ["AppCore", "AppWeb", "Docs"]


def test_a_glob_that_matches_nothing_is_a_usage_error(aws: LocalAWS, cli: Cli) -> None:
    job_id = aws.add_job([Input("App", zip_of({"f": "x"}))])

    done = cli("fetch", job_id, "--artifact", "Nope*")

    assert done.returncode == 2
    assert "'Nope*'" in done.stderr
    assert "App" in done.stderr
    assert names(cli.directory) == []


def test_merged_layout_puts_all_into_one_directory(aws: LocalAWS, cli: Cli) -> None:
    inputs = [
        Input("One", zip_of({"src/a": "1"})),
        Input("Two", tar_of({"src/b": "2"}), ".tar"),
    ]
    job_id = aws.add_job(inputs)

    first = cli("fetch", job_id, "--layout", "merged")
    second = cli("fetch", job_id, "--layout", "merged")

    assert first.returncode == second.returncode == 0, first.stderr + second.stderr
    assert names(cli.directory / "in") == ["src", "src/a", "src/b"]
    assert second.stdout.startswith("unchanged\t")


def test_merged_layout_refuses_a_collision_and_names_both(aws: LocalAWS, cli: Cli) -> None:
    inputs = [Input("One", zip_of({"src/a": "1"})), Input("Two", zip_of({"src/a": "2"}))]
    job_id = aws.add_job(inputs)

    done = cli("fetch", job_id, "--layout", "merged")

    assert done.returncode == 73
    assert "'src/a' is in both One and Two" in done.stderr
    assert names(cli.directory) == []


def test_layouts_do_not_mix_in_one_workspace(aws: LocalAWS, cli: Cli) -> None:
    job_id = aws.add_job([Input("One", zip_of({"a": "1"})), Input("Two", zip_of({"b": "2"}))])
    assert cli("fetch", job_id, "--layout", "merged").returncode == 0

    done = cli("fetch", job_id)

    assert done.returncode == 73
    assert "--layout merged" in done.stderr
    assert names(cli.directory / "in") == ["a", "b"]


def test_no_unpack_stages_the_object_as_it_is(aws: LocalAWS, cli: Cli) -> None:
    job_id = aws.add_job([Input("App", FORMATS["zip"])])
    file_name = aws.job(job_id).inputs[0].key.rpartition("/")[2]

    done = cli("fetch", job_id, "--no-unpack")

    assert done.returncode == 0, done.stderr
    assert (cli.directory / "in/App" / file_name).read_bytes() == FORMATS["zip"]
    assert names(cli.directory / "in/App") == [file_name]


def test_a_second_fetch_reads_nothing(aws: LocalAWS, cli: Cli) -> None:
    job_id = aws.add_job([Input("App", FORMATS["zip"])])
    cli("fetch", job_id)
    since = len(aws.calls())

    done = cli("fetch", job_id, "--json")

    assert done.returncode == 0, done.stderr
    staged = json.loads(done.stdout)["inputs"][0]
    assert (staged["status"], staged["format"], staged["files"]) == ("unchanged", "zip", 2)
    assert _no_read(aws, since)


def test_what_changed_is_refused_without_replace_and_swapped_with_it(
    aws: LocalAWS, cli: Cli
) -> None:
    old = aws.add_job([Input("App", zip_of({"old": "1"})), Input("Lib", zip_of({"lib": "1"}))])
    new = aws.add_job([Input("App", zip_of({"new": "2"})), Input("Lib", zip_of({"lib": "2"}))])
    assert cli("fetch", old).returncode == 0

    refused = cli("fetch", new)
    after_refusal = names(cli.directory / "in")
    replaced = cli("fetch", new, "--replace")

    assert refused.returncode == 73
    assert "--replace" in refused.stderr
    assert after_refusal == ["App", "App/old", "Lib", "Lib/lib"]
    assert replaced.returncode == 0, replaced.stderr
    assert names(cli.directory / "in") == ["App", "App/new", "Lib", "Lib/lib"]
    assert (cli.directory / "in/Lib/lib").read_text() == "2"


def test_what_the_user_put_there_is_never_overwritten(aws: LocalAWS, cli: Cli) -> None:
    job_id = aws.add_job([Input("App", zip_of({"f": "x"}))])
    mine = cli.directory / "in/App/mine.txt"
    mine.parent.mkdir(parents=True)
    mine.write_text("precious")

    done = cli("fetch", job_id)

    assert done.returncode == 73
    assert names(cli.directory / "in") == ["App", "App/mine.txt"]
    assert mine.read_text() == "precious"


def test_an_empty_directory_in_its_place_is_no_obstacle(aws: LocalAWS, cli: Cli) -> None:
    job_id = aws.add_job([Input("App", zip_of({"f": "x"}))])
    (cli.directory / "in/App").mkdir(parents=True)

    assert cli("fetch", job_id).returncode == 0
    assert (cli.directory / "in/App/f").read_text() == "x"


def test_a_dry_run_says_what_would_happen_and_does_nothing(aws: LocalAWS, cli: Cli) -> None:
    job_id = aws.add_job([Input("App", FORMATS["tar.gz"], "")], outputs=["Built"])

    done = cli("fetch", job_id, "--dry-run", "--json", "--env-file", "job.env")

    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["inputs"][0]["status"] == "planned"
    assert document["inputs"][0]["format"] == "tar.gz"
    assert list(cli.directory.iterdir()) == []


def test_one_bad_artifact_publishes_none(aws: LocalAWS, cli: Cli) -> None:
    job_id = aws.add_job(
        [Input("Good", zip_of({"f": "x"})), Input("Bad", b"this is no archive", ".zip")]
    )

    done = cli("fetch", job_id)

    assert done.returncode == 65
    assert "artifact Bad at s3://" in done.stderr
    assert names(cli.directory) == []


def test_an_empty_object_that_should_be_an_archive_is_refused(aws: LocalAWS, cli: Cli) -> None:
    job_id = aws.add_job([Input("App", b"", ".zip")])

    done = cli("fetch", job_id)

    assert done.returncode == 65
    assert "is empty" in done.stderr
    assert "--no-unpack" in done.stderr


def test_the_environment_file_can_be_sourced(aws: LocalAWS, cli: Cli, tmp_path: Path) -> None:
    place = tmp_path / "a work space"
    job_id = aws.add_job([Input("App-Core", zip_of({"f": "x"}))], outputs=["Built"])

    done = cli(
        "fetch", job_id, "--workspace", str(place), "--env-file", "job.env", "--codebuild-env"
    )

    assert done.returncode == 0, done.stderr
    lines = shlex.split((cli.directory / "job.env").read_text())
    variables = dict(line.partition("=")[::2] for line in lines)
    assert variables["CPSTAGE_JOB_ID"] == job_id
    assert Path(variables["CPSTAGE_IN_APP_CORE"], "f").read_text() == "x"
    assert Path(variables["CPSTAGE_OUT_BUILT"]).is_dir()
    assert variables["CODEBUILD_SRC_DIR"] == variables["CODEBUILD_SRC_DIR_App_Core"]
    assert not [name for name in variables if "KEY" in name or "TOKEN" in name]


def test_the_environment_of_a_merged_fetch_names_what_is_there(aws: LocalAWS, cli: Cli) -> None:
    job_id = aws.add_job([Input("One", zip_of({"a": "1"})), Input("Two", zip_of({"b": "2"}))])

    done = cli("fetch", job_id, "--layout", "merged", "--artifact", "One", "--env-file", "job.env")

    assert done.returncode == 0, done.stderr
    text = (cli.directory / "job.env").read_text()
    assert f"CPSTAGE_IN_ONE={cli.directory / 'in'}\n" in text
    assert "CPSTAGE_IN_TWO" not in text


def test_an_environment_file_may_lie_in_a_workspace_that_is_still_to_be_made(
    aws: LocalAWS, cli: Cli
) -> None:
    job_id = aws.add_job([Input("App", zip_of({"f": "x"}))])

    done = cli("fetch", job_id, "--workspace", "new", "--env-file", "new/job.env")

    assert done.returncode == 0, done.stderr
    assert (
        f"CPSTAGE_WORKSPACE={cli.directory / 'new'}\n"
        in (cli.directory / "new/job.env").read_text()
    )
    assert (cli.directory / "new").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    ("names_of_inputs", "file", "code"),
    [(["a-b", "a_b"], "job.env", 78), (["app", "APP"], "job.env", 78), (["a"], "no/where", 74)],
)
def test_an_environment_file_that_cannot_be_is_known_before_the_fetch(
    aws: LocalAWS, cli: Cli, names_of_inputs: list[str], file: str, code: int
) -> None:
    job_id = aws.add_job([Input(name, zip_of({"f": "x"})) for name in names_of_inputs])

    done = cli("fetch", job_id, "--env-file", file)

    assert done.returncode == code
    assert list(cli.directory.iterdir()) == []


def test_a_merged_fetch_of_a_part_replaces_the_whole(aws: LocalAWS, cli: Cli) -> None:
    job_id = aws.add_job([Input("One", zip_of({"a": "1"})), Input("Two", zip_of({"b": "2"}))])
    merged = ("fetch", job_id, "--layout", "merged")
    assert cli(*merged).returncode == 0

    part = cli(*merged, "--artifact", "One", "--replace")
    refused = cli(*merged)
    whole = cli(*merged, "--replace")

    assert part.returncode == whole.returncode == 0, part.stderr + whole.stderr
    assert refused.returncode == 73
    assert names(cli.directory / "in") == ["a", "b"]


def test_plain_files_collide_in_a_merged_fetch_too(aws: LocalAWS, cli: Cli) -> None:
    key = "p/App/notes.txt"
    job_id = aws.add_job([Input("One", b"1", key=key), Input("Two", zip_of({"notes.txt": "2"}))])

    done = cli("fetch", job_id, "--layout", "merged")

    assert done.returncode == 73
    assert "'notes.txt' is in both One and Two" in done.stderr


def test_a_file_that_begins_with_zeros_is_a_file(aws: LocalAWS, cli: Cli) -> None:
    body = bytes(2000) + b"precious" * 1000
    job_id = aws.add_job([Input("Image", body, key="p/Image/disk.img")])

    done = cli("fetch", job_id)

    assert done.returncode == 0, done.stderr
    assert (cli.directory / "in/Image/disk.img").read_bytes() == body


def test_a_dry_run_tells_what_the_real_one_would_do(aws: LocalAWS, cli: Cli) -> None:
    old = aws.add_job([Input("App", zip_of({"old": "1"}))])
    new = aws.add_job([Input("App", zip_of({"new": "2"}))])
    cli("fetch", old)

    same = cli("fetch", old, "--dry-run")
    other = cli("fetch", new, "--dry-run")
    replacing = cli("fetch", new, "--dry-run", "--replace")

    assert same.stdout.startswith("unchanged\t")
    assert other.returncode == 73
    assert replacing.stdout.startswith("planned\t")
    assert names(cli.directory / "in") == ["App", "App/old"]


def test_an_artifact_that_was_emptied_is_fetched_again(aws: LocalAWS, cli: Cli) -> None:
    job_id = aws.add_job([Input("App", zip_of({"f": "x"}))])
    cli("fetch", job_id)
    (cli.directory / "in/App/f").unlink()

    done = cli("fetch", job_id)

    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("staged\t")
    assert (cli.directory / "in/App/f").read_text() == "x"


@pytest.mark.parametrize("stdin", [False, True])
def test_a_saved_document_does_as_well_as_an_id(aws: LocalAWS, cli: Cli, stdin: bool) -> None:
    job_id = aws.add_job([Input("App", zip_of({"f": "x"}))])
    saved = cli("get-job-details", "--job-id", job_id, "--reveal-secrets").stdout
    (cli.directory / "job.json").write_text(saved)
    calls = len(aws.calls())

    done = (
        cli("fetch", "--job-file", "-", stdin=saved)
        if stdin
        else cli("fetch", "--job-file", "job.json")
    )

    assert done.returncode == 0, done.stderr
    assert (cli.directory / "in/App/f").read_text() == "x"
    assert {call.service for call in aws.calls()[calls:]} == {"s3"}


def test_a_document_that_was_saved_masked_says_so(aws: LocalAWS, cli: Cli) -> None:
    job_id = aws.add_job([Input("App", zip_of({"f": "x"}))])
    saved = cli("get-job-details", "--job-id", job_id).stdout

    done = cli("fetch", "--job-file", "-", stdin=saved)

    assert done.returncode == 77
    assert "get-job-details --save" in done.stderr


def test_a_third_party_job_is_fetched_with_its_client_token(aws: LocalAWS, cli: Cli) -> None:
    job_id = aws.add_job([Input("App", zip_of({"f": "x"}))], third_party=True)
    token = aws.job(job_id).client_token
    assert token is not None

    done = cli("fetch", job_id, CPSTAGE_CLIENT_TOKEN=token)
    wrong = cli("fetch", job_id, CPSTAGE_CLIENT_TOKEN="wrong")

    assert done.returncode == 0, done.stderr
    assert (cli.directory / "in/App/f").read_text() == "x"
    assert wrong.returncode == 77


def test_the_manifest_says_what_was_staged_and_what_was_verified(aws: LocalAWS, cli: Cli) -> None:
    job_id = aws.add_job([Input("App", FORMATS["zip"])], configuration={"Password": "canary"})

    cli("fetch", job_id)

    state = cli.directory / ".cpstage"
    entry = json.loads((state / "manifest.json").read_text())["artifacts"]["App"]
    assert entry["size"] == len(FORMATS["zip"])
    assert entry["version_id"]
    assert entry["encryption"] == "aws:kms"
    assert entry["kms_key_id"] == aws.key_arn
    assert entry["verified"] == ["length", "ETag", "CRC-32 of every file"]
    assert state.stat().st_mode & 0o777 == 0o700
    for file in state.iterdir():
        if file.is_file():
            assert file.stat().st_mode & 0o077 == 0, file
            assert "canary" not in file.read_text()


def test_a_job_without_inputs_gets_its_output_directories(aws: LocalAWS, cli: Cli) -> None:
    job_id = aws.add_job(outputs=["Built"])

    done = cli("fetch", job_id)

    assert done.returncode == 0, done.stderr
    assert names(cli.directory) == ["out", "out/Built"]


def test_a_large_artifact_is_read_in_parallel_ranges(aws: LocalAWS, cli: Cli) -> None:
    noise = os.urandom(20 << 20)
    job_id = aws.add_job([Input("App", zip_of({"noise": noise, "small": "s"}))])
    since = len(aws.calls())

    done = cli("fetch", job_id)

    assert done.returncode == 0, done.stderr
    assert (cli.directory / "in/App/noise").read_bytes() == noise
    ranges = [call.byte_range for call in aws.calls()[since:] if call.action == "GetObject"]
    assert len(ranges) >= 3
    assert all(ranges)


ASCII_LOCALE = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
"""Python takes the plain C locale for UTF-8 unless it is told not to."""


def test_a_locale_without_utf8_takes_names_that_it_has(aws: LocalAWS, cli: Cli) -> None:
    job = aws.add_job([Input("App", zip_of({"plain.txt": "x"}))], ["Out"])

    done = cli.with_variables(ASCII_LOCALE)("fetch", job)

    assert done.returncode == 0, done.stderr
    assert names(cli.directory / "in/App") == ["plain.txt"]


def test_a_name_that_the_locale_does_not_have_is_told(aws: LocalAWS, cli: Cli) -> None:
    job = aws.add_job(
        [Input("App", zip_of({"plain.txt": "x", "gr\u00fc\u00dfe.txt": "x"}))], ["Out"]
    )

    done = cli.with_variables(ASCII_LOCALE)("fetch", job, "--progress", "none")

    assert done.returncode == 74, done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert "file names are in ascii here" in done.stderr
    assert "PYTHONUTF8=1" in done.stderr
    assert not (cli.directory / "in").exists()


@pytest.mark.parametrize(
    "algorithm",
    [
        "CRC32",
        pytest.param(
            "CRC64NVME",
            marks=pytest.mark.skipif(
                not find_spec("awscrt"), reason="awscrt (the extra crt) is not installed"
            ),
        ),
    ],
)
@pytest.mark.parametrize(
    ("body", "suffix"),
    [(zip_of({"f": "x"}), ".zip"), (b"x" * (17 << 20), ".txt")],
    ids=["one GET", "many ranges"],
)
def test_an_object_that_differs_from_its_checksum_is_rejected(
    aws: LocalAWS, cli: Cli, body: bytes, suffix: str, algorithm: str
) -> None:
    """The answer to one GET holds the whole object, with the checksum: botocore compares, too."""
    job_id = aws.add_job([Input("App", body, suffix)])
    there = aws.job(job_id).inputs[0]
    other = base64.b64encode(bytes(8 if "64" in algorithm else 4)).decode()
    s3(aws.admin_environment).put_object(
        Bucket=there.bucket,
        Key=there.key,
        Body=body,
        ChecksumAlgorithm=algorithm,  # type: ignore[arg-type]
        **{f"Checksum{algorithm}": other},  # type: ignore[arg-type]
    )

    done = cli("fetch", job_id)

    assert done.returncode == 65, done.stderr
    assert f"artifact App at s3://{there.bucket}/{there.key}" in done.stderr
    assert other in done.stderr
    assert not (cli.directory / "in/App").exists()
