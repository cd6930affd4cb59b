"""``cpstage fetch``: a job's input artifacts, staged in its workspace."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import click

import cpstage
from cpstage.cli.archive_options import staging_options
from cpstage.cli.command import AwsCommand, flag
from cpstage.cli.job_options import JobSource, artifact_source_options
from cpstage.cli.options import (
    a_file,
    output_options,
    progress_option,
    session_options,
    workspace_option,
)
from cpstage.cli.output import Terminal, counted, relative, shortened
from cpstage.errors import UsageError
from cpstage.progress import amount

if TYPE_CHECKING:
    from cpstage import AwsConfig, FetchOptions, FetchResult

_EXAMPLES = """\b
Examples:
  cpstage fetch JOB_ID
  cpstage fetch JOB_ID --workspace build --artifact 'App*'
  cpstage fetch JOB_ID --replace --env-file cpstage.env
  cpstage fetch --job-file saved.json --no-unpack
  cpstage fetch --pipeline release --failed --failed-action
  cpstage fetch --pipeline release --execution 3137f7cb --action Build
"""


@click.command(cls=AwsCommand, epilog=_EXAMPLES)
@click.argument("job_id", required=False)
@artifact_source_options
@workspace_option
@staging_options
@flag("--dry-run", help="Print what the command would do, and do nothing.")
@click.option(
    "--env-file",
    metavar="FILE",
    shell_complete=a_file,
    help="Write the job's variables as NAME=value lines.",
)
@flag("--codebuild-env", help="Add CODEBUILD_SRC_DIR variables to that file.")
@session_options
@output_options
@progress_option
def fetch(
    *,
    source: JobSource,
    config: AwsConfig,
    terminal: Terminal,
    workspace: str,
    fetch_options: FetchOptions,
    dry_run: bool,
    env_file: str | None,
    codebuild_env: bool,
    **options: Any,
) -> None:
    """Stage a job's input artifacts.

    Every input artifact is unpacked into WORKSPACE/in/<artifact>/, and WORKSPACE/out/<artifact>/
    is created for every output. An artifact appears after all of it is verified.

    With --pipeline, the artifacts are those of a past execution: what its actions took goes to in/,
    and what they made to WORKSPACE/made/<artifact>/. Without --action, made/ gets everything that
    the execution made; an artifact that several actions made is named <artifact>@<action>. The
    caller's credentials read the objects.

    JOB_ID may also be given as CPSTAGE_JOB_ID.
    """
    if codebuild_env and env_file is None:
        raise UsageError("--codebuild-env has no file to go to", hint="give --env-file FILE")
    job = source.load_artifacts(config, terminal)

    place = cpstage.Workspace(workspace)
    writing: AbstractContextManager[Any] = nullcontext()
    if env_file is not None and not dry_run:
        from cpstage.runner import environment

        # Names that collide are found before the fetch, and so is a file that cannot be written.
        environment.job_environment(job, place, codebuild=codebuild_env)
        writing = environment.env_file(env_file, place)
    with writing as write:
        result = cpstage.fetch(
            job,
            workspace,
            fetch_options,
            dry_run=dry_run,
            config=config,
            warn=terminal.warn,
            **options,
        )
        if write is not None:
            inputs = {str(one.artifact.name): one.path for one in result.inputs}
            write(environment.job_environment(job, place, inputs, codebuild=codebuild_env))
    terminal.result(result.document(), fetched_text(result))


def fetched_text(result: FetchResult) -> str:
    """Return a line for each artifact."""
    lines = []
    for staged in (*result.inputs, *result.made):
        what = f"{amount(staged.info.size)} from {shortened(staged.artifact.location)}"
        if staged.contents:
            what = f"{counted(staged.contents.files, 'file')}, {what}"
        lines.append(f"{staged.status}\t{relative(staged.path)}\t{what}")
    lines += [f"output\t{relative(path)}" for path in result.outputs.values()]
    return "\n".join(lines)
