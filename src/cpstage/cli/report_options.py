"""Options of what a result says."""

from __future__ import annotations

import functools
from typing import Any

import click

from cpstage.cli.options import Function, Number, add_options
from cpstage.errors import UsageError


def details_options(function: Function) -> Function:
    """Add what is said besides of a success; the command gets ``details``."""

    @functools.wraps(function)
    def command(
        *,
        summary: str | None,
        execution_id: str | None,
        percent_complete: int | None,
        revision: str | None,
        change_identifier: str | None,
        revision_summary: str | None,
        created: str | None,
        **others: Any,
    ) -> Any:
        from cpstage import Details, Revision
        from cpstage.report.details import parse_time

        made = None
        if revision is not None and change_identifier is not None:
            when = None if created is None else parse_time(created)
            made = Revision(revision, change_identifier, revision_summary, when)
        elif any(
            one is not None for one in (revision, change_identifier, revision_summary, created)
        ):
            raise UsageError(
                "a revision needs both --revision and --change-identifier", hint="give both"
            )
        details = Details(summary, execution_id, percent_complete, made)
        return function(details=details, **others)

    return add_options(
        command,
        click.option("--summary", metavar="TEXT", help="Summary, shown with the action."),
        execution_id_option,
        click.option(
            "--percent-complete", type=Number(0, 100), metavar="N", help="Progress, 0 to 100."
        ),
        click.option(
            "--revision", metavar="ID", help="ID of the revision that was built or deployed."
        ),
        click.option(
            "--change-identifier", metavar="ID", help="ID of the change that caused the revision."
        ),
        click.option("--revision-summary", metavar="TEXT", help="Summary of the revision."),
        click.option(
            "--created", metavar="TIME", help="Time of the revision, such as 2030-01-31T12:00:00Z."
        ),
    )


execution_id_option = click.option(
    "--external-execution-id",
    "--execution-id",
    "execution_id",
    metavar="ID",
    help="ID of the job in an external system.",
)
