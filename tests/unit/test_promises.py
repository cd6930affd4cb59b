"""What is promised is held by tests that there are."""

from __future__ import annotations

import ast
import re
from pathlib import Path

TESTS = Path(__file__).parents[1]
PAGE = (TESTS.parent / "docs/promises.md").read_text(encoding="utf-8")


def promises() -> dict[str, list[str]]:
    """The promises of the page, and the tests that it names for each."""
    rows = [row.strip("| ").split(" | ") for row in PAGE.splitlines() if row.startswith("| ")]
    return {
        row[0]: re.findall(r"`([^`]+)`", row[1])
        for row in rows[1:]
        if len(row) == 2 and not row[0].startswith("**")
    }


def functions_of(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {one.name for one in ast.walk(tree) if isinstance(one, ast.FunctionDef)}


def test_every_promise_names_the_tests_that_hold_it() -> None:
    found = promises()

    assert len(found) > 20
    assert [promise for promise, tests in found.items() if not tests] == []
    for test in (test for tests in found.values() for test in tests):
        file, _, name = test.partition("::")
        (path,) = TESTS.glob(f"*/{file}")
        assert not name or name in functions_of(path), test
        assert (name or file).startswith("test_"), test
