"""Trees of any names and contents, for tests of what holds for all of them (hypothesis)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from hypothesis import settings
from hypothesis import strategies as st

if TYPE_CHECKING:
    from pathlib import Path

Tree = Mapping[str, object]
"""Names, and below them: another tree, a file as content and execute bit, or a link as its target
and how many levels up that begins."""

PROFILE = settings(derandomize=True, database=None, deadline=None, max_examples=60)
"""Found examples are the same in every run."""

NAMES = (
    st.text(st.characters(codec="utf-8", exclude_characters="/\\\0"), min_size=1)
    .filter(lambda name: name not in (".", ".."))
    .filter(lambda name: not re.match("[A-Za-z]:", name))
    .filter(lambda name: len(name.encode()) <= 255)
)
_FILES = st.tuples(st.binary(max_size=3000), st.booleans())
_LINKS = st.tuples(
    st.one_of(st.just(""), st.just("missing/below"), NAMES), st.integers(min_value=0, max_value=3)
)
TREES: st.SearchStrategy[Tree] = st.recursive(
    st.dictionaries(NAMES, _FILES | _LINKS, max_size=4),
    lambda below: st.dictionaries(NAMES, _FILES | _LINKS | below, max_size=4),
    max_leaves=12,
)


def make(root: Path, tree: Tree) -> Path:
    """Make a tree of files on disk."""
    root.mkdir()
    for path, what in flat(tree):
        if what is None:
            (root / path).mkdir()
        elif isinstance(what, str):
            (root / path).symlink_to(what)
        else:
            content, executable = what
            (root / path).write_bytes(content)
            (root / path).chmod(0o755 if executable else 0o644)
    return root


def flat(tree: Tree, above: str = "") -> Iterator[tuple[str, tuple[bytes, bool] | str | None]]:
    """Return paths with content and execute bit, with a target, or with None for a directory."""
    for name, what in tree.items():
        path = above + name
        if isinstance(what, Mapping):
            yield path, None
            yield from flat(what, path + "/")
            continue
        assert isinstance(what, tuple)
        first, second = what
        if isinstance(first, bytes):
            yield path, (first, second)
        else:
            yield path, "../" * min(second, path.count("/")) + first or "."
