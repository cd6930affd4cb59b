"""What holds for any tree, any damage and any lie: found examples are the same in every run."""

from __future__ import annotations

import re
import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cpstage.archive.pack import list_entries
from cpstage.errors import ArtifactRejected
from cpstage.filesystem.walk import Globs
from packed_trees import pack
from trees import listing, needs
from unpacked_archives import unpack
from zip_bytes import (
    BZIP2,
    CENTRAL_LAYOUT,
    DEFLATED,
    DESCRIPTOR_FORMS,
    END_LAYOUT,
    LOCAL_LAYOUT,
    LZMA,
    STORED,
    Archive,
    Entry,
    Field,
    compress,
    deflate,
    directory,
    extra_field,
    file,
    link,
    zip_bytes,
)
from zip_checks import read_by

if TYPE_CHECKING:
    from archive_checks import Listing

pytestmark = pytest.mark.slow

Tree = Mapping[str, object]
"""Names, and below them: another tree, a file as content and execute bit, or a link as its target
and how many levels up that begins."""

_PROFILE = settings(derandomize=True, database=None, deadline=None, max_examples=60)
_MANY = settings(_PROFILE, max_examples=400)

DATA = b"content " * 5

LZMA_START = compress(LZMA, DATA)[:4]

FLIPPED = {
    "plain": zip_bytes(
        file("stored", DATA),
        directory("d/"),
        replace(Entry("d/deflated", DATA, DEFLATED), mode=stat.S_IFREG | 0o755),
        link("link", b"stored"),
        Entry("described", DATA, DEFLATED, descriptor="signed"),
        Entry("bare", DATA, descriptor="bare64"),
        file("ünï", b""),
        comment=b"comment",
    ),
    "zip64": zip_bytes(
        Entry("large", DATA, DEFLATED, zip64=("size", "packed", "offset", "disk")),
        Entry("bzip2", DATA, BZIP2),
        Entry("lzma", DATA, LZMA),
        Entry("timed", DATA, extra=extra_field(0x5455, b"\1time")),
        zip64=True,
    ),
}

WITHOUT_MEANING = {
    *((record, name) for record in ("local", "central") for name in ("needed", "time", "date")),
    *(("end64", name) for name in ("minor", "host", "needed")),
    ("central", "minor"),
    ("central", "internal"),
    ("comment", "comment"),
    ("locator", "disks"),
}
"""Fields that say nothing of names, kinds and contents, and that nothing else repeats: what is
damaged in them may be accepted."""

OF_THE_KIND = {("central", "host"), ("central", "external")}
"""Fields that alone say of an entry whether it is a link, a directory, or executable."""

FLAGS_WITHOUT_MEANING = (0b10010110, 0b11010111)
"""Of both bytes of general purpose bits: how hard it was deflated, and what is reserved."""


@contextmanager
def scratch() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def outcome(body: bytes, root: Path) -> Listing | None:
    """Return what an archive unpacks to, or None where it is refused."""
    into = root / "into"
    try:
        unpack(body, into, name="app.zip")
        return listing(into)
    except ArtifactRejected:
        return None
    finally:
        assert set(root.iterdir()) <= {into}
        shutil.rmtree(into, ignore_errors=True)


def says_nothing(archive: Archive, field: Field, offset: int, pattern: int) -> bool:
    """Whether damage to a byte may be without effect."""
    if field.name == "flags":
        return not pattern & ~FLAGS_WITHOUT_MEANING[offset - field.start]
    if field.name == "data":
        return _is_slack(archive[field.start : field.stop], offset - field.start)
    if field.name == "extra":
        return b"\1time" in archive[field.start : field.stop]
    return (field.record, field.name) in WITHOUT_MEANING


def _is_slack(data: bytes, offset: int) -> bool:
    """Whether a byte of data may have bits that no decoder looks at."""
    if data.startswith((b"BZh", LZMA_START)):
        # Tables of codes that do not occur; the version and the size of the dictionary.
        return True
    # RFC 1951, 3.1: a deflate stream may end before its last byte does.
    return data == deflate(DATA) and offset == len(data) - 1


@pytest.mark.slow
@pytest.mark.parametrize("pattern", [0x01, 0x04, 0x20, 0x80, 0xFF], ids=hex)
@pytest.mark.parametrize("archive", FLIPPED.values(), ids=FLIPPED)
def test_a_flipped_byte_is_found_or_says_nothing(
    tmp_path: Path, archive: Archive, pattern: int
) -> None:
    sound = outcome(archive, tmp_path)
    assert sound

    missed = []
    for field in archive.fields:
        for offset in range(field.start, field.stop):
            flipped = bytearray(archive)
            flipped[offset] ^= pattern
            found = outcome(bytes(flipped), tmp_path)
            if found is None or (field.record, field.name) in OF_THE_KIND:
                continue
            if found != sound or not says_nothing(archive, field, offset, pattern):
                missed.append((field, offset - field.start, found == sound))

    assert missed == []


_NAMES = (
    st.text(st.characters(codec="utf-8", exclude_characters="/\\\0"), min_size=1)
    .filter(lambda name: name not in (".", ".."))
    .filter(lambda name: not re.match("[A-Za-z]:", name))
    .filter(lambda name: len(name.encode()) <= 255)
)
_FILES = st.tuples(st.binary(max_size=3000), st.booleans())
_LINKS = st.tuples(
    st.one_of(st.just(""), st.just("missing/below"), _NAMES), st.integers(min_value=0, max_value=3)
)
_TREES = st.recursive(
    st.dictionaries(_NAMES, _FILES | _LINKS, max_size=4),
    lambda below: st.dictionaries(_NAMES, _FILES | _LINKS | below, max_size=4),
    max_leaves=12,
)


def make(root: Path, tree: Tree, depth: int = 0) -> Path:
    """Make a tree of files on disk."""
    root.mkdir()
    for name, what in tree.items():
        path = root / name
        if isinstance(what, Mapping):
            make(path, what, depth + 1)
            continue
        assert isinstance(what, tuple)
        first, second = what
        if isinstance(first, bytes):
            path.write_bytes(first)
            path.chmod(0o755 if second else 0o644)
        else:
            path.symlink_to("../" * min(second, depth) + first or ".")
    return root


def packed(tree: Path, level: int) -> bytes:
    return b"".join(pack(list_entries(tree, Globs(), "keep"), "zip", level))


@_PROFILE
@given(tree=_TREES, level=st.integers(min_value=0, max_value=9))
def test_any_tree_comes_back_as_it_was(tree: Tree, level: int) -> None:
    with scratch() as root:
        made = make(root / "tree", tree)

        unpack(packed(made, level), root / "into", name="app.zip")

        assert listing(root / "into") == listing(made)


@_PROFILE
@given(tree=_TREES, level=st.integers(min_value=0, max_value=9), data=st.data())
def test_any_tree_cut_off_anywhere_is_refused(tree: Tree, level: int, data: st.DataObject) -> None:
    with scratch() as root:
        body = packed(make(root / "tree", tree), level)
        shutil.rmtree(root / "tree")
        length = data.draw(st.integers(min_value=0, max_value=len(body) - 1))

        assert outcome(body[:length], root) is None


@_MANY
@given(data=st.data(), replacement=st.binary(max_size=30))
def test_any_damage_is_refused_or_gives_a_tree(data: st.DataObject, replacement: bytes) -> None:
    """That anything else is raised, or written elsewhere, is what this looks for."""
    body = data.draw(st.sampled_from(list(FLIPPED.values())))
    start = data.draw(st.integers(min_value=0, max_value=len(body)))
    length = data.draw(st.integers(min_value=0, max_value=40))
    with scratch() as root:
        outcome(body[:start] + replacement + body[start + length :], root)


_LIES = st.one_of(
    st.sampled_from([0, 1, 8, 46, 0x7FFF, 0xFFFE, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFE, 0xFFFFFFFF]),
    st.integers(min_value=0, max_value=300),
)
_NOT_READ_ALIKE = {"needed", "minor", "host", "internal", "external"}


def _lie(layout: Mapping[str, int]) -> st.SearchStrategy[dict[str, int]]:
    """One field with another value, or in most cases none."""
    names = [name for name in layout if name not in _NOT_READ_ALIKE]
    lies = st.sampled_from(names).flatmap(
        lambda name: _LIES.map(lambda lie: {name: lie % (1 << 8 * layout[name])})
    )
    return st.sampled_from(range(12)).flatmap(lambda n: lies if n == 0 else st.just({}))


_ENTRIES = st.builds(
    Entry,
    name=st.sampled_from(["a", "./b", "c//d", "e/", "e/f", "g\\h", "a/i", "-j", "ü", "./", "l/m"]),
    data=st.sampled_from([b"", b"x", DATA, b"e/f"]),
    method=st.sampled_from([STORED, DEFLATED, BZIP2]),
    mode=st.sampled_from([0, 0o644, 0o100644, 0o100755, 0o106777, 0o120777]),
    flags=st.sampled_from([0, 0, 2, 4, 1 << 15]),
    descriptor=st.sampled_from(["none", *DESCRIPTOR_FORMS]),
    zip64=st.sampled_from([(), (), ("size",), ("packed",), ("offset",), ("size", "packed")]),
    extra=st.sampled_from([b"", b"", extra_field(0x5455, b"\1time"), extra_field(0x9999, b"x")]),
    local=_lie(LOCAL_LAYOUT),
    central=_lie(CENTRAL_LAYOUT),
    before=st.sampled_from([b"", b"", b"", b"x", bytes(30)]),
)


@settings(_PROFILE, max_examples=300)
@given(
    entries=st.lists(_ENTRIES, min_size=1, max_size=4, unique_by=lambda entry: entry.name),
    prefix=st.sampled_from([b"", b"", b"#!/bin/sh\n"]),
    adjusted=st.booleans(),
    gap=st.sampled_from([b"", b"", b"x", bytes(30)]),
    zip64=st.booleans(),
    end=_lie(END_LAYOUT),
    comment=st.sampled_from([b"", b"", b"comment"]),
    trailing=st.sampled_from([b"", b"", bytes(9)]),
)
def test_what_is_accepted_is_what_info_zip_reads(
    entries: list[Entry],
    prefix: bytes,
    adjusted: bool,
    gap: bytes,
    zip64: bool,
    end: dict[str, int],
    comment: bytes,
    trailing: bytes,
) -> None:
    needs("unzip")
    shift = 0 if adjusted else len(prefix)
    body = zip_bytes(
        *entries,
        prefix=prefix,
        shift=shift,
        gap=gap,
        zip64=zip64,
        end=end,
        comment=comment,
        trailing=trailing,
    )
    with scratch() as root:
        found = outcome(body, root)

        assert found is None or found == read_by("unzip", body, root)
