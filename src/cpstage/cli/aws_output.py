"""A document in the AWS CLI's output formats: ``json``, ``text`` and ``table``, and ``--query``.

The formats are those of the AWS CLI User Guide ("Setting the output format in the AWS CLI"), to
the byte where a script could tell the difference.
"""

from __future__ import annotations

import json
import os
import sys
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn

from cpstage.errors import ConfigurationError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cpstage import AwsConfig

FORMATS = ("json", "text", "table")

_PRINTED_AS_JSON = ("yaml", "yaml-stream", "off")
"""Formats that the AWS CLI v2 also has. JSON is YAML."""


def output_format(
    option: str | None, as_json: bool, config: AwsConfig, note: Callable[[str], object]
) -> str:
    """Choose the format: ``--output`` or ``--json``, then the environment, then the profile.

    ``note`` is called with a line about a configured format that is printed as JSON.
    """
    if as_json and option not in (None, "json"):
        raise UsageError(f"both --json and --output {option} are given", hint="give one of them")
    if option or as_json:
        return option or "json"
    configured = config.setting("output", "AWS_DEFAULT_OUTPUT") or "json"
    if configured in FORMATS:
        return configured
    from_environment = os.environ.get("AWS_DEFAULT_OUTPUT")
    where = "AWS_DEFAULT_OUTPUT" if from_environment else "'output' of the AWS profile"
    if configured not in _PRINTED_AS_JSON:
        raise ConfigurationError(
            f"{where} is {configured!r}, which is not a format of this command",
            hint="give --output json, text or table",
        )
    note(f"cpstage: {where} is {configured!r}; the document is printed as JSON")
    return "json"


def render(document: Any, output: str, title: str) -> str:
    """Return a JSON value as text in one of ``FORMATS``; a table has a title."""
    if output == "json":
        # An operation without output prints nothing; so does an empty document.
        return "" if document == {} else json.dumps(document, indent=4, ensure_ascii=False) + "\n"
    lines = _text(document) if output == "text" else _table(document, title)
    return "".join(f"{line}\n" for line in lines)


def _text(value: Any, name: str | None = None, columns: list[str] | None = None) -> Iterator[str]:
    """Yield tab-separated lines, each after the upper-cased name of the member it describes.

    In a list of structures, ``columns`` are the members that have a column there.
    """
    if isinstance(value, dict):
        yield from _text_of_structure(value, name, columns)
    elif isinstance(value, list):
        yield from _text_of_list(value, name)
    else:
        yield str(value)


def _text_of_structure(
    structure: dict[str, Any], name: str | None, columns: list[str] | None
) -> Iterator[str]:
    if columns is None:
        columns = _scalar_members([structure])
    if columns:
        cells = [str(structure.get(key, "")) for key in columns]
        yield "\t".join(cells if name is None else [name.upper(), *cells])
    for key in sorted(structure.keys() - set(columns)):
        yield from _text(structure[key], key)


def _text_of_list(items: list[Any], name: str | None) -> Iterator[str]:
    structures = [item for item in items if isinstance(item, dict)]
    if structures:
        columns = _scalar_members(structures)
        for item in items:
            yield from _text(item, name, columns)
        return
    scalars = [str(item) for item in items if _is_scalar(item)]
    if name is not None:
        yield from (f"{name.upper()}\t{scalar}" for scalar in scalars)
    elif scalars:
        yield "\t".join(scalars)
    for item in items:
        if not _is_scalar(item):
            yield from _text(item, name)


def _terminal_width() -> int:
    """Return the columns of the terminal; 80 where stdout is not a terminal."""
    try:
        return os.get_terminal_size(sys.stdout.fileno()).columns or 80
    except (AttributeError, OSError, ValueError):
        return 80


def compile_query(expression: str | None) -> Callable[[Any], Any]:
    """Return a function that applies a JMESPath expression to a document; None returns all of it.

    Messages of jmespath have several lines, and quote the value on which a search failed. The
    UsageError of the function and of its compilation has one line without the value.
    """
    if expression is None:
        return lambda document: document

    from jmespath import compile as compile_expression

    try:
        compiled = compile_expression(expression)
    except (ValueError, RecursionError) as error:
        raise _bad_query(expression, error) from None

    def search(document: Any) -> Any:
        try:
            return compiled.search(document)
        except (ValueError, TypeError, RecursionError) as error:
            raise _bad_query(expression, error) from None

    return search


def _bad_query(expression: str, error: Exception) -> UsageError:
    from jmespath.exceptions import JMESPathTypeError

    if isinstance(error, JMESPathTypeError):
        expected = " or ".join(error.expected_types)
        why = f"{error.function_name}() takes {expected}, got {error.actual_type}"
    elif isinstance(error, RecursionError):
        why = "it is nested too deeply"
    elif isinstance(error, ValueError):  # as are all errors of jmespath
        first_line = str(error).partition("\n")[0]
        why = first_line.rstrip(":.").removesuffix(", for expression")
    else:
        why = "it does not suit the document"
    return UsageError(f"Bad value for --query {expression}: {why}")


_PADDING = 4
_INDENT = 2


def _table(document: Any, title: str) -> Iterator[str]:
    """Yield the lines of a table; boxes that are wider than the terminal are turned."""
    boxes: list[_Box] = []
    _gather(boxes, title, document, depth=0)
    if not boxes:
        return
    if max(box.width() for box in boxes) > _terminal_width():
        boxes = [box.turned() for box in boxes]
    width = max(box.width() for box in boxes)
    yield "-" * width
    for box in boxes:
        edge = "|" * box.depth
        yield from (f"{edge}{line}{edge}" for line in box.draw(width - 2 * box.depth))


@dataclass
class _Box:
    """A title and the rows below it, inside ``depth`` other boxes."""

    title: str
    depth: int
    headers: list[str] = field(default_factory=list)
    rows: list[list[str]] = field(default_factory=list)

    def add(self, cells: list[Any], headers: list[str] | None = None) -> None:
        if self.rows and len(self.rows[0]) != len(cells):
            _refuse()
        self.headers = self.headers if headers is None else headers
        self.rows.append([str(cell) for cell in cells])

    def turned(self) -> _Box:
        """Return the box with its headers as the first column, if it has one row only."""
        if not self.headers or len(self.rows) != 1:
            return self
        pairs = zip(self.headers, self.rows[0], strict=True)
        return _Box(self.title, self.depth, rows=[list(pair) for pair in pairs])

    def width(self) -> int:
        return max(sum(self._columns()), _width(self.title)) + 2 + 2 * self.depth

    def _columns(self) -> list[int]:
        lines = [self.headers, *self.rows] if self.headers else self.rows
        columns = zip(*lines, strict=True)
        return [max(_width(cell) for cell in column) + _PADDING for column in columns]

    def draw(self, width: int) -> Iterator[str]:
        if self.title:
            yield _centred(self.title, width, "|")
        if self.title and not self.rows:
            yield _rule([width])
        wanted = self._columns()
        if not wanted:
            return
        sizes = _shared(width, wanted)
        yield _rule(sizes)
        if self.headers:
            yield _row(self.headers, sizes, _centred)
            yield _rule(sizes)
        for row in self.rows:
            yield _row(row, sizes, _indented)
        yield _rule(sizes)


def _gather(boxes: list[_Box], title: str | None, value: Any, depth: int) -> None:
    """Append the boxes that show a value; without a title, its rows join the last box."""
    if not value:
        return
    if title is not None:
        boxes.append(_Box(title, depth))
    if isinstance(value, dict):
        _gather_structure(boxes, value, depth)
    elif isinstance(value, list) and isinstance(value[0], dict):
        _gather_structures(boxes, title or "", value, depth)
    elif isinstance(value, list):
        _gather_items(boxes, value)


def _gather_structure(boxes: list[_Box], structure: dict[str, Any], depth: int) -> None:
    headers = _scalar_members([structure])
    if len(headers) == 1:
        boxes[-1].add([headers[0], structure[headers[0]]])
    elif headers:
        boxes[-1].add([structure[key] for key in headers], headers)
    for key in sorted(structure.keys() - set(headers)):
        _gather(boxes, key, structure[key], depth + 1)


def _gather_structures(boxes: list[_Box], title: str, items: list[Any], depth: int) -> None:
    """Give the structures one box, or, where they hold others, each its own."""
    if not all(isinstance(item, dict) for item in items):
        _refuse()
    headers = _scalar_members(items)
    nested = sorted({key for one in items for key, value in one.items() if not _is_scalar(value)})
    for number, item in enumerate(items):
        if number and nested:
            boxes.append(_Box(title, depth))
        boxes[-1].add([item.get(key, "") for key in headers], headers)
        for key in nested:
            _gather(boxes, key, item.get(key), depth + 1)


def _gather_items(boxes: list[_Box], items: list[Any]) -> None:
    for item in items:
        if _is_scalar(item):
            boxes[-1].add([item])
        elif all(_is_scalar(cell) for cell in item):
            boxes[-1].add(list(item))
        else:
            _gather(boxes, None, item, depth=0)


def _is_scalar(value: Any) -> bool:
    """Whether a part of a document goes into one cell."""
    return not isinstance(value, (dict, list))


def _scalar_members(structures: list[dict[str, Any]]) -> list[str]:
    """Return the sorted names of members that go into one cell in any of the structures."""
    return sorted({key for one in structures for key, value in one.items() if _is_scalar(value)})


def _refuse() -> NoReturn:
    raise UsageError(
        "a table cannot show rows of different columns together",
        hint="give another --query, or --output json",
    )


def _shared(width: int, wanted: list[int]) -> list[int]:
    """Scale columns to a width; what rounding leaves is spread over them one by one."""
    scale = width / sum(wanted)
    sizes = [round(scale * column) for column in wanted]
    excess = sum(sizes) - width
    for number in range(abs(excess)):
        if excess > 0:
            sizes[number % len(sizes)] -= 1
        else:
            sizes[-1 - number % len(sizes)] += 1
    return sizes


def _row(cells: list[str], sizes: list[int], place: Callable[[str, int, str], str]) -> str:
    """Set cells side by side; the first also brings the left edge."""
    edges = ["|", *[""] * (len(cells) - 1)]
    return "".join(map(place, cells, sizes, edges))


def _rule(sizes: list[int]) -> str:
    return "+" + "".join(f"{'-' * (size - 1)}+" for size in [sizes[0] - 1, *sizes[1:]])


def _centred(text: str, size: int, edge: str) -> str:
    return _closed(f"{edge}{' ' * (size // 2 - _width(text) // 2 - 1)}{text}", size)


def _indented(text: str, size: int, edge: str) -> str:
    fits = len(edge) + _INDENT + _width(text) + 1 <= size
    return _closed(f"{edge}{' ' * _INDENT if fits else ''}{text}", size)


def _closed(text: str, size: int) -> str:
    return f"{text}{' ' * (size - 1 - _width(text))}|"


def _width(text: str) -> int:
    """Count terminal columns; characters of ambiguous width count as wide."""
    return sum(2 if unicodedata.east_asian_width(char) in "WFA" else 1 for char in text)
