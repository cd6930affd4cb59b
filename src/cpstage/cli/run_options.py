"""Options of the command behind ``--``, and of what a result says."""

from __future__ import annotations

import functools
from typing import Any

import click

from cpstage.cli.command import AwsCommand
from cpstage.cli.options import Function, Number, Seconds, add_options
from cpstage.errors import UsageError

_COMMAND = "cpstage command"


class TakesCommand(AwsCommand):
    """A command of ours that runs another one, which stands behind ``--`` and is left alone."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Set aside what is behind the first ``--``."""
        ours, theirs = args, []
        if "--" in args:
            at = args.index("--")
            ours, theirs = args[:at], args[at + 1 :]
        ctx.meta[_COMMAND] = tuple(theirs)
        try:
            return super().parse_args(ctx, ours)
        except click.UsageError as error:
            message = error.format_message().rstrip(".")
            is_of_cmd = isinstance(error, click.NoSuchOption) or "extra argument" in message
            if "--" in args or not is_of_cmd:
                raise
            hint = f"write CMD behind --, as in '{ctx.command_path} ... -- make'"
            raise UsageError(message, hint=hint) from error


fetch_inputs_option = click.option(
    "--fetch",
    "fetch_inputs",
    type=click.Choice(["always", "first", "never"]),
    default="always",
    show_default=True,
    help="Fetch inputs always, only for a job without a continuation token, or never.",
)


def command_options(function: Function, *, kills_orphans: bool = False) -> Function:
    """Add how the command is run; ours gets ``command`` and ``command_options``.

    Args:
        function: The command of ours.
        kills_orphans: The default of ``--kill-orphans``.
    """

    @functools.wraps(function)
    def command(
        *,
        cwd: str,
        timeout: float | None,
        kill_after: float | None,
        report_tail: int,
        kill_orphans: bool,
        pass_configuration: bool,
        pass_credentials: bool,
        codebuild_env: bool,
        **others: Any,
    ) -> Any:
        from cpstage.runner.command import CommandOptions

        return function(
            command=click.get_current_context().meta[_COMMAND],
            command_options=CommandOptions(
                cwd,
                pass_configuration,
                pass_credentials,
                codebuild_env,
                timeout,
                kill_after,
                report_tail,
                kill_orphans=kill_orphans,
            ),
            **others,
        )

    return add_options(
        command,
        click.option(
            "--cwd",
            default=".",
            metavar="DIR",
            help="Working directory of CMD: an input artifact's name, or a path. [the workspace]",
        ),
        click.option(
            "--timeout",
            type=Seconds(),
            metavar="SECONDS",
            help="Time limit for CMD. [none]",
        ),
        click.option(
            "--kill-after",
            type=Seconds(),
            metavar="SECONDS",
            help="Kill CMD if it still runs this long after its first signal. [10 after "
            "--timeout; after a signal, when a second signal arrives]",
        ),
        click.option(
            "--report-tail",
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
        click.option(
            "--pass-configuration",
            is_flag=True,
            help="Pass the action's configuration to CMD in the file CPSTAGE_CONFIGURATION.",
        ),
        click.option(
            "--pass-credentials",
            is_flag=True,
            help="Keep your own AWS credential variables in CMD's environment. CMD never "
            "gets the job's session credentials.",
        ),
        click.option("--codebuild-env", is_flag=True, help="Add CODEBUILD_SRC_DIR variables."),
    )


def details_options(function: Function) -> Function:
    """Add the options of a success; the command gets ``details``.

    The values may come from a build. So they are checked when the job is known, and a malformed one
    is reported as a failure of the job.
    """

    @functools.wraps(function)
    def command(
        *,
        summary: str | None,
        execution_id: str | None,
        percent_complete: str | None,
        revision: str | None,
        change_identifier: str | None,
        revision_summary: str | None,
        created: str | None,
        **others: Any,
    ) -> Any:
        from cpstage import Details
        from cpstage.job.result import Revision

        made = None
        if revision is not None and change_identifier is not None:
            made = Revision(revision, change_identifier, revision_summary, created)
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
        click.option("--percent-complete", metavar="N", help="Progress, 0 to 100."),
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
