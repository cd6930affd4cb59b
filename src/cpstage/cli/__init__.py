"""The command line: the only code that prints or exits.

Commands hold no decisions: they gather options, call the public API, and print what it returns.
"""

from __future__ import annotations

import gc
import os
import re
import signal
import sys
from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING, NamedTuple, NoReturn

import click

from cpstage._posix import (
    handle_signals,
    is_postponed,
    make_no_core_file,
    open_missing_streams,
    reuse_freed_memory,
    signals,
)
from cpstage._version import __version__
from cpstage.cli.output import Terminal, flush_or_drop, use_checked_stdout
from cpstage.errors import Reportable, Stopped, UsageError, reportable

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import FrameType

_SIGNALS = signals("SIGINT", "SIGTERM", "SIGHUP")
_COMPLETE = "_CPSTAGE_COMPLETE"
_SIGNALLED = 128
"""A shell adds the number of a signal to this."""


class _Command(NamedTuple):
    """A command: its module below :mod:`cpstage.cli`, and what it is for."""

    module: str
    help: str


GROUPS = {
    "Job artifacts": {
        "fetch": _Command("transfer", "Stage a job's input artifacts."),
        "push": _Command("transfer", "Upload a job's output artifacts."),
    },
    "Running jobs and reporting results": {
        "run": _Command("run", "Fetch a job's inputs, run CMD, push its outputs."),
        "work": _Command("work", "Run the jobs of an action type, until stopped."),
        "claim": _Command("work", "Acknowledge a waiting job, and print its id."),
        "report": _Command("run", "Report the result of a job to CodePipeline."),
        "env": _Command("inspect", "Print the variables of a job in a workspace."),
        "credentials": _Command("inspect", "Print a job's session credentials, SECRETS included."),
    },
    "Job details": {
        "show": _Command("inspect", "Show a job and the objects at its locations."),
        "get-job-details": _Command(
            "get_job_details", "Print the job's document, as the AWS CLI does."
        ),
    },
    "Inspecting artifacts and finding problems": {
        "executions": _Command(
            "inspect", "List a pipeline's past executions, or the actions of one."
        ),
        "ls": _Command("contents", "List the contents of artifacts, without fetching them."),
        "cat": _Command("contents", "Write members of an artifact to stdout."),
        "diff": _Command(
            "contents", "Compare a fetched tree, two executions, or two local archives."
        ),
        "doctor": _Command("inspect", "Check everything that a run of a job needs."),
    },
    "Local files": {
        "unpack": _Command("transfer", "Unpack a zip, tar or tar.gz."),
        "pack": _Command("transfer", "Pack a directory into a zip, tar or tar.gz."),
    },
    "Without an AWS account": {
        "demo": _Command("local", "Run a complete job on an embedded local AWS."),
        "local": _Command(
            "local", "Run an embedded local AWS: S3, KMS and the job API, on loopback."
        ),
    },
}
_COMMANDS = {name: command for group in GROUPS.values() for name, command in group.items()}


_COMMON_FLAGS = ("--no-verify-ssl", "--json", "--verbose", "--quiet", "--debug")
_COMMON_VALUES = (
    "--region --profile --endpoint-url --ca-bundle --connect-timeout --read-timeout "
    "--retry-timeout --progress"
)
"""Options that may stand before the command as well as behind it."""


class LazyCommands(click.Group):
    """A group whose commands are loaded when they are run."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Move common options behind the command, and read ``help COMMAND`` as ``--help``."""
        common, rest = _common_options(args)
        if ctx.resilient_parsing and not rest:
            return super().parse_args(ctx, [])  # a shell completes the command
        if rest[:1] == ["help"]:
            rest = [*rest[1:], "--help"]
        depth = len(_path(rest)) if common else 0
        if common and not rest:
            raise UsageError("the command is missing", hint="'cpstage --help' lists all")
        if common and not depth and not ctx.resilient_parsing:
            self.resolve_command(ctx, rest)
        return super().parse_args(ctx, [*rest[:depth], *common, *rest[depth:]])

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Return the names of all commands."""
        return [*_COMMANDS]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Load a command; its name in its module is that of the command."""
        if cmd_name not in _COMMANDS:
            return None
        module = import_module(f"cpstage.cli.{_COMMANDS[cmd_name].module}")
        command: click.Command = getattr(module, cmd_name.replace("-", "_"))
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find a command; for an unknown name, suggest similar ones."""
        if args[0] in _COMMANDS or args[0].startswith("-") or ctx.resilient_parsing:
            return super().resolve_command(ctx, args)
        from difflib import get_close_matches

        close = get_close_matches(args[0], _COMMANDS)
        meant = f"did you mean {' or '.join(map(repr, close))}? " if close else ""
        hint = f"{meant}'cpstage --help' lists all"
        raise UsageError(f"there is no command {args[0]!r}", hint=hint)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Write the commands in their groups."""
        for title, commands in GROUPS.items():
            with formatter.section(title):
                formatter.write_dl([(name, command.help) for name, command in commands.items()])


def _version(context: click.Context, _: click.Parameter, asked: bool) -> None:
    """Print the versions that a bug report needs."""
    if not asked or context.resilient_parsing:
        return
    from importlib.metadata import PackageNotFoundError, version
    from platform import python_version

    found = [f"Python {python_version()}"]
    for package in ("boto3", "isal", "awscrt"):
        with suppress(PackageNotFoundError):
            found.append(f"{package} {version(package)}")
    click.echo(f"cpstage {__version__} ({', '.join(found)})")
    context.exit()


@click.group(
    cls=LazyCommands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_version,
    help="Show the versions of cpstage, Python, boto3 and isal.",
)
def cpstage() -> None:
    """Fetch and stage AWS CodePipeline job artifacts.

    'cpstage fetch' downloads and unpacks the inputs of a job. 'cpstage push' packs, encrypts and
    uploads its outputs. 'cpstage run' does both around a build command.

    Options about AWS and messages may also stand before COMMAND. Every option has an environment
    variable, such as CPSTAGE_MAX_SIZE for --max-size.
    """
    make_no_core_file()
    reuse_freed_memory()


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run a command, and exit with its code."""
    if hasattr(signal, "SIGCHLD"):  # ignored by the caller, exit codes of commands are lost
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    open_missing_streams()
    use_checked_stdout()
    terminal = Terminal()
    try:
        code = _run(sys.argv[1:] if arguments is None else arguments, terminal)
        flush_or_drop()
        handle_signals(_SIGNALS, signal.SIG_DFL)  # there is nothing left to clean up
    except Stopped as stopped:  # it came when the command had ended
        terminal.fail(stopped)
        code = stopped.exit_code
    if code > _SIGNALLED:
        # All is cleaned up; a thread that still waits for an answer is not worth waiting for.
        os._exit(code)
    gc.freeze()  # or the last collection looks through all that ends with the process anyway
    sys.exit(code)


def _run(arguments: Sequence[str], terminal: Terminal) -> int:
    handle_signals(_SIGNALS, _stop)
    try:
        if instruction := os.environ.get(_COMPLETE):
            _complete_command_line(instruction)
            return 0
        # Not click's own main(), which exits by itself on a broken pipe and an interrupt.
        with cpstage.make_context("cpstage", list(arguments), obj=terminal) as context:
            cpstage.invoke(context)
    except click.exceptions.Exit as request:
        return request.exit_code
    except click.ClickException as error:
        if type(error).__name__ == "NoArgsIsHelpError":  # not in click 8.1, which prints by itself
            click.echo(error.format_message(), err=True)
            return UsageError.exit_code
        failure: Reportable = _usage_error(error, arguments)
    except BrokenPipeError:
        return _SIGNALLED + sum(signals("SIGPIPE"))
    except (Reportable, Exception) as error:
        failure = reportable(error)
    else:
        return 0
    terminal.fail(failure)
    return failure.exit_code


def _complete_command_line(instruction: str) -> None:
    """Answer a shell that requests its completion script, or the completions of a word.

    ``_CPSTAGE_COMPLETE=bash_source cpstage`` prints the script that a shell sources; the script
    calls ``cpstage`` with ``_CPSTAGE_COMPLETE=bash_complete``. The same holds for zsh and fish.
    shtab and argcomplete do not serve: they complete argparse alone.
    """
    from click import shell_completion

    class Zsh(shell_completion.ZshComplete):
        # A script that is sourced before ``compinit`` finds no ``compdef``: zshcompsys(1).
        source_template = shell_completion.ZshComplete.source_template.replace(
            "\n", "\n(( $+functions[compdef] )) || { autoload -Uz compinit && compinit -i }\n", 1
        )

    class Fish(shell_completion.FishComplete):
        # Only the first comma ends the type: descriptions have commas, too.
        source_template = shell_completion.FishComplete.source_template.replace(
            'string split "," ', 'string split --max 1 "," '
        )

    shell_completion.add_completion_class(Zsh)
    shell_completion.add_completion_class(Fish)
    is_answered = False
    with suppress(KeyError):  # a person calls it, and not a shell's function with its variables
        code = shell_completion.shell_complete(cpstage, {}, "cpstage", _COMPLETE, instruction)
        is_answered = code == 0
    if not is_answered:
        raise UsageError(
            f"unknown shell completion {instruction!r}",
            hint="use bash_source, zsh_source or fish_source",
        )


def _usage_error(error: click.ClickException, arguments: Sequence[str]) -> UsageError:
    context = getattr(error, "ctx", None)
    command = context.command_path if context else " ".join(["cpstage", *_path(arguments)])
    return UsageError(error.format_message().rstrip("."), hint=f"see '{command} --help'")


def _common_options(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Divide arguments into the common options before the command, and what follows them."""
    at = 0
    while at < len(arguments):
        name, equals, _ = arguments[at].partition("=")
        if name in _COMMON_VALUES.split():
            at += 1 if equals else 2
        elif name in _COMMON_FLAGS or re.fullmatch("-[vq]+", name):
            at += 1
        else:
            break
    return list(arguments[:at]), list(arguments[at:])


def _path(arguments: Sequence[str]) -> list[str]:
    """Return the names of commands that arguments begin with."""
    path: list[str] = []
    command: click.Command | None = cpstage
    for word in arguments:
        if not isinstance(command, click.Group):
            break
        command = command.get_command(click.Context(command), word)
        if command is None:
            break
        path.append(word)
    return path


def _stop(number: int, frame: FrameType | None) -> None:
    """Unwind, so that staging and uploads are cleaned up; a second signal kills the process."""
    if is_postponed(number, frame):
        return
    # Python would show a traceback for another one that comes at the same time, and go on.
    sys.unraisablehook = lambda _: None
    handle_signals(_SIGNALS, signal.SIG_DFL)
    raise Stopped(number, signal.Signals(number).name)
