"""``cpstage unpack`` and ``cpstage pack``: the safe unpacker and the fast packer on local files."""

from __future__ import annotations

import click

import cpstage
from cpstage.cli.archive_options import (
    extraction_options,
    message_encryption_options,
    packing_options,
)
from cpstage.cli.options import (
    Command,
    a_directory,
    a_file,
    aws_options,
    flag,
    output_options,
    progress_option,
)
from cpstage.cli.output import Terminal, counted
from cpstage.errors import printable
from cpstage.progress import amount

_UNPACK_EXAMPLES = """\b
Examples:
  cpstage unpack app.zip --into app
  cpstage unpack build.tar.gz --into build --max-size 100000000
  cpstage unpack encrypted.zip --into app --decrypt-key ARN
"""


@click.command(cls=Command, epilog=_UNPACK_EXAMPLES)
@click.argument("archive", shell_complete=a_file)
@click.option(
    "--into",
    required=True,
    metavar="DIR",
    shell_complete=a_directory,
    help="New or empty directory.",
)
@extraction_options
@aws_options()
@output_options
@progress_option
def unpack(
    *,
    archive: str,
    into: str,
    unpacking: cpstage.Unpacking,
    config: cpstage.AwsConfig,
    terminal: Terminal,
    progress: cpstage.Progress,
) -> None:
    """Unpack a zip, tar or tar.gz.

    DIR contains the whole archive in the end, or is unchanged if the archive is unsafe, damaged or
    over a limit. An encrypted message is decrypted with the keys given with --decrypt-key, and your
    own AWS credentials.
    """
    done = cpstage.unpack(archive, into, unpacking=unpacking, config=config, progress=progress)
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
@click.argument("directory", shell_complete=a_directory)
@click.option(
    "--output", required=True, metavar="FILE", shell_complete=a_file, help="Archive to write."
)
@flag("--overwrite", help="Replace FILE if it exists.")
@packing_options
@message_encryption_options
@aws_options()
@output_options
@progress_option
def pack(
    *,
    directory: str,
    output: str,
    overwrite: bool,
    packing: cpstage.Packing,
    encryption: cpstage.MessageEncryption | None,
    config: cpstage.AwsConfig,
    terminal: Terminal,
    progress: cpstage.Progress,
) -> None:
    """Pack a directory into a zip, tar or tar.gz.

    The same tree gives the same bytes. If packing fails, FILE is unchanged.
    """
    done = cpstage.pack(
        directory,
        output,
        packing=packing,
        encryption=encryption,
        overwrite=overwrite,
        config=config,
        progress=progress,
    )
    what = f"{amount(done.size)}, {done.format}, {counted(done.files, 'file')}"
    text = f"packed\t{printable(str(done.path))}\t{what} of {printable(str(done.source))}"
    terminal.result(done.document(), text)
