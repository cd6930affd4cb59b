"""``cpstage fetch`` and ``cpstage push``, and ``unpack`` and ``pack`` for local archives."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import click

import cpstage
from cpstage.cli.archive_options import (
    extraction_options,
    message_encryption_options,
    packing_options,
    staging_options,
    upload_options,
)
from cpstage.cli.job_options import JobSource, artifact_source_options, force_option, job_options
from cpstage.cli.options import (
    AwsCommand,
    Command,
    a_directory,
    a_file,
    aws_options,
    flag,
    output_options,
    progress_option,
    session_options,
    workspace_option,
)
from cpstage.cli.output import Terminal, counted, relative, shortened
from cpstage.errors import UsageError, printable
from cpstage.progress import amount

_FETCH_EXAMPLES = """\b
Examples:
  cpstage fetch JOB_ID
  cpstage fetch JOB_ID --workspace build --artifact 'App*'
  cpstage fetch JOB_ID --replace --env-file cpstage.env
  cpstage fetch --job-file saved.json --no-unpack
  cpstage fetch --pipeline release --failed --failed-action
  cpstage fetch --pipeline release --execution 3137f7cb --action Build
"""


@click.command(cls=AwsCommand, epilog=_FETCH_EXAMPLES)
@click.argument("job_id", required=False)
@artifact_source_options
@workspace_option
@staging_options
@flag("--dry-run", help="Print what the command would do, and do nothing.")
@click.option(
    "--env-file",
    metavar="FILE",
    type=a_file,
    help="Write the job's variables as NAME=value lines.",
)
@flag("--codebuild-env", help="Add CODEBUILD_SRC_DIR variables to that file.")
@session_options
@output_options
@progress_option
def fetch(
    *,
    source: JobSource,
    config: cpstage.AwsConfig,
    terminal: Terminal,
    workspace: str,
    fetch_options: cpstage.FetchOptions,
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
    """
    if codebuild_env and env_file is None:
        raise UsageError("--codebuild-env has no file to go to", hint="give --env-file FILE")
    job = source.load_artifacts(config, terminal)

    place = cpstage.Workspace(workspace)
    if env_file is not None and not dry_run:
        from cpstage.runner import environment

        # Names that collide are found before the fetch, and so is a file that cannot be written.
        environment.job_environment(job, place, codebuild=codebuild_env)
        environment.check_env_file(Path(env_file), place)
    result = cpstage.fetch(
        job, workspace, fetch_options, dry_run=dry_run, config=config, warn=terminal.warn, **options
    )
    if env_file is not None and not dry_run:
        inputs = {str(one.artifact.name): one.path for one in result.inputs}
        variables = environment.job_environment(job, place, inputs, codebuild=codebuild_env)
        environment.write_env_file(Path(env_file), variables)
    terminal.result(result.document(), fetched_text(result))


def fetched_text(result: cpstage.FetchResult) -> str:
    """Return a line for each artifact."""
    lines = []
    for staged in (*result.inputs, *result.made):
        what = f"{amount(staged.info.size)} from {shortened(staged.artifact.location)}"
        if staged.contents:
            what = f"{counted(staged.contents.files, 'file')}, {what}"
        lines.append(f"{staged.status}\t{printable(relative(staged.path))}\t{what}")
    lines += [f"output\t{printable(relative(path))}" for path in result.outputs.values()]
    return "\n".join(lines)


_PUSH_EXAMPLES = """\b
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


@click.command(cls=AwsCommand, epilog=_PUSH_EXAMPLES)
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
    config: cpstage.AwsConfig,
    terminal: Terminal,
    workspace: str,
    paths: dict[str, str],
    push_options: cpstage.PushOptions,
    force: bool,
    **options: Any,
) -> None:
    """Upload a job's output artifacts.

    Every output artifact is packed from WORKSPACE/out/<artifact>/, or from the PATH given for it,
    and uploaded to the S3 location that CodePipeline assigned, with the job's session credentials
    and KMS key.
    """
    result = cpstage.push(
        source.load(config, in_progress=not (force or options.get("dry_run"))),
        workspace,
        replace(push_options, paths=paths),
        config=config,
        warn=terminal.warn,
        **options,
    )
    terminal.result(result.document(), pushed_text(result))


def pushed_text(result: cpstage.PushResult) -> str:
    """Return a line for each artifact."""
    lines = []
    for pushed in result.outputs:
        what = f"{pushed.format}, {counted(pushed.files, 'file')}"
        if pushed.upload:
            what = f"{amount(pushed.upload.size)}, {what}"
        to = shortened(pushed.artifact.location)
        lines.append(f"{pushed.status}\t{printable(relative(pushed.source))}\t{what}, to {to}")
    return "\n".join(lines)


_UNPACK_EXAMPLES = """\b
Examples:
  cpstage unpack app.zip --into app
  cpstage unpack build.tar.gz --into build --max-size 100000000
  cpstage unpack encrypted.zip --into app --decrypt-key ARN
"""


@click.command(cls=Command, epilog=_UNPACK_EXAMPLES)
@click.argument("archive", type=a_file)
@click.option(
    "--into",
    required=True,
    metavar="DIR",
    type=a_directory,
    help="New or empty directory.",
)
@extraction_options
@aws_options()
@output_options
@progress_option
def unpack(*, archive: str, into: str, terminal: Terminal, **options: Any) -> None:
    """Unpack a zip, tar or tar.gz.

    DIR contains the whole archive in the end, or is unchanged if the archive is unsafe, damaged or
    over a limit. An encrypted message is decrypted with the keys given with --decrypt-key, and your
    own AWS credentials.
    """
    done = cpstage.unpack(archive, into, **options)
    what = counted(done.contents.files, "file") if done.contents else "the encrypted message"
    text = f"unpacked\t{printable(str(done.path))}\t{what} from {printable(str(done.archive))}"
    terminal.result(done.document(), text)


_PACK_EXAMPLES = """\b
Examples:
  cpstage pack dist --output dist.zip
  cpstage pack dist --output dist.tar.gz --exclude '*.o'
  cpstage pack dist --output encrypted.zip --encrypt --encrypt-key ARN
"""


@click.command(cls=Command, epilog=_PACK_EXAMPLES)
@click.argument("directory", type=a_directory)
@click.option("--output", required=True, metavar="FILE", type=a_file, help="Archive to write.")
@flag("--overwrite", help="Replace FILE if it exists.")
@packing_options
@message_encryption_options
@aws_options()
@output_options
@progress_option
def pack(*, directory: str, output: str, terminal: Terminal, **options: Any) -> None:
    """Pack a directory into a zip, tar or tar.gz.

    The same tree gives the same bytes. If packing fails, FILE is unchanged.
    """
    done = cpstage.pack(directory, output, **options)
    what = f"{amount(done.size)}, {done.format}, {counted(done.files, 'file')}"
    text = f"packed\t{printable(str(done.path))}\t{what} of {printable(str(done.source))}"
    terminal.result(done.document(), text)
