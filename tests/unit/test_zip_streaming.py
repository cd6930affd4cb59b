"""Zips that are written can be read from a pipe: sizes and data descriptors in local headers."""

from __future__ import annotations

import struct
import subprocess
import zlib
from typing import TYPE_CHECKING

import pytest

from cpstage.archive.options import MtimeRule
from cpstage.archive.zip_writer import record
from cpstage.filesystem.tree import RelativePath
from cpstage.filesystem.walk import Entry
from packed_trees import packed, tree_of_sizes
from trees import needs

if TYPE_CHECKING:
    from pathlib import Path

MIB, GIB = 1 << 20, 1 << 30
SIZES = (0, 1000, MIB + 1, 12 * MIB, 17 * MIB)
LOCAL = struct.Struct("<4s5H3L2H")
HAS_DESCRIPTOR = 1 << 3

JAVA = """
import java.util.zip.*;
class Read {
    public static void main(String[] given) throws Exception {
        var zip = new ZipInputStream(System.in);
        for (ZipEntry entry; (entry = zip.getNextEntry()) != null; ) {
            var sum = new CRC32();
            var bytes = zip.readAllBytes();
            sum.update(bytes);
            System.out.println(entry.getName() + " " + bytes.length + " " + sum.getValue());
        }
    }
}
"""


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tree_of_sizes(tmp_path_factory.mktemp("streamed") / "tree", *SIZES)


@pytest.fixture(scope="module")
def archive(tree: Path) -> bytes:
    return packed(tree, "zip")


def test_only_files_that_stay_large_have_data_descriptors(tree: Path, archive: bytes) -> None:
    at, streamed = 0, []
    for path in sorted(tree.iterdir()):
        _, _, flags, _, _, _, crc, packed_size, size, name, extra = LOCAL.unpack_from(archive, at)
        data = at + LOCAL.size + name + extra
        assert archive[at + LOCAL.size :].startswith(path.name.encode())
        if flags & HAS_DESCRIPTOR:
            streamed.append(path.name)
            at = archive.index(b"PK\7\x08" + struct.pack("<L", zlib.crc32(path.read_bytes())), at)
            at += 16
        else:
            assert (crc, size) == (zlib.crc32(path.read_bytes()), path.stat().st_size)
            at = data + packed_size
        assert archive[at : at + 2] == b"PK"
    assert streamed == [f"noise-{17 * MIB}"]


@pytest.mark.parametrize("reader", ["bsdtar -xf -", "busybox unzip -q -"])
def test_a_zip_is_unpacked_from_a_pipe(tmp_path: Path, reader: str) -> None:
    command = reader.split()
    needs(command[0])
    # busybox refuses data descriptors.
    tree = tree_of_sizes(tmp_path / "tree", *SIZES[: -1 if command[0] == "busybox" else None])
    (tmp_path / "into").mkdir()

    done = subprocess.run(
        command, input=packed(tree, "zip"), cwd=tmp_path / "into", capture_output=True
    )

    assert done.returncode == 0, done.stderr
    for path in tree.iterdir():
        assert (tmp_path / "into" / path.name).read_bytes() == path.read_bytes()


@pytest.mark.slow
def test_a_zip_is_read_by_javas_stream(tree: Path, archive: bytes, tmp_path: Path) -> None:
    needs("java")
    (tmp_path / "Read.java").write_text(JAVA)

    done = subprocess.run(
        ["java", "-Xshare:auto", tmp_path / "Read.java"], input=archive, capture_output=True
    )

    assert done.returncode == 0, done.stderr
    found = {name: (int(size), int(crc)) for name, size, crc in map(str.split, _lines(done.stdout))}
    assert found == {
        path.name: (path.stat().st_size, zlib.crc32(path.read_bytes())) for path in tree.iterdir()
    }


def _lines(output: bytes) -> list[str]:
    return output.decode().splitlines()


@pytest.mark.parametrize(
    ("size", "is_zip64"),
    [
        (4 * GIB - 64 * MIB, False),
        (4 * GIB - MIB, False),
        (4 * GIB - 2, True),
        (4 * GIB, True),
    ],
)
def test_zip64_descriptors_only_where_a_size_can_need_them(size: int, is_zip64: bool) -> None:
    entry = Entry(RelativePath("f"), "file", "/f", size)

    described = record(entry, MtimeRule(), 8, 0, 1000, size, is_streamed=True)

    assert len(described.descriptor()) == (24 if is_zip64 else 16)
    assert (b"\1\0\x10\0" in described.local_header()) == is_zip64


def test_a_file_of_5_gib_that_packs_well_has_its_sizes_in_zip64_fields() -> None:
    entry = Entry(RelativePath("f"), "file", "/f", 5 * GIB)

    header = record(entry, MtimeRule(), 8, 7, 5 * MIB, 5 * GIB).local_header()

    assert LOCAL.unpack_from(header)[6:9] == (7, 0xFFFFFFFF, 0xFFFFFFFF)
    assert struct.pack("<2H2Q", 1, 16, 5 * GIB, 5 * MIB) in header
