"""``cpstage ls``, ``cat`` and ``diff`` of encrypted artifacts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from aws_clients import kms
from cpstage.local import SESSION_ACTIONS, Input, LocalAWS
from encrypted_artifacts import encrypt_artifact, flipped_at, header_length
from samples import tar_of, zip_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from command_line import Cli

pytestmark = pytest.mark.slow

FILES = {"a/one": "1\n", "two": "the very secret content\n"}
LARGE = 9 << 20


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "tree/a").mkdir(parents=True)
    for name, text in FILES.items():
        (tmp_path / "tree" / name).write_text(text)
    return tmp_path / "tree"


@pytest.fixture
def private(cli: Cli, tmp_path: Path) -> Cli:
    """A user whose temporary directory is empty."""
    (tmp_path / "tmp").mkdir()
    return cli.with_variables({"TMPDIR": str(tmp_path / "tmp")})


def _left(user: Cli) -> list[str]:
    return os.listdir(user.environment["TMPDIR"])


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
def test_a_sealed_tree_is_looked_into(aws: LocalAWS, private: Cli, tree: Path, kind: str) -> None:
    least = SESSION_ACTIONS & {"s3:GetObject", "kms:Decrypt"}
    message = encrypt_artifact(aws, private, tree, "--format", kind)
    job_id = aws.add_job([Input("App", message, "")], session_actions=least)

    listed = private("ls", job_id, "--json")
    shown = private("ls", job_id)
    read = private("cat", job_id, "App", "two", "--require-encrypted")
    fetched = private("fetch", job_id)
    compared = private("diff", job_id)

    app = json.loads(listed.stdout)["artifacts"][0]
    files = {one["name"]: one["size"] for one in app["entries"] if one["kind"] == "file"}
    assert files == {name: len(text) for name, text in FILES.items()}
    assert (app["format"], app["read"], app["size"]) == (kind, "stream", len(message))
    assert app["envelope"]["keys"] == [aws.key_arn]
    assert shown.stdout.startswith(f"App: {kind}, {len(message):,} bytes, encrypted at s3://")
    assert "App is an encrypted message: all of it was read" in shown.stderr
    assert (read.returncode, read.stdout) == (0, FILES["two"])
    assert fetched.returncode == compared.returncode == 0, fetched.stderr + compared.stderr
    assert _left(private) == []


def test_a_change_of_a_sealed_tree_is_found(aws: LocalAWS, private: Cli, tree: Path) -> None:
    job_id = aws.add_job([Input("App", encrypt_artifact(aws, private, tree), "")])
    assert private("fetch", job_id).returncode == 0
    two = private.directory / "in/App/two"
    two.write_text(FILES["two"].upper())

    done = private("diff", job_id)

    assert done.returncode == 1
    assert done.stdout.startswith(f"content\t{two}\t")


@pytest.mark.parametrize("how", ["--no-decrypt", "--no-unpack"])
def test_what_was_kept_as_a_file_is_compared_as_that(
    aws: LocalAWS, private: Cli, tree: Path, how: str
) -> None:
    job_id = aws.add_job([Input("App", encrypt_artifact(aws, private, tree), "")])
    assert private("fetch", job_id, how).returncode == 0

    same = private("diff", job_id)
    (kept,) = (private.directory / "in/App").iterdir()
    kept.write_bytes(kept.read_bytes()[:-1])

    assert (same.returncode, private("diff", job_id).returncode) == (0, 1)


@pytest.mark.parametrize(
    "damage",
    [
        lambda message: flipped_at(message, header_length(message) - 3),
        lambda message: flipped_at(message, len(message) - 20),
        lambda message: message[:-1],
        lambda message: message + b"x",
    ],
    ids=["header", "last frame", "one byte less", "one byte more"],
)
def test_nothing_of_a_damaged_message_is_shown(
    aws: LocalAWS, private: Cli, tree: Path, damage: Callable[[bytes], bytes]
) -> None:
    (tree / "two").write_bytes(os.urandom(LARGE))  # many frames, of which the first are good
    message = encrypt_artifact(aws, private, tree, "--format", "tar")
    job_id = aws.add_job([Input("App", damage(message), "")])

    for command in (["ls", job_id], ["cat", job_id, "App", "a/one"]):
        done = private(*command)
        assert (done.returncode, done.stdout) == (65, "")
        assert len(done.stderr.splitlines()) == 1
        assert "artifact App at s3://" in done.stderr
    assert _left(private) == []


def test_what_does_not_fit_is_refused_as_fetch_does_it(
    aws: LocalAWS, private: Cli, tree: Path
) -> None:
    message = encrypt_artifact(aws, private, tree, "--encrypt-context", "release=7")
    job_id = aws.add_job([Input("App", message, ""), Input("Plain", zip_of({"f": "x"}))])
    elsewhere = aws.add_job([Input("App", message, "")], pipeline="other-pipeline")

    unsealed = private("ls", job_id, "Plain", "--require-encrypted")
    other = private("cat", job_id, "App", "two", "--decrypt-context", "release=8")
    same = private("cat", job_id, "App", "two", "--decrypt-context", "release=7")
    moved = private("ls", elsewhere)

    assert (unsealed.returncode, other.returncode, moved.returncode) == (65, 65, 65)
    assert "it is not encrypted with the AWS Encryption SDK" in unsealed.stderr
    assert "release" in other.stderr
    assert "cpstage:pipeline" in moved.stderr
    assert same.stdout == FILES["two"]


def test_a_message_is_looked_at_as_the_file_it_is(aws: LocalAWS, private: Cli, tree: Path) -> None:
    message = encrypt_artifact(aws, private, tree)
    job_id = aws.add_job([Input("App", message, key="some/App")])

    listed = private("ls", job_id, "--no-decrypt", "--json")
    with subprocess.Popen(
        [sys.executable, "-m", "cpstage", "cat", job_id, "App", "App", "--no-decrypt"],
        env=private.environment,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.read() == message

    app = json.loads(listed.stdout)["artifacts"][0]
    assert [(one["name"], one["size"]) for one in app["entries"]] == [("App", len(message))]
    assert (app["format"], app["read"]) == (None, "object")
    assert app["envelope"]["keys"] == [aws.key_arn]
    assert [call for call in aws.calls() if call.job_id == job_id and call.service == "kms"] == []


def test_a_key_of_somebody_else_has_to_be_named(aws: LocalAWS, private: Cli, tree: Path) -> None:
    admin = kms(aws.admin_environment)
    other = admin.create_key()["KeyMetadata"]["Arn"]
    message = encrypt_artifact(aws, private, tree, encryption_key=other)
    job_id = aws.add_job([Input("App", message, "")])

    refused = private("ls", job_id)
    denied = private("cat", job_id, "App", "two", "--decrypt-key", other)

    # The job's session may use its own key only: KMS refuses, and is asked all the same.
    assert (refused.returncode, denied.returncode) == (77, 77)
    assert other in refused.stderr
    assert "kms:Decrypt" in denied.stderr


def test_what_cannot_be_opened_for_want_of_room(aws: LocalAWS, private: Cli, tree: Path) -> None:
    message = encrypt_artifact(aws, private, tree)
    job_id = aws.add_job([Input("App", message, "")])

    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))"
    program = f"{limit}; import sys; from cpstage.cli import main; main(sys.argv[1:])"
    done = subprocess.run(
        [sys.executable, "-c", program, "ls", job_id],
        env=private.environment,
        capture_output=True,
        text=True,
    )

    assert (done.returncode, done.stdout) == (74, "")
    assert f"cannot write {private.environment['TMPDIR']}: File too large" in done.stderr
    assert _left(private) == []


def test_an_archive_in_an_encrypted_message_has_limits(
    aws: LocalAWS, private: Cli, tmp_path: Path
) -> None:
    (tmp_path / "packed").write_bytes(tar_of({"a": "x", "f": "x" * 5000}))
    message = encrypt_artifact(aws, private, tmp_path / "packed")
    job_id = aws.add_job([Input("App", message, "")])

    done = private("ls", job_id, "--max-size", "1000")

    assert done.returncode == 65
    assert "--max-size" in done.stderr
