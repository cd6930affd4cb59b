"""Hostile and broken archives: refused with exit code 65, the entry named, nothing staged."""

from __future__ import annotations

import io
import random
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest

from cpstage import ArtifactRejected, Limits
from cpstage.archive import BytesBlob, Contents, ReadAhead, Unpacker, recognise
from cpstage.tree import Tree
from samples import tar_member, tar_of, tar_of_members, zip_of, zip_with_link
from trees import listing
from unpacking import unpack

EVIL_NAMES = [
    "../evil",
    "a/../../evil",
    "/etc/evil",
    "..",
    "a/..",
    "..\\evil",
    "a\\..\\..\\evil",
    "C:\\evil",
    "c:evil",
    "\\\\host\\share",
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
@pytest.mark.parametrize("make", [zip_of, tar_of], ids=["zip", "tar"])
def test_a_name_that_leaves_the_tree(tmp_path: Path, name: str, make: object) -> None:
    assert callable(make)

    said = refused(make({"good": "x", name: "evil"}), tmp_path / "into")

    assert any(why in said for why in ("has an unsafe name", "damaged", "directory with data"))


@pytest.mark.parametrize("kind", HOSTILE_TARS)
def test_a_hostile_tar(tmp_path: Path, kind: str) -> None:
    assert "entry" in refused(HOSTILE_TARS[kind], tmp_path / "into")


@pytest.mark.parametrize("target", ["../evil", "/etc/passwd", "a/../../evil", "", "self/../.."])
def test_a_zip_with_a_link_out(tmp_path: Path, target: str) -> None:
    body = zip_with_link("link", target, {"a/file": "x"})

    assert "'link' is a link" in refused(body, tmp_path / "into")
    assert not (tmp_path / "into/link").is_symlink()


def test_a_zip_member_below_a_link(tmp_path: Path) -> None:
    body = zip_with_link("link", ".", {"link/evil": "x"})

    assert "is below 'link'" in refused(body, tmp_path / "into")
    assert listing(tmp_path / "into") == {}


def test_a_zip_with_a_name_twice(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a/b", "first")
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("a/b", "second")

    assert "'a/b' is there twice" in refused(buffer.getvalue(), tmp_path / "into")
    assert listing(tmp_path / "into") == {}


def test_a_zip_with_a_file_where_a_directory_has_to_be(tmp_path: Path) -> None:
    said = refused(zip_of({"a": "file", "a/b": "below it"}), tmp_path / "into")

    assert "'a/b' is below 'a', which is a file" in said


@pytest.mark.parametrize("mode", [stat.S_IFIFO, stat.S_IFCHR, stat.S_IFSOCK])
def test_a_zip_with_a_special_file(tmp_path: Path, mode: int) -> None:
    body = zip_of({"odd": ""}, modes={"odd": mode | 0o644})

    assert "neither a file, a directory nor a link" in refused(body, tmp_path / "into")


def test_modes_beyond_the_execute_bit_are_dropped(tmp_path: Path) -> None:
    body = zip_of({"tool": "x"}, modes={"tool": stat.S_IFREG | 0o6777})

    unpack(body, tmp_path / "into")

    assert (tmp_path / "into/tool").stat().st_mode & 0o7022 == 0


@pytest.mark.parametrize(
    ("limits", "option"),
    [
        (Limits(size=999), "--max-size"),
        (Limits(entries=2), "--max-entries"),
        (Limits(depth=3), "--max-depth"),
    ],
)
@pytest.mark.parametrize("make", [zip_of, tar_of], ids=["zip", "tar"])
def test_a_limit_names_its_option(
    tmp_path: Path, limits: Limits, option: str, make: object
) -> None:
    assert callable(make)

    said = refused(make({"a": "x" * 500, "b": "x" * 500, "c/d/e/f": ""}), tmp_path / "into", limits)

    assert option in said


def test_a_bomb_is_stopped_by_its_ratio(tmp_path: Path) -> None:
    body = zip_of({"zeros": bytes(80 << 20)})

    assert "--max-ratio" in refused(body, tmp_path / "into")


@pytest.mark.parametrize("mode", ["zip", "w", "w:gz"])
def test_truncation_anywhere_is_refused(tmp_path: Path, mode: str) -> None:
    files = {f"file-{number}": f"content {number}" * 20 for number in range(4)}
    whole = zip_of(files) if mode == "zip" else tar_of(files, mode=mode)
    # A tar ends at its first zero block; what pads it to a record says nothing.
    end = len(whole.rstrip(b"\0")) + 512 if mode == "w" else len(whole)

    accepted = []
    for length in range(1 if mode == "zip" else 600, min(end, len(whole)), 37):
        body = whole[:length]
        try:
            kind = recognise(body[:4096], name="app.zip" if mode == "zip" else "")
        except ArtifactRejected:
            continue
        if kind is None:
            continue
        into = tmp_path / f"into-{length}"
        into.mkdir()
        with Tree(into) as tree:
            unpacker = Unpacker(tree, Limits())
            try:
                unpacker.add(ReadAhead(BytesBlob(body)), kind, "App")
            except ArtifactRejected:
                continue
        accepted.append(length)

    assert accepted == []


def test_a_flipped_bit_in_the_data_is_found(tmp_path: Path) -> None:
    for mode, body in {
        "zip": bytearray(zip_of({"file": "content " * 100})),
        "gz": bytearray(tar_of({"file": "content " * 100}, mode="w:gz")),
    }.items():
        body[len(body) // 3] ^= 0x10
        refused(bytes(body), tmp_path / mode)


def test_a_damaged_gzip_trailer_is_found(tmp_path: Path) -> None:
    body = bytearray(tar_of({"file": "x"}, mode="w:gz"))
    body[-6] ^= 1

    assert "damaged" in refused(bytes(body), tmp_path / "into")


def test_a_damaged_header_in_the_middle_is_not_the_end(tmp_path: Path) -> None:
    body = bytearray(tar_of({"one": "1", "two": "2"}))
    body[1024 + 10] ^= 1

    assert "damaged" in refused(bytes(body), tmp_path / "into")


def test_an_encrypted_entry_is_unsupported(tmp_path: Path) -> None:
    body = bytearray(zip_of({"secret": "x"}))
    for magic, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        body[body.index(magic) + offset] |= 1

    assert "encrypted" in refused(bytes(body), tmp_path / "into")


def test_an_unknown_method_is_named_before_any_write(tmp_path: Path) -> None:
    body = bytearray(zip_of({"good": "x", "odd": "y"}))
    for magic, offset in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):
        body[body.rindex(magic) + offset] = 99

    assert "unsupported: method 99" in refused(bytes(body), tmp_path / "into")
    assert listing(tmp_path / "into") == {}


def test_a_name_with_control_characters_cannot_forge_output(tmp_path: Path) -> None:
    said = refused(zip_of({"../\x1b[2J\nevil": "x"}), tmp_path / "into")

    assert said.isprintable()


@pytest.mark.parametrize(
    ("body", "name"),
    [(zip_of({}), ""), (tar_of({}), "app.tar"), (tar_of({}, mode="w:gz"), "")],
    ids=["zip", "tar", "tar.gz"],
)
def test_an_empty_archive_is_an_empty_directory(tmp_path: Path, body: bytes, name: str) -> None:
    assert unpack(body, tmp_path / "into", name=name) == Contents()


@pytest.mark.parametrize("length", [300, 5000, 500_000])
def test_a_link_with_an_endless_target(tmp_path: Path, length: int) -> None:
    target = "a/" * length if length > 300 else "a" * length
    body = tar_of_members([(tar_member("link", tarfile.SYMTYPE, target), "")], "w:gz")

    assert "'link' is a link with a" in refused(body, tmp_path / "into")


def test_links_that_lead_through_one_another_without_end(tmp_path: Path) -> None:
    members = [
        (tar_member(f"l{index}", tarfile.SYMTYPE, "x/../" * 800 + "x"), "") for index in range(3000)
    ]

    assert "too many links" in refused(tar_of_members([*members], "w:gz"), tmp_path / "into")


@pytest.mark.parametrize("name", ["n" * 256, "d/" * 2048 + "f"])
@pytest.mark.parametrize("make", [zip_of, tar_of], ids=["zip", "tar"])
def test_a_name_that_no_file_can_have(tmp_path: Path, name: str, make: object) -> None:
    assert callable(make)
    limits = Limits(depth=10_000)

    assert "bytes long" in refused(make({name: "x"}), tmp_path / "into", limits)


def test_directories_that_are_only_implied_count_as_entries(tmp_path: Path) -> None:
    body = zip_of({f"{index}/" + "d/" * 50 + "f": "" for index in range(10)})

    assert "--max-entries" in refused(body, tmp_path / "into", Limits(entries=400))


def test_data_after_the_end_of_a_tar(tmp_path: Path) -> None:
    body = tar_of({"file": "x"}) + b"more"

    assert "after the end" in refused(body, tmp_path / "into")


@pytest.mark.parametrize("seed", range(8))
def test_no_damage_to_a_zip_is_anything_but_a_rejection(tmp_path: Path, seed: int) -> None:
    """Any byte of a small zip, of every method there is, set to any value."""
    chance = random.Random(seed)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for method in (
            zipfile.ZIP_STORED,
            zipfile.ZIP_DEFLATED,
            zipfile.ZIP_BZIP2,
            zipfile.ZIP_LZMA,
        ):
            archive.writestr(f"file-{method}", "content " * 50, compress_type=method)
    whole = buffer.getvalue()

    outcomes = set()
    for attempt in range(150):
        body = bytearray(whole)
        body[chance.randrange(len(body))] = chance.randrange(256)
        into = tmp_path / str(attempt)
        into.mkdir()
        with Tree(into) as tree:
            try:
                Unpacker(tree, Limits()).add(ReadAhead(BytesBlob(bytes(body))), "zip", "App")
                outcomes.add("accepted")
            except ArtifactRejected:
                outcomes.add("rejected")

    assert "rejected" in outcomes


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


def test_unflagged_utf8_names_are_read_as_info_zip_does(tmp_path: Path) -> None:
    body = zip_of({"größe": "x"})
    for magic, offset in ((b"PK\x03\x04", 7), (b"PK\x01\x02", 9)):
        position = body.index(magic) + offset
        body = body[:position] + bytes([body[position] & ~0x08]) + body[position + 1 :]

    unpack(body, tmp_path / "into")

    assert (tmp_path / "into/größe").read_text() == "x"


def test_names_with_dots_and_backslashes_that_mean_nothing_are_kept(tmp_path: Path) -> None:
    unpack(tar_of({"./a/..b": "1", "c\\d": "2", "...": "3"}), tmp_path / "into")

    assert sorted(listing(tmp_path / "into")) == ["...", "a", "a/..b", "c\\d"]
