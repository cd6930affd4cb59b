"""Options that commands share, gathered into the objects that the API takes."""

from __future__ import annotations

import functools
import math
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from cpstage.aws.config import DEFAULT_MAX_AGE, DEFAULT_TIMEOUT
from cpstage.cli.command import Option
from cpstage.cli.output import Terminal
from cpstage.errors import UsageError

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from cpstage import AwsConfig
    from cpstage.progress import Mode

Function = Callable[..., Any]

MOST_SECONDS = 1e9
"""Some thirty years: as long as it takes."""


class Seconds(click.types.FloatParamType):
    """A number of seconds, above zero where zero makes no sense.

    A range of click would print its bounds in every line of help.
    """

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


def add_options(function: Function, *options: Callable[[Function], Function]) -> Function:
    """Add several options to a command, in the order in which its help shows them."""
    for option in reversed(options):
        function = option(function)
    return function


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


def aws_options(function: Function) -> Function:
    """Add the AWS CLI's common options; the command gets a ``config``."""

    @functools.wraps(function)
    def command(
        *,
        region: str | None,
        profile: str | None,
        endpoint_url: str | None,
        ca_bundle: str | None,
        no_verify_ssl: bool,
        connect_timeout: float | None,
        read_timeout: float | None,
        **others: Any,
    ) -> Any:
        from cpstage import AwsConfig

        config = AwsConfig(
            region=region,
            profile=profile,
            endpoint_url=endpoint_url,
            ca_bundle=ca_bundle,
            verify_ssl=not no_verify_ssl,
            connect_timeout=connect_timeout,
            read_timeout=read_timeout,
        )
        return function(config=config, **others)

    return add_options(
        command,
        click.option("--region", help="AWS region; else AWS_REGION, then the profile's."),
        click.option("--profile", help="Profile of the AWS configuration; else AWS_PROFILE."),
        click.option("--endpoint-url", help="Endpoint of all services; else AWS_ENDPOINT_URL."),
        click.option(
            "--ca-bundle",
            metavar="FILE",
            shell_complete=a_file,
            help="CA certificates; else AWS_CA_BUNDLE.",
        ),
        click.option("--no-verify-ssl", is_flag=True, help="Do not verify certificates."),
        click.option(
            "--connect-timeout",
            "--cli-connect-timeout",
            "connect_timeout",
            type=Seconds(or_none=True),
            metavar="SECONDS",
            help="How long to wait for a connection; 0 waits without limit. [60]",
        ),
        click.option(
            "--read-timeout",
            "--cli-read-timeout",
            "read_timeout",
            type=Seconds(or_none=True),
            metavar="SECONDS",
            help="How long to wait for the next KiB of an answer; 0 waits without limit. [60]",
        ),
    )


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


def session_option(function: Function, *, former: Sequence[str] = ("--timeout",)) -> Function:
    """Add what is about a job's session; stands below ``aws_options``.

    The command gets a ``credentials_max_age``, and its ``config`` a timeout.

    Args:
        function: The command.
        former: Former names of ``--retry-timeout``.
    """
    return add_options(
        retry_option(function, former=former),
        click.option(
            "--credentials-max-age",
            type=Seconds(),
            default=DEFAULT_MAX_AGE,
            show_default=True,
            metavar="SECONDS",
            help="Age at which cpstage refreshes the job's session credentials.",
        ),
    )


def retry_option(function: Function, *, former: Sequence[str] = ("--timeout",)) -> Function:
    """Add how long to try again; the ``config`` of the command gets it as its timeout."""

    @functools.wraps(function)
    def command(retry_timeout: float, config: AwsConfig, **others: Any) -> Any:
        return function(config=replace(config, timeout=retry_timeout), **others)

    return click.option(
        "--retry-timeout",
        cls=Option,
        former=former,
        type=Seconds(),
        default=DEFAULT_TIMEOUT,
        show_default=True,
        metavar="SECONDS",
        help="How long to retry without progress when the network or AWS fails.",
    )(command)


def output_options(function: Function, *, query: bool = True) -> Function:
    """Add ``--json``, ``-v``, ``-q`` and ``--debug``; the command gets a ``terminal``.

    Args:
        function: The command.
        query: Whether to add ``--query JMESPATH``; some commands have another ``--query``.
    """
    more = [click.option("--json", is_flag=True, help="Print the result as one JSON document.")]
    if query:
        more.append(
            click.option(
                "--query",
                "jmespath",
                cls=Option,
                variable=False,
                metavar="JMESPATH",
                help="Print what this expression selects from the JSON document.",
            )
        )
    return _output_options(function, *more)


def log_options(function: Function) -> Function:
    """Add ``-v``, ``-q`` and ``--debug`` to a command without ``--json``."""
    return _output_options(function)


def _output_options(function: Function, *more: Callable[[Function], Function]) -> Function:
    @functools.wraps(function)
    def command(
        verbose: int,
        quiet: bool,
        debug: bool,
        json: bool = False,
        jmespath: str | None = None,
        **others: Any,
    ) -> Any:
        terminal: Terminal = click.get_current_context().find_object(Terminal) or Terminal()
        terminal.json = json or jmespath is not None
        if jmespath is not None:
            from cpstage.cli.aws_output import compile_query

            terminal.select = compile_query(jmespath)
        terminal.verbosity = -1 if quiet else verbose
        terminal.debug = debug
        terminal.log_calls()
        return function(terminal=terminal, **others)

    return add_options(
        command,
        *more,
        click.option("-v", "--verbose", count=True, help="Log each call to AWS on stderr."),
        click.option(
            "-q", "--quiet", is_flag=True, help="Print no messages and no progress on stderr."
        ),
        click.option("--debug", is_flag=True, help="Show the traceback of an error."),
    )


def progress_option(function: Function) -> Function:
    """Add ``--progress``; the command gets a ``progress``. Stands below ``output_options``."""

    @functools.wraps(function)
    def command(progress: Mode, terminal: Terminal, **others: Any) -> Any:
        from cpstage import progress_to

        shown = progress_to(sys.stderr, "none" if terminal.verbosity < 0 else progress)
        return function(progress=shown, terminal=terminal, **others)

    return click.option(
        "--progress",
        type=click.Choice(["auto", "bar", "log", "none"]),
        default="auto",
        show_default=True,
        help="Progress as bars (terminal), as lines (log), or not at all.",
    )(command)


def workspace_option(function: Function) -> Function:
    """Add ``--workspace``."""
    return click.option(
        "-w",
        "--workspace",
        metavar="DIR",
        default=".",
        envvar="CPSTAGE_WORKSPACE",
        shell_complete=a_directory,
        help="Directory with in/ and out/; else CPSTAGE_WORKSPACE. [the current directory]",
    )(function)


def refuse_document(text: str, what: str) -> None:
    """Refuse a job document where its file or its id belongs: errors quote such values.

    Raises:
        UsageError: The text is a JSON object or list.
    """
    from cpstage.job.document import is_document

    if is_document(text):
        hint = "pipe the document to 'cpstage COMMAND --job-file -'"
        raise UsageError(f"the value of {what} is a job document", hint=hint)
