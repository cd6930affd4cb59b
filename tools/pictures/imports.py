"""Which room of the package imports which: every import, also those for types alone."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

import cpstage

API = "cpstage"
"""The room that is `__init__.py`: the public names, handed on."""

Imports = Mapping[str, frozenset[str]]
_SOURCE = Path(cpstage.__file__).parent
_SAMPLE = _SOURCE / "local/sample"


def imports() -> Imports:
    """Return for each room, a module or package at the top, the others that it imports."""
    found: dict[str, set[str]] = {}
    for path in _SOURCE.rglob("*.py"):
        if path.parent.is_relative_to(_SAMPLE) and path.parent != _SAMPLE:
            continue  # is built, and never imported
        room = _room(path.relative_to(_SOURCE).parts[0].removesuffix(".py"))
        tree = ast.parse(path.read_text(encoding="utf-8"))
        found.setdefault(room, set()).update(set(_imported(tree)) - {room})
    return {room: frozenset(others) for room, others in found.items()}


def below(room: str, known: Imports) -> set[str]:
    """Return all rooms that one imports, and those that these import, and so on."""
    found: set[str] = set()
    waiting = [room]
    while waiting:
        new = known[waiting.pop()] - found
        found |= new
        waiting += new
    return found


def essential(known: Imports) -> set[tuple[str, str]]:
    """Return the imports that say it all: what is reached by way of another room is left out."""
    return {
        (room, other)
        for room, others in known.items()
        for other in others
        if not any(other in below(between, known) for between in others - {other})
    }


def _room(name: str) -> str:
    return {"__init__": API, "__main__": "cli"}.get(name, name)


def _imported(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (_named(one.name) for one in node.names if one.name.startswith("cpstage"))
        elif isinstance(node, ast.ImportFrom) and node.module == "cpstage":
            yield from (_named(f"cpstage.{one.name}") for one in node.names)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("cpstage."):
            yield _named(node.module or "")


def _named(module: str) -> str:
    """Return the room of a dotted name, which may be a public name as well."""
    name = [*module.split("."), API][1]
    is_room = (_SOURCE / name).is_dir() or (_SOURCE / f"{name}.py").exists()
    return _room(name) if is_room else API
