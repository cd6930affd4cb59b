"""``cpstage unpack``: the safe unpacker on a local file."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cpstage.cli.archive_options import extraction_options, unpacking_options
from cpstage.cli.command import Command
from cpstage.cli.options import a_directory, a_file, aws_options, output_options, progress_option
from cpstage.cli.output import Terminal, counted

if TYPE_CHECKING:
    from cpstage import AwsConfig, Progress, Unpacking
    from cpstage.transfer.localfiles import Unpacked

_EXAMPLES = """\b
Examples:
  cpstage unpack app.zip --into app
  cpstage unpack build.tar.gz --into build --max-size 100000000
  cpstage unpack encrypted.zip --into app --decrypt-key ARN
"""


@click.command(cls=Command, epilog=_EXAMPLES)
@click.argument("archive", shell_complete=a_file)
@click.option(
    "--into",
    required=True,
    metavar="DIR",
    shell_complete=a_directory,
    help="New or empty directory.",
)
@unpacking_options
@extraction_options
@aws_options
@output_options
@progress_option
def unpack(
    *,
    archive: str,
    into: str,
    unpacking: Unpacking,
    config: AwsConfig,
    terminal: Terminal,
    progress: Progress,
) -> None:
    """Unpack a zip, tar or tar.gz.

    DIR contains the whole archive in the end, or is unchanged if the archive is unsafe, damaged or
    over a limit. An encrypted message is decrypted with the keys given with --decrypt-key, and your
    own AWS credentials.
    """
    import cpstage

    done = cpstage.unpack(archive, into, unpacking=unpacking, config=config, progress=progress)
    terminal.result(done.document(), _text(done))


def _text(done: Unpacked) -> str:
    what = counted(done.contents.files, "file") if done.contents else "the encrypted message"
    return f"unpacked\t{done.path}\t{what} from {done.archive}"
