"""Verification of what a tool was timed for: the unpacked trees and the uploaded archives."""

from __future__ import annotations

import gzip
import hashlib
import os
import shutil
import subprocess
import tarfile
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Literal

from benchmarks.measure import Failed

if TYPE_CHECKING:
    from benchmarks.object_store import ObjectStore, Stored

_PIECE = 1 << 20
Contents = Mapping[str, tuple[int, int]]
"""The files of an archive: size and CRC-32 by their paths."""
Format = Literal["zip", "tar.gz"]


def tree_digests(directory: Path) -> dict[str, str]:
    """Return the SHA-256 of every file below a directory, by its path there."""
    digests = {}
    for parent, _, names in os.walk(directory):
        for name in names:
            path = Path(parent, name)
            digest = hashlib.sha256()
            with path.open("rb", buffering=0) as file:
                while piece := file.read(_PIECE):
                    digest.update(piece)
            digests[str(path.relative_to(directory))] = digest.hexdigest()
    return digests


def zip_contents(archive: Path) -> Contents:
    """Return size and CRC-32 of the files of a zip, from its central directory."""
    with zipfile.ZipFile(archive) as opened:
        return {
            info.filename.removeprefix("./"): (info.file_size, info.CRC)
            for info in opened.infolist()
            if not info.is_dir()
        }


def tar_gz_contents(archive: Path) -> Contents:
    """Return size and CRC-32 of the files of a compressed tar, from their data.

    Raises:
        OSError, EOFError, tarfile.TarError, zlib.error: The archive is damaged.
    """
    with gzip.open(archive) as stream, tarfile.open(fileobj=stream, mode="r|") as opened:
        contents = {}
        for member in opened:
            if member.isfile():
                data = opened.extractfile(member)
                assert data
                contents[member.name.removeprefix("./")] = (member.size, _checksum(data))
        # gzip compares its own checksum when the end of the stream is read.
        _checksum(stream)
    return contents


def check_tree(directory: Path, expected: Mapping[str, str]) -> None:
    """Compare a tree with the digests of the tree that was packed.

    Raises:
        Failed: Files are missing, are not expected, or have other bytes.
    """
    found = tree_digests(directory)
    if found != expected:
        names = {*found.items()} ^ {*expected.items()}
        raise Failed(f"{len(found)} files instead of {len(expected)}: {sorted(names)[:3]}")


def check_object(
    store: ObjectStore, bucket: str, key: str, scratch: Path, form: Format, expected: Contents
) -> Stored:
    """Download an archive, test it with `unzip -t` or `gzip -t`, and compare its contents.

    Args:
        store: Where the object is.
        bucket: Its bucket.
        key: Its key.
        scratch: A directory for the download.
        form: The archive format that the tool writes.
        expected: The files that were packed.

    Raises:
        Failed: The archive is damaged, has other files, or is not encrypted under the store's key.
    """
    stored = store.look_at(bucket, key)
    if (stored.encryption, stored.kms_key_id) != ("aws:kms", store.key_arn):
        raise Failed(f"stored with {stored.encryption} under {stored.kms_key_id}")
    archive = scratch / f"downloaded.{form}"
    store.get(bucket, key, archive)
    check_archive(archive, form, expected)
    archive.unlink()
    return stored


def check_archive(archive: Path, form: Format, expected: Contents) -> None:
    """Test an archive, and compare its files with those that were packed.

    Raises:
        Failed: The archive is damaged, or has other files.
    """
    try:
        if form == "zip":
            _test_zip(archive)
            contents = zip_contents(archive)
        else:
            _run_test("gzip", "-t", str(archive))
            contents = tar_gz_contents(archive)
    except (OSError, EOFError, zipfile.BadZipFile, tarfile.TarError, zlib.error) as error:
        raise Failed(f"the archive is damaged: {error}") from error
    if contents != expected:
        names = {*contents.items()} ^ {*expected.items()}
        raise Failed(f"{len(contents)} files instead of {len(expected)}: {sorted(names)[:3]}")


def _checksum(data: IO[bytes] | gzip.GzipFile) -> int:
    """Read a file to its end, and return the CRC-32 of what was read."""
    checksum = 0
    while piece := data.read(_PIECE):
        checksum = zlib.crc32(piece, checksum)
    return checksum


def _test_zip(archive: Path) -> None:
    """Inflate all members, and compare their checksums: with unzip, where it is installed."""
    if not _run_test("unzip", "-tq", str(archive)):
        with zipfile.ZipFile(archive) as opened:
            damaged = opened.testzip()
        if damaged:
            raise Failed(f"the archive is damaged: {damaged}")


def _run_test(program: str, *arguments: str) -> bool:
    """Run a program that tests an archive, and return whether the program is installed.

    Raises:
        Failed: The program says that the archive is damaged.
    """
    if not shutil.which(program):
        return False
    tested = subprocess.run([program, *arguments], capture_output=True, text=True, check=False)
    if tested.returncode:
        raise Failed(f"the archive is damaged: {(tested.stdout + tested.stderr)[-500:]}")
    return True
