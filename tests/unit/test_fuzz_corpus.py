"""What the fuzzer starts from, and what it has found: replayed, without the fuzzer.

What is refused is called so in its name; all else is taken.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from fuzz.targets import CORPUS, TARGETS

if TYPE_CHECKING:
    from pathlib import Path

FILES = sorted(path for path in CORPUS.rglob("*") if path.is_file())


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_a_file_of_the_corpus_is_met_with_nothing_but_our_own_errors(path: Path) -> None:
    taken = TARGETS[path.parent.name](path.read_bytes())

    assert taken == (not path.name.startswith("refused-"))


@pytest.mark.parametrize("target", TARGETS)
def test_no_bytes_at_all_are_met_with_nothing_else_either(target: str) -> None:
    assert not TARGETS[target](b"")


def test_the_corpus_is_small_and_has_something_for_each_target() -> None:
    assert {path.parent.name for path in FILES} == set(TARGETS)
    assert [path.name for path in FILES if path.stat().st_size >= 4096] == []
