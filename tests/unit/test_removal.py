"""Removing trees that a build had in its hands."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cpstage.filesystem.removal import make_writable, remove_tree
from mounts import mounted, without_privileges

_REMOVE = (
    "import sys; from pathlib import Path; from cpstage.filesystem.removal import remove_tree\n"
)
_REMOVE += "print(remove_tree(Path(sys.argv[1])))"


def _remove_without_privileges(tree: Path) -> str:
    command = [*without_privileges(), sys.executable, "-c", _REMOVE, str(tree)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def _closed(tree: Path) -> None:
    (tree / "a/b").mkdir(parents=True)
    (tree / "a/b/f").write_text("x")
    for directory in (tree / "a/b", tree / "a", tree):
        directory.chmod(0)


def _read_only(tree: Path) -> None:
    (tree / "a/b").mkdir(parents=True)
    (tree / "a/b/f").write_text("x")
    subprocess.run(["chmod", "-R", "a-w", str(tree)], check=True)


def _deep(tree: Path) -> None:
    tree.mkdir()
    at = os.open(tree, os.O_RDONLY)
    for _ in range(3000):
        os.mkdir("directory", dir_fd=at)
        below = os.open("directory", os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = below
    os.close(os.open("f", os.O_CREAT | os.O_WRONLY, dir_fd=at))
    os.close(at)


def _deep_and_read_only(tree: Path) -> None:
    _deep(tree)
    subprocess.run(["chmod", "-R", "a-w", str(tree)], check=True)


def _special(tree: Path) -> None:
    tree.mkdir()
    os.mkfifo(tree / "fifo")
    (tree / "dangling").symlink_to("nowhere")
    os.close(os.open(os.fsencode(tree) + b"/\xff\n", os.O_CREAT | os.O_WRONLY))


@pytest.mark.parametrize("make", [_closed, _read_only, _deep, _deep_and_read_only, _special])
def test_a_tree_goes_whatever_a_build_made_of_it(
    tmp_path: Path, make: Callable[[Path], None]
) -> None:
    make(tmp_path / "tree")

    assert _remove_without_privileges(tmp_path / "tree") == "[]"
    assert not os.path.lexists(tmp_path / "tree")


def test_a_tree_in_a_read_only_directory_goes(tmp_path: Path) -> None:
    (tmp_path / "above/tree").mkdir(parents=True)
    (tmp_path / "above").chmod(0o500)

    assert _remove_without_privileges(tmp_path / "above/tree") == "[]"
    assert os.listdir(tmp_path / "above") == []


@pytest.mark.parametrize("place", ["tree", "tree/link", "tree/closed/link"])
def test_a_symlink_is_removed_and_what_it_points_to_is_left(tmp_path: Path, place: str) -> None:
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "f").write_text("x")
    foreign.chmod(0o555)
    link = tmp_path / place
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(foreign)
    if link.parent.name == "closed":
        link.parent.chmod(0o500)

    assert _remove_without_privileges(tmp_path / "tree") == "[]"
    assert not os.path.lexists(tmp_path / "tree")
    assert foreign.stat().st_mode & 0o777 == 0o555
    assert os.listdir(foreign) == ["f"]


def test_a_parent_that_became_a_symlink_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "foreign/run").mkdir(parents=True)
    (tmp_path / "state").symlink_to("foreign")

    left = remove_tree(tmp_path / "state/run")

    assert len(left) == 1
    assert (tmp_path / "foreign/run").is_dir()


def test_what_cannot_be_removed_is_named_and_the_rest_goes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tree = tmp_path / "tree"
    (tree / "mounted").mkdir(parents=True)
    (tree / "gone").write_text("x")
    with mounted(tmp_path / "elsewhere", "size=1m") as elsewhere:
        bind = ["mount", "--bind", str(elsewhere.place), str(tree / "mounted")]
        subprocess.run([*elsewhere.prefix, *bind], check=True)
        command = [*elsewhere.prefix, sys.executable, "-c", _REMOVE, str(tree)]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout

    assert f"{tree}/mounted: Device or resource busy" in said
    assert os.listdir(tree) == ["mounted"]


def test_another_owners_files_are_named(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can make files of another owner")
    tree = tmp_path / "tree"
    (tree / "theirs/sub").mkdir(parents=True)
    os.chown(tree / "theirs", 65534, 65534)
    (tree / "theirs").chmod(0o755)

    prefix = ["setpriv", "--bounding-set=-all"]
    done = subprocess.run(
        [*prefix, sys.executable, "-c", _REMOVE, str(tree)], capture_output=True, text=True
    )

    assert f"{tree}/theirs/sub: Permission denied" in done.stdout
    assert f"warning: cannot remove {tree}/theirs/sub" in done.stderr


def test_what_is_not_there_needs_no_removal(tmp_path: Path) -> None:
    assert remove_tree(tmp_path / "nothing") == []
    assert remove_tree(tmp_path / "nothing/below") == []


def test_a_directory_is_made_writable_and_a_symlink_is_left(tmp_path: Path) -> None:
    (tmp_path / "directory").mkdir(mode=0o500)
    (tmp_path / "link").symlink_to("directory")

    make_writable(tmp_path / "link")
    make_writable(tmp_path / "nothing")
    assert (tmp_path / "directory").stat().st_mode & 0o777 == 0o500
    make_writable(tmp_path / "directory")
    assert (tmp_path / "directory").stat().st_mode & 0o777 == 0o700
