"""Packing: trees become archives that other readers read, whatever the sizes and levels."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import tarfile
import threading
import zipfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pytest

from cpstage._deflate import DEFAULT_LEVEL
from cpstage.archive.pack import Packer
from cpstage.archive.packing_list import UNIT_SIZE
from cpstage.filesystem.tree import RelativePath
from cpstage.filesystem.walk import single
from packed_trees import (
    EDGES,
    FORMATS,
    UTF8,
    entries_of,
    hole,
    pack,
    packed,
    stream,
    text,
    tree_of_sizes,
    unpacked_by,
)
from trees import awkward_tree, listing, needs

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cpstage.archive.formats import Format


@pytest.mark.parametrize("kind", FORMATS)
def test_the_number_of_threads_does_not_show(tmp_path: Path, kind: Format) -> None:
    tree = awkward_tree(tmp_path / "tree")
    tree_of_sizes(tree / "large", 5 * UNIT_SIZE + 77)
    tree_of_sizes(tree / "small", *range(1000, 200_000, 10_000))

    archives = {packed(tree, kind, threads=threads) for threads in (1, 2, 8)}

    assert len(archives) == 1


@pytest.mark.parametrize("level", range(10))
@pytest.mark.parametrize("reader", ["unzip", "bsdtar", "zipfile"])
def test_a_zip_of_every_level_is_read(tmp_path: Path, level: int, reader: str) -> None:
    tree = awkward_tree(tmp_path / "tree")
    tree_of_sizes(tree / "large", UNIT_SIZE + 77)

    archive = packed(tree, "zip", level)

    if reader == "zipfile":
        with zipfile.ZipFile(io.BytesIO(archive)) as opened:
            assert opened.testzip() is None
            contents = {info.filename.rstrip("/"): opened.read(info) for info in opened.infolist()}
        assert contents == {name: content for name, (_, _, content) in listing(tree).items()}
    else:
        command = {"unzip": ["unzip", "-q", "ARCHIVE"], "bsdtar": ["bsdtar", "-xpf", "ARCHIVE"]}
        into = unpacked_by(command[reader], archive, tmp_path / "into")
        assert listing(into) == listing(tree)


@pytest.mark.parametrize("level", [0, 1, 3, 6])
@pytest.mark.parametrize("reader", ["tar", "bsdtar"])
def test_a_tar_gz_of_several_levels_is_read(tmp_path: Path, level: int, reader: str) -> None:
    tree = awkward_tree(tmp_path / "tree")
    tree_of_sizes(tree / "large", UNIT_SIZE + 77)

    into = unpacked_by(
        [reader, "-xpzf", "ARCHIVE"], packed(tree, "tar.gz", level), tmp_path / "into"
    )

    assert listing(into) == listing(tree)


def test_a_tar_gz_is_one_member_without_a_time(tmp_path: Path) -> None:
    tree = tree_of_sizes(tmp_path / "tree", 0, 3 * UNIT_SIZE)

    archive = packed(tree, "tar.gz")

    stream = zlib.decompressobj(wbits=31)
    inflated = stream.decompress(archive)
    assert (stream.eof, stream.unused_data) == (True, b"")
    assert inflated == packed(tree, "tar")
    assert archive[4:8] == bytes(4)


@pytest.mark.usefixtures("no_process_left")
@pytest.mark.parametrize(
    ("path", "records", "header"),
    [
        ("p" * 155 + "/" + "n" * 100, False, None),
        ("a/" + "d" * 98 + "/e", False, None),
        ("grün/日本語", True, None),
        ("ü" * 77 + "/" + "ü" * 50, True, None),
        ("x" + "ü" * 50, True, "x" + "ü" * 49),
        ("p" * 156 + "/n", True, "p" * 100),
    ],
)
def test_readers_without_pax_find_names_in_ustar_headers(
    tmp_path: Path, path: str, records: bool, header: str | None
) -> None:
    (tmp_path / "tree" / path).parent.mkdir(parents=True)
    (tmp_path / "tree" / path).write_bytes(b"x")
    (tmp_path / "tree/link").symlink_to("ü" * 50)

    blocks = packed(tmp_path / "tree", "tar")

    headers = {block[156:157]: block for block in _blocks(blocks) if block[257:262] == b"ustar"}
    file, link = headers[b"0"], headers[b"2"]
    place = f"{_field(file, 345, 155)}/{_field(file, 0, 100)}".removeprefix("/")
    assert place == (path if header is None else header)
    assert (f"path={path}\n".encode() in blocks) is records
    assert _field(link, 157, 100) == "ü" * 50
    with tarfile.open(fileobj=io.BytesIO(blocks)) as archive:
        assert path in archive.getnames()


def _blocks(body: bytes) -> list[bytes]:
    return [body[start : start + 512] for start in range(0, len(body), 512)]


def _field(block: bytes, start: int, length: int) -> str:
    return block[start : start + length].rstrip(b"\0").decode()


@pytest.mark.parametrize("kind", FORMATS)
def test_what_is_begun_while_it_is_listed_comes_out_the_same(tmp_path: Path, kind: Format) -> None:
    tree = tree_of_sizes(tmp_path / "tree", 3 * UNIT_SIZE)
    for number in range(2_500):
        (tree / f"{number:04}").write_bytes(text(number))

    with Packer() as packer:
        listed = packer.list_entries(tree, kind)
        begun = b"".join(packer.pack(listed, kind))

    assert begun == packed(tree, kind)


@pytest.mark.parametrize("level", [0, DEFAULT_LEVEL, 6])
@pytest.mark.parametrize(
    ("kind", "command"),
    [
        ("zip", ["unzip", "-q", "ARCHIVE"]),
        ("zip", ["bsdtar", "-xpf", "ARCHIVE"]),
        ("tar", ["tar", "-xpf", "ARCHIVE"]),
        ("tar.gz", ["tar", "-xpzf", "ARCHIVE"]),
    ],
    ids=["unzip", "bsdtar", "tar", "tar.gz"],
)
def test_files_of_every_size_come_back(
    tmp_path: Path, kind: Format, command: list[str], level: int
) -> None:
    tree = tree_of_sizes(tmp_path / "tree", 0, *EDGES)

    into = unpacked_by(command, packed(tree, kind, level), tmp_path / "into")

    assert listing(into) == listing(tree)


@pytest.mark.parametrize("level", [0, DEFAULT_LEVEL])
def test_large_files_can_be_read_from_a_pipe(tmp_path: Path, level: int) -> None:
    """A reader that sees the archive once has no directory: it finds the ends of files itself."""
    needs("bsdtar")
    tree = tree_of_sizes(tmp_path / "tree", 10, UNIT_SIZE, UNIT_SIZE + 1, 3 * UNIT_SIZE)
    into = tmp_path / "into"
    into.mkdir()

    subprocess.run(
        ["bsdtar", "-xf", "-"], cwd=into, input=packed(tree, "zip", level), check=True, env=UTF8
    )

    assert listing(into) == listing(tree)


def test_what_does_not_get_smaller_is_not_deflated(tmp_path: Path) -> None:
    tree = tree_of_sizes(tmp_path / "tree", 100, 300_000, 4 * UNIT_SIZE)

    archive = packed(tree, "zip")

    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        methods = {info.filename: info.compress_type for info in opened.infolist()}
        growth = {info.filename: info.compress_size - info.file_size for info in opened.infolist()}
    assert (methods["noise-100"], methods["noise-300000"]) == (zipfile.ZIP_STORED,) * 2
    assert methods["text-300000"] == zipfile.ZIP_DEFLATED
    # RFC 1951, 3.2.4: five bytes for 65,535.
    assert 0 < growth[f"noise-{4 * UNIT_SIZE}"] <= 5 * (4 * UNIT_SIZE // 0xFFFF + 4)
    assert growth[f"text-{4 * UNIT_SIZE}"] < -2 * UNIT_SIZE


def test_level_0_deflates_nothing_and_the_hardest_packs_smallest(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    shutil.copytree(Path(json.__file__).parent, tree, ignore=shutil.ignore_patterns("*.pyc"))

    sizes = [len(packed(tree, "zip", level)) for level in (0, DEFAULT_LEVEL, 9)]

    assert sizes[0] > sum(path.stat().st_size for path in tree.rglob("*.py"))
    assert sizes[0] > 2 * sizes[1] > 2 * sizes[2]


@pytest.mark.slow
def test_files_and_offsets_above_4_gib_are_in_zip64_fields(tmp_path: Path) -> None:
    needs("zipinfo", "bsdtar")
    tree = tree_of_sizes(tmp_path / "tree", 100)
    huge = 4 * 2**30 + 1
    hole(tree / "a-hole", huge)
    archive = tmp_path / "archive.zip"

    _write_sparsely(pack(entries_of(tree), "zip", 0), archive)

    with zipfile.ZipFile(archive) as opened:
        assert opened.getinfo("a-hole").file_size == huge
        assert opened.getinfo("text-100").header_offset > huge
        assert opened.read("text-100") == (tree / "text-100").read_bytes()
    listed = subprocess.run(["zipinfo", "-l", archive], capture_output=True, text=True, check=True)
    assert f" {huge} " in listed.stdout
    with archive.open("rb") as file:
        streamed = subprocess.run(["bsdtar", "-tf", "-"], stdin=file, capture_output=True)
    assert streamed.stdout.split() == [b"a-hole", b"noise-100", b"text-100"]


def _write_sparsely(chunks: Iterator[bytes], path: Path) -> None:
    """Write a file that is nearly all zeros without taking up as much of the disk."""
    page = bytes(4096)
    with path.open("xb") as file:
        for chunk in chunks:
            for start in range(0, len(chunk), len(page)):
                piece = chunk[start : start + len(page)]
                if piece == page:
                    file.seek(len(page), os.SEEK_CUR)
                else:
                    file.write(piece)


@pytest.mark.slow
def test_70_000_entries_are_counted_in_zip64_fields(tmp_path: Path) -> None:
    needs("unzip", "bsdtar")
    tree = tree_of_sizes(tmp_path / "tree", 10)
    listed = entries_of(tree)
    many = [
        listed[number % 2]._replace(path=RelativePath(f"entry-{number:05}"))
        for number in range(70_000)
    ]
    archive = tmp_path / "archive.zip"

    archive.write_bytes(b"".join(pack(many, "zip")))

    names = [entry.path for entry in many]
    with zipfile.ZipFile(archive) as opened:
        assert opened.namelist() == names
    command = ["bsdtar", "-tf", str(archive)]
    assert subprocess.run(command, capture_output=True, text=True).stdout.split() == names
    assert subprocess.run(["unzip", "-tq", str(archive)], capture_output=True).returncode == 0


@pytest.mark.parametrize("kind", [*FORMATS, "raw"])
def test_progress_is_told_of_every_byte_by_who_takes_them(
    tmp_path: Path, kind: Format | Literal["raw"]
) -> None:
    tree = tree_of_sizes(tmp_path / "tree", 3 * UNIT_SIZE + 5, *EDGES)
    entries = [single(tree / f"text-{3 * UNIT_SIZE + 5}")] if kind == "raw" else entries_of(tree)
    told: list[tuple[int, int]] = []

    for _ in stream(entries, kind, lambda count: told.append((count, threading.get_ident()))):
        pass

    assert sum(count for count, _ in told) == sum(entry.size for entry in entries)
    assert {thread for _, thread in told} == {threading.get_ident()}
