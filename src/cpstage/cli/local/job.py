"""``cpstage local job``: one more job on a running local AWS."""

from __future__ import annotations

from pathlib import Path

import click
from cpstage.cli.local.server import asking, endpoint_option
from cpstage.cli.terminal import Terminal

from cpstage.cli.options import output_options
from cpstage.errors import NotFound, UsageError
from cpstage.job import check_artifact_name


@click.command(
    epilog="""\b
Examples:
  cpstage local job
  cpstage local job ./my-source --output AppBuild --output Docs
  cpstage local job --queued
"""
)
@click.argument("directory", required=False)
@click.option("--output", "outputs", multiple=True, help="Name of an output artifact; repeatable.")
@click.option("--queued", is_flag=True, help="Leave it to be claimed by 'cpstage work'.")
@endpoint_option
@output_options
def job(
    terminal: Terminal,
    endpoint_url: str | None,
    directory: str | None,
    outputs: tuple[str, ...],
    queued: bool,
) -> None:
    """Make one more job on a running local AWS, and print its id.

    Its input is the sample, or DIRECTORY as an artifact named Source.
    """
    from cpstage.local import Input
    from cpstage.local.sample import OUTPUTS, add_sample_job

    for name in outputs:
        check_artifact_name(name)
        if outputs.count(name) > 1:
            raise UsageError(f"output {name} is given twice")
    with asking(endpoint_url) as client:
        if directory is None:
            job_id = add_sample_job(client, queued=queued)
        else:
            packed = _packed(Path(directory))
            status = "Queued" if queued else "InProgress"
            job_id = client.add_job([Input("Source", packed)], outputs or OUTPUTS, status=status)
    terminal.result({"job_id": job_id}, job_id)


def _packed(directory: Path) -> bytes:
    from cpstage.archive.pack import Packer

    if not directory.is_dir():
        raise NotFound(f"there is no directory {directory}", hint="give one that exists")
    with Packer() as packer:
        entries = packer.list_entries(directory, "zip")
        return b"".join(packer.pack(entries, "zip"))
