"""``cpstage credentials``: a job's session credentials for other AWS tools."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import click

from cpstage.aws.config import DEFAULT_MAX_AGE
from cpstage.cli.command import AwsCommand, flag, seconds
from cpstage.cli.job_options import JobSource, job_options
from cpstage.cli.options import aws_options, output_options
from cpstage.errors import UsageError

if TYPE_CHECKING:
    from cpstage import AwsConfig
    from cpstage.cli.output import Terminal

_EXAMPLES = """\b
Example, in ~/.aws/config:
  [profile job]
  credential_process = cpstage credentials JOB_ID --profile worker
  region = eu-central-1
\b
  aws s3 cp s3://BUCKET/KEY - --profile job
"""


@click.command(cls=AwsCommand, epilog=_EXAMPLES)
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
    source: JobSource, config: AwsConfig, terminal: Terminal, expires_in: float, force: bool
) -> None:
    """Print a job's session credentials, SECRETS included.

    The format is that of a credential_process (version 1). Any AWS tool can then read the job's
    inputs and write its outputs. CodePipeline does not say when session credentials expire; the
    printed expiry makes tools ask again in time. A document that 'get-job-details --save' saved
    says how old its credentials are. For other documents, cpstage asks CodePipeline for current
    credentials; where it cannot, the printed expiry is one minute from now.

    JOB_ID may also be given as CPSTAGE_JOB_ID.
    """
    from cpstage.aws.codepipeline import current_job, process_credentials

    if not force and sys.stdout is not None and sys.stdout.isatty():
        raise UsageError(
            "secrets are not printed to a terminal",
            hint="use it as a credential_process (see --help), or give --force",
        )
    job = source.load(config, uses_s3=False)
    found = job.require_credentials()
    if found.issued_at is None and found.expires_at is None:
        job = current_job(job, config=config)
    terminal.line(json.dumps(process_credentials(job, lifetime=expires_in), indent=2))
