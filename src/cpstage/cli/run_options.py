"""Options of the command behind ``--``, and of what a result says."""

from __future__ import annotations

from typing import Any

import click

import cpstage
from cpstage.cli.command import AwsCommand, Decorator, Number, flag, gather, seconds
from cpstage.errors import UsageError


class TakesCommand(AwsCommand):
    """A command of ours that runs another one, which stands behind ``--`` and is left alone."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Set aside what is behind the first ``--``: the argument ``command`` of ours."""
        ours, theirs = args, []
        if "--" in args:
            at = args.index("--")
            ours, theirs = args[:at], args[at + 1 :]
        ctx.params["command"] = tuple(theirs)
        try:
            return super().parse_args(ctx, ours)
        except click.UsageError as error:
            message = error.format_message().rstrip(".")
            is_of_cmd = isinstance(error, click.NoSuchOption) or "extra argument" in message
            if "--" in args or not is_of_cmd:
                raise
            hint = f"write CMD behind --, as in '{ctx.command_path} ... -- make'"
            raise UsageError(message, hint=hint) from error


def command_options(*, kills_orphans: bool) -> Decorator:
    """Add how the command is run; ours gets ``command_options``."""
    return gather(
        "command_options",
        "CommandOptions",
        click.option(
            "--cwd",
            "directory",
            default=".",
            metavar="DIR",
            help="Working directory of CMD: an input artifact's name, or a path. [the workspace]",
        ),
        seconds("--timeout", "time_limit", help="Time limit for CMD. [none]"),
        seconds(
            "--kill-after",
            help="Kill CMD if it still runs this long after its first signal. [10 after "
            "--timeout; after a signal, when a second signal arrives]",
        ),
        click.option(
            "--report-tail",
            "tail_lines",
            type=Number(0, 1000),
            default=0,
            metavar="N",
            help="Report the last N lines of CMD's output if it fails; CMD then writes to "
            "pipes. [0]",
        ),
        click.option(
            "--kill-orphans/--keep-orphans",
            default=kills_orphans,
            show_default=True,
            help="Kill processes that CMD leaves behind, or leave them with a warning.",
        ),
        flag(
            "--pass-configuration",
            help="Pass the action's configuration to CMD in the file CPSTAGE_CONFIGURATION.",
        ),
        flag(
            "--pass-credentials",
            help="Keep your own AWS credential variables in CMD's environment. CMD never "
            "gets the job's session credentials.",
        ),
        flag("--codebuild-env", "codebuild", help="Add CODEBUILD_SRC_DIR variables."),
    )


push_always_option = flag("--push-always", help="Push even if CMD fails.")

execution_id_option = click.option(
    "--external-execution-id",
    "--execution-id",
    metavar="ID",
    help="ID of the job in an external system.",
)


def _details(
    *,
    revision: str | None,
    change_identifier: str | None,
    revision_summary: str | None,
    created: str | None,
    **others: Any,
) -> cpstage.Details:
    """Return what a success says.

    The values may come from a build. So they are checked when the job is known, and a malformed one
    is reported as a failure of the job.
    """
    from cpstage.job.result import Revision

    made = None
    if revision is not None and change_identifier is not None:
        made = Revision(revision, change_identifier, revision_summary, created)
    elif (revision, change_identifier, revision_summary, created) != (None,) * 4:
        raise UsageError(
            "a revision needs both --revision and --change-identifier", hint="give both"
        )
    return cpstage.Details(revision=made, **others)


details_options = gather(
    "details",
    _details,
    click.option("--summary", metavar="TEXT", help="Summary, shown with the action."),
    execution_id_option,
    click.option("--percent-complete", metavar="N", help="Progress, 0 to 100."),
    click.option("--revision", metavar="ID", help="ID of the revision that was built or deployed."),
    click.option(
        "--change-identifier", metavar="ID", help="ID of the change that caused the revision."
    ),
    click.option("--revision-summary", metavar="TEXT", help="Summary of the revision."),
    click.option(
        "--created", metavar="TIME", help="Time of the revision, such as 2030-01-31T12:00:00Z."
    ),
)
