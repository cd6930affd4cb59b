"""Checks a JSON request against a service model, and words what is wrong as AWS does.

The constraints are those of botocore's own model of the service: required members, types, lengths,
ranges, enumerations and patterns.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from botocore.model import MapShape, Shape, StructureShape

from cpstage.local.wire import Refusal

if TYPE_CHECKING:
    from collections.abc import Iterator

_TYPES: dict[str, type | tuple[type, ...]] = {
    "structure": dict,
    "map": dict,
    "string": str,
    "integer": int,
    "timestamp": (int, float),
}


def validate(document: Any, shape: Shape | None) -> None:
    """Check a request against the shape of its operation's input.

    Raises:
        Refusal: SerializationException for a wrong type, ValidationException for the rest.
    """
    if shape is None:
        return
    faults = list(_faults(document, shape, ""))
    if faults:
        plural = "s" if len(faults) > 1 else ""
        listed = "; ".join(faults)
        message = f"{len(faults)} validation error{plural} detected: {listed}"
        raise Refusal(400, "ValidationException", message)


def _faults(value: Any, shape: Shape, path: str) -> Iterator[str]:
    """Yield what is wrong; no job-worker input has a list or a boolean."""
    if not _has_type(value, shape):
        raise Refusal(400, "SerializationException", f"{path or 'The body'} has a wrong type")
    for constraint in _broken(value, shape):
        yield f"Value at '{path}' failed to satisfy constraint: Member must {constraint}"
    if isinstance(shape, StructureShape):
        yield from _structure_faults(value, shape, path)
    elif isinstance(shape, MapShape):
        for key, item in value.items():
            yield from _faults(key, shape.key, f"{path}.key")
            yield from _faults(item, shape.value, f"{path}.{key}")


def _has_type(value: Any, shape: Shape) -> bool:
    # bool is an int to Python, but not to the service.
    return isinstance(value, _TYPES[shape.type_name]) and not isinstance(value, bool)


def _structure_faults(value: dict[str, Any], shape: StructureShape, path: str) -> Iterator[str]:
    prefix = f"{path}." if path else ""
    for name, member in shape.members.items():
        # A null member counts as one left out.
        if value.get(name) is not None:
            yield from _faults(value[name], member, prefix + name)
        elif name in shape.required_members:
            member_path = prefix + name
            yield f"Value at '{member_path}' failed to satisfy constraint: Member must not be null"


def _broken(value: Any, shape: Shape) -> Iterator[str]:
    """Yield the constraints of its own shape that a value breaks."""
    measured = value if shape.type_name == "integer" else None
    noun = "have value"
    if isinstance(value, str | dict):
        measured, noun = len(value), "have length"
    least, most = shape.metadata.get("min"), shape.metadata.get("max")
    if measured is not None and least is not None and measured < least:
        yield f"{noun} greater than or equal to {least}"
    if measured is not None and most is not None and measured > most:
        yield f"{noun} less than or equal to {most}"
    allowed = shape.metadata.get("enum")
    if allowed and value not in allowed:
        yield f"satisfy enum value set: [{', '.join(allowed)}]"
    pattern = shape.metadata.get("pattern")
    # An id of another form is simply not found: AWS's own examples break the pattern.
    if pattern and shape.name != "JobId" and not re.fullmatch(pattern, value):
        yield f"satisfy regular expression pattern: {pattern}"
