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

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cpstage import ArtifactRejected
from cpstage.archive import list_entries, pack
from cpstage.globs import Globs
from trees import listing, needs
from unpacking import unpack
from zip_bytes import (
    BZIP2,
    CENTRAL_LAYOUT,
    DEFLATED,
    END_LAYOUT,
    LOCAL_LAYOUT,
    LZMA,
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
from zip_verdicts import Listing, read_by

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
damaged in them may be taken as it is."""

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
    """Tell whether damage to a byte may be without effect."""
    if field.name == "flags":
        return not pattern & ~FLAGS_WITHOUT_MEANING[offset - field.start]
    if field.name == "data":
        return _is_slack(archive[field.start : field.stop], offset - field.start)
    if field.name == "extra":
        return b"\1time" in archive[field.start : field.stop]
    return (field.record, field.name) in WITHOUT_MEANING


def _is_slack(data: bytes, offset: int) -> bool:
    """Tell whether a byte of data may have bits that no decoder looks at."""
    if data.startswith((b"BZh", LZMA_START)):
        # Tables of codes that do not occur; the version and the size of the dictionary.
        return True
    # RFC 1951, 3.1: a deflate stream may end before its last byte does.
    return data == deflate(DATA) and offset == len(data) - 1


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
_NOT_READ_ALIKE = {"needed", "minor", "host", "external"}


def _lies(layout: Mapping[str, int]) -> st.SearchStrategy[dict[str, int]]:
    names = st.sampled_from([name for name in layout if name not in _NOT_READ_ALIKE])
    lies = st.dictionaries(names, _LIES, max_size=2)
    return lies.map(
        lambda chosen: {name: lie % (1 << 8 * layout[name]) for name, lie in chosen.items()}
    )


@settings(_PROFILE, max_examples=150)
@given(local=_lies(LOCAL_LAYOUT), central=_lies(CENTRAL_LAYOUT), end=_lies(END_LAYOUT))
def test_any_lies_that_are_accepted_are_read_alike_by_info_zip(
    local: dict[str, int], central: dict[str, int], end: dict[str, int]
) -> None:
    needs("unzip")
    odd = Entry("odd", DATA, DEFLATED, local=local, central=central)
    body = zip_bytes(file("first"), odd, link("d/last", b"../odd"), end=end)
    with scratch() as root:
        found = outcome(body, root)

        assert found is None or found == read_by("unzip", body, root)
