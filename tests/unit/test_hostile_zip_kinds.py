"""What the entries of a zip are, and where they stand: links, types, modes, duplicates."""

from __future__ import annotations

import os
import stat
from itertools import permutations
from typing import TYPE_CHECKING

import pytest

from unpacked_archives import unpack
from zip_bytes import (
    DEFLATED,
    FAT,
    Entry,
    deflate,
    directory,
    file,
    link,
    zip_bytes,
)
from zip_checks import accepted, refused

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LINK = stat.S_IFLNK | 0o777

LEAVING_TARGETS = [
    b"..",
    b"../evil",
    b"/",
    b"/etc/passwd",
    b"//host/share",
    b"a/../..",
    b"a/../../evil",
    b"./../evil",
    b"missing/../../evil",
    b"../above/../../evil",
]

CHAINED_OUT = {
    "through one link": [directory("a/b/"), link("c", b"a/b"), link("d", b"c/../../..")],
    "to a link out": [link("b", b"a/../.."), directory("a/"), link("c", b"b/evil")],
    "up a level at a time": [
        directory("a/"),
        link("a/up", b".."),
        link("out", b"a/up/up"),
        link("up", b"a/up/.."),
    ],
    "links to links": [
        directory("d/e/f/"),
        link("1", b"d/e"),
        link("2", b"1/f"),
        link("3", b"2/../../.."),
        link("4", b"3/.."),
    ],
    "deeper than it looks": [directory("a/b/c/"), link("a/b/c/l", b"../../../../evil")],
    "shorter than it looks": [directory("x/"), link("a/b/l", b"../../s/.."), link("s", b".")],
}

BELOW_A_LINK = {
    "to the tree": [link("l", b"."), file("l/evil")],
    "to a directory": [directory("d/"), link("l", b"d"), file("l/evil")],
    "dangling": [link("l", b"none"), file("l/evil")],
    "a directory": [link("l", b"."), directory("l/d/")],
    "another link": [link("l", b"."), link("l/m", b"x")],
    "the member first": [file("l/evil"), link("l", b".")],
    "under another spelling": [link("l", b"."), file("./l//evil")],
}

TWICE = {
    "file": [file("a", b"1"), file("a", b"2")],
    "./": [file("a", b"1"), file("./a", b"2")],
    "//": [file("a//b", b"1"), file("a/b", b"2")],
    "/./": [file("a/./b", b"1"), file("a/b", b"2")],
    "the third of three": [file("a", b"1"), file("a", b"1"), file("a", b"2")],
    "one that is new after equal ones": [file("z"), file("z"), file("a", b"1"), file("a", b"2")],
    "link": [link("a", b"x"), link("a", b"y")],
    "file and link": [file("a"), link("a", b"x")],
    "directory and link": [directory("a/"), link("a", b"x")],
    "file and directory": [file("a"), directory("a/")],
    "file and parent": [file("a"), file("a/b")],
    "file and parent of a directory": [file("a"), directory("a/b/c/")],
    "deep file and parent": [file("a/b/c"), file("a/b/c/d/e")],
}


@pytest.mark.parametrize("target", LEAVING_TARGETS)
@pytest.mark.parametrize("method", [0, DEFLATED], ids=["stored", "deflated"])
def test_a_link_that_leaves_the_tree(tmp_path: Path, target: bytes, method: int) -> None:
    body = zip_bytes(file("a/good"), Entry("link", target, method, mode=LINK))

    refused(body, tmp_path, "leaves the tree", entry="link")


@pytest.mark.parametrize("target", [b"a" * 256, b"a/" * 2048, b"a/" * 100_000, b"a" * 5000])
@pytest.mark.parametrize("method", [0, DEFLATED], ids=["stored", "deflated"])
def test_a_link_with_a_target_that_is_too_long(tmp_path: Path, target: bytes, method: int) -> None:
    body = zip_bytes(file("good"), Entry("link", target, method, mode=LINK))

    refused(body, tmp_path, "target", entry="link")


@pytest.mark.parametrize("target", [b"", b"\0", b"a\0", b"a\0/../../evil"])
def test_a_link_with_a_target_that_is_none(tmp_path: Path, target: bytes) -> None:
    refused(zip_bytes(file("good"), link("link", target)), tmp_path, "target", entry="link")


@pytest.mark.parametrize("entries", CHAINED_OUT.values(), ids=CHAINED_OUT)
def test_links_that_leave_the_tree_through_one_another(
    tmp_path: Path, entries: list[Entry]
) -> None:
    for number, ordered in enumerate(permutations(entries)):
        refused(zip_bytes(*ordered), tmp_path / str(number), "leaves the tree")


@pytest.mark.parametrize("entries", BELOW_A_LINK.values(), ids=BELOW_A_LINK)
def test_a_member_below_a_link(tmp_path: Path, entries: list[Entry]) -> None:
    refused(zip_bytes(file("good"), *entries), tmp_path, "is below|is there|twice")


def test_links_that_stay_inside_are_kept(tmp_path: Path) -> None:
    body = zip_bytes(
        link("a/first", b"../z/file"),
        link("dangling", b"not/there"),
        link("loop", b"loop"),
        link("to-directory", b"z"),
        link("through", b"to-directory/../z/./file"),
        link("here", b"."),
        link("z/back", b".."),
        Entry("deflated", b"z/file", DEFLATED, mode=LINK),
        link("ünï", "größe".encode()),
        file("z/file"),
    )

    found = accepted(body, tmp_path, "unzip", "bsdtar")

    assert found["through"] == ("link", False, b"to-directory/../z/./file")


@pytest.mark.parametrize("length", [10, 39, 40, 41, 100, 1000])
def test_links_that_leave_the_tree_behind_a_long_chain(tmp_path: Path, length: int) -> None:
    """The kernel gives a long chain up; realpath() in some languages does not."""
    chain = [link(str(n), str(n + 1).encode()) for n in range(length)]
    body = zip_bytes(directory(f"{length}/"), *chain, link("out", b"0/../../evil"))

    refused(body, tmp_path, "leaves the tree|too many", entry="out")


def test_a_link_that_leaves_the_tree_behind_a_loop(tmp_path: Path) -> None:
    body = zip_bytes(link("loop", b"loop"), link("out", b"loop/../../evil"))

    refused(body, tmp_path, "leaves the tree|too many", entry="out")


@pytest.mark.parametrize("room", [300 << 10, 9 << 20], ids=["300 KiB", "9 MiB"])
def test_links_that_lie_far_apart(tmp_path: Path, room: int) -> None:
    body = zip_bytes(
        link("a", b"1"),
        file("1", bytes(room)),
        link("b", b"a"),
        file("2", bytes(room)),
        link("c", b"2"),
    )

    assert len(accepted(body, tmp_path, "unzip")) == 5


def test_links_are_created_last(tmp_path: Path) -> None:
    bad = Entry("bad", b"content", local={"crc": 1}, central={"crc": 1})

    refused(zip_bytes(link("link", b"good"), file("good"), bad), tmp_path, "CRC", planned=False)

    assert not (tmp_path / "above/into/link").is_symlink()


def test_a_link_whose_target_is_damaged(tmp_path: Path) -> None:
    bad = Entry("link", b"good", mode=LINK, local={"crc": 1}, central={"crc": 1})

    refused(zip_bytes(file("good"), bad), tmp_path, "CRC", entry="link")


def test_permissions_of_a_link_do_not_matter(tmp_path: Path) -> None:
    body = zip_bytes(file("a"), Entry("l", b"a", mode=stat.S_IFLNK))

    assert accepted(body, tmp_path, "unzip", "bsdtar")["l"] == ("link", False, b"a")


@pytest.mark.parametrize(
    "kind",
    [stat.S_IFCHR, stat.S_IFBLK, stat.S_IFSOCK],
    ids=["character device", "block device", "socket"],
)
@pytest.mark.parametrize("data", [b"", b"data"], ids=["empty", "with data"])
def test_a_special_file(tmp_path: Path, kind: int, data: bytes) -> None:
    body = zip_bytes(file("good"), Entry("odd", data, mode=kind | 0o644))

    refused(body, tmp_path, "neither a file, a directory nor a link", entry="odd")


def test_a_fifo_without_data(tmp_path: Path) -> None:
    body = zip_bytes(file("good"), Entry("odd", mode=stat.S_IFIFO | 0o644))

    refused(body, tmp_path, "neither a file, a directory nor a link", entry="odd")


@pytest.mark.parametrize("kind", [stat.S_IFIFO, 0o150000, 0o170000, 0])
def test_data_of_a_pipe_or_of_an_unknown_type_is_a_file(tmp_path: Path, kind: int) -> None:
    found = accepted(zip_bytes(Entry("odd", b"data", mode=kind | 0o644)), tmp_path)

    assert found == {"odd": ("file", False, b"data")}


@pytest.mark.parametrize("kind", [0o150000, 0o177777, 0])
def test_a_directory_of_an_unknown_type(tmp_path: Path, kind: int) -> None:
    body = zip_bytes(Entry("d/", mode=kind), Entry("d/f", b"x"))

    assert accepted(body, tmp_path)["d"] == ("directory", False, b"")


@pytest.mark.parametrize("mode", [stat.S_IFIFO | 0o644, stat.S_IFSOCK | 0o644, LINK])
def test_a_directory_that_is_something_else_by_its_mode(tmp_path: Path, mode: int) -> None:
    body = zip_bytes(file("good"), Entry("d/", mode=mode))

    refused(body, tmp_path, "directory", entry="d/")


@pytest.mark.parametrize(
    "mode", [stat.S_IFDIR | 0o755, stat.S_IFREG | 0o644, 0, LINK], ids=["d", "-", "none", "l"]
)
def test_a_directory_with_data(tmp_path: Path, mode: int) -> None:
    body = zip_bytes(file("good"), Entry("d/", b"data", mode=mode))

    refused(body, tmp_path, "directory", entry="d/")


def test_a_directory_with_data_that_it_does_not_declare(tmp_path: Path) -> None:
    mode = stat.S_IFDIR | 0o755
    entry = Entry("d/", b"", DEFLATED, deflate(b"data"), mode=mode)

    refused(zip_bytes(entry), tmp_path, "more|directory", entry="d/", planned=False)


def test_a_name_with_a_slash_is_a_directory(tmp_path: Path) -> None:
    body = zip_bytes(
        Entry("regular/", mode=stat.S_IFREG | 0o644),
        Entry("none/", mode=0),
        Entry("fat/", host=FAT, mode=0),
        Entry("deflated/", b"", DEFLATED, mode=stat.S_IFDIR | 0o755),
    )

    assert {kind for kind, *_ in accepted(body, tmp_path, "unzip", "bsdtar").values()} == {
        "directory"
    }


@pytest.mark.parametrize(
    "entry",
    [
        Entry("d", mode=stat.S_IFDIR | 0o755),
        Entry("d", b"data", mode=stat.S_IFDIR | 0o755),
        Entry("d", host=FAT, mode=0, central={"external": 0x10}),
    ],
    ids=["by its mode", "with data", "by its DOS attribute"],
)
def test_a_directory_without_a_slash(tmp_path: Path, entry: Entry) -> None:
    """It is an empty file to Info-ZIP and a directory to libarchive."""
    refused(zip_bytes(file("good"), entry), tmp_path, "directory", entry="d")


@pytest.mark.parametrize("mode", [LINK, stat.S_IFIFO | 0o644, stat.S_IFCHR | 0o644])
def test_modes_of_other_hosts_are_none(tmp_path: Path, mode: int) -> None:
    body = zip_bytes(Entry("plain", b"good", host=FAT, mode=mode))

    assert accepted(body, tmp_path, "bsdtar")["plain"] == ("file", False, b"good")


@pytest.fixture(params=[0o022, 0o077, 0o000], ids=["umask 022", "umask 077", "umask 000"])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


@pytest.mark.parametrize(
    ("permissions", "kept"),
    [
        (0o644, 0o644),
        (0o755, 0o755),
        (0o4755, 0o755),
        (0o6777, 0o777),
        (0o7644, 0o644),
        (0o666, 0o666),
        (0o400, 0o400),
        (0o000, 0o644),
        (0o100, 0o100),
        (0o011, 0o011),
        (0o777, 0o777),
    ],
)
def test_of_a_mode_the_permission_bits_are_kept(
    tmp_path: Path, umask: int, permissions: int, kept: int
) -> None:
    body = zip_bytes(Entry("d/tool", b"x", mode=stat.S_IFREG | permissions))

    unpack(body, tmp_path / "into", "app.zip")

    assert stat.S_IMODE((tmp_path / "into/d/tool").stat().st_mode) == kept & ~umask


@pytest.mark.parametrize(
    ("permissions", "kept"),
    [(0o755, 0o755), (0o000, 0o755), (0o7777, 0o777), (0o500, 0o500), (0o2770, 0o770)],
)
def test_of_the_mode_of_a_directory_the_permission_bits_are_kept(
    tmp_path: Path, umask: int, permissions: int, kept: int
) -> None:
    body = zip_bytes(Entry("d/", mode=stat.S_IFDIR | permissions), file("d/e/f"))

    unpack(body, tmp_path / "into", "app.zip")

    for path, expected in (("d", kept), ("d/e", 0o755)):
        assert stat.S_IMODE((tmp_path / "into" / path).stat().st_mode) == expected & ~umask


def test_without_a_type_a_mode_is_that_of_a_file(tmp_path: Path) -> None:
    found = accepted(zip_bytes(Entry("tool", b"x", mode=0o755)), tmp_path, "unzip", "bsdtar")

    assert found["tool"] == ("file", True, b"x")


@pytest.mark.parametrize("entries", TWICE.values(), ids=TWICE)
@pytest.mark.parametrize("turned", [False, True], ids=["in order", "turned round"])
def test_a_place_that_is_taken(tmp_path: Path, entries: list[Entry], turned: bool) -> None:
    ordered = entries[::-1] if turned else entries

    refused(zip_bytes(file("good"), *ordered), tmp_path, "is there twice|is below|is there")


def test_equal_files_are_one(tmp_path: Path) -> None:
    body = zip_bytes(file("a", b"1"), file("b", b"2"), file("./a", b"1"), file("a", b"1"))

    found = accepted(body, tmp_path)

    assert found == {"a": ("file", False, b"1"), "b": ("file", False, b"2")}


def test_directories_may_be_there_twice(tmp_path: Path) -> None:
    body = zip_bytes(
        directory("a/"),
        directory("a/"),
        directory("./a/"),
        file("a/b/file"),
        directory("a//b/"),
        directory("./"),
    )

    assert set(accepted(body, tmp_path, "unzip", "bsdtar")) == {"a", "a/b", "a/b/file"}


def test_names_that_differ_in_case_or_form_are_two(tmp_path: Path) -> None:
    names = {"readme", "README", "u\u0308", "ü"}
    (tmp_path / "probe").touch()
    if (tmp_path / "PROBE").exists():
        pytest.skip("the file system takes names that differ in case for one")

    assert set(accepted(zip_bytes(*map(file, sorted(names))), tmp_path, "unzip")) == names


def test_one_name_in_two_codes_is_there_twice(tmp_path: Path) -> None:
    body = zip_bytes(file("größe"), Entry("größe".encode("cp437"), b"x", host=FAT, mode=0))

    refused(body, tmp_path, "twice", entry="größe")
