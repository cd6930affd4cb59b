"""The command line: one small file per command; the only code that prints or exits.

Commands hold no decisions: they gather options, call the public API, and print what it returns.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
from typing import TYPE_CHECKING, NoReturn

import click

from cpstage._posix import make_no_core_file, reuse_freed_memory, signals
from cpstage._version import __version__
from cpstage.cli.commands import LazyCommands
from cpstage.cli.completion import complete
from cpstage.cli.terminal import Terminal, flush_or_drop
from cpstage.errors import Reportable, Stopped, UsageError, reportable

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import FrameType

_SIGNALS = signals("SIGINT", "SIGTERM", "SIGHUP")
_SIGNALLED = 128
"""A shell adds the number of a signal to this."""

_OBJECTS_BETWEEN_COLLECTIONS = 400_000
"""What a start makes are some 250,000 objects of modules, which stay: to look through them at every
700 new ones, as Python does by itself, takes a fifth of the start."""


@click.group(
    cls=LazyCommands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="cpstage")
def cpstage() -> None:
    """Fetch and stage AWS CodePipeline job artifacts.

    A job id goes in, a directory to build in comes out; a directory of results goes in,
    artifacts in the pipeline's bucket come out.
    """
    make_no_core_file()
    reuse_freed_memory()


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run a command, and exit with its code."""
    gc.set_threshold(_OBJECTS_BETWEEN_COLLECTIONS)
    code = _run(sys.argv[1:] if arguments is None else arguments)
    flush_or_drop()
    if code > _SIGNALLED:
        # All is cleaned up; a thread that still waits for an answer is not worth waiting for.
        os._exit(code)
    gc.freeze()  # or the last collection looks through all that ends with the process anyway
    sys.exit(code)


def _run(arguments: Sequence[str]) -> int:
    terminal = Terminal()
    for number in _SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup(1) wants it
            signal.signal(number, _stop)
    try:
        if complete(cpstage):
            return 0
        # Not click's own main(), which exits by itself on a broken pipe and an interrupt.
        with cpstage.make_context("cpstage", list(arguments), obj=terminal) as context:
            cpstage.invoke(context)
    except click.exceptions.Exit as request:
        return request.exit_code
    except click.ClickException as error:
        return _usage_failed(terminal, error, arguments)
    except BrokenPipeError:
        return _SIGNALLED + sum(signals("SIGPIPE"))
    except (Reportable, Exception) as error:
        return _failed(terminal, reportable(error))
    return 0


def _failed(terminal: Terminal, error: Reportable) -> int:
    terminal.fail(error)
    return error.exit_code


def _usage_failed(terminal: Terminal, error: click.ClickException, arguments: Sequence[str]) -> int:
    if type(error).__name__ == "NoArgsIsHelpError":  # not in click 8.1, which prints by itself
        click.echo(error.format_message(), err=True)
        return UsageError.exit_code
    context = getattr(error, "ctx", None)
    command = context.command_path if context else _named(arguments)
    message = error.format_message().rstrip(".")
    return _failed(terminal, UsageError(message, hint=f"see '{command} --help'"))


def _named(arguments: Sequence[str]) -> str:
    """Return the command that arguments begin with: click does not tell it with every error."""
    path = ["cpstage"]
    command: click.Group = cpstage
    for word in arguments:
        found = command.get_command(click.Context(command), word)
        if found is None:
            break
        path.append(word)
        if not isinstance(found, click.Group):
            break
        command = found
    return " ".join(path)


def _stop(number: int, _: FrameType | None) -> NoReturn:
    """Unwind, so that staging and uploads are cleaned up; a second signal kills as ever."""
    for other in _SIGNALS:
        signal.signal(other, signal.SIG_DFL)
    raise Stopped(number, signal.Signals(number).name)
