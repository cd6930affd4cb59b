"""Files of output variables: what they may look like, and what is said of others."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from cpstage.errors import ConfigurationError
from cpstage.job.result import MOST_BYTES, parse_variables

if TYPE_CHECKING:
    from pathlib import Path


def _read(directory: Path, content: str | bytes) -> dict[str, str]:
    file = directory / "variables"
    return parse_variables(content.encode() if isinstance(content, str) else content, str(file))


@pytest.mark.parametrize(
    ("content", "variables"),
    [
        ("", {}),
        ("a=b", {"a": "b"}),
        ("a=b\n\n  # a comment\nexport c = d \r\n", {"a": "b", "c": "d"}),
        ("a=1\na=2\n", {"a": "2"}),
        ("a=\n", {"a": ""}),
        ("a=b=c", {"a": "b=c"}),
        ("a='x # y'\n", {"a": "x # y"}),
        (r'a="x\ny\t\"\\"', {"a": 'x\ny\t"\\'}),
        ('a="x\ny"\nb=c', {"a": "x\ny", "b": "c"}),
        ("a='x\ny'", {"a": "x\ny"}),
        (r"a='x\n'", {"a": r"x\n"}),
        ('a="open\nb="shut"', {"a": '"open', "b": "shut"}),
        ('a="x" y', {"a": '"x" y'}),
        ("a=it's", {"a": "it's"}),
        ("@a-b_c=grüße 🎉", {"@a-b_c": "grüße 🎉"}),
        ('\ufeff{"a": "b"}', {"a": "b"}),
        ("a={}", {"a": "{}"}),
    ],
)
def test_what_is_read(tmp_path: Path, content: str, variables: dict[str, str]) -> None:
    assert _read(tmp_path, content) == variables


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("a=b\nsecret", "line 2 of the output variables"),
        ("=b", "line 1"),
        ("a b=c", "line 1"),
        ("a.b=c", "'a.b' cannot be an output variable"),
        ("ä=c", "cannot be an output variable"),
        (b"a=\xff", "not UTF-8"),
        ('{"a": 1}', "'a' in"),
        ('{"a": ', "not JSON"),
        ('{"a": "\\ud800"}', "not Unicode"),
        (json.dumps({"a": "x" * MOST_BYTES}), "122,881 bytes"),
        ("#" * 600_000, "longer than"),
    ],
)
def test_what_is_refused(tmp_path: Path, content: str | bytes, words: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        _read(tmp_path, content)

    assert words in str(refused.value)
    assert "secret" not in str(refused.value)


def test_as_much_as_the_service_takes(tmp_path: Path) -> None:
    assert _read(tmp_path, "a=" + "x" * (MOST_BYTES - 1))
