"""``cpstage fetch``: input artifacts into ``WORKSPACE/in/``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cpstage.cli.archive_options import unpacking_options
from cpstage.cli.completion import a_file
from cpstage.cli.job_source import JobSource, job_options
from cpstage.cli.options import (
    MOST_SECONDS,
    Seconds,
    aws_options,
    output_options,
    progress_option,
    session_option,
    workspace_option,
)
from cpstage.cli.terminal import Terminal, counted
from cpstage.errors import UsageError

if TYPE_CHECKING:
    from cpstage import Connection, FetchResult, Unpacking
    from cpstage.results import Layout

_EXAMPLES = """\b
Examples:
  cpstage fetch JOB_ID
  cpstage fetch JOB_ID --workspace build --artifact 'App*'
  cpstage fetch JOB_ID --replace --env-file cpstage.env
  cpstage fetch --job-file saved.json --no-unpack
"""


@click.command(epilog=_EXAMPLES)
@click.argument("job_id", required=False)
@job_options
@workspace_option
@click.option(
    "--artifact",
    "artifacts",
    multiple=True,
    metavar="NAME",
    help="Name or glob of an input; repeatable.",
)
@click.option(
    "--layout",
    type=click.Choice(["per-artifact", "merged"]),
    default="per-artifact",
    show_default=True,
    help="One directory per artifact, or all in in/ itself.",
)
@click.option("--no-unpack", is_flag=True, help="Stage each object as the file it is.")
@click.option("--replace", is_flag=True, help="Swap what is there for what the job has now.")
@click.option(
    "--wait",
    is_flag=False,
    flag_value=MOST_SECONDS,
    default=0.0,
    type=Seconds(or_none=True),
    metavar="[SECONDS]",
    help="Wait for another run in the workspace to end; without a number, as long as it takes.",
)
@click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
@click.option(
    "--env-file",
    metavar="FILE",
    shell_complete=a_file,
    help="Write the job's variables as NAME=value lines.",
)
@click.option("--codebuild-env", is_flag=True, help="Add CODEBUILD_SRC_DIR variables to that file.")
@unpacking_options
@aws_options
@session_option
@output_options
@progress_option
def fetch(
    *,
    source: JobSource,
    connection: Connection,
    terminal: Terminal,
    workspace: str,
    layout: Layout,
    unpacking: Unpacking,
    no_unpack: bool,
    env_file: str | None,
    codebuild_env: bool,
    **options: Any,
) -> None:
    """Stage a job's input artifacts.

    Every input artifact is unpacked into WORKSPACE/in/<artifact>/, and WORKSPACE/out/<artifact>/
    is made for every output. An artifact is there whole or not at all.

    JOB_ID may also be given as CPSTAGE_JOB_ID.
    """
    import cpstage

    if codebuild_env and env_file is None:
        raise UsageError("--codebuild-env has no file to go to", hint="give --env-file FILE")
    job = source.load(connection)
    how = replace(unpacking, layout=layout, unpack=not no_unpack)

    def run() -> FetchResult:
        return cpstage.fetch(job, workspace, unpacking=how, connection=connection, **options)

    if env_file is None or options["dry_run"]:
        result = run()
    else:
        place = cpstage.Workspace(workspace)
        # Names that collide are found before the fetch, and so is a file that cannot be written.
        cpstage.job_environment(job, place, codebuild=codebuild_env)
        with cpstage.env_file(env_file, place) as write:
            result = run()
            inputs: dict[str, Path] = {one.artifact.name: one.path for one in result.inputs}
            write(cpstage.job_environment(job, place, inputs, codebuild=codebuild_env))
    terminal.result(result.document(), _text(result))


def _text(result: FetchResult) -> str:
    lines = []
    for staged in result.inputs:
        origin = f"{counted(staged.info.size, 'byte')} at {staged.artifact.location}"
        if staged.contents:
            origin = f"{counted(staged.contents.files, 'file')} from {origin}"
        lines.append(f"{staged.status}\t{staged.path}\t{origin}")
    lines += [f"output\t{path}" for path in result.outputs.values()]
    return "\n".join(lines)
