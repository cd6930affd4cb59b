"""The click classes of the command line: help in sections, variables of options, former names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import click
from click.core import ParameterSource

from cpstage.cli.output import Terminal
from cpstage.errors import UsageError

SECTIONS: dict[str, tuple[str, ...]] = {
    "Past executions": (
        "--pipeline",
        "--execution",
        "--action",
        "--failed",
        "--failed-action",
        "--with",
        "--skip-missing",
    ),
    "Archives": (
        "--include",
        "--exclude",
        "--format",
        "--compression-level",
        "--symlinks",
        "--mtime",
        "--max-size",
        "--max-ratio",
        "--max-entries",
        "--max-depth",
        "--max-header",
    ),
    "Encryption": (
        "--encrypt",
        "--encrypt-key",
        "--encrypt-context",
        "--require-encrypted",
        "--no-decrypt",
        "--decrypt-key",
        "--decrypt-context",
        "--commitment-policy",
        "--sse-kms-key-id",
        "--bucket-key",
    ),
    "What the report says": (
        "--summary",
        "--external-execution-id",
        "--percent-complete",
        "--revision",
        "--revision-summary",
        "--change-identifier",
        "--created",
        "--report-tail",
    ),
    "AWS": (
        "--region",
        "--profile",
        "--endpoint-url",
        "--ca-bundle",
        "--no-verify-ssl",
        "--connect-timeout",
        "--read-timeout",
        "--retry-timeout",
        "--credentials-max-age",
    ),
    "Messages": ("--json", "--query", "--verbose", "--quiet", "--debug", "--progress", "--help"),
}
"""Sections of a command's help, below its own options."""

_SECTION_OF = {name: title for title, names in SECTIONS.items() for name in names}


class Option(click.Option):
    """An option that was renamed, or that has no variable.

    Args:
        former: Names that still work, with a warning.
        variable: Whether ``CPSTAGE_<OPTION>`` is the option's variable.
        others: As for :class:`click.Option`.
    """

    def __init__(
        self, *names: Any, former: Sequence[str] = (), variable: bool = True, **others: Any
    ) -> None:
        super().__init__(*names, **others)
        self.former = tuple(former)
        self.variable = variable

    def add_to_parser(self, parser: Any, ctx: click.Context) -> None:
        """Let the parser take the former names, too, apart from the name of today."""
        super().add_to_parser(parser, ctx)
        for name in self.former:
            action = "append" if self.multiple else "store"
            parser.add_option(self, [name], dest=name, action=action, nargs=self.nargs)

    def consume_value(
        self, ctx: click.Context, opts: Mapping[str, Any]
    ) -> tuple[Any, ParameterSource]:
        """Take the value of a former name, and say what the name is today."""
        given = [name for name in self.former if name in opts]
        if not given:
            return super().consume_value(ctx, opts)
        if not opts.get("quiet"):
            terminal = ctx.find_object(Terminal) or Terminal()
            terminal.warn(f"{given[0]} is deprecated: write {self.opts[0]}")
        value = opts[given[0]]
        if self.multiple:
            value = [*value, *opts.get(str(self.name), ())]
        return value, ParameterSource.COMMANDLINE


class Command(click.Command):
    """A command whose help has sections, and whose options have variables.

    An option ``--max-size`` has the variable ``CPSTAGE_MAX_SIZE``, unless it names another one. On
    the command line, an option counts before its variable.
    """

    def __init__(self, *args: Any, **others: Any) -> None:
        super().__init__(*args, **others)
        for option in self.params:
            if isinstance(option, click.Option) and option.envvar is None:
                option.envvar = _variable(option)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse arguments; say how to write a job ID that stands at the wrong place."""
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            arguments = [one.name for one in self.params if isinstance(one, click.Argument)]
            if error.option_name != "--job-id" or "job_id" not in arguments:
                raise
            hint = f"write '{ctx.command_path} JOB_ID'"
            raise UsageError("the job ID is an argument, not an option", hint=hint) from error

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the command's own options, and then those of each section."""
        sections: dict[str, list[tuple[str, str]]] = {title: [] for title in ("Options", *SECTIONS)}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if isinstance(parameter, click.Option) and record is not None:
                sections[_SECTION_OF.get(long_name(parameter), "Options")].append(record)
        for title, records in sections.items():
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)


class AwsCommand(Command):
    """A command that always calls AWS."""

    def invoke(self, ctx: click.Context) -> Any:
        """Import boto3, and run the command.

        boto3's imports are nested 60 calls deep. Python keeps the frames of calls in chunks of 16
        KiB; a loop at the end of a chunk maps and unmaps memory 2,000 times. From here, where few
        functions are running, all fit into one chunk: a start takes a fifteenth less.
        """
        import boto3  # noqa: F401

        return super().invoke(ctx)


def long_name(option: click.Option) -> str:
    """Return the first of an option's names that begins with two dashes."""
    return next((name for name in option.opts if name.startswith("--")), "")


def _variable(option: click.Option) -> str | None:
    if isinstance(option, Option) and not option.variable:
        return None
    return "CPSTAGE_" + long_name(option).removeprefix("--").replace("-", "_").upper()
