"""``cpstage push``: a job's output artifacts, uploaded to their locations."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

import cpstage
from cpstage.cli.archive_options import upload_options
from cpstage.cli.command import AwsCommand, flag
from cpstage.cli.job_options import JobSource, force_option, job_options
from cpstage.cli.options import (
    output_options,
    progress_option,
    session_options,
    workspace_option,
)
from cpstage.cli.output import Terminal, counted, relative, shortened
from cpstage.errors import UsageError
from cpstage.progress import amount

if TYPE_CHECKING:
    from cpstage import AwsConfig, Progress, PushOptions, PushResult

_EXAMPLES = """\b
Examples:
  cpstage push JOB_ID
  cpstage push JOB_ID AppBuild=dist Report=report.html
  cpstage push JOB_ID --format tar.gz --exclude '*.o'
  cpstage push JOB_ID --dry-run
"""


def _split(context: click.Context, _: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    """Separate JOB_ID, which has no ``=``, from the paths of outputs."""
    arguments = list(values)
    context.params["job_id"] = arguments.pop(0) if values and "=" not in values[0] else None
    paths = {}
    for argument in arguments:
        name, equals, path = argument.partition("=")
        if not (name and equals and path):
            raise UsageError(f"{argument!r} is not of the form NAME=PATH")
        if name in paths:
            raise UsageError(f"output {name} is given twice")
        paths[name] = path
    return paths


@click.command(cls=AwsCommand, epilog=_EXAMPLES)
@click.argument(
    "paths", nargs=-1, required=False, callback=_split, metavar="[JOB_ID] [NAME=PATH]..."
)
@job_options
@force_option
@workspace_option
@upload_options
@flag("--dry-run", help="Print what the command would do, and do nothing.")
@session_options
@output_options
@progress_option
def push(
    *,
    source: JobSource,
    config: AwsConfig,
    terminal: Terminal,
    progress: Progress,
    workspace: str,
    paths: dict[str, str],
    push_options: PushOptions,
    force: bool,
    **options: Any,
) -> None:
    """Upload a job's output artifacts.

    Every output artifact is packed from WORKSPACE/out/<artifact>/, or from the PATH given for it,
    and uploaded to the S3 location that CodePipeline assigned, with the job's session credentials
    and KMS key.

    JOB_ID may also be given as CPSTAGE_JOB_ID.
    """
    result = cpstage.push(
        source.load(config, in_progress=not (force or options.get("dry_run"))),
        workspace,
        replace(push_options, paths=paths),
        config=config,
        progress=progress,
        warn=terminal.warn,
        **options,
    )
    terminal.result(result.document(), pushed_text(result))


def pushed_text(result: PushResult) -> str:
    """Return a line for each artifact."""
    lines = []
    for pushed in result.outputs:
        what = f"{pushed.format}, {counted(pushed.files, 'file')}"
        if pushed.upload:
            what = f"{amount(pushed.upload.size)}, {what}"
        to = shortened(pushed.artifact.location)
        lines.append(f"{pushed.status}\t{relative(pushed.source)}\t{what}, to {to}")
    return "\n".join(lines)
