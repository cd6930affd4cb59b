"""Fetch: stage a job's input artifacts in a workspace.

Look, plan, stage, verify, publish. Nothing appears in ``in/`` before every byte of its artifact
has been verified; a fetch that fails leaves the workspace as it was.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from cpstage.archive.blob import Blob, at_once, early_reads
from cpstage.archive.formats import Format
from cpstage.archive.unpack import Unpacker
from cpstage.aws.config import DEFAULT_MAX_AGE, AwsConfig
from cpstage.aws.job_session import JobSession
from cpstage.errors import ObjectChanged, ObjectNotFound, local_failures, require_type
from cpstage.filesystem.removal import remove_tree
from cpstage.filesystem.tree import Tree, differences, fingerprint
from cpstage.job import Artifact, ArtifactSet, choose, location_document
from cpstage.progress import Progress, Silence
from cpstage.transfer.artifact import (
    Source,
    begin_checksum,
    extract,
    identify,
    job_keys,
    naming,
    read_head,
    refuse_s3_client,
)
from cpstage.transfer.manifest import Manifest, Staged, record_of
from cpstage.transfer.options import FetchOptions, Unpacking
from cpstage.workspace.layout import Outputs, Workspace
from cpstage.workspace.publishing import Move

Warn = Callable[[str], object]

_LOGGER = logging.getLogger("cpstage")

_VERIFIED: dict[Format | None, tuple[str, ...]] = {
    "zip": ("length", "ETag", "CRC-32 of every file"),
    "tar": ("length", "ETag"),
    "tar.gz": ("length", "ETag", "CRC-32 of the gzip stream"),
    None: ("length", "ETag"),
}
_AUTHENTICATED = "authentication tag of every frame"


@dataclass(frozen=True)
class FetchResult:
    """The result of a fetch.

    Attributes:
        job: The job, or the past execution.
        inputs: What is in ``in/``.
        outputs: The directories for outputs, by name.
        retries: How many requests to S3 and KMS had to be made again.
        made: What a past execution made, in ``made/``.
        missing: Artifacts whose objects do not exist any more.
    """

    job: ArtifactSet
    inputs: tuple[Staged, ...]
    outputs: dict[str, Path]
    retries: int = 0
    made: tuple[Staged, ...] = ()
    missing: tuple[Artifact, ...] = ()

    def document(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        context = self.job.pipeline_context
        return {
            "job_id": self.job.id,
            "read_with": self.job.read_with,
            "pipeline": context.pipeline_name,
            "execution_id": context.pipeline_execution_id,
            "action": context.action_name,
            "inputs": [staged.document() for staged in self.inputs],
            "made": [staged.document() for staged in self.made],
            "missing": [
                {"name": one.name, "location": location_document(one)} for one in self.missing
            ],
            "outputs": {name: str(path) for name, path in self.outputs.items()},
            "retries": self.retries,
        }


def fetch(
    job: ArtifactSet,
    workspace: Path | str = ".",
    options: FetchOptions | None = None,
    *,
    dry_run: bool = False,
    config: AwsConfig | None = None,
    credentials_max_age: float = DEFAULT_MAX_AGE,
    progress: Progress | None = None,
    warn: Warn = lambda _: None,
) -> FetchResult:
    """Stage the job's input artifacts in a workspace, and make directories for its outputs.

    An artifact whose object has not changed since it was staged is left alone. If its tree was
    modified since then, the result says so, with a warning.

    Of a past execution, what its actions made is staged in ``made/``, beside the inputs.

    Args:
        job: The job, with its session credentials; or a past execution.
        workspace: The directory; artifacts go to ``in/<artifact>/`` in it.
        options: What to stage, and how.
        dry_run: Report what would be done, and change nothing.
        config: The configuration of the AWS clients.
        credentials_max_age: Seconds after which the job's credentials are refreshed.
        progress: Shows all phases.
        warn: Is called with the line of each warning.

    Raises:
        UsageError: A glob matches no input.
        ObjectNotFound: Objects do not exist any more, and are not to be skipped.
        ArtifactRejected: An artifact is unsafe, damaged, over a limit, or cannot be decrypted.
        ObjectNotFound, AccessDenied, ServiceUnavailable, OutOfSync: As S3 and KMS say.
        WorkspaceUnavailable: Something is in the way, or another run holds the workspace.
        LocalIOError: The disk is full, or failed.
    """
    options, progress = options or FetchOptions(), progress or Silence()
    require_type("the job", job, ArtifactSet)
    require_type("options", options, FetchOptions)
    place = Workspace(workspace)
    outputs: dict[str, Path] = {one.name: place.output(one.name) for one in job.artifacts_to_build}
    session = JobSession(job, config or AwsConfig(), credentials_max_age)
    fetching = _Fetch(session, place, options.unpacking, progress)

    with session:
        chosen = () if options.skips_inputs(job) else _choose(job, options.artifacts)
        _choose(job, [one for one in options.unpacking.no_unpack if one != "*"])
        found, missing = fetching.look_at(chosen, options, warn)
        if job.made_artifacts:
            place.require_made()
        with nullcontext() if dry_run else place.locked(options.wait):
            manifest = Manifest(place, options.unpacking, progress)
            known = manifest.sort(found, replace=options.replace, verify=options.verify)
            place.require_outputs([*outputs.values()])
            choice: Outputs = (
                "replace" if options.replace else "keep" if options.keep_out else "refuse"
            )
            new_out = place.outputs_to_replace(job.id, outputs, choice, warn)
            if not options.replace:
                place.require_free([one.path for one in known.todo])
            if dry_run:
                planned = fetching.identify(known.todo)
                result = _in_order(found, planned, known.settled, known.doubtful)
            else:
                with place.staging() as staging:
                    compared = fetching.compare(known.doubtful, staging, warn)
                    staged, moves, fingerprints = fetching.stage(known.todo, staging)
                    result = _in_order(found, staged, known.settled, compared)
                    modified = (one.path for one in known.settled if one.status == "modified")
                    for path in dict.fromkeys(modified):
                        warn(f"{path} was modified since it was staged; --replace stages it anew")
                    for one in compared:
                        same = one.status == "unchanged"
                        fingerprints[one.path] = fingerprint(one.path) if same else "modified"
                    entries = manifest.entries(result, fingerprints)
                    moves += place.output_moves([*outputs.values()], staging, replace=new_out)
                    moves += place.record_moves(record_of(job), entries, staging)
                    place.publish(moves)
    return FetchResult(
        job,
        tuple(one for one in result if not one.made),
        outputs,
        session.retries.count,
        tuple(one for one in result if one.made),
        tuple(missing),
    )


def _choose(job: ArtifactSet, globs: Sequence[str]) -> list[Artifact]:
    """Return the artifacts to stage: the inputs, and those that a past execution made."""
    if not job.made_artifacts:
        return choose(job.input_artifacts, globs)
    return choose([*job.input_artifacts, *job.made_artifacts], globs, "artifact", "the execution")


def _in_order(found: Sequence[Staged], *done: Sequence[Staged]) -> tuple[Staged, ...]:
    """Return results in the order in which the job has the artifacts."""
    by_name = {one.artifact.name: one for some in done for one in some}
    return tuple(by_name[one.artifact.name] for one in found)


def _all_missing(errors: Sequence[ObjectNotFound], *, is_rest: bool) -> ObjectNotFound:
    """Return the error for objects that do not exist any more."""
    what, which = errors[0].message, "it"
    if len(errors) > 1:
        what, which = f"{len(errors)} objects do not exist any more", "them"
    rest = ": --skip-missing stages the rest" if is_rest else ""
    return ObjectNotFound(what, hint=f"a lifecycle rule may have removed {which}{rest}")


class _Fetch(NamedTuple):
    """The steps of one fetch."""

    session: JobSession
    workspace: Workspace
    options: Unpacking
    progress: Progress

    def look_at(
        self, artifacts: Sequence[Artifact], options: FetchOptions, warn: Warn
    ) -> tuple[list[Staged], list[Artifact]]:
        """Ask S3 about the objects of artifacts; of missing ones, say so, a line each.

        Returns:
            What there is, and the artifacts whose objects are missing.

        Raises:
            ObjectNotFound: Objects are missing, and are not to be skipped; or all are.
        """
        found: list[Staged] = []
        missing: list[tuple[Artifact, ObjectNotFound]] = []
        with at_once(self.look, artifacts) as looked:
            for artifact, answer in zip(artifacts, looked, strict=True):
                try:
                    found.append(answer.result())
                except ObjectNotFound as error:
                    if self.session.job.read_with == "job" and not options.skip_missing:
                        raise
                    missing.append((artifact, error))
        for artifact, _ in missing if options.skip_missing or len(missing) > 1 else []:
            warn(f"the object of {artifact.title} does not exist any more")
        if missing and not (options.skip_missing and found):
            raise _all_missing([error for _, error in missing], is_rest=bool(found))
        return found, [artifact for artifact, _ in missing]

    def look(self, artifact: Artifact) -> Staged:
        """Ask S3 about an artifact's object, and decide where it goes."""
        info = self.session.store.head(artifact)
        refuse_s3_client(artifact, info.metadata, self.options)
        made = artifact in self.session.job.made_artifacts
        parent = self.workspace.made if made else self.workspace.inputs
        path = parent if self.options.layout == "merged" else parent / artifact.name
        return Staged(artifact, path, "planned", info, made=made)

    def identify(self, todo: Sequence[Staged]) -> list[Staged]:
        """Read the start of each artifact's object, and add its format or its encryption."""
        with at_once(self._identify, todo) as identified:
            return [one.result() for one in identified]

    def _identify(self, planned: Staged) -> Staged:
        source = self._source_of(planned, self._open(planned))
        with naming(source.title):
            found = identify(
                read_head(source.blob),
                self.options.of_artifact(planned.artifact.name),
                name=source.hint,
                content_type=source.content_type,
            )
        return replace(planned, format=found.format, envelope=found.message)

    def stage(
        self, todo: Sequence[Staged], staging: Path
    ) -> tuple[list[Staged], list[Move], dict[Path, str]]:
        """Read, verify and unpack artifacts below a staging directory.

        An object that changes while it is read is read once more from its start.

        Returns:
            What was staged, the moves that publish it, and the fingerprints of the trees by the
            places of the artifacts.
        """
        self.workspace.require_space(sum(one.info.size for one in todo))
        groups: dict[Path, list[Staged]] = {}  # in a merged layout, several have one place
        for one in todo:
            groups.setdefault(one.path, []).append(one)
        done: list[Staged] = []
        moves: list[Move] = []
        fingerprints: dict[Path, str] = {}
        objects = [self._open(one) for group in groups.values() for one in group]
        with early_reads(objects) as blobs:
            for target, group in groups.items():
                root = staging / target.name
                ours = islice(blobs, len(group))
                try:
                    staged, found = self._stage_group(group, ours, root, staging)
                except ObjectChanged as error:
                    _LOGGER.info("%s: beginning again", error.message)
                    remove_tree(root)
                    deque(ours, 0)  # passed over: the next group has the next blobs
                    again = [self.look(one.artifact) for one in group]
                    staged, found = self._stage_group(again, map(self._open, again), root, staging)
                done += staged
                fingerprints[target] = found
                moves.append(Move(root, target))
        return done, moves, fingerprints

    def compare(self, doubtful: Sequence[Staged], staging: Path, warn: Warn) -> list[Staged]:
        """Compare staged artifacts with the contents of their objects, which are read again.

        Return the same artifacts, each ``unchanged`` or ``modified``.
        """
        scratch = staging / "compared"
        with local_failures(scratch):
            scratch.mkdir()
        different: dict[Path, list[str]] = {}
        for move in self.stage(doubtful, scratch)[1]:
            with local_failures(move.target, "compare"):
                different[move.target] = differences(move.target, move.staged)
        for path, names in different.items():
            if names:
                named = ", ".join(map(repr, names))
                warn(f"{path} differs from its object: {named}; --replace stages it anew")
        remove_tree(scratch)
        return [
            replace(one, status="modified" if different[one.path] else "unchanged")
            for one in doubtful
        ]

    def _stage_group(
        self, group: Sequence[Staged], blobs: Iterable[Blob], root: Path, staging: Path
    ) -> tuple[list[Staged], str]:
        """Stage the artifacts of one directory, and take its fingerprint."""
        root.mkdir()
        with Tree(root) as tree, Unpacker(tree, self.options, self.progress) as unpacker:
            sources = map(self._source_of, group, blobs)
            done = [
                self._stage_one(one, source, unpacker, staging)
                for one, source in zip(group, sources, strict=True)
            ]
            with naming(", ".join(one.artifact.title for one in group)):
                return done, unpacker.finish_and_hash()

    def _stage_one(
        self, planned: Staged, source: Source, unpacker: Unpacker, staging: Path
    ) -> Staged:
        how = self.options.of_artifact(planned.artifact.name)
        extracted = extract(source, unpacker, how, staging, self.progress)
        verified = _VERIFIED[extracted.format]
        if source.checksum:
            verified = (*verified, f"{source.checksum.expected.algorithm} of the object")
        if extracted.decrypted:
            verified = (*verified, _AUTHENTICATED)
        return replace(
            planned,
            status="staged",
            format=extracted.format,
            contents=extracted.contents,
            envelope=extracted.envelope,
            notes=extracted.notes,
            verified=verified,
        )

    def _open(self, planned: Staged) -> Blob:
        return self.session.store.open(planned.artifact, planned.info)

    def _source_of(self, planned: Staged, blob: Blob) -> Source:
        artifact, info = planned.artifact, planned.info
        return Source(
            name=artifact.name,
            title=artifact.title,
            file_name=lambda: artifact.location.file_name,
            blob=blob,
            keys=partial(job_keys, self.session.job, artifact, self.session.kms, self.options),
            hint=artifact.location.key,
            content_type=info.content_type,
            checksum=begin_checksum(artifact, info),
        )
