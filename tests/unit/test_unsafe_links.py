"""Symlinks that leave the tree: which one is named, and what skip and keep do with them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

import zip_bytes
from cpstage import Globs, Packing
from cpstage.archive.members import UnsafeLink
from cpstage.archive.options import ExtractOptions
from cpstage.archive.pack import Packer
from cpstage.archive.paths import without_unsafe
from cpstage.errors import ArtifactRejected
from cpstage.filesystem.tree import RelativePath
from tar_bytes import directory, gzip, link, member, tar
from trees import names
from unpacked_archives import unpack

if TYPE_CHECKING:
    from pathlib import Path

LINKS = {"etc": "/etc", "up": "../..", "chain": "up/x", "deep": "d/../../x", "dangling": "d/none"}
UNSAFE = ["etc", "up", "deep"]
FORMATS = ["zip", "tar", "tar.gz"]


def _archive(kind: str, links: dict[str, str] = LINKS) -> bytes:
    if kind == "zip":
        made = [zip_bytes.link(name, target.encode()) for name, target in links.items()]
        files = [zip_bytes.directory("d/"), zip_bytes.file("d/f"), zip_bytes.file("last")]
        return zip_bytes.zip_bytes(*made, *files)
    made_links = [link(name, target) for name, target in links.items()]
    body = tar(*made_links, directory("d"), member("d/f", "f"), member("last", "l"))
    return gzip(body) if kind == "tar.gz" else body


@pytest.mark.parametrize("kind", FORMATS)
def test_all_links_that_leave_the_tree_are_named(tmp_path: Path, kind: str) -> None:
    with pytest.raises(ArtifactRejected) as caught:
        unpack(_archive(kind), tmp_path / "into")

    said = caught.value.message
    assert "the entry 'etc' is a link that leaves the tree: '/etc'; so do" in said
    assert "'up' ('../..')" in said
    assert "'deep' ('d/../../x')" in said
    assert "chain" not in said, "the way leaves at 'up'"
    assert "--unsafe-links skip" in (caught.value.hint or "")


@pytest.mark.parametrize("kind", FORMATS)
def test_ten_links_are_named_and_the_others_counted(tmp_path: Path, kind: str) -> None:
    many = {f"l{number:02}": f"/x{number}" for number in range(1_013)}

    with pytest.raises(ArtifactRejected) as caught:
        unpack(_archive(kind, many), tmp_path / "into")

    assert caught.value.message.endswith("'l09' ('/x9') and 1,003 more")


@pytest.mark.parametrize("kind", FORMATS)
def test_skip_leaves_out_the_links_that_leave_and_no_other(tmp_path: Path, kind: str) -> None:
    options = ExtractOptions(unsafe_links="skip")

    done = unpack(_archive(kind), tmp_path / "into", options=options)

    assert names(tmp_path / "into") == ["chain", "d", "d/f", "dangling", "last"]
    assert os.readlink(tmp_path / "into/chain") == "up/x"
    assert done.links == 2
    assert sorted(one.path for one in done.unsafe_links) == sorted(UNSAFE)
    assert "the symlink 'etc' to '/etc' leaves the tree and was left out" in done.notes
    assert len(done.notes) == 3


@pytest.mark.parametrize("kind", FORMATS)
def test_keep_creates_the_links_unchanged(tmp_path: Path, kind: str) -> None:
    options = ExtractOptions(unsafe_links="keep")

    done = unpack(_archive(kind), tmp_path / "into", options=options)

    assert {name: os.readlink(tmp_path / "into" / name) for name in LINKS} == LINKS
    assert UnsafeLink("etc", "/etc", "kept") in done.unsafe_links
    assert "the symlink 'up' to '../..' leaves the tree and was created unchanged" in done.notes
    assert done.links == 5


@pytest.mark.parametrize("how", ["skip", "keep"])
@pytest.mark.parametrize("kind", FORMATS)
def test_nothing_is_written_through_a_link_that_is_skipped_or_kept(
    tmp_path: Path, kind: str, how: str
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    if kind == "zip":
        entries = [zip_bytes.link("l", os.fsencode(outside)), zip_bytes.file("l/f")]
        body: bytes = zip_bytes.zip_bytes(*entries)
    else:
        body = tar(link("l", str(outside)), member("l/f", "f"))

    with pytest.raises(ArtifactRejected, match="is below 'l', which is a link"):
        unpack(body, tmp_path / "into", options=ExtractOptions(unsafe_links=how))  # type: ignore[arg-type]

    assert names(outside) == []


def test_a_link_out_is_safe_when_the_link_that_it_goes_through_is_left_out(tmp_path: Path) -> None:
    body = tar(directory("a/b"), link("here", ".."), link("a/b/c", "../../here/.."))
    options = ExtractOptions(unsafe_links="skip")

    done = unpack(body, tmp_path / "into", options=options)

    # Without 'here', the way of a/b/c goes through a missing directory and ends in the tree.
    assert [one.path for one in done.unsafe_links] == ["here"]
    assert names(tmp_path / "into") == ["a", "a/b", "a/b/c"]


@pytest.mark.parametrize("how", ["reject", "skip", "keep"])
def test_links_that_no_system_can_have_are_refused_in_any_case(tmp_path: Path, how: str) -> None:
    body = zip_bytes.zip_bytes(zip_bytes.link("l", b"a\0b"))

    with pytest.raises(ArtifactRejected, match="unusable target"):
        unpack(body, tmp_path / "into", options=ExtractOptions(unsafe_links=how))  # type: ignore[arg-type]


def _packed(root: Path, **options: object) -> None:
    with Packer(Packing(**options)) as packer:  # type: ignore[arg-type]
        b"".join(packer.pack(packer.list_entries(root, "zip"), "zip"))


def test_packing_names_all_links_that_leave_and_its_advice_works(tmp_path: Path) -> None:
    root = tmp_path / "venv"
    (root / "bin").mkdir(parents=True)
    (tmp_path / "python").write_text("#!")
    for number in range(12):
        (root / f"bin/p{number:02}").symlink_to(tmp_path / "python")
    (root / "bin/through").symlink_to("p00")

    with pytest.raises(ArtifactRejected) as caught:
        _packed(root)

    assert "'bin/p09'" in caught.value.message
    assert caught.value.message.endswith(" and 2 more")
    assert "through" not in caught.value.message
    assert "--symlinks follow-outside" in (caught.value.hint or "")
    assert "--exclude" in (caught.value.hint or "")
    _packed(root, symlinks="follow-outside")
    _packed(root, globs=Globs(exclude=("bin/p*",)))


def test_packing_names_all_names_that_cannot_be_unpacked(tmp_path: Path) -> None:
    root = tmp_path / "tree"
    for number in range(12):
        (root / f"..\\d{number:02}").mkdir(parents=True)
        (root / f"..\\d{number:02}" / "f").touch()

    with pytest.raises(ArtifactRejected) as caught:
        _packed(root)

    assert caught.value.message.count("leads upwards") == 10
    assert caught.value.message.endswith(" and 2 more"), "directories are named, not their files"
    assert "rename" in (caught.value.hint or "")
    assert "link" not in str(caught.value)


def test_packing_names_all_names_that_are_not_utf8(tmp_path: Path) -> None:
    root = tmp_path / "tree"
    root.mkdir()
    for number in range(11):
        (root / os.fsdecode(b"\xff%02d" % number)).touch()

    with pytest.raises(ArtifactRejected) as caught:
        _packed(root)

    assert r"b'\xff00'" in caught.value.message
    assert r"b'\xff09'" in caught.value.message
    assert "and 1 more are not UTF-8" in caught.value.message


@pytest.mark.parametrize("kind", FORMATS)
def test_unpacking_names_all_unsafe_names(tmp_path: Path, kind: str) -> None:
    bad = [f"../{number:02}" for number in range(13)]
    if kind == "zip":
        root = zip_bytes.directory("/")
        files = map(zip_bytes.file, ["good", *bad, "last"])
        body: bytes = zip_bytes.zip_bytes(root, *files)
    else:
        body = tar(directory("./"), *(member(name, "x") for name in ("good", *bad, "last")))
        body = gzip(body) if kind == "tar.gz" else body

    with pytest.raises(ArtifactRejected) as caught:
        unpack(body, tmp_path / "into")

    assert caught.value.message.count("has an unsafe name: it leads upwards") == 10
    assert caught.value.message.endswith(" and 3 more")
    assert names(tmp_path) in (["into"], ["into", "into/good"])


def test_an_unsafe_name_is_named_though_the_rest_of_the_tar_is_damaged(tmp_path: Path) -> None:
    body = tar(member("../a", "x"), member("b", "y"), end=b"\xff" * 1024)

    with pytest.raises(ArtifactRejected, match=r"the entry '\.\./a' has an unsafe name"):
        unpack(body, tmp_path / "into")


def _chain(length: int) -> dict[RelativePath, str]:
    """Each link leaves the tree once the one before it is left out."""
    later = {RelativePath(f"l{n}"): f"l{n - 1}/../.." for n in range(1, length)}
    return {RelativePath("l0"): "../out", **later}


def test_links_that_become_unsafe_are_left_out_too() -> None:
    assert without_unsafe({**_chain(10), RelativePath("good"): "l0"}) == {"good": "l0"}


@pytest.mark.slow
def test_a_chain_that_would_take_hours_is_refused() -> None:
    with pytest.raises(ArtifactRejected, match="too many links through one another"):
        without_unsafe(_chain(800))
