"""Options of a worker: which jobs, how many, and where."""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cpstage.cli.options import Function, Number, Seconds, add_options
from cpstage.errors import UsageError

if TYPE_CHECKING:
    from cpstage.worker.job import Keep, Output

_QUERY_VALUE = re.compile(r"[A-Za-z0-9_-]{1,50}")


def queue_options(function: Function) -> Function:
    """Add which jobs are worked on.

    The command gets an ``action_type``, a ``query`` and ``client_tokens``.
    """

    @functools.wraps(function)
    def command(
        *,
        category: str,
        owner: str,
        provider: str,
        version: str,
        query: dict[str, str] | None,
        client_tokens: Path | None,
        **others: Any,
    ) -> Any:
        from cpstage.job import ActionTypeId
        from cpstage.worker.claims import read_client_tokens

        third_party = owner == "ThirdParty"
        if third_party and query:
            raise UsageError("--query is not for third-party jobs", hint="leave it out")
        if third_party != (client_tokens is not None):
            raise UsageError(
                "--client-tokens and --owner ThirdParty belong together",
                hint="give both or neither",
            )
        if client_tokens is not None:
            read_client_tokens(client_tokens)  # a mistake in it is told at once
        return function(
            action_type=ActionTypeId(category, owner, provider, version),
            query=query,
            client_tokens=client_tokens,
            **others,
        )

    return add_options(
        command,
        click.option(
            "--category", required=True, help="Category of the action type, such as Build."
        ),
        click.option(
            "--owner",
            type=click.Choice(["Custom", "ThirdParty"]),
            default="Custom",
            show_default=True,
            help="Owner of the action type.",
        ),
        click.option("--provider", required=True, help="Provider of the action type."),
        click.option("--version", required=True, help="Version of the action type."),
        click.option(
            "--query",
            callback=_query,
            metavar="KEY=VALUE",
            help="Only jobs with this value of a queryable configuration property.",
        ),
        click.option(
            "--client-tokens",
            type=click.Path(path_type=Path),
            metavar="FILE",
            help='For third-party jobs: a JSON object {"CLIENT_ID": "TOKEN"}.',
        ),
    )


def terms_options(function: Function) -> Function:
    """Add how it works; the command gets ``terms``."""

    @functools.wraps(function)
    def command(
        *,
        concurrency: int,
        batch_size: int | None,
        max_jobs: int | None,
        once: bool,
        poll_interval: float,
        grace: float,
        drain_timeout: float | None,
        **others: Any,
    ) -> Any:
        from cpstage.worker.loop import WorkerTerms

        terms = WorkerTerms(
            concurrency, batch_size, max_jobs, once, poll_interval, grace, drain_timeout
        )
        return function(terms=terms, **others)

    return add_options(
        command,
        click.option(
            "--concurrency",
            type=Number(1, 1000),
            default=1,
            show_default=True,
            help="Number of jobs at the same time.",
        ),
        click.option(
            "--batch-size",
            type=Number(1),
            metavar="N",
            help="Maximum number of jobs per poll. [the free capacity]",
        ),
        click.option("--max-jobs", type=Number(1), metavar="N", help="Exit after this many jobs."),
        click.option("--once", is_flag=True, help="Poll once, run the jobs, and exit."),
        click.option(
            "--poll-interval",
            type=Seconds(),
            default=10.0,
            show_default=True,
            help="Average wait between polls that return no job; each wait is random.",
        ),
        click.option(
            "--drain-timeout",
            type=Seconds(),
            metavar="SECONDS",
            help="After a first signal, stop running jobs after this long and report them as "
            "failed. [wait until they end]",
        ),
        click.option(
            "--grace",
            type=Seconds(),
            default=30.0,
            show_default=True,
            help="Time between SIGTERM and SIGKILL for a stopped job.",
        ),
    )


def places_options(function: Function) -> Function:
    """Add where workspaces are; the command gets ``places``."""

    @functools.wraps(function)
    def command(*, workspace_root: Path, keep: Keep, job_output: Output, **others: Any) -> Any:
        from cpstage.worker.job import JobPlaces

        return function(places=JobPlaces(workspace_root, keep, job_output), **others)

    return add_options(
        command,
        click.option(
            "--workspace-root",
            type=click.Path(path_type=Path),
            default=Path("."),
            metavar="DIR",
            envvar="CPSTAGE_WORKSPACE_ROOT",
            help="Parent of the jobs' workspaces DIR/<job id>/. [the current directory]",
        ),
        click.option(
            "--keep",
            type=click.Choice(["failed", "always", "never"]),
            default="failed",
            show_default=True,
            help="Jobs whose workspaces are kept.",
        ),
        click.option(
            "--job-output",
            type=click.Choice(["file", "stdout"]),
            default="file",
            show_default=True,
            help="Destination of CMD's output: .cpstage/output.log in the workspace, or stdout.",
        ),
    )


def _query(
    context: click.Context, parameter: click.Parameter, value: str | None
) -> dict[str, str] | None:
    """Read a configuration property and its value, as PollForJobs takes them."""
    if value is None:
        return None
    key, equals, wanted = value.partition("=")
    if not (key and equals):
        raise click.BadParameter(f"{value!r} is not of the form KEY=VALUE.", context, parameter)
    if not _QUERY_VALUE.fullmatch(wanted):
        why = f"the value of {key!r} is not 1 to 50 of A-Z a-z 0-9 _ -."
        raise click.BadParameter(why, context, parameter)
    return {key: wanted}
