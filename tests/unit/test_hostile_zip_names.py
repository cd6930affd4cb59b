"""Names in zip archives: what leaves the tree, or could mean two things, is refused."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from cpstage import Limits
from cpstage.errors import ArtifactRejected
from trees import listing
from unpacked_archives import unpack
from zip_bytes import (
    FAT,
    UTF8,
    Entry,
    directory,
    extra_field,
    file,
    unicode_path,
    zip_bytes,
)
from zip_checks import accepted, read_by, refused

if TYPE_CHECKING:
    from pathlib import Path

LEAVING = [
    "..",
    "../evil",
    "../../evil",
    "a/..",
    "a/../..",
    "a/../../evil",
    "a/../evil",
    "./../evil",
    "../",
    "/evil",
    "//evil",
    "//host/share/evil",
    "c:/evil",
    "C:\\evil",
    "..\\evil",
    "a\\..\\..\\evil",
    "a/..\\evil",
    "a\\..",
    ".//c:/evil",
]

UNDECODABLE = {
    "cut off": b"gr\xc3",
    "Latin-1": b"gr\xf6\xdfe",
    "overlong slash": b"a\xc0\xafevil",
    "overlong dots": b"\xc0\xae\xc0\xae/evil",
    "surrogate": b"a\xed\xa0\x80",
    "beyond Unicode": b"a\xf4\x90\x80\x80",
}


@pytest.mark.parametrize("name", LEAVING)
@pytest.mark.parametrize("host", [FAT, 3], ids=["FAT", "Unix"])
def test_a_name_that_leaves_the_tree(tmp_path: Path, name: str, host: int) -> None:
    body = zip_bytes(file("good"), Entry(name, b"evil" if name[-1:] != "/" else b"", host=host))

    shown = name.replace("\\", "/") if host == FAT else name
    refused(body, tmp_path, "unsafe name|absolute|upwards", entry=shown)


@pytest.mark.parametrize("name", ["\\evil", "\\\\host\\share\\evil"])
def test_a_backslash_at_the_start_is_absolute_to_windows_tools_alone(
    tmp_path: Path, name: str
) -> None:
    assert set(accepted(zip_bytes(file(name)), tmp_path)) == {name}
    refused(zip_bytes(file("good"), Entry(name, b"x", host=FAT)), tmp_path / "fat", "absolute")


@pytest.mark.parametrize("name", ["a:b.txt", "C:evil", "d/c:/x"])
def test_other_colons_are_characters(tmp_path: Path, name: str) -> None:
    assert name in accepted(zip_bytes(file(name)), tmp_path)


def test_a_slash_alone_is_the_root(tmp_path: Path) -> None:
    assert set(accepted(zip_bytes(directory("/"), file("a")), tmp_path)) == {"a"}


def test_an_absolute_name_of_a_place_that_could_be_written(tmp_path: Path) -> None:
    name = str(tmp_path / "evil")

    refused(zip_bytes(file(name)), tmp_path, "absolute", entry=name)


@pytest.mark.parametrize("name", ["a\0b", "\0", "good\0/../../evil", "../evil\0.txt"])
def test_a_name_with_a_nul(tmp_path: Path, name: str) -> None:
    refused(zip_bytes(file("good"), file(name)), tmp_path, "NUL", entry=name)


@pytest.mark.parametrize("name", ["", ".", "./.", "././."])
def test_a_file_without_a_name(tmp_path: Path, name: str) -> None:
    refused(zip_bytes(file("good"), file(name)), tmp_path, "unsafe name|empty", entry=name)


@pytest.mark.parametrize("raw", UNDECODABLE.values(), ids=UNDECODABLE)
def test_a_name_that_is_flagged_as_utf8_and_is_not(tmp_path: Path, raw: bytes) -> None:
    body = zip_bytes(file("good"), Entry(raw, b"evil", flags=UTF8))

    refused(body, tmp_path, "UTF-8", entry=raw.decode("utf-8", "surrogateescape"))


def test_names_that_look_odd_and_are_not(tmp_path: Path) -> None:
    names = [
        "./x",
        "...",
        "..a",
        "a..",
        "a/...",
        ".hidden",
        "b//c",
        "with space ",
        " ",
        "~",
        "-rf",
        "*",
        "new\nline",
        "\x1b[31mred",
        "1:2",
        "ab:c",
        "ünï",
        "日本語",
        "\u202eright-to-left",
        "😀",
        "con",
        "NUL.txt",
    ]

    body = zip_bytes(*[file(name) for name in names], directory("./"))

    # unzip shows control characters as ^[: its files have other names.
    found = accepted(body, tmp_path, "bsdtar")
    assert set(found) == {name.replace("./", "").replace("//", "/") for name in names} | {"a", "b"}


def test_a_decomposed_name_stays_decomposed(tmp_path: Path) -> None:
    # bsdtar composes it.
    assert set(accepted(zip_bytes(file("u\u0308")), tmp_path, "unzip")) == {"u\u0308"}


def test_a_backslash_is_a_character(tmp_path: Path) -> None:
    names = ["a\\b", "c\\", "d/e\\f", "g\\..h"]

    found = accepted(zip_bytes(*[file(name) for name in names]), tmp_path, "unzip")

    assert set(found) == {*names, "d"}


@pytest.mark.parametrize("host", [0, 6, 10, 11, 14])
def test_a_backslash_of_a_windows_tool_is_a_separator(tmp_path: Path, host: int) -> None:
    entries = (Entry("a\\", host=host, mode=0), Entry("a\\b", b"x", host=host, mode=0))

    found = accepted(zip_bytes(*entries), tmp_path)

    assert found == {"a": ("directory", False, b""), "a/b": ("file", False, b"x")}


def test_a_backslash_in_a_unicode_path_of_a_name_with_slashes_is_a_separator(
    tmp_path: Path,
) -> None:
    entry = Entry(b"gr_e/x", b"1", extra=unicode_path("größe\\x".encode(), b"gr_e/x"))

    assert set(accepted(zip_bytes(entry), tmp_path)) == {"größe", "größe/x"}


def test_names_of_unix_without_the_flag_are_utf8(tmp_path: Path) -> None:
    body = zip_bytes(file("größe/日本語".encode()))

    assert "größe/日本語" in accepted(body, tmp_path, "unzip", "bsdtar")


def test_names_of_fat_without_the_flag_are_cp437(tmp_path: Path) -> None:
    body = zip_bytes(Entry("größe/äéñ".encode("cp437"), b"x", host=FAT, mode=0))

    found = accepted(body, tmp_path)

    assert set(found) == {"größe", "größe/äéñ"}
    # unzip makes ISO 8859-1 of it, whatever the locale.
    assert {os.fsencode(name).decode("latin-1") for name in read_by("unzip", body, tmp_path)} == {
        *found
    }


def test_names_of_fat_are_not_taken_for_utf8(tmp_path: Path) -> None:
    raw = "größe".encode()

    found = accepted(zip_bytes(Entry(raw, b"x", host=FAT, mode=0)), tmp_path)

    assert set(found) == {raw.decode("cp437")}


def test_names_of_unix_that_are_not_utf8_are_cp437_or_refused(tmp_path: Path) -> None:
    """Other readers write the bytes as they are: a name that no other step may be able to read."""
    try:
        unpack(zip_bytes(file("größe".encode("cp437"))), tmp_path / "into", "app.zip")
    except ArtifactRejected:
        assert listing(tmp_path / "into") == {}
    else:
        assert set(listing(tmp_path / "into")) == {"größe"}


def as_unzip_or_refused(body: bytes, root: Path) -> None:
    """Expect of an archive that other readers differ on that it is Info-ZIP's, or nobody's."""
    try:
        unpack(body, root / "into", "app.zip")
    except ArtifactRejected:
        assert listing(root / "into") == {}
    else:
        assert listing(root / "into") == read_by("unzip", body, root)


def test_a_unicode_path_is_the_name(tmp_path: Path) -> None:
    body = zip_bytes(
        Entry(b"gr_e/x", b"1", extra=unicode_path("größe/x".encode(), b"gr_e/x")),
        Entry(b"plain", b"2", extra=unicode_path(b"plain", b"plain")),
    )

    found = accepted(body, tmp_path, "unzip", "bsdtar")

    assert set(found) == {"größe", "größe/x", "plain"}


def test_a_unicode_path_that_is_out_of_date_says_nothing(tmp_path: Path) -> None:
    stale = unicode_path(b"../evil", b"name before it was renamed")

    found = accepted(zip_bytes(Entry("good", b"x", extra=stale)), tmp_path, "unzip", "bsdtar")

    assert set(found) == {"good"}


@pytest.mark.parametrize(
    "path", [b"../evil", b"/evil", b"..\\evil", b"C:/evil", b"a\0b", b".", b"gr\xf6"]
)
def test_a_unicode_path_that_leaves_the_tree(tmp_path: Path, path: bytes) -> None:
    body = zip_bytes(file("first"), Entry("good", b"evil", extra=unicode_path(path, b"good")))

    refused(body, tmp_path, "name|UTF-8|disagree|differ")


def test_two_entries_with_one_unicode_path(tmp_path: Path) -> None:
    entries = [Entry(raw, raw, extra=unicode_path(b"same", raw)) for raw in (b"one", b"two")]

    refused(zip_bytes(*entries), tmp_path, "twice|name")


def test_a_unicode_path_that_is_the_name_of_another_entry(tmp_path: Path) -> None:
    other = Entry("other", b"2", extra=unicode_path(b"good", b"other"))

    refused(zip_bytes(file("good"), other), tmp_path, "twice|name")


@pytest.mark.parametrize(
    "entry",
    [
        Entry("good", b"x", extra=unicode_path(b"better", b"good")),
        Entry("good", b"x", extra=unicode_path(b"better", b"good", version=2)),
        Entry("größe", b"x", extra=unicode_path(b"better", "größe".encode())),
        Entry("größe".encode(), b"x", host=FAT, extra=unicode_path(b"", "größe".encode())),
        Entry("good", b"x", extra=unicode_path(b"1", b"good") + unicode_path(b"2", b"good")),
        Entry("good", b"x", extra=extra_field(0x7075, b"\1\2")),
        Entry("good/", extra=unicode_path(b"good", b"good/")),
        Entry("good", extra=unicode_path(b"good/", b"good")),
    ],
    ids=[
        "another name",
        "of a version to come",
        "beside a name that is flagged as UTF-8",
        "empty",
        "two of them",
        "cut off",
        "of a directory, without its slash",
        "of a file, with a slash",
    ],
)
def test_a_unicode_path_that_readers_differ_on(tmp_path: Path, entry: Entry) -> None:
    as_unzip_or_refused(zip_bytes(entry), tmp_path)


@pytest.mark.parametrize("path", [b"../evil", b"better"])
def test_a_unicode_path_of_the_local_header_alone(tmp_path: Path, path: bytes) -> None:
    """Who reads the archive from its start would write under this name."""
    entry = Entry("good", b"x", local={"extra": unicode_path(path, b"good")})

    refused(zip_bytes(entry), tmp_path, "name|local file header", planned=False)


def test_the_longest_names(tmp_path: Path) -> None:
    names = ["n" * 255, "ü" * 127, "/".join(["d" * 254] * 14)]

    found = accepted(zip_bytes(*[file(name) for name in names]), tmp_path, "unzip", "bsdtar")

    assert set(names) <= set(found)


@pytest.mark.parametrize("name", ["n" * 256, "ü" * 128, "d/" * 2048 + "f", "n" * 0xFFFF])
def test_a_name_that_no_file_can_have(tmp_path: Path, name: str) -> None:
    body = zip_bytes(file("good"), file(name))

    refused(body, tmp_path, "bytes long", entry=name, limits=Limits(depth=10_000))


def test_the_deepest_path(tmp_path: Path) -> None:
    deepest = "d/" * 127 + "f"

    assert deepest in accepted(zip_bytes(file(deepest)), tmp_path, "unzip", "bsdtar")


@pytest.mark.parametrize("name", ["d/" * 128 + "f", "d/" * 129])
def test_a_path_that_is_too_deep(tmp_path: Path, name: str) -> None:
    refused(zip_bytes(file("good"), Entry(name)), tmp_path, "--max-depth")


@pytest.mark.parametrize(
    "name", ["../\x1b[2Jevil", "../evil\ncpstage: done", "../\r\x07evil", "../\u202elive\x85"]
)
def test_a_name_cannot_forge_a_line_of_output(tmp_path: Path, name: str) -> None:
    # That the message is one line of printable characters, refused() checks each time.
    refused(zip_bytes(file(name)), tmp_path, "unsafe name", entry=name)
