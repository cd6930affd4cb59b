"""``cpstage ls``, ``cat`` and ``diff``: the contents of artifacts, read where they are."""

from __future__ import annotations

import re
import stat
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import click

import cpstage
from cpstage.cli.archive_options import unpacking_options
from cpstage.cli.job_options import (
    JobSource,
    archive_option,
    artifact_source_options,
    both_given,
    skip_missing_option,
)
from cpstage.cli.options import (
    Command,
    a_file,
    flag,
    log_options,
    output_options,
    progress_option,
    session_options,
    workspace_option,
)
from cpstage.cli.output import Terminal, counted
from cpstage.errors import NotFound, UsageError, printable
from cpstage.progress import amount

if TYPE_CHECKING:
    from cpstage.inspect.comparison import Changes, Comparison
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

_TYPES = {"file": "-", "directory": "d", "link": "l", "hard link": "h"}
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
    credentials_max_age: float,
    terminal: Terminal,
    **common: Any,
) -> None:
    """List the contents of artifacts, without fetching them.

    ARTIFACT is a name or a glob; the default is all inputs, and all artifacts of a past execution.
    MEMBER is a path or a glob with a slash or a dot, such as '**/*.jar'; it lists only the members
    that match, in all these artifacts. Columns are permission bits (extraction applies the
    umask to them), size, compressed size, CRC-32, mtime, and name. The command reads only the
    central directory of a zip, and all of a tar. It decrypts an encrypted message into an unnamed
    temporary file.

    An entry that cannot be read or unpacked has ? in place of its type, and a warning says why.

    An output can be listed if the job's session may read it, which is rare.

    JOB_ID may also be given as CPSTAGE_JOB_ID: then 'cpstage ls ARTIFACT' is enough.
    """
    artifacts, members = _members_among(words) if archive is None else ([], [*words])
    only = cpstage.Globs(tuple(members))
    found: Iterable[Listing]
    if archive is not None:
        job, found = None, [cpstage.inspect.list_archive(archive, members=only, **common)]
    else:
        job = source.load_artifacts(common["config"], terminal)
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
    mode = _TYPES[entry.kind] + stat.filemode(entry.permissions)[1:]
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
    credentials_max_age: float,
    terminal: Terminal,
    **common: Any,
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
    """
    chunks: Iterable[bytes | memoryview]
    if archive is not None:
        if not words:
            raise UsageError("PATH is missing", hint="see 'cpstage cat --help'")
        paths = [*words]
        chunks = cpstage.inspect.read_archive(archive, paths, **common)
    else:
        if len(words) < 2:
            missing = "PATH is" if words else "ARTIFACT and PATH are"
            raise UsageError(f"{missing} missing", hint="write 'cpstage cat JOB_ID ARTIFACT PATH'")
        artifact, *paths = words
        job = source.load_artifacts(common["config"], terminal)
        chunks = cpstage.inspect.read_member(
            job, artifact, paths, credentials_max_age=credentials_max_age, **common
        )
    if sys.stdout.isatty() and not force:
        chunks = _text_only(chunks, paths)
    for chunk in chunks:
        sys.stdout.buffer.write(chunk)
    sys.stdout.buffer.flush()  # what cannot be written is an error here: it is the result


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


_DIFF_EXAMPLES = """\b
Examples:
  cpstage diff JOB_ID
  cpstage diff JOB_ID AppSource --workspace build
  cpstage diff --pipeline release --failed --with previous
  cpstage diff --pipeline release --execution 3137f7cb --with 1a2b3c4d -u
  cpstage diff --local old.zip new.zip --content '**/*.py'
"""

_DIFFERENT = 1
"""The exit code of diff(1) and cmp(1)."""


@click.command(cls=Command, epilog=_DIFF_EXAMPLES)
@click.argument("arguments", nargs=-1, metavar="[JOB_ID] [ARTIFACT]...")
@artifact_source_options
@click.option(
    "--with",
    "other",
    metavar="ID|previous",
    help="Compare the execution of --pipeline with this one; previous is the last successful one "
    "before it.",
)
@click.option(
    "--local",
    nargs=2,
    type=a_file,
    metavar="OLD NEW",
    help="Compare two local archives or directories.",
)
@click.option(
    "--content",
    multiple=True,
    metavar="PATH",
    help="Print a unified diff of these changed members: names or globs; repeatable.",
)
@flag("-u", "--unified", help="Print a unified diff of all changed members.")
@skip_missing_option
@workspace_option
@unpacking_options
@session_options
@output_options
@progress_option
def diff(
    *,
    source: JobSource,
    words: tuple[str, ...],
    other: str | None,
    local: tuple[str, str] | None,
    content: tuple[str, ...],
    unified: bool,
    skip_missing: bool,
    workspace: str,
    credentials_max_age: float,
    terminal: Terminal,
    **common: Any,
) -> None:
    """Compare a fetched tree, two executions, or two local archives.

    With a job, the command compares WORKSPACE/in/<artifact>/ with the remote archive: names, kinds,
    sizes, execute bits, targets of symlinks, and the CRC-32 of every file. A past execution is
    compared in the same way, with WORKSPACE/made/<artifact>/ as well. The command reads only the
    central directory of a zip, and decrypts an encrypted message into an unnamed temporary file.
    Artifacts that were fetched with --no-unpack or --no-decrypt are compared as files.

    With --with, the command compares the artifacts of two executions of a pipeline, and prints what
    changed from the execution of --with to the one of --pipeline: members that were added, removed
    or changed. It reads only the central directories of zips. --content and --unified also read
    the changed members, and print a unified diff of those that are text in UTF-8.

    With --local, it compares two local archives or directories in the same way.

    Exit code 0 means no difference, 1 means a difference.

    JOB_ID may also be given as CPSTAGE_JOB_ID: then 'cpstage diff ARTIFACT' is enough.
    """
    texts = cpstage.inspect.Texts(() if unified else content, wanted=unified or bool(content))
    _check_options(source, words, other, local, is_detailed=texts.wanted or skip_missing)
    job: cpstage.job.ArtifactSet | None = None
    between: dict[str, str] | None = None
    compared: list[Comparison] = []
    changed: list[Changes] = []
    if local:
        changed = [cpstage.inspect.compare_local(*local, texts=texts, **common)]
    elif other is not None:
        job, before = _executions(source, other, common["config"], terminal)
        between = {"before": before.execution_id, "after": job.execution_id}
        changed = [
            *cpstage.inspect.compare_executions(
                job,
                before,
                words,
                texts=texts,
                missing=terminal.warn if skip_missing else None,
                **common,
            )
        ]
    else:
        job = source.load_artifacts(common["config"], terminal)
        compared = cpstage.inspect.compare(
            job, workspace, words, credentials_max_age=credentials_max_age, **common
        )
    for one in compared:
        for artifact in one.replaced:
            terminal.warn(f"the object of {artifact.name} is another one than was fetched")
    same = not any(one.differences for one in compared) and all(one.is_same for one in changed)
    document = {
        "same": same,
        "read_with": job.read_with if job else None,
        "between": between,
        "compared": [one.document() for one in compared],
        "changed": [one.document() for one in changed],
    }
    terminal.result(
        document, "\n".join([*map(_comparison_text, compared), *map(_changes_text, changed)])
    )
    if not same:
        click.get_current_context().exit(_DIFFERENT)


def _check_options(
    source: JobSource,
    artifacts: tuple[str, ...],
    other: str | None,
    local: tuple[str, str] | None,
    *,
    is_detailed: bool,
) -> None:
    """Refuse options that say nothing together."""
    if other is not None and local:
        raise both_given("--with", "--local")
    if other is not None and source.past is None:
        raise UsageError("--with is given without --pipeline", hint="give --pipeline too")
    if local and artifacts:
        raise UsageError(f"--local takes two paths, and {artifacts[0]!r} is a third one")
    if is_detailed and other is None and not local:
        raise UsageError(
            "--content, --unified and --skip-missing are about two executions or local archives",
            hint="give --with or --local",
        )


def _executions(
    source: JobSource, wanted: str, config: cpstage.AwsConfig, terminal: Terminal
) -> tuple[cpstage.inspect.Execution, cpstage.inspect.Execution]:
    """Return the execution and the one to compare it with: of the same action, if one is chosen."""
    from cpstage.aws.executions import previous_success

    found = source.load_artifacts(config, terminal, needs_artifacts=False)
    after = cast("cpstage.inspect.Execution", found)
    where = replace(config, region=after.region)
    other = previous_success(after, config=where).id if wanted == "previous" else wanted
    action = after.action.path if after.action else None
    before = cpstage.inspect.get_execution(after.pipeline, other, action=action, config=where)
    terminal.note(f"cpstage: changes from execution {before.execution_id} to {after.execution_id}")
    return after, before


def _changes_text(changes: Changes) -> str:
    name = printable(changes.name)
    if changes.is_same:
        how = amount(changes.entries, "entries") if changes.entries else "the same object"
        return f"same\t{name}\t{how}"
    if changes.before is None or changes.after is None:
        which = "added" if changes.before is None else "removed"
        where = printable(str(changes.after or changes.before))
        lines = [f"{which}\t{name}\tartifact at {where}"]
    else:
        lines = [
            _difference(f"{name}/{one.path}", one.what, one.before, one.after)
            for one in changes.changes
        ]
    # A text keeps its tabs; a newline in a member's name would look like a line of ours.
    lines += ["\t".join(map(printable, line.split("\t"))) for line in changes.text]
    return "\n".join(lines)


def _comparison_text(compared: Comparison) -> str:
    if not compared.differences:
        return f"same\t{printable(str(compared.path))}\t{amount(compared.entries, 'entries')}"
    lines = [
        _difference(str(compared.path / one.path), one.what, one.remote, one.local)
        for one in compared.differences
    ]
    return "\n".join(lines)


def _difference(path: str, what: str, before: object, after: object) -> str:
    is_in_one = what in ("added", "removed", "missing")
    change = after or before if is_in_one else f"{before} became {after}"
    return f"{what}\t{printable(path)}\t{printable(str(change))}"
