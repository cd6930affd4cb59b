"""``cpstage push``: ``WORKSPACE/out/`` to the locations that CodePipeline assigned."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from cpstage.cli.job_source import JobSource, job_options
from cpstage.cli.options import (
    aws_options,
    context_option,
    output_options,
    progress_option,
    session_option,
    workspace_option,
)
from cpstage.cli.terminal import Terminal, counted
from cpstage.errors import UsageError

if TYPE_CHECKING:
    from cpstage import Connection, Progress, PushResult

_EXAMPLES = """\b
Examples:
  cpstage push JOB_ID
  cpstage push JOB_ID AppBuild=dist Report=report.html
  cpstage push JOB_ID --format tar.gz --exclude '*.o'
  cpstage push JOB_ID --dry-run
"""


def _split(context: click.Context, _: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    """Tell JOB_ID, which has no ``=``, from the paths of outputs."""
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


@click.command(epilog=_EXAMPLES)
@click.argument(
    "paths", nargs=-1, required=False, callback=_split, metavar="[JOB_ID] [NAME=PATH]..."
)
@job_options
@workspace_option
@click.option("--include", multiple=True, metavar="GLOB", help="Pack only these paths; repeatable.")
@click.option("--exclude", multiple=True, metavar="GLOB", help="Leave these out; repeatable.")
@click.option(
    "--format",
    "archive_format",
    type=click.Choice(["auto", "zip", "tar", "tar.gz", "raw"]),
    default="auto",
    show_default=True,
    help="auto packs a directory as zip, and sends a file as it is.",
)
@click.option(
    "--compression-level",
    type=click.IntRange(0, 9),
    default=6,
    show_default=True,
    help="0 does not compress, 9 hardest.",
)
@click.option(
    "--symlinks",
    type=click.Choice(["keep", "follow"]),
    default="keep",
    show_default=True,
    help="Pack links as links, or what they point to.",
)
@click.option(
    "--if-empty",
    type=click.Choice(["error", "warn", "ignore"]),
    default="error",
    show_default=True,
    help="When an output has no files: fail, or leave it out.",
)
@click.option("--bucket-key", is_flag=True, help="Let S3 use a Bucket Key: fewer calls to KMS.")
@click.option("--encrypt", is_flag=True, help="Seal artifacts in an envelope before they go up.")
@click.option(
    "--encrypt-key",
    "encrypt_keys",
    multiple=True,
    metavar="ARN",
    help="KMS key to seal under instead of the job's; repeatable, each opens it.",
)
@context_option
@click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
@session_option
@aws_options
@output_options
@progress_option
def push(
    *,
    source: JobSource,
    connection: Connection,
    terminal: Terminal,
    progress: Progress,
    workspace: str,
    paths: dict[str, str],
    include: tuple[str, ...],
    exclude: tuple[str, ...],
    archive_format: Any,
    compression_level: int,
    symlinks: Any,
    bucket_key: bool,
    encrypt: bool,
    encrypt_keys: tuple[str, ...],
    encryption_context: dict[str, str],
    **options: Any,
) -> None:
    """Upload a job's output artifacts.

    Every output artifact is made of WORKSPACE/out/<artifact>/, or of the PATH given for it, and
    goes to the S3 location that CodePipeline assigned, under the job's own credentials and key.

    JOB_ID may also be given as CPSTAGE_JOB_ID.
    """
    import cpstage

    if (encrypt_keys or encryption_context) and not encrypt:
        raise UsageError(
            "--encrypt-key and --encryption-context are for envelopes", hint="add --encrypt"
        )
    globs = cpstage.Globs(include, exclude)
    result = cpstage.push(
        source.load(connection),
        workspace,
        paths,
        packing=cpstage.Packing(archive_format, globs, symlinks, compression_level),
        encryption=cpstage.Encryption(bucket_key, encrypt, encrypt_keys, encryption_context),
        connection=connection,
        progress=progress,
        warn=terminal.warn,
        **options,
    )
    terminal.result(result.document(), _text(result))


def _text(result: PushResult) -> str:
    lines = []
    for pushed in result.outputs:
        what = f"{pushed.format}, {counted(pushed.files, 'file')} of {pushed.source}"
        if pushed.upload:
            what = f"{counted(pushed.upload.size, 'byte')}, {what}"
        lines.append(f"{pushed.status}\t{pushed.artifact.location}\t{what}")
    return "\n".join(lines)
