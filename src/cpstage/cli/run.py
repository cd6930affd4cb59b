"""``cpstage run``: a command between fetch and push, and the result of it all."""

from __future__ import annotations

from dataclasses import replace

import click

import cpstage
from cpstage._posix import release_signals
from cpstage.cli.archive_options import run_staging_options, run_upload_options
from cpstage.cli.job_options import JobSource, details_options, force_option, job_options
from cpstage.cli.options import (
    AwsCommand,
    Decorator,
    Number,
    Option,
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
from cpstage.errors import LocalIOError, UsageError
from cpstage.runner.signals import Interrupts


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

_EXAMPLES = """\b
Examples:
  cpstage run JOB_ID -- make release
  cpstage run JOB_ID --report --report-tail 20 --timeout 3600 -- ./build.sh
  cpstage run JOB_ID --cwd App --output Build=in/App/dist -- npm run build
  cpstage run JOB_ID --report -- \\
    sh -c 'echo version=1.2 >> "$CPSTAGE_OUTPUT_VARIABLES"'
"""


@click.command(cls=TakesCommand, epilog=_EXAMPLES)
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

    JOB_ID may also be given as CPSTAGE_JOB_ID.
    """
    if not report and (
        command_options.tail_lines or any(one is not None for one in vars(details).values())
    ):
        raise UsageError("there is something to report, and no --report", hint="give --report")
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
    _print_result(result, terminal)


def _print_result(result: cpstage.RunResult, terminal: Terminal) -> None:
    """Print the result; stdout is the command's, unless a document is wanted.

    Raises:
        Reportable: The failure of the run.
    """
    try:
        terminal.document(result.document())
    except (BrokenPipeError, LocalIOError) as error:
        if result.error is None:
            raise
        if isinstance(error, LocalIOError):  # the failure of the run counts more
            terminal.fail(error)
    for text in (
        fetched_text(result.fetched) if result.fetched else "",
        pushed_text(result.pushed) if result.pushed else "",
        f"reported\t{result.reported.result}" if result.reported else "",
    ):
        if text:
            terminal.note(text)
    if result.failure and result.report_failure:
        terminal.fail(result.report_failure)
    if result.error:
        raise result.error
