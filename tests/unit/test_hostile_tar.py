"""What a tar may hold: names, links, kinds, duplicates and amounts that are unsafe are refused."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from cpstage import Limits
from tar_bytes import (
    BLOCKS,
    CHARACTERS,
    CONTIGUOUS,
    DUMP,
    END,
    FIFO,
    FILE,
    GNU,
    LABEL,
    OLD_FILE,
    OLD_NAMES,
    POSIX,
    SPARSE,
    V7,
    VOLUMES,
    Text,
    directory,
    gzip,
    hard_link,
    header,
    link,
    long_link,
    long_name,
    member,
    pax,
    record,
    sparse,
    tar,
)
from tar_checks import PEERS, accepted, refused
from trees import listing
from unpacked_archives import unpack

LEAVING = [
    "..",
    "../evil",
    "a/..",
    "a/../..",
    "a/../../evil",
    "a/../evil",
    "./../evil",
    "/evil",
    "//evil",
    "C:/evil",
    "C:\\evil",
    "..\\evil",
    "a\\..\\..\\evil",
]

UNDECODABLE = [
    b"gr\xc3",
    b"gr\xf6\xdfe",
    b"a\xc0\xafevil",
    b"\xc0\xae\xc0\xae/evil",
    b"a\xed\xa0\x80",
]

BY: dict[str, Callable[[Text], bytes]] = {
    "the header": member,
    "a GNU long name": lambda name: long_name(name) + member("good"),
    "pax": lambda name: pax(record("path", name)) + member("good"),
    "Solaris pax": lambda name: pax(record("path", name), kind=b"X") + member("good"),
}


@pytest.mark.parametrize("name", LEAVING)
@pytest.mark.parametrize("by", BY)
def test_a_name_that_leaves_the_tree(tmp_path: Path, name: str, by: str) -> None:
    body = tar(member("before", "x"), BY[by](name))

    refused(body, tmp_path, "unsafe name", entry=name)


def test_an_absolute_name_of_a_place_that_could_be_written(tmp_path: Path) -> None:
    name = str(tmp_path / "evil")

    refused(tar(long_name(name), member("good")), tmp_path, "it is absolute", entry=name)


@pytest.mark.parametrize(("prefix", "name"), [("..", "evil"), ("/", "evil"), ("a", "../../evil")])
def test_a_name_with_a_prefix_that_leaves_the_tree(tmp_path: Path, prefix: str, name: str) -> None:
    refused(tar(member(name, rest=prefix)), tmp_path, "unsafe name", entry=f"{prefix}/{name}")


@pytest.mark.parametrize("by", BY)
@pytest.mark.parametrize("name", ["a\0b", "good\0/../../evil", "../evil\0.txt"])
def test_a_name_with_a_nul(tmp_path: Path, name: str, by: str) -> None:
    refused(tar(BY[by](name)), tmp_path, "it holds a NUL", entry=name)


@pytest.mark.parametrize("by", BY)
@pytest.mark.parametrize("name", ["", ".", "./."])
def test_a_file_without_a_name(tmp_path: Path, name: str, by: str) -> None:
    refused(tar(BY[by](name)), tmp_path, "it is empty", entry=name)


@pytest.mark.parametrize("by", BY)
@pytest.mark.parametrize("name", UNDECODABLE)
def test_a_name_that_is_not_utf8_keeps_its_bytes(tmp_path: Path, name: bytes, by: str) -> None:
    found = accepted(tar(BY[by](name)), tmp_path)

    assert os.fsdecode(name) in found


def test_a_binary_charset_keeps_the_bytes(tmp_path: Path) -> None:
    body = tar(pax(record("hdrcharset", "BINARY"), record("path", b"gr\xf6\xdfe")), member())

    assert os.fsdecode(b"gr\xf6\xdfe") in accepted(body, tmp_path)


def test_a_slash_alone_is_the_root(tmp_path: Path) -> None:
    assert set(accepted(tar(directory("/"), member("a")), tmp_path)) == {"a"}


@pytest.mark.parametrize("name", ["n" * 256, "d/" * 2048 + "f"])
def test_a_name_that_no_file_can_have(tmp_path: Path, name: str) -> None:
    limits = Limits(depth=10_000)

    refused(tar(long_name(name), member()), tmp_path, "bytes long", entry=name, limits=limits)


def test_a_name_with_control_characters_cannot_forge_output(tmp_path: Path) -> None:
    refused(tar(member("../\x1b[2J\nevil")), tmp_path, "leads upwards", entry="../\x1b[2J\nevil")


@pytest.mark.parametrize("name", ["..b", "...", "a.", "c\\d", "a b\n", "-rf", "~", "größe", "ab:c"])
def test_a_name_that_only_looks_odd(tmp_path: Path, name: str) -> None:
    assert list(accepted(tar(member(name, "x")), tmp_path, *PEERS)) == [name]


TARGETS = ["..", "../evil", "/etc/passwd", "/", "a/../../evil", "d/up/../../evil"]


@pytest.mark.parametrize("target", TARGETS)
def test_a_link_that_leaves_the_tree(tmp_path: Path, target: str) -> None:
    body = tar(directory("d"), link("d/up", "."), link("self", target), member("after", "x"))

    refused(body, tmp_path, "is a link that leaves the tree", entry="self")

    assert not (tmp_path / "above/into/self").is_symlink()


@pytest.mark.parametrize("target", ["../evil", "/etc/passwd"])
def test_a_long_target_that_leaves_the_tree(tmp_path: Path, target: str) -> None:
    by_gnu = tar(long_link(target), link("l", "inside"))
    by_pax = tar(pax(record("linkpath", target)), link("l", "inside"))

    refused(by_gnu, tmp_path / "gnu", "leaves the tree", entry="l")
    refused(by_pax, tmp_path / "pax", "leaves the tree", entry="l")


@pytest.mark.parametrize("target", [b"", b"a\0b", b"n" * 256, b"a/" * 2048 + b"a"])
def test_a_target_that_no_link_can_have(tmp_path: Path, target: bytes) -> None:
    body = tar(pax(record("linkpath", target)), link("l", "inside"))

    refused(body, tmp_path, "unusable target|a target over 4,096 bytes", entry="l")


def test_the_length_of_a_target_is_counted_in_bytes(tmp_path: Path) -> None:
    body = tar(pax(record("linkpath", "é/" * 1400)), link("l", "inside"))

    refused(body, tmp_path, "a target over 4,096 bytes", entry="l")


def test_a_link_that_leaves_the_tree_by_way_of_another(tmp_path: Path) -> None:
    body = tar(directory("a"), link("b", "a"), link("c", "b/../.."))

    refused(body, tmp_path, "leaves the tree", entry="c")


def test_a_link_made_after_the_link_that_leads_it_out(tmp_path: Path) -> None:
    body = tar(directory("a"), directory("a/b"), link("c", "l/.."), link("l", "a/.."))

    refused(body, tmp_path, "leaves the tree", entry="c")


def _longer_than_a_path() -> list[bytes]:
    """Directories that make a path too long to be resolved, and short links to all of them."""
    members, path = [], ""
    for letter in "abcdefghijklmnop":
        members.append(long_name(path + "d" * 247) + directory("d"))
        members.append(long_name(path + letter) + long_link("d" * 247) + link("l", "d"))
        path += "d" * 247 + "/"
    return members


def test_a_chain_of_links_that_is_longer_than_a_path(tmp_path: Path) -> None:
    short = "/".join("abcdefghijklmnop")
    up = "/".join([".."] * 16)
    escape = [long_link(f"{short}/{up}/../outside"), link("escape", "x"), hard_link("e", "escape")]

    refused(tar(*_longer_than_a_path(), *escape), tmp_path, "not an earlier file", entry="e")


def test_a_chain_of_links_that_is_longer_than_a_path_and_leaves_the_tree(tmp_path: Path) -> None:
    short = "/".join("abcdefghijklmnop")
    up = "/".join([".."] * 16)
    inside = tar(*_longer_than_a_path(), long_link(f"{short}/{up}/x"), link("inside", "x"))
    outside = tar(*_longer_than_a_path(), long_link(f"{short}/{up}/../x"), link("out", "x"))

    refused(outside, tmp_path / "out", "leaves the tree", entry="out")
    assert "inside" in accepted(inside, tmp_path)


def test_a_link_below_a_chain_of_links_that_is_longer_than_a_path(tmp_path: Path) -> None:
    short = "/".join("abcdefghijklmnop")
    body = tar(*_longer_than_a_path(), long_name(f"{short}/link") + link("l", "../" * 16))

    refused(body, tmp_path, "which is a link", entry=f"{short}/link")


@pytest.mark.parametrize("below", ["l/evil", "l/deep/evil", "l/./evil"])
@pytest.mark.parametrize("target", [".", "d", "nowhere"])
def test_a_member_below_a_link(tmp_path: Path, below: str, target: str) -> None:
    for kind, evil in {
        "file": member(below, "x"),
        "directory": directory(below),
        "link": link(below, "d"),
        "hard link": hard_link(below, "file"),
    }.items():
        body = tar(member("d/inside"), member("file", "x"), link("l", target), evil)

        refused(body, tmp_path / kind, "is below 'l', which is a link")

        assert list(listing(tmp_path / kind / "above/into")) == ["d", "d/inside", "file"]


def test_links_that_stay_in_the_tree(tmp_path: Path) -> None:
    found = accepted(
        tar(
            directory("d"),
            link("d/up", ".."),
            link("d/file", "../file"),
            link("dangling", "not/there"),
            link("round", "round"),
            link("through", "d/up/d/up/file"),
            member("file", "x"),
        ),
        tmp_path,
        *PEERS,
    )

    assert found["through"] == ("link", False, b"d/up/d/up/file")


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("later", "not an earlier file"),
        ("none", "not an earlier file"),
        ("h", "not an earlier file"),
        ("l", "not an earlier file"),
        ("d", "not an earlier file"),
        ("../evil", "it leads upwards"),
        ("d/../file", "it leads upwards"),
        ("/etc/passwd", "it is absolute"),
        ("", "it is empty"),
        ("file\0", "it holds a NUL"),
    ],
)
def test_a_hard_link_to_what_is_no_earlier_file(tmp_path: Path, target: str, says: str) -> None:
    before = (member("file", "x"), directory("d"), link("l", "file"))
    evil = pax(record("linkpath", target)) + hard_link("h", "file")

    said = refused(tar(*before, evil, member("later", "x")), tmp_path, says)

    assert repr(target) in said


def test_a_hard_link_out_by_an_extended_header(tmp_path: Path) -> None:
    by_gnu = tar(member("file", "x"), long_link("../evil"), hard_link("h", "file"))
    by_pax = tar(member("file", "x"), pax(record("linkpath", "/evil")), hard_link("h", "file"))

    refused(by_gnu, tmp_path / "gnu", "leads upwards", entry="../evil")
    refused(by_pax, tmp_path / "pax", "it is absolute", entry="/evil")


def test_hard_links_to_earlier_files(tmp_path: Path) -> None:
    body = tar(
        member("d/file", "x", mode=0o755), hard_link("again", "d/file"), hard_link("d/3", "again")
    )

    assert accepted(body, tmp_path, *PEERS)["d/3"] == ("file", True, b"x")


UNSUPPORTED = {
    CHARACTERS: "a character device",
    BLOCKS: "a block device",
    FIFO: "a fifo",
    VOLUMES: "several volumes",
    OLD_NAMES: "a list of long names",
    b"8": "an unknown type",
    b"\xff": "an unknown type",
}


@pytest.mark.parametrize("kind", UNSUPPORTED)
@pytest.mark.parametrize("magic", [POSIX, GNU, V7])
def test_a_member_of_another_kind(tmp_path: Path, kind: bytes, magic: bytes) -> None:
    body = tar(member("file", "x"), header("odd", kind=kind, magic=magic, devices=(1, 3)))

    refused(body, tmp_path, UNSUPPORTED[kind], entry="odd")


@pytest.mark.parametrize("kind", [LABEL, b"A"])
def test_labels_and_access_control_lists_are_skipped(tmp_path: Path, kind: bytes) -> None:
    body = tar(header("odd", kind=kind, size=0), member("odd", "list", kind=kind), member("a", "x"))

    assert set(accepted(body, tmp_path)) == {"a"}


def test_a_directory_of_an_incremental_backup_is_a_directory(tmp_path: Path) -> None:
    body = tar(member("d/", "Yf\0\0", kind=DUMP, magic=GNU), member("d/f", "x", magic=GNU))

    assert set(accepted(body, tmp_path, "tar")) == {"d", "d/f"}


def test_a_sparse_file_of_a_format_that_has_none(tmp_path: Path) -> None:
    refused(tar(header("odd", kind=SPARSE, magic=POSIX)), tmp_path, "not supported", entry="odd")


@pytest.mark.parametrize("kind", [FILE, OLD_FILE, CONTIGUOUS])
@pytest.mark.parametrize("magic", [POSIX, GNU, V7])
def test_a_file_of_each_format(tmp_path: Path, kind: bytes, magic: bytes) -> None:
    body = tar(member("d/file", "content", kind=kind, magic=magic), member("empty", magic=magic))

    assert accepted(body, tmp_path, *PEERS)["d/file"] == ("file", False, b"content")


def test_modes_beyond_the_permission_bits_are_dropped(tmp_path: Path) -> None:
    accepted(
        tar(
            directory("d", mode=0o7777),
            member("d/tool", "x", mode=0o6777),
            member("d/owner", "x", mode=0o100),
            member("d/others", "x", mode=0o077),
            member("d/none", "x", mode=0),
        ),
        tmp_path,
    )

    modes = {path.name: path.stat().st_mode for path in (tmp_path / "into").rglob("*")}
    found = {name: mode & 0o7777 for name, mode in modes.items()}
    assert found == {"d": 0o755, "tool": 0o755, "owner": 0o100, "others": 0o055, "none": 0o644}


def test_the_last_of_two_files_wins(tmp_path: Path) -> None:
    body = tar(
        member("file", "first, and longer", mode=0o755),
        hard_link("again", "file"),
        member("other", "x"),
        member("./file", "second"),
    )

    found = accepted(body, tmp_path, *PEERS)

    assert found["file"] == ("file", False, b"second")
    assert found["again"] == ("file", True, b"first, and longer")


@pytest.mark.parametrize(
    ("later", "size"),
    [
        ([member("file", "12")], 2),
        ([member("file", "12"), member("./file", "123")], 3),
        ([member("other", "12"), hard_link("file", "other")], 2),
        ([hard_link("again", "file"), member("file", "12")], 7),
        ([hard_link("again", "file"), member("file", "12"), member("again", "1")], 3),
        ([hard_link("again", "file"), hard_link("again", "file")], 5),
    ],
)
def test_bytes_of_a_file_that_is_replaced_are_not_counted(
    tmp_path: Path, later: list[bytes], size: int
) -> None:
    contents = unpack(tar(member("file", "12345"), *later), tmp_path / "into", "app.tar")

    files = [path.stat() for path in (tmp_path / "into").iterdir()]
    assert contents.size == sum({one.st_ino: one.st_size for one in files}.values()) == size
    assert contents.files == len(files)


def test_the_last_of_two_links_wins(tmp_path: Path) -> None:
    found = accepted(tar(link("l", "a"), member("a", "x"), link("l", "b")), tmp_path, *PEERS)

    assert found["l"] == ("link", False, b"b")


def test_a_directory_may_be_there_twice(tmp_path: Path) -> None:
    body = tar(directory("d/"), member("d/file", "x"), directory("d"), directory("./d//"))

    assert list(accepted(body, tmp_path, *PEERS)) == ["d", "d/file"]


KINDS = {
    "file": member("it", "x"),
    "directory": directory("it"),
    "link": link("it", "other"),
    "hard link": hard_link("it", "other"),
}


@pytest.mark.parametrize("first", KINDS)
@pytest.mark.parametrize("second", KINDS)
def test_a_name_that_stands_for_two_kinds(tmp_path: Path, first: str, second: str) -> None:
    body = tar(member("other", "x"), KINDS[first], KINDS[second])
    if first == second or {first, second} == {"file", "hard link"}:
        assert "it" in accepted(body, tmp_path)
        return

    refused(body, tmp_path, f"is there twice, first as a {first}", entry="it")


def test_a_file_where_a_directory_has_to_be(tmp_path: Path) -> None:
    body = tar(member("a", "x"), member("a/b", "x"))

    refused(body, tmp_path, "is below 'a', which is a file", entry="a/b")


def test_a_file_in_the_place_of_a_directory_that_was_only_implied(tmp_path: Path) -> None:
    refused(tar(member("a/b", "x"), member("a", "x")), tmp_path, "is there twice", entry="a")


LIMITS = {
    "--max-size": Limits(size=999),
    "--max-entries": Limits(entries=4),
    "--max-depth": Limits(depth=2),
}


@pytest.mark.parametrize("option", LIMITS)
@pytest.mark.parametrize("pack", [bytes, gzip], ids=["tar", "tar.gz"])
def test_a_limit_names_its_option(tmp_path: Path, option: str, pack: type[bytes]) -> None:
    body = tar(member("a", "x" * 500), member("b", "x" * 500), member("c/d/f"))

    refused(pack(body), tmp_path, option, limits=LIMITS[option])
    assert accepted(pack(body), tmp_path, *PEERS, limits=Limits(size=2000, entries=5, depth=3))


def test_a_bomb_is_stopped_by_its_ratio(tmp_path: Path) -> None:
    refused(gzip(tar(member("zeros", bytes(80 << 20)))), tmp_path, "--max-ratio")


BOMBS = {
    "behind the end": [END, bytes(80 << 20)],
    "in extended headers": [pax(record("comment", bytes(1_000_000)), kind=b"g")] * 90,
}


@pytest.mark.parametrize("where", BOMBS)
def test_a_bomb_that_no_file_would_show(tmp_path: Path, where: str) -> None:
    refused(gzip(tar(*BOMBS[where])), tmp_path, "--max-ratio")


def test_a_bomb_of_holes(tmp_path: Path) -> None:
    body = tar(sparse("holes", [(1 << 60, 0)], b"", 1 << 60))

    refused(body, tmp_path, "--max-size", limits=Limits(size=1 << 20))


@pytest.mark.parametrize("kind", [b"x", b"g", b"L", b"K"])
def test_an_extended_header_over_the_limit_is_refused_before_it_is_read(
    tmp_path: Path, kind: bytes
) -> None:
    """It says how long it is, and is not there."""
    refused(tar(header("h", kind=kind, size=(1 << 20) + 1)), tmp_path, "--max-header")


def test_directories_that_are_only_implied_count_as_entries(tmp_path: Path) -> None:
    body = tar(*(member(f"{index}/" + "d/" * 40 + "f") for index in range(10)))

    refused(body, tmp_path, "--max-entries", limits=Limits(entries=400))


def test_an_archive_of_nothing(tmp_path: Path) -> None:
    assert accepted(END, tmp_path, *PEERS) == {}


def test_an_empty_archive_in_gzip(tmp_path: Path) -> None:
    assert accepted(gzip(END), tmp_path, *PEERS) == {}


def test_empty_files_and_directories(tmp_path: Path) -> None:
    found = accepted(tar(directory("d"), directory("e/f"), member("file")), tmp_path, *PEERS)

    assert found["file"] == ("file", False, b"")


@pytest.mark.parametrize("root", [".", "./", "./."])
def test_the_tree_itself_as_the_first_directory(tmp_path: Path, root: str) -> None:
    body = tar(directory(root), directory("./d"), member("./d/file", "x"))

    assert list(accepted(body, tmp_path, *PEERS)) == ["d", "d/file"]


@pytest.mark.parametrize(
    "name", ["n" * 255, "ü" * 127, "d/" * 127 + "f", "/".join(["l" * 250] * 15)]
)
def test_deep_and_long_names(tmp_path: Path, name: str) -> None:
    body = tar(long_name(name), member("short", "gnu"), pax(record("path", name)), member())

    assert name in accepted(body, tmp_path, *PEERS)


@pytest.mark.parametrize("mtime", [0, -1, -(1 << 40), 1 << 33, b" " * 12, bytes(12)])
def test_times_that_no_clock_shows(tmp_path: Path, mtime: int | bytes) -> None:
    assert accepted(tar(member("file", "x", mtime=mtime)), tmp_path)


def test_times_before_1970_in_pax(tmp_path: Path) -> None:
    body = tar(pax(record("mtime", "-1.5"), record("atime", "-0")), member("file", "x", mtime=0))

    assert accepted(body, tmp_path, *PEERS)
