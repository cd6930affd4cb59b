"""``cpstage local``: the embedded local AWS as a server."""

import click

from cpstage.cli.local.job import job
from cpstage.cli.local.record import record
from cpstage.cli.local.serve import serve


@click.group(
    epilog="""\b
Examples:
  cpstage local serve
  cpstage local job ./my-source --output AppBuild
  cpstage local record
"""
)
def local() -> None:
    """Run an embedded local AWS: S3, KMS and the job API, on loopback."""


for _command in (serve, job, record):
    local.add_command(_command)
