"""Shell completion, by click's own mechanism: the shell runs ``cpstage`` with a variable set.

``_CPSTAGE_COMPLETE=bash_source`` prints the function that a shell needs, ``bash_complete`` what
could stand at a place; the same with ``zsh`` and ``fish``.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from cpstage.errors import UsageError

if TYPE_CHECKING:
    import click
    from click.shell_completion import CompletionItem

VARIABLE = "_CPSTAGE_COMPLETE"


def complete(command: click.Command) -> bool:
    """Answer the shell, if it is a shell that asks.

    Raises:
        UsageError: It is none of bash, zsh and fish.
    """
    instruction = os.environ.get(VARIABLE)
    if not instruction:
        return False
    from click.shell_completion import shell_complete

    if shell_complete(command, {}, "cpstage", VARIABLE, instruction):
        raise UsageError(
            f"there is no shell completion {instruction!r}",
            hint="bash_source, zsh_source and fish_source are what there is",
        )
    return True


def a_file(_context: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete the path of a file; a callback of click."""
    return _path("file", incomplete)


def a_directory(
    _context: click.Context, _: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Complete the path of a directory; a callback of click."""
    return _path("dir", incomplete)


def _path(kind: str, incomplete: str) -> list[CompletionItem]:
    from click.shell_completion import CompletionItem

    return [CompletionItem(incomplete, type=kind)]
