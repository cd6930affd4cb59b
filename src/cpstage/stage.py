"""Fetch and push: the story of the tool.

Plan, stage, verify, publish: nothing is in the workspace before all of it is known to be good, and
nothing goes up before everything that goes up has been found. Where bytes come from, what is in
them and where they go is the business of the modules below. Each direction loads its own when it is
called: those of the other one take longer to load than a small artifact to come.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path

from cpstage.aws.config import Connection
from cpstage.aws.credentials import DEFAULT_MAX_AGE
from cpstage.job import Job
from cpstage.progress import Progress, Silence
from cpstage.selection import choose
from cpstage.session import JobSession
from cpstage.transfer.results import FetchResult, PushResult, Staged
from cpstage.transfer.terms import Encryption, IfEmpty, Packing, Unpacking
from cpstage.workspace.fingerprint import fingerprint
from cpstage.workspace.layout import Outputs, Workspace

Warn = Callable[[str], object]


def fetch(
    job: Job,
    workspace: Path | str = ".",
    *,
    artifacts: Sequence[str] = (),
    unpacking: Unpacking | None = None,
    replace: bool = False,
    verify: bool = False,
    keep_out: bool = False,
    dry_run: bool = False,
    connection: Connection | None = None,
    credentials_max_age: float = DEFAULT_MAX_AGE,
    wait: float = 0,
    progress: Progress | None = None,
    warn: Warn = lambda _: None,
) -> FetchResult:
    """Stage the job's input artifacts in a workspace, and make room for its outputs.

    An artifact whose object has not changed since it was staged is left alone; where its tree was
    modified since, that is its status, with a warning.

    Args:
        job: The job, with its session credentials.
        workspace: The directory; artifacts go to ``in/<artifact>/`` in it.
        artifacts: Names or globs of the inputs to stage; all where none is given.
        unpacking: How to stage them: layout, limits, envelopes.
        replace: Stage everything anew, in the place of what is there; ``out/`` is emptied where
            it holds the outputs of another job.
        verify: Compare what is staged already with the contents of its object.
        keep_out: Keep an ``out/`` that holds the outputs of another job, for this one.
        dry_run: Look, and say what would be done, and do nothing.
        connection: How to reach AWS.
        credentials_max_age: Seconds after which the job's session is renewed ahead of time.
        wait: Seconds to wait for another run in the same workspace to end.
        progress: Is told of all phases.
        warn: Is given warnings, a line each.

    Raises:
        UsageError: A glob matches no input.
        ArtifactRejected: An artifact is unsafe, damaged, over a limit, or cannot be opened.
        ObjectNotFound, AccessDenied, ServiceUnavailable, OutOfSync: As S3 and KMS say.
        WorkspaceUnavailable: Something else is in the way, or somebody else is at work.
        LocalIOError: The disk is full, or failed.
    """
    from cpstage.transfer.inventory import Inventory, record_of
    from cpstage.transfer.receive import Receiver

    how = unpacking or Unpacking()
    place = Workspace(workspace)
    session = JobSession(job, connection or Connection(), credentials_max_age)
    receiver = Receiver(session, place, how, progress or Silence())
    outputs: dict[str, Path] = {one.name: place.output(one.name) for one in job.output_artifacts}

    with session:
        found = [receiver.look(artifact) for artifact in choose(job.input_artifacts, artifacts)]
        with nullcontext() if dry_run else place.locked(wait):
            inventory = Inventory(place, how)
            known = inventory.sort(found, replace=replace, verify=verify)
            place.require_outputs([*outputs.values()])
            choice: Outputs = "replace" if replace else "keep" if keep_out else "refuse"
            is_foreign = place.outputs_to_replace(job.id, outputs, choice)
            if not replace:
                place.require_free([one.path for one in known.todo])
            if dry_run:
                planned = [receiver.with_format(one) for one in known.todo]
                result = _in_order(found, planned, known.settled, known.doubtful)
                return FetchResult(job, result, outputs, session.retries.count)
            if keep_out and place.outputs_owner() not in (None, job.id) and place.has_outputs():
                warn(f"{place.outputs} is kept, with outputs of job {place.outputs_owner()}")
            with place.staging() as staging:
                compared = receiver.compare(known.doubtful, staging, warn)
                staged, moves = receiver.stage(known.todo, staging)
                result = _in_order(found, staged, known.settled, compared)
                for one in (one for one in known.settled if one.status == "modified"):
                    warn(f"{one.path} was modified since it was staged; --replace stages it anew")
                fingerprints = {move.target: fingerprint(move.staged) for move in moves}
                for one in compared:
                    fingerprints[one.path] = (
                        fingerprint(one.path) if one.status == "unchanged" else "modified"
                    )
                moves += place.output_moves([*outputs.values()], staging, replace=is_foreign)
                entries = inventory.entries(result, fingerprints)
                moves += place.record_moves(record_of(job), entries, staging)
                place.publish(moves)
    return FetchResult(job, result, outputs, session.retries.count)


def push(
    job: Job,
    workspace: Path | str = ".",
    paths: Mapping[str, Path | str] | None = None,
    *,
    packing: Packing | None = None,
    encryption: Encryption | None = None,
    if_empty: IfEmpty = "error",
    dry_run: bool = False,
    connection: Connection | None = None,
    credentials_max_age: float = DEFAULT_MAX_AGE,
    progress: Progress | None = None,
    warn: Warn = lambda _: None,
) -> PushResult:
    """Upload the job's output artifacts to the locations that CodePipeline assigned.

    All outputs are found, listed and checked before the first byte goes up.

    Args:
        job: The job, with its session credentials.
        workspace: The directory; artifacts are made of ``out/<artifact>/`` in it.
        paths: Other directories or files, by the name of the output.
        packing: How to make archives of directories.
        encryption: How to encrypt them, besides SSE-KMS under the job's key.
        if_empty: What to do when there is nothing to push for an output; with ``warn`` and
            ``ignore`` it is left out.
        dry_run: Look, and say what would be done, and do nothing.
        connection: How to reach AWS.
        credentials_max_age: Seconds after which the job's session is renewed ahead of time.
        progress: Is told of all phases.
        warn: Is given warnings, a line each.

    Raises:
        ConfigurationError: There is something to push that the job has no output for.
        WorkspaceUnavailable: ``out/`` holds the outputs of another job.
        NotFound: There is nothing to push for an output, or a path does not exist.
        ArtifactRejected: An entry cannot be packed safely.
        LocalIOError: A file cannot be read, or changed while it was.
        AccessDenied, ServiceUnavailable: As S3 and KMS say, or S3 did not encrypt as asked.
    """
    from cpstage.archive.pack import Packer
    from cpstage.transfer.outputs import find_sources, list_outputs, require_contents
    from cpstage.transfer.send import Sender, planned

    how = packing or Packing()
    given = {name: Path(path) for name, path in (paths or {}).items()}
    watched = progress or Silence()
    place = Workspace(workspace)
    if any(one.name not in given for one in job.output_artifacts):
        place.require_own_outputs(job.id)
    sources = find_sources(job, place, given)
    with Packer(how.level, is_eager=not dry_run) as packer:
        outputs = list_outputs(sources, how, packer, watched)
        if if_empty == "error":
            require_contents(outputs)
        if if_empty == "warn":
            for output in (one for one in outputs if one.is_empty):
                warn(f"nothing to push for output {output.artifact.name} in {output.source}")
        if dry_run:
            return PushResult(job, tuple(planned(output) for output in outputs))

        session = JobSession(job, connection or Connection(), credentials_max_age)
        sender = Sender(session, encryption or Encryption(), packer, watched)
        with session:
            sent = tuple(planned(one) if one.is_empty else sender.send(one) for one in outputs)
    return PushResult(job, sent, session.retries.count)


def _in_order(found: Sequence[Staged], *done: Sequence[Staged]) -> tuple[Staged, ...]:
    """Return what has become of artifacts in the order in which the job has them."""
    by_name = {one.artifact.name: one for some in done for one in some}
    return tuple(by_name[one.artifact.name] for one in found)
