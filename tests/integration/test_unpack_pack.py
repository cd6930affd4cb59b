"""``cpstage unpack`` and ``cpstage pack``, as a user sees them."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from cpstage.archive.options import Budget, Limits
from cpstage.archive.paths import Plan
from cpstage.errors import ArtifactRejected
from mounts import mounted, with_processes
from samples import tar_of, zip_of, zip_with_link
from trees import awkward_tree, listing, names

if TYPE_CHECKING:
    from pathlib import Path

    from command_line import Cli
    from cpstage.local import LocalAWS

pytestmark = pytest.mark.slow


def _write(path: Path, body: bytes) -> Path:
    path.write_bytes(body)
    return path


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return awkward_tree(tmp_path / "tree")


@pytest.fixture
def admin(aws: LocalAWS, cli: Cli) -> Cli:
    """A caller who may use KMS."""
    return cli.with_variables(aws.admin_environment)


# There and back


@pytest.mark.parametrize("name", ["app.zip", "app.tar", "app.tar.gz", "app.tgz", "app"])
def test_a_tree_comes_back_as_it_was(cli: Cli, tree: Path, name: str) -> None:
    packed = cli("pack", str(tree), "--output", name, "--json")
    unpacked = cli("unpack", name, "--into", "there", "--json")

    assert (packed.returncode, unpacked.returncode) == (0, 0), packed.stderr + unpacked.stderr
    assert listing(cli.directory / "there") == listing(tree)
    made, found = json.loads(packed.stdout), json.loads(unpacked.stdout)
    assert made["size"] == (cli.directory / name).stat().st_size
    assert made["format"] == found["format"]
    assert made["files"] == found["files"]
    assert made["unpacked_size"] == found["unpacked_size"]
    assert names(cli.directory) == sorted([name, "there", *_below("there", tree)])


def _below(directory: str, tree: Path) -> list[str]:
    return [f"{directory}/{name}" for name in names(tree)]


def test_an_empty_directory_is_filled_and_stays_the_same_one(cli: Cli, tmp_path: Path) -> None:
    into = cli.directory / "into"
    into.mkdir(mode=0o750)
    inode = into.stat().st_ino
    body = _write(tmp_path / "app.zip", zip_of({"a/b": "x", "c": "y"}))

    done = cli("unpack", str(body), "--into", ".", cwd=into)

    assert done.returncode == 0, done.stderr
    assert (into.stat().st_ino, into.stat().st_mode & 0o777) == (inode, 0o750)
    assert names(into) == ["a", "a/b", "c"]


def test_parents_of_the_directory_are_made(cli: Cli, tmp_path: Path) -> None:
    body = _write(tmp_path / "app.zip", zip_of({"file": "x"}))

    done = cli("unpack", str(body), "--into", "some/where/new")

    assert done.returncode == 0, done.stderr
    assert (cli.directory / "some/where/new/file").read_text() == "x"


def test_globs_links_and_levels_are_those_of_push(cli: Cli, tree: Path) -> None:
    (tree / "dangling").unlink()

    done = cli(
        *("pack", str(tree), "--output", "app.zip", "--include", "src", "--include", "bin"),
        *("--exclude", "*.c", "--symlinks", "follow", "--compression-level", "0"),
    )

    assert done.returncode == 0, done.stderr
    assert cli("unpack", "app.zip", "--into", "there").returncode == 0
    found = listing(cli.directory / "there")
    assert sorted(found) == ["bin", "bin/latest", "bin/run.sh", "src", "src/up"]
    assert found["bin/latest"] == found["bin/run.sh"]


@pytest.mark.parametrize("name", ["app.zip", "app.tar.gz"])
@pytest.mark.parametrize("level", ["1", "2", "3", "6"])
def test_the_same_tree_gives_the_same_bytes(
    cli: Cli, tmp_path: Path, name: str, level: str
) -> None:
    """Each process has its memory elsewhere, and nothing of an archive may come from there."""
    tree = tmp_path / "app"
    tree.mkdir()
    for number in range(1200):
        _write(tree / f"{number:04}", f"{number * 7919 % 99991:05},".encode() * 12)
    packed = set()
    for attempt in range(2):
        output = cli.directory / f"{attempt}-{name}"
        options = ("--output", str(output), "--compression-level", level)
        assert cli("pack", str(tree), *options).returncode == 0
        packed.add(output.read_bytes())

    assert len(packed) == 1


def test_an_archive_inside_its_own_directory_is_left_out(cli: Cli) -> None:
    (cli.directory / "file").write_text("x")

    for options in ([], ["--overwrite"]):
        done = cli("pack", ".", "--output", "app.zip", "--json", *options)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["files"] == 1


# Refusals leave things as they were


@pytest.mark.parametrize(
    ("files", "says"),
    [(1200, "cannot start a child process: "), (10, "the system starts no more threads; ")],
)
def test_a_system_that_has_no_room_for_processes_is_named(
    cli: Cli, tmp_path: Path, files: int, says: str
) -> None:
    tree = tmp_path / "app"
    tree.mkdir()
    for number in range(files):
        (tree / f"{number:04}").touch()
    cli.directory.chmod(0o777)
    command = ["-m", "cpstage", "pack", str(tree), "--output", "app.zip", "--progress", "none"]

    done = subprocess.run(
        [*with_processes(1), sys.executable, *command],
        cwd=cli.directory,
        env=dict(cli.environment),
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert done.returncode == 74
    assert done.stderr.startswith(f"cpstage: error: {says}")
    assert done.stderr.count("\n") == 1
    assert names(cli.directory) == []


def test_a_directory_that_is_not_empty_is_refused(cli: Cli, tmp_path: Path) -> None:
    (cli.directory / "into").mkdir()
    (cli.directory / "into/mine").write_text("mine")
    body = _write(tmp_path / "app.zip", zip_of({"file": "x"}))

    done = cli("unpack", str(body), "--into", "into")

    assert done.returncode == 73
    assert "into is not empty" in done.stderr
    assert names(cli.directory) == ["into", "into/mine"]


@pytest.mark.parametrize("exists", [True, False], ids=["empty", "new"])
@pytest.mark.parametrize(
    "body",
    [
        zip_of({"good": "x", "../evil": "y"}),
        zip_with_link("link", "../../evil", {"good": "x"}),
        zip_of({"good": "x" * 5000})[:-30],
        tar_of({"good": "x", "../evil": "y"}, mode="w:gz"),
        tar_of({"good": "x" * 5000}, mode="w:gz")[:-30],
        b"no archive at all",
        b"",
    ],
    ids=["zip name", "zip link", "zip cut", "tar name", "tar cut", "text", "empty"],
)
def test_a_refused_archive_leaves_the_directory_untouched(
    cli: Cli, tmp_path: Path, body: bytes, exists: bool
) -> None:
    if exists:
        (cli.directory / "into").mkdir()
    archive = _write(tmp_path / "app.zip", body)

    done = cli("unpack", str(archive), "--into", "into")

    assert done.returncode == 65
    assert done.stderr.count("cpstage: error: ") == 1
    assert "app.zip" in done.stderr
    assert names(cli.directory) == (["into"] if exists else [])
    assert not (tmp_path / "evil").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["unpack", "nowhere.zip", "--into", "x"], 66, "nowhere.zip does not exist"),
        (["unpack", ".", "--into", "x"], 65, "not a regular file"),
        (["unpack", "file", "--into", "file"], 73, "file is not a directory"),
        (["unpack", "file", "--into", "file/below"], 73, "file/below"),
        (["unpack", "file"], 2, "--into"),
        (["pack", "nowhere", "--output", "x.zip"], 66, "nowhere does not exist"),
        (["pack", "file", "--output", "x.zip"], 78, "file is not a directory"),
        (["pack", ".", "--output", "file"], 73, "file exists already"),
        (["pack", ".", "--output", "nowhere/x.zip"], 74, "nowhere/x.zip"),
        (["pack", ".", "--output", "x.zip", "--encrypt"], 2, "--encrypt-key"),
        (["pack", ".", "--output", "x.zip", "--encrypt-key", "k"], 2, "--encrypt"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_is_said_in_one_line(
    cli: Cli, arguments: list[str], code: int, said: str
) -> None:
    (cli.directory / "file").write_text("x")

    done = cli(*arguments, "-q")

    assert done.returncode == code
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
    assert names(cli.directory) == ["file"]


def test_a_failed_pack_leaves_the_archive_that_was_there(cli: Cli) -> None:
    (cli.directory / "tree").mkdir()
    (cli.directory / "tree/pipe").symlink_to("/etc")
    (cli.directory / "app.zip").write_text("old")

    done = cli("pack", "tree", "--output", "app.zip", "--overwrite")

    assert done.returncode == 65
    assert "'pipe'" in done.stderr
    assert (cli.directory / "app.zip").read_text() == "old"
    assert names(cli.directory) == ["app.zip", "tree", "tree/pipe"]


@pytest.mark.parametrize("option", ["size", "ratio", "entries", "depth"])
def test_a_limit_is_an_option_and_named(cli: Cli, tmp_path: Path, option: str) -> None:
    bound = {"size": "1000", "ratio": "100", "entries": "2", "depth": "2"}[option]
    files: dict[str, str | bytes] = {
        "a/b/c": "x",
        "zeros": bytes(80 << 20 if option == "ratio" else 2000),
    }
    body = _write(tmp_path / "app.zip", zip_of(files))

    done = cli("unpack", str(body), "--into", "into", f"--max-{option}", bound)

    assert done.returncode == 65
    assert f"--max-{option}" in done.stderr
    assert names(cli.directory) == []


def test_a_full_disk_leaves_nothing(cli: Cli, tmp_path: Path) -> None:
    body = _write(tmp_path / "app.zip", zip_of({"zeros": bytes(8 << 20)}))
    limited = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20));"
        "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "from cpstage.cli import main; main()"
    )

    done = subprocess.run(
        [sys.executable, "-c", limited, "unpack", str(body), "--into", "into"],
        cwd=cli.directory,
        env=cli.environment,
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert done.returncode == 74
    assert "cannot write" in done.stderr
    assert names(cli.directory) == []


def _is_writing(directory: Path) -> bool:
    try:
        return any(any(staging.glob("tree/*")) for staging in directory.glob(".cpstage-*"))
    except FileNotFoundError:
        return False


def test_a_signal_leaves_nothing(cli: Cli, tmp_path: Path) -> None:
    archive = _write(
        tmp_path / "many.zip", zip_of({f"d{n}/f": bytes(300_000) for n in range(1500)})
    )
    bound = ("--max-ratio", "100000")

    with subprocess.Popen(
        [sys.executable, "-m", "cpstage", "unpack", str(archive), "--into", "into", *bound],
        cwd=cli.directory,
        env=cli.environment,
        stderr=subprocess.PIPE,
        text=True,
    ) as running:
        while not _is_writing(cli.directory) and running.poll() is None:
            pass
        running.send_signal(signal.SIGTERM)
        said = running.communicate(timeout=60)[1]

    assert running.returncode == 128 + signal.SIGTERM, said
    assert names(cli.directory) == []


# Encrypted messages


def test_a_sealed_archive_comes_back(aws: LocalAWS, admin: Cli, tree: Path) -> None:
    options = ("--encrypt", "--encrypt-key", aws.key_arn, "--encrypt-context", "team=a")
    packed = admin("pack", str(tree), "--output", "app.zip", "--json", *options)
    opening = ("--require-encrypted", "--decrypt-key", aws.key_arn)
    unpacked = admin(
        "unpack", "app.zip", "--into", "there", "--json", *opening, "--decrypt-context", "team=a"
    )

    assert (packed.returncode, unpacked.returncode) == (0, 0), packed.stderr + unpacked.stderr
    assert listing(admin.directory / "there") == listing(tree)
    assert json.loads(packed.stdout)["envelope"]["keys"] == [aws.key_arn]
    assert json.loads(unpacked.stdout)["envelope"]["encryption_context"] == {"team": "a"}


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        ([], 77, "--decrypt-key"),
        (["--decrypt-key", "KEY", "--decrypt-context", "team=b"], 65, "team"),
    ],
    ids=["no key", "another context"],
)
def test_a_sealed_archive_that_may_not_be_opened(
    aws: LocalAWS, admin: Cli, tree: Path, options: list[str], code: int, said: str
) -> None:
    keys = ("--encrypt", "--encrypt-key", aws.key_arn, "--encrypt-context", "team=a")
    assert admin("pack", str(tree), "--output", "app.zip", *keys).returncode == 0

    given = [aws.key_arn if option == "KEY" else option for option in options]
    done = admin("unpack", "app.zip", "--into", "there", *given)

    assert done.returncode == code
    assert said in done.stderr
    assert names(admin.directory) == ["app.zip"]


def test_it_is_the_caller_who_lacks_a_permission(
    aws: LocalAWS, cli: Cli, admin: Cli, tree: Path
) -> None:
    keys = ("--encrypt", "--encrypt-key", aws.key_arn)
    assert admin("pack", str(tree), "--output", "app.zip", *keys).returncode == 0

    encrypting = cli("pack", str(tree), "--output", "mine.zip", *keys)
    opening = cli("unpack", "app.zip", "--into", "there", "--decrypt-key", aws.key_arn)

    for done, permission in ((encrypting, "kms:GenerateDataKey"), (opening, "kms:Decrypt")):
        assert done.returncode == 77
        hint = f"; the caller's policy and the key's policy have to allow {permission} on it\n"
        assert done.stderr.endswith(hint)


def test_what_has_to_be_sealed_and_is_not_is_refused(cli: Cli, tmp_path: Path) -> None:
    body = _write(tmp_path / "app.zip", zip_of({"file": "x"}))

    done = cli("unpack", str(body), "--into", "there", "--require-encrypted")

    assert done.returncode == 65
    assert "it is not encrypted" in done.stderr
    assert names(cli.directory) == []


def test_an_encrypted_message_can_be_kept(aws: LocalAWS, admin: Cli, tree: Path) -> None:
    keys = ("--encrypt", "--encrypt-key", aws.key_arn)
    assert admin("pack", str(tree), "--output", "app.zip", *keys).returncode == 0

    done = admin("unpack", "app.zip", "--into", "there", "--no-decrypt")

    assert done.returncode == 0, done.stderr
    kept, encrypted = admin.directory / "there/app.zip", admin.directory / "app.zip"
    assert kept.read_bytes() == encrypted.read_bytes()


# File systems that fold names


@pytest.mark.parametrize(
    ("first", "second"), [("Readme", "README"), ("a/x", "A/y"), ("é", "e\u0301"), ("ß", "ss")]
)
def test_names_that_are_one_on_a_folding_file_system_are_refused(first: str, second: str) -> None:
    budget = Budget(Limits(), 1000)
    folding, keeping = Plan(folds_names=True), Plan()

    for name in (first, second):
        keeping.admit(name, "file", "App", budget)
    folding.admit(first, "file", "App", budget)
    with pytest.raises(ArtifactRejected, match="has the same name as"):
        folding.admit(second, "file", "App", budget)


@pytest.mark.parametrize("symlinks", ["keep", "follow"])
def test_pack_says_nothing_about_uploads(cli: Cli, symlinks: str) -> None:
    """And its advice works."""
    tree = cli.directory / "tree"
    tree.mkdir()
    (tree / "f").write_text("x")
    (tree / "l").symlink_to("/nowhere")

    done = cli("pack", "tree", "--output", "tree.zip", "--symlinks", symlinks)
    advised = cli("pack", "tree", "--output", "tree.zip", "--symlinks", symlinks, "--exclude", "l")

    assert done.returncode
    assert "leave" in done.stderr
    assert "--exclude" in done.stderr
    assert "upload" not in done.stderr
    assert advised.returncode == 0, advised.stderr


@pytest.mark.parametrize(
    "command", ["pack IN/tree --output IN/full/a.zip", "unpack IN/a.zip --into IN/full/a"]
)
def test_the_advice_for_a_full_disk_names_no_option_of_other_commands(
    cli: Cli, command: str
) -> None:
    (cli.directory / "tree").mkdir()
    (cli.directory / "tree/f").write_bytes(os.urandom(100_000))
    assert cli("pack", "tree", "--output", "a.zip").returncode == 0
    words = command.replace("IN", str(cli.directory)).split()

    with mounted(cli.directory / "full", "size=64k") as full:
        done = subprocess.run(
            [*full.prefix, sys.executable, "-m", "cpstage", *words],
            env=dict(cli.environment),
            capture_output=True,
            text=True,
        )
        assert full.names() == []

    assert done.returncode == 74
    assert "No space left on device; free some space" in done.stderr
    assert "--workspace" not in done.stderr


def test_a_file_that_is_not_an_archive_is_not_said_to_be_kept(cli: Cli) -> None:
    (cli.directory / "a.gz").write_bytes(gzip.compress(zip_of({"f": "x"})))

    done = cli("unpack", "a.gz", "--into", "b")

    assert done.returncode == 65
    assert done.stderr == (
        "cpstage: error: a.gz is in the format gzip-compressed zip, and not a zip, tar or tar.gz "
        "archive; nothing of it was staged\n"
    )
    assert names(cli.directory) == ["a.gz"]


def test_a_path_that_no_option_allows_is_not_to_be_had_by_one(cli: Cli, tmp_path: Path) -> None:
    deep = tmp_path / "tree" / "/".join("d" * 500)
    deep.mkdir(parents=True)
    (deep / "file").touch()

    packed = cli("pack", "tree", "--output", "deep.zip", cwd=tmp_path)
    into = ("--into", "new", "--max-depth", "500")
    refused = cli("unpack", "deep.zip", *into, cwd=tmp_path)

    assert packed.returncode == 0
    assert refused.returncode == 65
    assert "500 at most" in packed.stderr
    assert "501 components, and 500 are the most" in refused.stderr
    assert "--max-depth" not in packed.stderr + refused.stderr
    assert not (tmp_path / "new").exists()
