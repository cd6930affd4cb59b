"""``cpstage run``: a command between fetch and push; ``cpstage report``: the result of a job."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast, get_args

import click

import cpstage
from cpstage._posix import release_signals
from cpstage.cli.archive_options import run_staging_options, run_upload_options
from cpstage.cli.job_options import (
    JobSource,
    details_options,
    execution_id_option,
    force_option,
    job_options,
    read_file,
    shown_name,
)
from cpstage.cli.options import (
    AwsCommand,
    Decorator,
    Number,
    Option,
    a_directory,
    aws_options,
    flag,
    gather,
    output_options,
    pairs,
    progress_option,
    seconds,
    session_options,
    workspace_option,
)
from cpstage.cli.output import Terminal
from cpstage.cli.transfer import fetched_text, pushed_text
from cpstage.errors import ConfigurationError, CpstageError, FailureType, LocalIOError, UsageError
from cpstage.runner.signals import Interrupts, adopt_orphans

if TYPE_CHECKING:
    from cpstage.job.result import Reported


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
            type=a_directory,
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

_RUN_EXAMPLES = """\b
Examples:
  cpstage run JOB_ID -- make release
  cpstage run JOB_ID --report --report-tail 20 --timeout 3600 -- ./build.sh
  cpstage run JOB_ID --cwd App --output-path Build=in/App/dist -- make dist
  cpstage run JOB_ID --report -- \\
    sh -c 'echo version=1.2 >> "$CPSTAGE_OUTPUT_VARIABLES"'
"""


@click.command(cls=TakesCommand, epilog=_RUN_EXAMPLES)
@click.argument("job_id", required=False, metavar="[JOB_ID] -- CMD [ARG]...")
@job_options
@force_option
@workspace_option
@flag("--report", help="Report the result, success or failure.")
@command_options(kills_orphans=False)
@details_options
@click.option(
    "--output-path",
    "paths",
    cls=Option,
    former=["--output"],
    multiple=True,
    metavar="NAME=PATH",
    callback=pairs,
    help="Take an output from PATH instead of out/NAME; repeatable. PATH is "
    "relative to the directory in which cpstage starts.",
)
@push_always_option
@run_staging_options
@run_upload_options
@session_options
@output_options
@progress_option
def run(
    *,
    source: JobSource,
    config: cpstage.AwsConfig,
    terminal: Terminal,
    progress: cpstage.Progress,
    workspace: str,
    command: tuple[str, ...],
    fetch_options: cpstage.FetchOptions,
    command_options: cpstage.CommandOptions,
    push_options: cpstage.PushOptions,
    paths: dict[str, str],
    push_always: bool,
    report: bool,
    force: bool,
    details: cpstage.Details,
    credentials_max_age: float,
) -> None:
    """Fetch a job's inputs, run CMD, push its outputs.

    CMD gets the job's variables, and inherits stdin, stdout and stderr. If CMD fails, cpstage exits
    with CMD's exit code and pushes nothing. With --report, cpstage reports success or the failure
    to CodePipeline.

    cpstage forwards a signal to CMD, and kills CMD at the second signal. With --json, CMD's stdout
    goes to stderr.
    """
    if not report and (
        command_options.tail_lines or any(one is not None for one in vars(details).values())
    ):
        raise UsageError("there is something to report, and no --report", hint="give --report")
    adopt_orphans()
    # What comes while the rest is loaded is a signal to the run as well.
    with Interrupts() as interrupts:
        release_signals()
        with interrupts.stopping():  # stdin may not come to an end
            job = (
                source.load(config, in_progress=not force)
                if source.file is not None
                else source.require_id()
            )
        result = cpstage.run(
            job,
            command,
            workspace,
            client_token=source.client_token,
            fetch_options=fetch_options,
            command_options=replace(command_options, stdout_to_stderr=terminal.json),
            push_options=replace(push_options, paths=paths, always=push_always),
            report=details if report else None,
            config=config,
            credentials_max_age=credentials_max_age,
            progress=progress,
            warn=terminal.warn,
            interrupts=interrupts,
        )
    _print_run(result, terminal)


def _print_run(result: cpstage.RunResult, terminal: Terminal) -> None:
    """Print the result, and raise its failure; stdout is the command's, but for a document."""
    try:
        terminal.document(result.document())
    except (BrokenPipeError, LocalIOError) as error:
        if result.error is None:
            raise
        if isinstance(error, LocalIOError):  # the failure of the run counts more
            terminal.fail(error)
    texts = (
        fetched_text(result.fetched) if result.fetched else "",
        pushed_text(result.pushed) if result.pushed else "",
        f"reported\t{result.reported.result}" if result.reported else "",
    )
    for text in filter(None, texts):
        terminal.note(text)
    unreported = result.report_failure
    if result.failure and unreported and str(unreported) != str(result.failure):
        terminal.fail(unreported)
    if result.error:
        raise result.error


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
    """Read ``K=V``, where the value may be empty; raise UsageError for another form."""
    found = {}
    for value in values:
        name, equals, content = value.partition("=")
        if not (name and equals):
            # The value may be a secret.
            raise UsageError("an --output-variable is not of the form K=V", hint="give K=V")
        found[name] = content
    return found


_report_anyway_option = flag(
    "--force", help="Report without asking CodePipeline first whether the job is in progress."
)


@report.command(cls=AwsCommand, epilog=_SUCCESS_EXAMPLES)
@click.argument("job_id", required=False)
@job_options
@_report_anyway_option
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
@aws_options()
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
    from cpstage.job.model import secret
    from cpstage.job.result import MOST_READ, MOST_TOKEN_BYTES, parse_token, parse_variables

    job_id = source.require_id()
    asked: dict[str, Any] = {"client_token": source.client_token, "config": config}
    try:
        details.check()
        token = secret(os.environ.get("CPSTAGE_CONTINUATION_TOKEN") or None)
        if continuation_token_file is not None:
            file, what = continuation_token_file, "continuation token"
            token = parse_token(read_file(file, what, MOST_TOKEN_BYTES), shown_name(file))
        variables = {}
        if output_variables_file is not None:
            file, what = output_variables_file, "output variables"
            variables = parse_variables(read_file(file, what, MOST_READ), shown_name(file))
        variables.update(_variables(output_variables))
        if not force:
            require_in_progress(job_id, **asked)
        reported = cpstage.report_success(
            job_id, details=details, output_variables=variables, continuation_token=token, **asked
        )
    except (UsageError, ConfigurationError, LocalIOError) as error:
        # What cannot be reported must not leave the job open until it times out.
        with suppress(CpstageError):  # as where no region is known
            cpstage.report_failure(job_id, error.message, failure_type=error.failure_type, **asked)
            terminal.note("reported\tfailure")
        raise
    _print_reported(reported, terminal)


@report.command(cls=AwsCommand, epilog=_FAILURE_EXAMPLES)
@click.argument("job_id", required=False)
@job_options
@_report_anyway_option
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
@aws_options()
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
    """Report that a job has failed."""
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
    asked: dict[str, Any] = {"client_token": source.client_token, "config": config}
    if not force:
        require_in_progress(job_id, **asked)
    reported = cpstage.report_failure(
        job_id,
        message or "",
        failure_type=cast("FailureType", failure_type),
        external_execution_id=external_execution_id,
        **asked,
    )
    _print_reported(reported, terminal)
    if mistake:
        raise mistake


def _print_reported(reported: Reported, terminal: Terminal) -> None:
    terminal.result(reported.document(), f"reported\t{reported.result}\t{reported.job_id}")
