"""``cpstage cat``: members of an artifact, on stdout."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import click

import cpstage
from cpstage.cli.archive_options import unpacking_options
from cpstage.cli.command import Command, flag
from cpstage.cli.job_options import JobSource, archive_option, artifact_source_options
from cpstage.cli.options import log_options, session_options
from cpstage.cli.output import Terminal
from cpstage.errors import LocalIOError, UsageError

if TYPE_CHECKING:
    from cpstage import AwsConfig, Unpacking

_EXAMPLES = """\b
Examples:
  cpstage cat JOB_ID AppSource build.py
  cpstage cat JOB_ID AppSource assets/logo.png > logo.png
  cpstage cat JOB_ID AppReport tests.json 'logs/*.txt'
  cpstage cat --job-file saved.json AppSource build.py
  cpstage cat --pipeline release --failed AppReport tests.txt
  cpstage cat --archive dist.zip VERSION
"""

_CONTROL = re.compile(rb"[\x00-\x07\x0e-\x1f\x7f]|\xc2[\x80-\x9f]")
"""What a terminal would take for an order, in ASCII and in UTF-8."""


@click.command(cls=Command, epilog=_EXAMPLES)
@click.argument("arguments", nargs=-1, metavar="[JOB_ID] ARTIFACT PATH...")
@artifact_source_options
@archive_option
@flag("--force", help="Write binary data to a terminal.")
@unpacking_options
@session_options
@log_options
def cat(
    *,
    source: JobSource,
    words: tuple[str, ...],
    archive: str | None,
    force: bool,
    unpacking: Unpacking,
    config: AwsConfig,
    credentials_max_age: float,
    terminal: Terminal,
) -> None:
    """Write members of an artifact to stdout.

    PATH is the name of a member, or else a glob, which takes all files that it matches. Several
    members are written one after the other: those of a zip in the order of the command line, those
    of a tar in the order of the archive. With --archive, all arguments are PATHs.

    The command reads the central directory and the member of a zip, and a tar up to the member. It
    compares the CRC-32 of a zip's member after the last byte: if it differs, the output is wrong,
    and the exit code is 65. An encrypted message is decrypted completely before anything is
    written.

    Binary data is written to a terminal only with --force.

    JOB_ID may also be given as CPSTAGE_JOB_ID.
    """
    chunks: Iterable[bytes | memoryview]
    if archive is not None:
        if not words:
            raise UsageError("PATH is missing", hint="see 'cpstage cat --help'")
        paths = [*words]
        chunks = cpstage.inspect.read_archive(archive, paths, unpacking=unpacking, config=config)
    else:
        if len(words) < 2:
            missing = "PATH is" if words else "ARTIFACT and PATH are"
            raise UsageError(f"{missing} missing", hint="write 'cpstage cat JOB_ID ARTIFACT PATH'")
        artifact, *paths = words
        chunks = cpstage.inspect.read_member(
            source.load_artifacts(config, terminal),
            artifact,
            paths,
            unpacking=unpacking,
            config=config,
            credentials_max_age=credentials_max_age,
        )
    if sys.stdout is None:
        raise LocalIOError("cannot write to stdout: it is closed")
    if sys.stdout.isatty() and not force:
        chunks = _text_only(chunks, paths)
    for chunk in chunks:
        sys.stdout.buffer.write(chunk)
    sys.stdout.buffer.flush()  # what cannot be written is an error here: it is the result


def _text_only(
    chunks: Iterable[bytes | memoryview], paths: Sequence[str]
) -> Iterator[bytes | memoryview]:
    for chunk in chunks:
        if _CONTROL.search(chunk):
            raise UsageError(
                f"{', '.join(map(repr, paths))} is not plain text, and stdout is a terminal",
                hint="redirect it to a file, or give --force",
            )
        yield chunk
