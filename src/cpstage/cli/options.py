"""Options that most commands share: AWS, messages, progress, the workspace."""

from __future__ import annotations

import sys
from functools import partial
from typing import TYPE_CHECKING, Any

import click

import cpstage
from cpstage.aws.config import DEFAULT_MAX_AGE, DEFAULT_TIMEOUT
from cpstage.cli.command import Decorator, Option, choice, flag, gather, seconds
from cpstage.cli.output import Terminal
from cpstage.errors import UsageError

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from cpstage import AwsConfig, Progress
    from cpstage.progress import Mode


def _path(
    _context: click.Context, _: click.Parameter, incomplete: str, *, kind: str
) -> list[CompletionItem]:
    from click.shell_completion import CompletionItem

    return [CompletionItem(incomplete, type=kind)]


a_file, a_directory = partial(_path, kind="file"), partial(_path, kind="dir")
"""Complete a path; callbacks of click."""


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
    shell_complete=a_directory,
    help="Directory with in/ and out/; else CPSTAGE_WORKSPACE. [the current directory]",
)


def _config(*, no_verify_ssl: bool, no_sign_request: bool = False, **settings: Any) -> AwsConfig:
    return cpstage.AwsConfig(
        verify_ssl=not no_verify_ssl, sign_requests=not no_sign_request, **settings
    )


def aws_options(*more: Decorator) -> Decorator:
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
            shell_complete=a_file,
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
        apart=["credentials_max_age"],
    )


def retry_option(
    default: float = DEFAULT_TIMEOUT,
    help: str = "How long to retry without progress when the network or AWS fails.",
) -> Decorator:
    """Return how long to try again, for :func:`aws_options`."""
    return seconds(
        "--retry-timeout", "timeout", cls=Option, former=["--timeout"], default=default, help=help
    )


session_options = aws_options(
    seconds(
        "--credentials-max-age",
        default=DEFAULT_MAX_AGE,
        help="Age at which cpstage refreshes the job's session credentials.",
    ),
    retry_option(),
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


def _progress(*, progress: Mode) -> Progress:
    quiet = click.get_current_context().ensure_object(Terminal).verbosity < 0
    return cpstage.progress_to(sys.stderr, "none" if quiet else progress)


progress_option = gather(
    "progress",
    _progress,
    choice(
        "--progress",
        values=["auto", "bar", "log", "none"],
        help="Progress as bars (terminal), as lines (log), or not at all.",
    ),
)
"""Stands below the options of messages."""
