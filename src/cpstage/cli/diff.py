"""``cpstage diff``: a fetched tree beside the artifact in S3."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cpstage.cli.archive_options import unpacking_options
from cpstage.cli.command import Command
from cpstage.cli.job_options import JobSource, artifact_arguments, job_options
from cpstage.cli.options import (
    aws_options,
    output_options,
    progress_option,
    session_option,
    workspace_option,
)
from cpstage.errors import printable

if TYPE_CHECKING:
    from cpstage import AwsConfig, Progress, Unpacking
    from cpstage.cli.output import Terminal
    from cpstage.inspect.comparison import Comparison, Difference

_EXAMPLES = """\b
Examples:
  cpstage diff JOB_ID
  cpstage diff JOB_ID AppSource --workspace build
  cpstage diff JOB_ID --json
"""

_DIFFERENT = 1
"""The exit code of diff(1) and cmp(1)."""


@click.command(cls=Command, epilog=_EXAMPLES)
@artifact_arguments
@job_options
@workspace_option
@unpacking_options
@aws_options
@session_option
@output_options
@progress_option
def diff(
    *,
    source: JobSource,
    artifacts: tuple[str, ...],
    workspace: str,
    unpacking: Unpacking,
    config: AwsConfig,
    credentials_max_age: float,
    terminal: Terminal,
    progress: Progress,
) -> None:
    """Compare a fetched tree with its artifact in S3.

    The command compares WORKSPACE/in/<artifact>/ with the remote archive: names, kinds, sizes,
    execute bits, targets of symlinks, and the CRC-32 of every file. It reads only the central
    directory of a zip, and decrypts an encrypted message into an unnamed temporary file. Artifacts
    that were fetched with --no-unpack or --no-decrypt are compared as files.

    Exit code 0 means no difference, 1 means a difference.

    JOB_ID may also be given as CPSTAGE_JOB_ID: then 'cpstage diff ARTIFACT' is enough.
    """
    import cpstage

    compared = cpstage.inspect.compare(
        source.load(config),
        workspace,
        artifacts,
        unpacking=unpacking,
        config=config,
        credentials_max_age=credentials_max_age,
        progress=progress,
    )
    for one in compared:
        for artifact in one.replaced:
            terminal.warn(f"the object of {artifact.name} is another one than was fetched")
    same = not any(one.differences for one in compared)
    document = {"same": same, "compared": [one.document() for one in compared]}
    terminal.result(document, "\n".join(map(_text, compared)))
    if not same:
        click.get_current_context().exit(_DIFFERENT)


def _text(compared: Comparison) -> str:
    if not compared.differences:
        entries = "1 entry" if compared.entries == 1 else f"{compared.entries:,} entries"
        return f"same\t{printable(str(compared.path))}\t{entries}"
    return "\n".join(_line(compared, one) for one in compared.differences)


def _line(compared: Comparison, one: Difference) -> str:
    path = printable(str(compared.path / one.path))
    if one.what in ("missing", "added"):
        return f"{one.what}\t{path}\t{one.remote or one.local}"
    return f"{one.what}\t{path}\t{printable(f'{one.remote} became {one.local}')}"
