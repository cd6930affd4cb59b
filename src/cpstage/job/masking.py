"""Secrets: values that never print themselves, and texts of others with secrets removed.

A traceback that shows local variables (``traceback.TracebackException(capture_locals=True)``,
``rich``, ``pytest -l``) calls ``repr`` on them. So secrets travel as :class:`Secret`, and documents
that hold secrets as :class:`MaskedDict`, until the call that needs the plain value.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Iterable, Mapping
from typing import Any, NoReturn, TypeVar, overload

MASK = "********"

_LONGEST_SEARCHED = 8_000
"""Characters of a message that are searched for secrets; the rest of the message is not shown."""

_PIECE_OF_SECRET = 12
"""Characters in a row of a secret that give too much of the secret away."""

SHORTEST_SECRET = 8
"""Characters: AWS has no shorter keys, and ``main`` would be found in every other line."""

_Value = TypeVar("_Value")


class _Masked:
    """A value that no ``repr``, ``str``, format or pickle shows."""

    __slots__ = ()

    def __repr__(self) -> str:
        return MASK

    def __format__(self, _: str) -> str:
        return MASK

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret cannot be pickled")


class SecretBytes(_Masked):
    """A data key."""

    __slots__ = ("_data",)

    def __init__(self, data: bytes) -> None:
        self._data = data

    def reveal(self) -> bytes:
        """Return its bytes."""
        return self._data


class Secret(_Masked):
    """A text that only ``reveal()`` returns: each print of it is a mask."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """Return the text."""
        return self._text

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._text == self._text

    def __hash__(self) -> int:
        return hash(self._text)

    def __bool__(self) -> bool:
        return bool(self._text)

    def __len__(self) -> int:
        return len(self._text)


@overload
def secret(value: str | Secret) -> Secret: ...
@overload
def secret(value: None) -> None: ...
@overload
def secret(value: str | Secret | None) -> Secret | None: ...
def secret(value: str | Secret | None) -> Secret | None:
    """Return a text as a secret; None and secrets stay what they are.

    Raises:
        TypeError: It is something else.
    """
    if value is None or isinstance(value, Secret):
        return value
    if not isinstance(value, str):
        raise TypeError(f"a secret is of type {type(value).__name__}, and not str")
    return Secret(value)


class MaskedDict(dict[str, Any]):
    """A JSON object that may hold secrets: a dictionary whose ``repr`` masks its values."""

    def __repr__(self) -> str:
        return f"{{{', '.join(f'{name!r}: {MASK}' for name in self)}}}"


def mask_objects(value: Any) -> Any:
    """Return a JSON value in which every object is a :class:`MaskedDict`."""
    if isinstance(value, Mapping):
        return MaskedDict((name, mask_objects(member)) for name, member in value.items())
    if isinstance(value, list):
        return [mask_objects(member) for member in value]
    return value


def reveal(value: Any) -> Any:
    """Return a JSON value with the texts of its secrets in their places."""
    if isinstance(value, (Secret, SecretBytes)):
        return value.reveal()
    if isinstance(value, Mapping):
        return MaskedDict((name, reveal(member)) for name, member in value.items())
    if isinstance(value, list):
        return [reveal(member) for member in value]
    return value


def secrets_in(value: Any) -> list[Secret]:
    """Return the secrets of a JSON value, bytes as JSON has them."""
    if isinstance(value, Secret):
        return [value]
    if isinstance(value, SecretBytes):
        return [Secret(b64encode(value.reveal()).decode())]
    if isinstance(value, Mapping):
        value = [*value.values()]
    members = value if isinstance(value, list) else []
    return [found for member in members for found in secrets_in(member)]


def mask_queries(text: str) -> str:
    """Hide the queries of URLs: a signature may be in one, and the session token."""
    return re.sub(r"\?[^\s\"']+", f"?{MASK}", text)


def masked(text: str, secrets: Iterable[Secret]) -> str:
    """Return the first 8,000 characters of a text without secrets, also without cut ones."""
    text = text[:_LONGEST_SEARCHED]
    hidden = [one.reveal() for one in secrets if one]
    for value in hidden:
        text = text.replace(value, MASK)
    shown = [*text]
    for start in range(len(text) - _PIECE_OF_SECRET + 1):
        piece = text[start : start + _PIECE_OF_SECRET]
        if any(piece in value for value in hidden):
            shown[start : start + _PIECE_OF_SECRET] = "*" * _PIECE_OF_SECRET
    return "".join(shown)
