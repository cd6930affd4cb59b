"""``cpstage env`` and ``cpstage credentials``: what a job gives to other programs."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import click

import cpstage
from cpstage.aws.config import DEFAULT_MAX_AGE
from cpstage.cli.job_options import JobSource, job_options
from cpstage.cli.options import (
    AwsCommand,
    Command,
    aws_options,
    choice,
    flag,
    output_options,
    seconds,
    workspace_option,
)
from cpstage.cli.output import Terminal
from cpstage.errors import UsageError

if TYPE_CHECKING:
    from cpstage.runner.environment import Syntax

_ENV_EXAMPLES = """\b
Examples:
  eval "$(cpstage env JOB_ID)"
  cpstage env JOB_ID --format fish | source
  cpstage env JOB_ID --format powershell | Out-String | Invoke-Expression
  cpstage env --workspace build --format json
"""


@click.command(cls=Command, epilog=_ENV_EXAMPLES)
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
    config: cpstage.AwsConfig,
    terminal: Terminal,
    workspace: str,
    format: Syntax,
    codebuild_env: bool,
) -> None:
    """Print the variables of a job in a workspace.

    The variables name the directory of each artifact. They contain no credentials. Without JOB_ID,
    or with the job that was fetched into the workspace, the command calls no AWS service.
    """
    from cpstage.runner import environment

    place = cpstage.Workspace(workspace)
    job = source.load(config) if source.file is not None else None
    known = job.id if job else source.job_id
    variables = environment.staged_environment(place, known, codebuild=codebuild_env)
    if variables is None:
        job = job or source.load(config, uses_s3=False)
        terminal.warn(f"job {job.id} has not been fetched into {place.root}")
        variables = environment.job_environment(job, place, codebuild=codebuild_env)
    terminal.raw(environment.render(variables, "json" if terminal.json else format))


_CREDENTIALS_EXAMPLES = """\b
Example, in ~/.aws/config:
  [profile job]
  credential_process = cpstage credentials JOB_ID --profile worker
  region = eu-central-1
\b
  aws s3 cp s3://BUCKET/KEY - --profile job
"""


@click.command(cls=AwsCommand, epilog=_CREDENTIALS_EXAMPLES)
@click.argument("job_id", required=False)
@job_options
@seconds(
    "--expires-in",
    default=DEFAULT_MAX_AGE,
    help="Printed expiry, counted from the time at which CodePipeline issued the credentials.",
)
@flag("--force", help="Print secrets to a terminal.")
@aws_options()
@output_options
def credentials(
    source: JobSource, config: cpstage.AwsConfig, terminal: Terminal, expires_in: float, force: bool
) -> None:
    """Print a job's session credentials, SECRETS included.

    The format is that of a credential_process (version 1). Any AWS tool can then read the job's
    inputs and write its outputs. CodePipeline does not say when session credentials expire; the
    printed expiry makes tools ask again in time. A document that 'get-job-details --save' saved
    says how old its credentials are. For other documents, cpstage asks CodePipeline for current
    credentials; where it cannot, the printed expiry is one minute from now.
    """
    from cpstage.aws.codepipeline import current_job, process_credentials

    if not force and sys.stdout.isatty():
        raise UsageError(
            "secrets are not printed to a terminal",
            hint="use it as a credential_process (see --help), or give --force",
        )
    job = source.load(config, uses_s3=False)
    found = job.require_credentials()
    if found.age_seconds is None and found.expires_at is None:
        job = current_job(job, config=config)
    terminal.line(json.dumps(process_credentials(job, lifetime=expires_in), indent=2))
