"""``cpstage report``: the result of a job, reported by a person or a script."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, cast, get_args

import click

import cpstage
from cpstage.cli.job_options import (
    JobSource,
    details_options,
    execution_id_option,
    job_options,
    read_file,
)
from cpstage.cli.options import AwsCommand, aws_options, flag, output_options, retry_option
from cpstage.cli.output import Terminal
from cpstage.errors import ConfigurationError, CpstageError, FailureType, LocalIOError, UsageError

if TYPE_CHECKING:
    from cpstage.job.result import Reported

_SUCCESS_EXAMPLES = """\b
Examples:
  cpstage report success JOB_ID --summary 'built 1.2'
  cpstage report success JOB_ID --output-variable version=1.2
  cpstage report success JOB_ID --revision 4f2a --change-identifier 1234
  cpstage report success JOB_ID --continuation-token-file token
"""
_FAILURE_EXAMPLES = """\b
Examples:
  cpstage report failure JOB_ID --message 'the tests failed'
  tail -50 build.log | cpstage report failure JOB_ID --message-file -
  cpstage report failure JOB_ID --failure-type PermissionError -m 'no key'
"""


@click.group()
def report() -> None:
    """Report the result of a job to CodePipeline."""


def _variables(values: tuple[str, ...]) -> dict[str, str]:
    """Read ``K=V``, where the value may be empty.

    Raises:
        UsageError: A value is not of that form.
    """
    found = {}
    for value in values:
        name, equals, content = value.partition("=")
        if not (name and equals):
            # The value may be a secret.
            raise UsageError("an --output-variable is not of the form K=V", hint="give K=V")
        found[name] = content
    return found


_force_option = flag(
    "--force", help="Report without asking CodePipeline first whether the job is in progress."
)


@report.command(cls=AwsCommand, epilog=_SUCCESS_EXAMPLES)
@click.argument("job_id", required=False)
@job_options
@_force_option
@details_options
@click.option(
    "--output-variable",
    "output_variables",
    multiple=True,
    metavar="K=V",
    help="Output variable of the action; repeatable.",
)
@click.option(
    "--output-variables-file",
    metavar="FILE",
    help="File with output variables: NAME=value lines, or a JSON object; - is stdin.",
)
@click.option(
    "--continuation-token-file",
    metavar="FILE",
    help="File with a continuation token; CodePipeline continues the action in "
    "another job. CPSTAGE_CONTINUATION_TOKEN also works. Others can see a "
    "command line.",
)
@aws_options(retry_option())
@output_options
def success(
    *,
    source: JobSource,
    config: cpstage.AwsConfig,
    terminal: Terminal,
    details: cpstage.Details,
    output_variables: tuple[str, ...],
    output_variables_file: str | None,
    continuation_token_file: str | None,
    force: bool,
) -> None:
    """Report that a job has succeeded.

    A value that CodePipeline would refuse is reported as a failure of the job. JOB_ID may also be
    given as CPSTAGE_JOB_ID.
    """
    from cpstage.aws.codepipeline import require_in_progress
    from cpstage.job.masking import secret
    from cpstage.job.result import read_token, read_variables

    job_id = source.require_id()
    try:
        details.check()
        token = secret(os.environ.get("CPSTAGE_CONTINUATION_TOKEN") or None)
        if continuation_token_file is not None:
            token = read_token(_or_stdin(continuation_token_file))
        variables = {}
        if output_variables_file is not None:
            variables = read_variables(_or_stdin(output_variables_file))
        variables.update(_variables(output_variables))
        if not force:
            require_in_progress(job_id, client_token=source.client_token, config=config)
        reported = cpstage.report_success(
            job_id,
            details=details,
            output_variables=variables,
            continuation_token=token,
            client_token=source.client_token,
            config=config,
        )
    except (UsageError, ConfigurationError, LocalIOError) as error:
        # What cannot be reported must not leave the job open until it times out.
        with suppress(CpstageError):  # as where no region is known
            cpstage.report_failure(
                job_id,
                error.message,
                failure_type=error.failure_type,
                client_token=source.client_token,
                config=config,
            )
            terminal.note("reported\tfailure")
        raise
    _print_result(reported, terminal)


def _or_stdin(file: str) -> str:
    return "/dev/stdin" if file == "-" else file


@report.command(cls=AwsCommand, epilog=_FAILURE_EXAMPLES)
@click.argument("job_id", required=False)
@job_options
@_force_option
@click.option("-m", "--message", metavar="TEXT", help="Failure message.")
@click.option(
    "--message-file",
    metavar="FILE|-",
    help="File with the failure message, such as a log; the last 5000 characters are reported.",
)
@click.option(
    "--failure-type",
    metavar="TYPE",
    default="JobFailed",
    show_default=True,
    help=f"Failure type: {', '.join(get_args(FailureType))}.",
)
@execution_id_option
@aws_options(retry_option())
@output_options
def failure(
    *,
    source: JobSource,
    config: cpstage.AwsConfig,
    terminal: Terminal,
    message: str | None,
    message_file: str | None,
    failure_type: str,
    external_execution_id: str | None,
    force: bool,
) -> None:
    """Report that a job has failed.

    JOB_ID may also be given as CPSTAGE_JOB_ID.
    """
    from cpstage.aws.codepipeline import require_in_progress

    if (message is None) == (message_file is None):
        given = "no message is" if message is None else "both --message and --message-file are"
        raise UsageError(f"{given} given", hint="give --message or --message-file")
    job_id = source.require_id()
    # A mistake in the arguments is raised after the report: the job has failed in any case.
    mistake: CpstageError | None = None
    if message_file is not None:
        try:
            message = read_file(message_file, "message").decode("utf-8", "replace").rstrip()
        except CpstageError as error:
            mistake, message = error, error.message
    if failure_type not in get_args(FailureType):
        known = ", ".join(get_args(FailureType))
        mistake = UsageError(
            f"{failure_type[:200]!r} is not a failure type of CodePipeline: JobFailed is reported",
            hint=f"give {known}",
        )
        failure_type = "JobFailed"
    if not force:
        require_in_progress(job_id, client_token=source.client_token, config=config)
    reported = cpstage.report_failure(
        job_id,
        message or "",
        failure_type=cast("FailureType", failure_type),
        external_execution_id=external_execution_id,
        client_token=source.client_token,
        config=config,
    )
    _print_result(reported, terminal)
    if mistake:
        raise mistake


def _print_result(reported: Reported, terminal: Terminal) -> None:
    terminal.result(reported.document(), f"reported\t{reported.result}\t{reported.job_id}")
