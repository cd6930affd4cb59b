"""``cpstage pack``: the fast packer into a local file."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cpstage.cli.archive_options import packing_mtime_option, packing_options, sealing_options
from cpstage.cli.command import Command
from cpstage.cli.options import a_directory, a_file, aws_options, output_options, progress_option
from cpstage.cli.output import Terminal, counted
from cpstage.errors import UsageError
from cpstage.progress import amount

if TYPE_CHECKING:
    from cpstage import AwsConfig, Packing, Progress

_EXAMPLES = """\b
Examples:
  cpstage pack dist --output dist.zip
  cpstage pack dist --output dist.tar.gz --exclude '*.o'
  cpstage pack dist --output encrypted.zip --encrypt --encrypt-key ARN
"""


@click.command(cls=Command, epilog=_EXAMPLES)
@click.argument("directory", shell_complete=a_directory)
@click.option(
    "--output",
    required=True,
    metavar="FILE",
    shell_complete=a_file,
    help="Archive to write.",
)
@click.option("--overwrite", is_flag=True, help="Replace FILE if it exists.")
@packing_mtime_option
@packing_options(
    ["auto", "zip", "tar", "tar.gz"], "auto chooses the format by the suffix of FILE, else zip."
)
@sealing_options
@aws_options
@output_options
@progress_option
def pack(
    *,
    directory: str,
    output: str,
    overwrite: bool,
    packing: Packing,
    seal: bool,
    seal_keys: tuple[str, ...],
    seal_context: dict[str, str],
    config: AwsConfig,
    terminal: Terminal,
    progress: Progress,
) -> None:
    """Pack a directory into a zip, tar or tar.gz.

    The same tree gives the same bytes. If packing fails, FILE is unchanged.
    """
    import cpstage

    if seal and not seal_keys:
        raise UsageError("--encrypt has no KMS key", hint="give --encrypt-key ARN")
    done = cpstage.pack(
        directory,
        output,
        packing=packing,
        sealing=cpstage.Sealing(seal_keys, seal_context) if seal else None,
        overwrite=overwrite,
        config=config,
        progress=progress,
    )
    what = f"{amount(done.size)}, {done.format}, {counted(done.files, 'file')}"
    terminal.result(done.document(), f"packed\t{done.path}\t{what} of {done.source}")
