"""The click classes of the command line, and the options that most commands share.

The classes give help in sections, variables of options, and former names of options.
"""

from __future__ import annotations

import functools
import math
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

import cpstage
from cpstage.aws.config import DEFAULT_MAX_AGE, DEFAULT_TIMEOUT
from cpstage.cli.output import Terminal
from cpstage.errors import UsageError

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from cpstage.progress import Mode

Function = Callable[..., Any]
Decorator = Callable[[Function], Function]

SECTIONS = {
    title: tuple(names.split())
    for title, names in {
        "Past executions": "--pipeline --execution --action --failed --failed-action --with "
        "--skip-missing",
        "Archives": "--include --exclude --format --compression-level --symlinks --mtime "
        "--max-size --max-ratio --max-entries --max-depth --max-header",
        "Encryption": "--encrypt --encrypt-key --encrypt-context --require-encrypted --no-decrypt "
        "--decrypt-key --decrypt-context --commitment-policy --sse-kms-key-id --bucket-key",
        "What the report says": "--summary --external-execution-id --percent-complete --revision "
        "--revision-summary --change-identifier --created --report-tail",
        "AWS": "--region --profile --endpoint-url --ca-bundle --no-verify-ssl --connect-timeout "
        "--read-timeout --retry-timeout --credentials-max-age",
        "Messages": "--json --query --verbose --quiet --debug --progress --help",
    }.items()
}
"""Sections of a command's help, below its own options."""

_PROGRESS = ("auto", "bar", "log", "none")

_SECTION_OF = {name: title for title, names in SECTIONS.items() for name in names}


class Option(click.Option):
    """An option that was renamed: its former names still work, with a warning."""

    def __init__(self, *names: Any, former: Sequence[str] = (), **others: Any) -> None:
        super().__init__(*names, **others)
        self.former = tuple(former)

    def add_to_parser(self, parser: Any, ctx: click.Context) -> None:
        """Add the former names to the parser, unless another option has them today."""
        super().add_to_parser(parser, ctx)
        others = {name for one in ctx.command.params for name in one.opts}
        for name in {*self.former} - others:
            action = "append" if self.multiple else "store"
            parser.add_option(self, [name], dest=name, action=action, nargs=self.nargs)

    def consume_value(
        self, ctx: click.Context, opts: Mapping[str, Any]
    ) -> tuple[Any, ParameterSource]:
        """Use the value of a former name, and warn about the name."""
        given = [name for name in self.former if name in opts]
        if not given:
            return super().consume_value(ctx, opts)
        if not opts.get("quiet"):
            terminal = ctx.ensure_object(Terminal)
            terminal.warn(f"{given[0]} is deprecated: write {self.opts[0]}")
        value = opts[given[0]]
        if self.multiple:
            value = [*value, *opts.get(str(self.name), ())]
        return value, ParameterSource.COMMANDLINE


class Command(click.Command):
    """A command whose help has sections, and whose options have variables.

    An option ``--max-size`` has the variable ``CPSTAGE_MAX_SIZE``, unless it names another one, or
    says ``allow_from_autoenv=False``. On the command line, an option counts before its variable.
    """

    def __init__(self, *args: Any, **others: Any) -> None:
        super().__init__(*args, **others)
        if not any("--progress" in one.opts for one in self.params):
            # A script can give it to every command, also to one that has no progress to show.
            modes = click.Choice(_PROGRESS)
            self.params.append(
                click.Option(["--progress"], type=modes, hidden=True, expose_value=False)
            )
        for option in self.params:
            if not isinstance(option, click.Option) or not option.allow_from_autoenv:
                continue
            name = long_name(option).removeprefix("--").replace("-", "_").upper()
            option.envvar = option.envvar or f"CPSTAGE_{name}"

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse arguments; a job ID that is given as an option gets a hint."""
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


MOST_SECONDS = 1e9
"""Thirty years: a time limit that never ends a command."""


class Seconds(click.types.FloatParamType):
    """A number of seconds, above zero unless zero is allowed; a range would be in every help."""

    name = "seconds"

    def __init__(self, *, or_none: bool = False) -> None:
        self._or_none = or_none

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Read a number; a comparison with NaN never holds."""
        try:
            seconds = float(value)
        except ValueError:
            seconds = math.nan
        if 0 < seconds <= MOST_SECONDS or (self._or_none and seconds == 0):
            return seconds
        least = "0 or more" if self._or_none else "above 0"
        why = f"{value!r} is not a number of seconds, {least} and at most 1e9."
        raise click.BadParameter(why, ctx, param)


class Size(click.types.IntParamType):
    """A number of bytes above zero, also with a unit: ``10GB`` (powers of 1000) or ``10GiB``."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Read a number and its unit."""
        found = re.fullmatch(r"(\d+)\s*(?:([KMGT])(I?)B?|B)?", str(value).upper())
        if found is None or not int(found[1]):
            why = f"{value!r} is not a size: write bytes, or a number with KB, MiB, GB and so on."
            raise click.BadParameter(why, ctx, param)
        power = "KMGT".index(found[2]) + 1 if found[2] else 0
        base: int = 1024 if found[3] else 1000
        size: int = int(found[1]) * base**power
        return size


class Number(click.IntRange):
    """A whole number within a range; messages and help call it a number, as the reference does."""

    name = "number"


class PathName(click.types.StringParamType):
    """A path on this machine, which a shell completes.

    An empty one is refused: it comes from a variable that is unset, and would be the current
    directory. So is ``-``, which other tools take for stdin or stdout. :class:`click.Path` takes
    both as names of files.
    """

    def __init__(self, kind: str, *, as_path: bool = False, or_stdin: bool = False) -> None:
        self._kind = kind
        self._as_path = as_path
        self._or_stdin = or_stdin

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Refuse an empty path and a stream, unless a shell completes the line."""
        if param is not None and not (ctx and ctx.resilient_parsing):
            named = long_name(param) if isinstance(param, click.Option) else ""
            name = named or param.human_readable_name
            if value == "":
                raise is_empty(name)
            if value == "-" and not self._or_stdin:
                raise UsageError(
                    f"{name} is '-', and takes neither stdin nor stdout",
                    hint="give a path, which is './-' for a file of that name",
                )
        return Path(value) if self._as_path else value

    def shell_complete(
        self,
        ctx: click.Context,  # noqa: ARG002
        param: click.Parameter,  # noqa: ARG002
        incomplete: str,
    ) -> list[CompletionItem]:
        """Let the shell complete the path."""
        from click.shell_completion import CompletionItem

        return [CompletionItem(incomplete, type=self._kind)]


def is_empty(name: str) -> UsageError:
    """Return the error for an empty value of an option or argument."""
    return UsageError(f"{name} is empty", hint="is the variable that it comes from unset?")


a_file = PathName("file")
a_directory = PathName("dir")


def flag(*names: str, **others: Any) -> Decorator:
    """Declare an option without a value."""
    return click.option(*names, is_flag=True, **others)


def choice(*names: str, values: Sequence[str], **others: Any) -> Decorator:
    """Declare an option with one of several values, of which the first is the default."""
    others = {"default": values[0], "show_default": True, **others}
    return click.option(*names, type=click.Choice(values), **others)


def seconds(*names: str, or_none: bool = False, **others: Any) -> Decorator:
    """Declare an option with a number of seconds; its default is shown, if it has one."""
    if "default" in others:
        others.setdefault("show_default", True)
    return click.option(*names, type=Seconds(or_none=or_none), **others)


def gather(
    name: str, make: Callable[..., Any] | str, *options: Decorator, apart: Sequence[str] = ()
) -> Decorator:
    """Add options to a command, which gets one argument for all of them.

    Args:
        name: The argument.
        make: Gets the values of the options by their names, and returns the argument. A string is
            the name of an attribute of :mod:`cpstage`, which is loaded when the command runs.
        options: The options, in the order in which the help shows them.
        apart: Names of options whose values stay arguments of their own.
    """

    def decorate(function: Function) -> Function:
        @functools.wraps(function)
        def command(**values: Any) -> Any:
            gathered = {one: values.pop(one) for one in names}
            built = attrgetter(make)(cpstage) if isinstance(make, str) else make
            return function(**{name: built(**gathered)}, **values)

        # The decorators of click keep the options of a function here, the last one first.
        parameters = vars(command).setdefault("__click_params__", [])
        count = len(parameters)
        for option in reversed(options):
            option(command)
        added = [one.name for one in reversed(parameters[count:])]
        names = [one for one in added if one not in apart]
        return command

    return decorate


def pairs(
    _context: click.Context, parameter: click.Parameter, values: tuple[str, ...]
) -> dict[str, str]:
    """Read the values of a repeatable option ``K=V``; a callback of click."""
    found = {}
    for value in values:
        name, equals, content = value.partition("=")
        if not (name and equals and content):
            raise UsageError(f"{value!r} is not of the form K=V", hint=f"see {parameter.opts[0]}")
        found[name] = content
    return found


workspace_option = click.option(
    "-w",
    "--workspace",
    metavar="DIR",
    default=".",
    type=a_directory,
    help="Directory with in/ and out/; else CPSTAGE_WORKSPACE. [the current directory]",
)


def _config(
    *, no_verify_ssl: bool, no_sign_request: bool = False, **settings: Any
) -> cpstage.AwsConfig:
    return cpstage.AwsConfig(
        verify_ssl=not no_verify_ssl, sign_requests=not no_sign_request, **settings
    )


def retry_option(
    default: float = DEFAULT_TIMEOUT,
    help: str = "How long to retry without progress when the network or AWS fails.",
) -> Decorator:
    """Return how long to try again, for :func:`aws_options`."""
    return seconds(
        "--retry-timeout", "timeout", cls=Option, former=["--timeout"], default=default, help=help
    )


def aws_options(*more: Decorator, retry: Decorator | None = None) -> Decorator:
    """Add the AWS CLI's common options, and more about AWS; the command gets a ``config``."""
    return gather(
        "config",
        _config,
        click.option("--region", help="AWS region; else AWS_REGION, then the profile's."),
        click.option("--profile", help="Profile of the AWS configuration; else AWS_PROFILE."),
        click.option("--endpoint-url", help="Endpoint of all services; else AWS_ENDPOINT_URL."),
        click.option(
            "--ca-bundle",
            metavar="FILE",
            type=a_file,
            help="CA certificates; else AWS_CA_BUNDLE.",
        ),
        flag("--no-verify-ssl", help="Do not verify certificates."),
        seconds(
            "--connect-timeout",
            "--cli-connect-timeout",
            or_none=True,
            help="How long to wait for a connection; 0 waits without limit. [60]",
        ),
        seconds(
            "--read-timeout",
            "--cli-read-timeout",
            or_none=True,
            help="How long to wait for the next KiB of an answer; 0 waits without limit. [60]",
        ),
        *more,
        retry or retry_option(),
        apart=["credentials_max_age"],
    )


session_options = aws_options(
    seconds(
        "--credentials-max-age",
        default=DEFAULT_MAX_AGE,
        help="Age at which cpstage refreshes the job's session credentials.",
    )
)
"""Options of AWS and of a job's session; the command gets ``credentials_max_age``, too."""


def _terminal(
    *, verbose: int, quiet: bool, debug: bool, json: bool = False, jmespath: str | None = None
) -> Terminal:
    terminal = click.get_current_context().ensure_object(Terminal)
    terminal.json = json or jmespath is not None
    if jmespath is not None:
        from cpstage.cli.aws_output import compile_query

        terminal.select = compile_query(jmespath)
    terminal.verbosity = -1 if quiet else verbose
    terminal.debug = debug
    terminal.log_calls()
    return terminal


_JSON = flag("--json", help="Print the result as one JSON document.")
_QUERY = click.option(
    "--query",
    "jmespath",
    allow_from_autoenv=False,
    metavar="JMESPATH",
    help="Print what this expression selects from the JSON document.",
)
_LOG = (
    click.option("-v", "--verbose", count=True, help="Log each call to AWS on stderr."),
    flag("-q", "--quiet", help="Print no messages and no progress on stderr."),
    flag("--debug", help="Show the traceback of an error."),
)

log_options = gather("terminal", _terminal, *_LOG)
json_options = gather("terminal", _terminal, _JSON, *_LOG)
"""For commands that have another ``--query``."""

output_options = gather("terminal", _terminal, _JSON, _QUERY, *_LOG)


def _progress(*, progress: Mode) -> cpstage.Progress:
    quiet = click.get_current_context().ensure_object(Terminal).verbosity < 0
    return cpstage.progress_to(sys.stderr, "none" if quiet else progress)


progress_option = gather(
    "progress",
    _progress,
    choice(
        "--progress",
        values=_PROGRESS,
        help="Progress as bars (terminal), as lines (log), or not at all.",
    ),
)
"""Stands below the options of messages."""
