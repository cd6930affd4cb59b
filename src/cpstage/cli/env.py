"""``cpstage env``: the variables of a staged job, quoted for a shell."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

import cpstage
from cpstage.cli.command import Command, choice, flag
from cpstage.cli.job_options import JobSource, job_options
from cpstage.cli.options import aws_options, output_options, workspace_option
from cpstage.errors import printable

if TYPE_CHECKING:
    from cpstage import AwsConfig
    from cpstage.cli.output import Terminal
    from cpstage.runner.environment import Syntax

_EXAMPLES = """\b
Examples:
  eval "$(cpstage env JOB_ID)"
  cpstage env JOB_ID --format fish | source
  cpstage env JOB_ID --format powershell | Out-String | Invoke-Expression
  cpstage env --workspace build --format json
"""


@click.command(cls=Command, epilog=_EXAMPLES)
@click.argument("job_id", required=False)
@job_options
@workspace_option
@choice("--format", values=["sh", "fish", "powershell", "dotenv", "json"], help="Output format.")
@flag("--codebuild-env", help="Add CODEBUILD_SRC_DIR variables.")
@aws_options()
@output_options
def env(
    *,
    source: JobSource,
    config: AwsConfig,
    terminal: Terminal,
    workspace: str,
    format: Syntax,
    codebuild_env: bool,
) -> None:
    """Print the variables of a job in a workspace.

    The variables name the directory of each artifact. They contain no credentials. Without JOB_ID,
    or with the job that was fetched into the workspace, the command calls no AWS service.

    JOB_ID may also be given as CPSTAGE_JOB_ID.
    """
    from cpstage.runner.environment import job_environment, render, staged_environment

    place = cpstage.Workspace(workspace)
    job = source.load(config) if source.file is not None else None
    variables = staged_environment(place, job.id if job else source.job_id, codebuild=codebuild_env)
    if variables is None:
        job = job or source.load(config, uses_s3=False)
        terminal.warn(printable(f"job {job.id} has not been fetched into {place.root}"))
        variables = job_environment(job, place, codebuild=codebuild_env)
    terminal.raw(render(variables, "json" if terminal.json else format))
