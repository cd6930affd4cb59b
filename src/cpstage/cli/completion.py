"""Shell completion by click, with what its scripts for zsh and fish lack.

``_CPSTAGE_COMPLETE=bash_source cpstage`` prints the script that a shell sources; the script calls
``cpstage`` with ``_CPSTAGE_COMPLETE=bash_complete`` for the words that fit. The same holds for zsh
and fish. Looked at: shtab and argcomplete, which complete argparse alone.
"""

from __future__ import annotations

import os

import click
from click.shell_completion import FishComplete, ZshComplete, add_completion_class, shell_complete

from cpstage.errors import UsageError

VARIABLE = "_CPSTAGE_COMPLETE"

_COMPINIT = """\
(( $+functions[compdef] )) || { autoload -Uz compinit && compinit -i }
"""
"""A script that is sourced before ``compinit`` finds no ``compdef``: zshcompsys(1)."""


@add_completion_class
class _Zsh(ZshComplete):
    def source(self) -> str:
        """Return click's script, which may be sourced before ``compinit``."""
        first, newline, rest = super().source().partition("\n")
        return f"{first}{newline}{_COMPINIT}{rest}"


@add_completion_class
class _Fish(FishComplete):
    source_template = FishComplete.source_template.replace(
        'string split "," ', 'string split --max 1 "," '
    )
    """Only the first comma ends the type: descriptions have commas, too."""


def complete(command: click.Command) -> None:
    """Answer a shell that asks for its script, or for the words that fit.

    Raises:
        UsageError: The shell is not bash, zsh or fish.
    """
    instruction = os.environ[VARIABLE]
    if shell_complete(command, {}, "cpstage", VARIABLE, instruction):
        raise UsageError(
            f"unknown shell completion {instruction!r}",
            hint="use bash_source, zsh_source or fish_source",
        )
