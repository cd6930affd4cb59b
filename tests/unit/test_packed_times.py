"""mtimes and permission bits in archives that are written, read by other programs and by us."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

import pytest

from cpstage import Packing, pack, unpack
from cpstage.errors import ArtifactRejected, ConfigurationError
from packed_trees import FORMATS
from trees import needs

WHOLE = 1_500_000_000
FRACTION = WHOLE * 10**9 + 123_456_700


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    (root / "d").mkdir(parents=True)
    for name, mode in (("key", 0o600), ("read", 0o444), ("d/tool", 0o755)):
        (root / name).write_text(name)
        (root / name).chmod(mode)
    (root / "d/l").symlink_to("tool")
    for name in ("key", "read", "d/tool", "d/l", "d"):
        os.utime(root / name, (WHOLE, WHOLE), follow_symlinks=False)
    return root


def attributes(root: Path) -> dict[str, tuple[int, int]]:
    return {
        path.relative_to(root).as_posix(): (
            stat.S_IMODE(path.lstat().st_mode),
            path.lstat().st_mtime_ns,
        )
        for path in root.rglob("*")
    }


@pytest.mark.parametrize("kind", FORMATS)
def test_what_is_packed_comes_out_as_it_was(tmp_path: Path, tree: Path, kind: str) -> None:
    done = pack(tree, tmp_path / f"a.{kind}")
    unpack(done.path, tmp_path / "out")

    assert attributes(tmp_path / "out") == attributes(tree)


@pytest.mark.parametrize("kind", ["tar", "tar.gz"])
@pytest.mark.parametrize("mtime_ns", [FRACTION, -1_500_000_000, 1 << 62])
def test_a_tar_keeps_fractions_and_times_before_1970(
    tmp_path: Path, tree: Path, kind: str, mtime_ns: int
) -> None:
    os.utime(tree / "key", ns=(mtime_ns, mtime_ns))
    done = pack(tree, tmp_path / f"a.{kind}")
    unpack(done.path, tmp_path / "out")

    assert (tmp_path / "out/key").stat().st_mtime_ns == (tree / "key").stat().st_mtime_ns


def test_times_that_a_zip_cannot_have_are_noted(tmp_path: Path, tree: Path) -> None:
    after_2107 = 4_400_000_000
    os.utime(tree / "d/tool", (after_2107, after_2107))

    (note,) = pack(tree, tmp_path / "a.zip").notes
    assert "mtimes that a zip cannot have" in note
    assert note.endswith("'d/tool'")
    assert not pack(tree, tmp_path / "a.tar").notes
    assert not pack(tree, tmp_path / "b.zip", packing=Packing(mtime="fixed")).notes
    (note,) = pack(tree, tmp_path / "c.zip", packing=Packing(mtime=-(1 << 33))).notes
    assert "'key'" in note
    unpack(tmp_path / "c.zip", tmp_path / "out")
    assert (tmp_path / "out/key").stat().st_mtime == -(1 << 31)


@pytest.mark.parametrize(
    ("command", "kind"),
    [
        (["unzip", "-q"], "zip"),
        (["bsdtar", "-xpf"], "zip"),
        (["bsdtar", "-xpf"], "tar"),
        (["tar", "-xpf"], "tar.gz"),
    ],
)
def test_other_programs_restore_times_and_modes(
    tmp_path: Path, tree: Path, command: list[str], kind: str
) -> None:
    needs(command[0])
    done = pack(tree, tmp_path / f"a.{kind}")
    (tmp_path / "out").mkdir()
    subprocess.run([*command, str(done.path)], cwd=tmp_path / "out", check=True)

    expected = attributes(tree)
    found = attributes(tmp_path / "out")
    assert found.pop("d/l")[0] == expected.pop("d/l")[0]
    assert found == expected


@pytest.mark.parametrize("kind", FORMATS)
def test_source_date_epoch_gives_equal_bytes_for_equal_contents(
    tmp_path: Path, tree: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", str(WHOLE - 1))
    first = pack(tree, tmp_path / f"a.{kind}").path.read_bytes()
    os.utime(tree / "key", (WHOLE + 5, WHOLE + 5))
    second = pack(tree, tmp_path / f"b.{kind}").path.read_bytes()
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "yesterday")
    with pytest.raises(ConfigurationError, match="SOURCE_DATE_EPOCH is not a number"):
        pack(tree, tmp_path / f"c.{kind}")

    assert first == second
    unpack(tmp_path / f"a.{kind}", tmp_path / "out")
    assert (tmp_path / "out/key").stat().st_mtime == WHOLE - 1


@pytest.mark.parametrize(
    ("mtime", "seconds"), [("fixed", 315_532_800), (1_706_702_400, 1_706_702_400)]
)
def test_one_time_for_all(tmp_path: Path, tree: Path, mtime: int, seconds: int) -> None:
    pack(tree, tmp_path / "a.zip", packing=Packing(mtime=mtime))
    unpack(tmp_path / "a.zip", tmp_path / "out")

    assert {ns for _, ns in attributes(tmp_path / "out").values()} == {seconds * 10**9}


def test_two_releases_of_the_same_size_differ(tmp_path: Path, tree: Path) -> None:
    first = pack(tree, tmp_path / "a.zip").path.read_bytes()
    os.utime(tree / "key", (WHOLE + 100, WHOLE + 100))

    assert pack(tree, tmp_path / "b.zip").path.read_bytes() != first


def test_sockets_and_fifos_are_left_out_with_a_note(tmp_path: Path, tree: Path) -> None:
    os.mkfifo(tree / "d/pipe")
    done = pack(tree, tmp_path / "a.zip")

    assert done.files == 3
    assert done.notes == ("the FIFO 'd/pipe' was left out",)


def test_what_is_outside_is_followed_where_that_is_asked_for(tmp_path: Path, tree: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/x").write_text("x")
    (tree / "venv").symlink_to(tmp_path / "elsewhere")
    (tree / "file").symlink_to(tmp_path / "elsewhere/x")

    with pytest.raises(ArtifactRejected, match=r"'file' to .*'venv' to .*follow-outside"):
        pack(tree, tmp_path / "a.zip", packing=Packing(symlinks="follow"))
    (tree / "gone").symlink_to("/nowhere/at/all")
    done = pack(tree, tmp_path / "b.zip", packing=Packing(symlinks="follow-outside"))
    unpack(done.path, tmp_path / "out")

    assert (tmp_path / "out/venv/x").read_text() == (tmp_path / "out/file").read_text() == "x"
    assert not (tmp_path / "out/venv").is_symlink()
    assert len(done.notes) == 3
    assert any("points to nothing" in note for note in done.notes)


def test_a_suffix_of_another_format_is_an_error(tmp_path: Path, tree: Path) -> None:
    for name in ("x.rar", "x.tar.xz", "x.7z"):
        with pytest.raises(ConfigurationError, match="not the name of"):
            pack(tree, tmp_path / name)
    with pytest.raises(ConfigurationError, match="not the name of"):
        pack(tree, tmp_path / "x.zip", packing=Packing(format="tar.gz"))


def _release(root: Path, text: str, mtime: int, kind: str) -> Path:
    """A tree that has been packed and unpacked, as a build server publishes it."""
    (root / "src").mkdir(parents=True)
    (root / "src/index.html").write_text(text)
    (root / "src/same.css").write_text("same")
    os.utime(root / "src/index.html", (mtime, mtime))
    os.utime(root / "src/same.css", (1_500_000_000, 1_500_000_000))
    pack(root / "src", root / f"site.{kind}")
    unpack(root / f"site.{kind}", root / "site")
    return root / "site"


def test_two_releases_of_the_same_sizes_are_synchronised(tmp_path: Path) -> None:
    needs("rsync")
    first = _release(tmp_path / "1", "<p>one</p>", 1_600_000_000, "zip")
    second = _release(tmp_path / "2", "<p>two</p>", 1_600_000_060, "tar.gz")
    site = tmp_path / "site"
    changed = []

    for release in (first, second):
        command = ["rsync", "-a", "--out-format=%n", f"{release}/", f"{site}/"]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        changed.append([line for line in done.stdout.split() if not line.endswith("/")])

    assert (site / "index.html").read_text() == "<p>two</p>"
    assert changed == [["index.html", "same.css"], ["index.html"]]
