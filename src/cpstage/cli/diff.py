"""``cpstage diff``: a fetched tree beside its artifact, two executions, or two local archives."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import click

import cpstage
from cpstage.cli.archive_options import unpacking_options
from cpstage.cli.job_options import JobSource, artifact_source_options, skip_missing_option
from cpstage.cli.options import (
    Command,
    flag,
    output_options,
    progress_option,
    session_options,
    workspace_option,
)
from cpstage.cli.output import Terminal
from cpstage.errors import UsageError, printable
from cpstage.progress import amount

if TYPE_CHECKING:
    from cpstage.inspect.comparison import Changes, Comparison

_EXAMPLES = """\b
Examples:
  cpstage diff JOB_ID
  cpstage diff JOB_ID AppSource --workspace build
  cpstage diff --pipeline release --failed --with previous
  cpstage diff --pipeline release --execution 3137f7cb --with 1a2b3c4d -u
  cpstage diff --local old.zip new.zip --content '**/*.py'
"""

_DIFFERENT = 1
"""The exit code of diff(1) and cmp(1)."""


@click.command(cls=Command, epilog=_EXAMPLES)
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
    type=str,
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
    job: cpstage.ArtifactSet | None = None
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
    terminal.result(document, "\n".join([*map(_text, compared), *map(_changes_text, changed)]))
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
        raise UsageError("both --with and --local are given", hint="give one of them")
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
) -> tuple[cpstage.Execution, cpstage.Execution]:
    """Return the execution and the one to compare it with: of the same action, if one is chosen."""
    from cpstage.aws.executions import previous_success

    found = source.load_artifacts(config, terminal, needs_artifacts=False)
    after = cast("cpstage.Execution", found)
    where = replace(config, region=after.region)
    other = previous_success(after, config=where).id if wanted == "previous" else wanted
    action = after.action.path if after.action else None
    before = cpstage.get_execution(after.pipeline, other, action=action, config=where)
    terminal.note(f"cpstage: what changed from execution {before.execution_id} to that one")
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
            _line(f"{name}/{one.path}", one.what, one.before, one.after) for one in changes.changes
        ]
    # A text keeps its tabs; other control characters could move the cursor.
    lines += ["\t".join(map(printable, line.split("\t"))) for line in changes.text]
    return "\n".join(lines)


def _text(compared: Comparison) -> str:
    if not compared.differences:
        return f"same\t{printable(str(compared.path))}\t{amount(compared.entries, 'entries')}"
    lines = [
        _line(str(compared.path / one.path), one.what, one.remote, one.local)
        for one in compared.differences
    ]
    return "\n".join(lines)


def _line(path: str, what: str, before: object, after: object) -> str:
    is_in_one = what in ("added", "removed", "missing")
    change = after or before if is_in_one else f"{before} became {after}"
    return f"{what}\t{printable(path)}\t{printable(str(change))}"
