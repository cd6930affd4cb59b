"""``cpstage ls`` and ``cpstage cat``: the contents of artifacts, read where they are."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import click

import cpstage
from cpstage.cli.archive_options import unpacking_options
from cpstage.cli.job_options import (
    JobSource,
    archive_option,
    artifact_source_options,
    skip_missing_option,
)
from cpstage.cli.options import (
    Command,
    flag,
    log_options,
    output_options,
    progress_option,
    session_options,
)
from cpstage.cli.output import Terminal, counted, stdout_failures
from cpstage.errors import NotFound, UsageError, printable

if TYPE_CHECKING:
    from cpstage.inspect.listing import Listed, Listing

_LS_EXAMPLES = """\b
Examples:
  cpstage ls JOB_ID
  cpstage ls JOB_ID AppSource
  cpstage ls JOB_ID 'App*' --json
  cpstage ls JOB_ID '**/*.jar'
  cpstage ls --job-file saved.json AppSource
  cpstage ls --pipeline release --failed --action Build
  cpstage ls --archive dist.zip 'lib/**'
"""

_MODES = {
    "file": "-rw-r--r--",
    "directory": "drwxr-xr-x",
    "link": "lrwxrwxrwx",
    "hard link": "hrw-r--r--",
}
_EXECUTABLE = "-rwxr-xr-x"
_UNREADABLE = "?---------"
"""Of an entry that cannot be read or unpacked; the warning says why."""


@click.command(cls=Command, epilog=_LS_EXAMPLES)
@click.argument("arguments", nargs=-1, metavar="[JOB_ID] [ARTIFACT|MEMBER]...")
@artifact_source_options
@archive_option
@skip_missing_option
@unpacking_options
@session_options
@output_options
@progress_option
def ls(
    *,
    source: JobSource,
    words: tuple[str, ...],
    archive: str | None,
    skip_missing: bool,
    unpacking: cpstage.Unpacking,
    config: cpstage.AwsConfig,
    credentials_max_age: float,
    terminal: Terminal,
    progress: cpstage.Progress,
) -> None:
    """List the contents of artifacts, without fetching them.

    ARTIFACT is a name or a glob; the default is all inputs, and all artifacts of a past execution.
    MEMBER is a path or a glob with a slash or a dot, such as '**/*.jar'; it lists only the members
    that match, in all these artifacts. Columns are permission bits after extraction, size,
    compressed size, CRC-32, mtime, and name. The command reads only the central
    directory of a zip, and all of a tar. It decrypts an encrypted message into an unnamed temporary
    file.

    An entry that cannot be read or unpacked has ? in place of its type, and a warning says why.

    An output can be listed if the job's session may read it, which is rare.

    JOB_ID may also be given as CPSTAGE_JOB_ID: then 'cpstage ls ARTIFACT' is enough.
    """
    artifacts, members = _members_among(words) if archive is None else ([], [*words])
    only = cpstage.Globs(tuple(members))
    common: dict[str, Any] = {"unpacking": unpacking, "config": config, "progress": progress}
    found: Iterable[Listing]
    if archive is not None:
        job, found = None, [cpstage.inspect.list_archive(archive, members=only, **common)]
    else:
        job = source.load_artifacts(config, terminal)
        found = cpstage.inspect.list_artifacts(
            job,
            artifacts,
            members=only,
            missing=terminal.warn if skip_missing else None,
            credentials_max_age=credentials_max_age,
            **common,
        )
    listings = []
    for listing in found:
        if listing.entries or not members:
            listings.append(listing)
            _print_notes(listing, terminal)
    if members and not listings:
        what = " or ".join(map(repr, members))
        raise NotFound(f"no member matches {what}", hint="leave it out to list all members")
    document = {
        "read_with": job.read_with if job else None,
        "artifacts": [listing.document() for listing in listings],
    }
    terminal.result(document, "\n\n".join(map(_listing_text, listings)))


def _members_among(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Separate names and globs of artifacts from names and globs of members.

    Names of artifacts have neither a slash nor a dot, but for a dot behind ``@`` in those with an
    action.
    """
    members = [one for one in words if "/" in one or ("." in one and "@" not in one)]
    return [one for one in words if one not in members], members


def _print_notes(listing: Listing, terminal: Terminal) -> None:
    """Print notes and warnings about a listing."""
    name = printable(listing.remote.artifact.name)
    if listing.remote.decrypted:
        terminal.note(f"cpstage: {name} is an encrypted message: all of it was read")
    elif listing.read == "stream":
        kind = f"{name} is {listing.remote.format}"
        terminal.note(f"cpstage: {kind}, which has no central directory: all of it was read")
    for why in listing.refused:
        terminal.warn(f"fetch would refuse {name}: {why}")


def _listing_text(listing: Listing) -> str:
    remote = listing.remote
    size = counted(remote.info.size, "byte")
    encrypted = ", encrypted" if remote.envelope else ""
    what = f"{remote.format or 'file'}, {size}{encrypted} at {remote.artifact.location}"
    head = printable(f"{remote.artifact.name}: {what}")
    return "\n".join([head, *map(_row, listing.entries)])


def _row(entry: Listed) -> str:
    if entry.refused:
        return printable(f"{_UNREADABLE} {entry.size:>14,} {'-':>14} {'-':>8}  {entry.name}")
    mode = _EXECUTABLE if entry.executable and entry.kind == "file" else _MODES[entry.kind]
    packed = "-" if entry.packed is None else f"{entry.packed:,}"
    crc = "-" if entry.crc is None else f"{entry.crc:08x}"
    leads = f" -> {entry.target}" if entry.target else ""
    mtime = entry.mtime or "-"
    row = f"{mode} {entry.size:>14,} {packed:>14} {crc:>8} {mtime:>20}  {entry.name}{leads}"
    return printable(row)


_CAT_EXAMPLES = """\b
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


@click.command(cls=Command, epilog=_CAT_EXAMPLES)
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
    unpacking: cpstage.Unpacking,
    config: cpstage.AwsConfig,
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
    if sys.stdout.isatty() and not force:
        chunks = _text_only(chunks, paths)
    for chunk in chunks:
        with stdout_failures():
            sys.stdout.buffer.write(chunk)
    with stdout_failures():
        sys.stdout.buffer.flush()


def _text_only(
    chunks: Iterable[bytes | memoryview], paths: Sequence[str]
) -> Iterator[bytes | memoryview]:
    last = b""  # a character in UTF-8 may be in two chunks
    for chunk in chunks:
        if _CONTROL.search(chunk) or _CONTROL.search(last + bytes(chunk[:1])):
            raise UsageError(
                f"{', '.join(map(repr, paths))} is not plain text, and stdout is a terminal",
                hint="redirect it to a file, or give --force",
            )
        last = bytes(chunk[-1:])
        yield chunk
