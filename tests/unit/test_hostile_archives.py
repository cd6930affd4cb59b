"""Hostile and broken tar archives: refused with exit code 65, the entry named, nothing staged."""

from __future__ import annotations

import tarfile
from typing import TYPE_CHECKING

import pytest

from cpstage import Limits
from cpstage.archive.blob import BytesBlob, ReadAhead
from cpstage.archive.formats import recognise
from cpstage.archive.members import Contents
from cpstage.archive.options import ExtractOptions
from cpstage.archive.unpack import Unpacker
from cpstage.errors import ArtifactRejected
from cpstage.filesystem.tree import Tree
from samples import tar_member, tar_of, tar_of_members
from trees import listing
from unpacked_archives import unpack

if TYPE_CHECKING:
    from pathlib import Path

EVIL_NAMES = [
    "../evil",
    "a/../../evil",
    "/etc/evil",
    "..",
    "a/..",
    "..\\evil",
    "a\\..\\..\\evil",
    "C:\\evil",
    "/",
]


def refused(body: bytes, into: Path, limits: Limits | None = None) -> str:
    """Unpack, expect it to be refused, and return what it said."""
    with pytest.raises(ArtifactRejected) as caught:
        unpack(body, into, limits=limits)
    assert caught.value.exit_code == 65
    assert "\n" not in str(caught.value)
    outside = [path for path in into.parent.rglob("*evil*") if not path.is_relative_to(into)]
    assert outside == []
    return str(caught.value)


def _hostile_tars() -> dict[str, bytes]:
    regular = tarfile.TarInfo("l/evil")
    regular.size = 1
    target = tarfile.TarInfo("file")
    target.size = 1
    return {
        "below a link": tar_of_members(
            [(tar_member("l", tarfile.SYMTYPE, "."), ""), (regular, "x")]
        ),
        "link out": tar_of_members([(tar_member("l", tarfile.SYMTYPE, "../evil"), "")]),
        "absolute link": tar_of_members([(tar_member("l", tarfile.SYMTYPE, "/etc"), "")]),
        "chained link": tar_of_members(
            [
                (tar_member("a", tarfile.DIRTYPE), ""),
                (tar_member("b", tarfile.SYMTYPE, "a"), ""),
                (tar_member("c", tarfile.SYMTYPE, "b/../.."), ""),
            ]
        ),
        "hard link out": tar_of_members([(tar_member("l", tarfile.LNKTYPE, "../evil"), "")]),
        "hard link to nothing": tar_of_members([(tar_member("l", tarfile.LNKTYPE, "none"), "")]),
        "hard link to itself": tar_of_members([(tar_member("l", tarfile.LNKTYPE, "l"), "")]),
        "hard link to a link": tar_of_members(
            [
                (tar_member("l", tarfile.SYMTYPE, "x"), ""),
                (tar_member("h", tarfile.LNKTYPE, "l"), ""),
            ]
        ),
        "device": tar_of_members([(tar_member("null", tarfile.CHRTYPE), "")]),
        "fifo": tar_of_members([(tar_member("pipe", tarfile.FIFOTYPE), "")]),
        "file over directory": tar_of_members(
            [(tar_member("file", tarfile.DIRTYPE), ""), (target, "x")]
        ),
    }


HOSTILE_TARS = _hostile_tars()


@pytest.mark.parametrize("name", EVIL_NAMES)
def test_a_name_that_leaves_the_tree(tmp_path: Path, name: str) -> None:
    said = refused(tar_of({"good": "x", name: "evil"}), tmp_path / "into")

    assert any(why in said for why in ("has an unsafe name", "damaged", "directory with data"))


@pytest.mark.parametrize("kind", HOSTILE_TARS)
def test_a_hostile_tar(tmp_path: Path, kind: str) -> None:
    assert "entry" in refused(HOSTILE_TARS[kind], tmp_path / "into")


@pytest.mark.parametrize(
    ("limits", "option"),
    [
        (Limits(size=999), "--max-size"),
        (Limits(entries=2), "--max-entries"),
        (Limits(depth=3), "--max-depth"),
    ],
)
def test_a_limit_names_its_option(tmp_path: Path, limits: Limits, option: str) -> None:
    said = refused(
        tar_of({"a": "x" * 500, "b": "x" * 500, "c/d/e/f": ""}), tmp_path / "into", limits
    )

    assert option in said


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_truncation_anywhere_is_refused(tmp_path: Path, mode: str) -> None:
    files = {f"file-{number}": f"content {number}" * 20 for number in range(4)}
    whole = tar_of(files, mode=mode)
    # A tar ends at its first zero block; what pads it to a record says nothing.
    end = len(whole.rstrip(b"\0")) + 512 if mode == "w" else len(whole)

    accepted = []
    for length in range(600, min(end, len(whole)), 37):
        body = whole[:length]
        try:
            kind = recognise(body[:4096])
        except ArtifactRejected:
            continue
        if kind is None:
            continue
        into = tmp_path / f"into-{length}"
        into.mkdir()
        with Tree(into) as tree, Unpacker(tree, ExtractOptions()) as unpacker:
            try:
                unpacker.add(ReadAhead(BytesBlob(body)), kind, "App")
            except ArtifactRejected:
                continue
        accepted.append(length)

    assert accepted == []


def test_a_flipped_bit_in_the_data_is_found(tmp_path: Path) -> None:
    body = bytearray(tar_of({"file": "content " * 100}, mode="w:gz"))
    body[len(body) // 3] ^= 0x10

    refused(bytes(body), tmp_path / "into")


def test_a_damaged_gzip_trailer_is_found(tmp_path: Path) -> None:
    body = bytearray(tar_of({"file": "x"}, mode="w:gz"))
    body[-6] ^= 1

    assert "damaged" in refused(bytes(body), tmp_path / "into")


def test_a_damaged_header_in_the_middle_is_not_the_end(tmp_path: Path) -> None:
    body = bytearray(tar_of({"one": "1", "two": "2"}))
    body[1024 + 10] ^= 1

    assert "damaged" in refused(bytes(body), tmp_path / "into")


@pytest.mark.parametrize(
    ("body", "name"),
    [(tar_of({}), "app.tar"), (tar_of({}, mode="w:gz"), "")],
    ids=["tar", "tar.gz"],
)
def test_an_empty_archive_is_an_empty_directory(tmp_path: Path, body: bytes, name: str) -> None:
    assert unpack(body, tmp_path / "into", name=name) == Contents()


@pytest.mark.parametrize("length", [300, 5000, 500_000])
def test_a_link_with_an_endless_target(tmp_path: Path, length: int) -> None:
    target = "a/" * length if length > 300 else "a" * length
    body = tar_of_members([(tar_member("link", tarfile.SYMTYPE, target), "")], "w:gz")

    assert "'link' is a link with a" in refused(body, tmp_path / "into")


@pytest.mark.slow
def test_links_that_lead_through_one_another_without_end(tmp_path: Path) -> None:
    members = [
        (tar_member(f"l{index}", tarfile.SYMTYPE, "x/../" * 800 + "x"), "") for index in range(3000)
    ]

    assert "too many links" in refused(tar_of_members([*members], "w:gz"), tmp_path / "into")


@pytest.mark.parametrize("name", ["n" * 256, "d/" * 2048 + "f"])
def test_a_name_that_no_file_can_have(tmp_path: Path, name: str) -> None:
    limits = Limits(depth=10_000)

    assert "bytes long" in refused(tar_of({name: "x"}), tmp_path / "into", limits)


def test_data_after_the_end_of_a_tar(tmp_path: Path) -> None:
    body = tar_of({"file": "x"}) + b"more"

    assert "after the end" in refused(body, tmp_path / "into")


def test_the_last_of_two_files_in_a_tar_wins(tmp_path: Path) -> None:
    members: list[tuple[tarfile.TarInfo, str | bytes]] = []
    for content in ("first", "second"):
        info = tarfile.TarInfo("file")
        info.size = len(content)
        members.append((info, content))

    contents = unpack(tar_of_members(members), tmp_path / "into")

    assert (tmp_path / "into/file").read_text() == "second"
    assert contents.files == 1


def test_a_hard_link_to_an_earlier_file_is_kept(tmp_path: Path) -> None:
    info = tarfile.TarInfo("file")
    info.size = 1

    unpack(
        tar_of_members([(info, "x"), (tar_member("again", tarfile.LNKTYPE, "file"), "")]),
        tmp_path / "into",
    )

    assert (tmp_path / "into/again").read_text() == "x"


def test_gzip_with_several_members_is_read_to_the_end(tmp_path: Path) -> None:
    import gzip

    whole = tar_of({"file": "x" * 3000})
    body = gzip.compress(whole[:1000]) + gzip.compress(whole[1000:])

    unpack(body, tmp_path / "into")

    assert (tmp_path / "into/file").read_text() == "x" * 3000


def test_names_with_dots_and_backslashes_that_mean_nothing_are_kept(tmp_path: Path) -> None:
    unpack(tar_of({"./a/..b": "1", "c\\d": "2", "...": "3"}), tmp_path / "into")

    assert sorted(listing(tmp_path / "into")) == ["...", "a", "a/..b", "c\\d"]
