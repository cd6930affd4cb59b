"""Input artifacts on their way from S3 into hidden staging.

:func:`cpstage.stage.fetch` tells the story; this module knows what goes where in each layout, what
may open an envelope, and what may be claimed of the bytes that came.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from cpstage.archive.formats import Format
from cpstage.archive.unpack import Unpacker
from cpstage.errors import ObjectChanged
from cpstage.job import Artifact
from cpstage.progress import Progress
from cpstage.removal import remove_tree
from cpstage.session import JobSession
from cpstage.transfer.intake import (
    Intake,
    Source,
    archive_format,
    naming,
    read_head,
    refuse_s3_client,
    sealed_header,
)
from cpstage.transfer.opening import job_keys
from cpstage.transfer.results import Staged
from cpstage.transfer.terms import Unpacking
from cpstage.tree import Tree, local_failures
from cpstage.workspace.fingerprint import differences
from cpstage.workspace.layout import Workspace
from cpstage.workspace.publishing import Move

_LOGGER = logging.getLogger("cpstage")

_VERIFIED: dict[Format | None, tuple[str, ...]] = {
    "zip": ("length", "entity tag", "CRC-32 of every file"),
    "tar": ("length", "entity tag"),
    "tar.gz": ("length", "entity tag", "CRC-32 of the gzip stream"),
    None: ("length", "entity tag"),
}
_AUTHENTICATED = "authentication tag of every frame"


class Receiver:
    """Stages input artifacts of one job.

    Args:
        session: Where they come from, and what opens them.
        workspace: Where they go.
        unpacking: How they are staged.
        progress: Is told of all phases.
    """

    def __init__(
        self, session: JobSession, workspace: Workspace, unpacking: Unpacking, progress: Progress
    ) -> None:
        self._session = session
        self._workspace = workspace
        self._how = unpacking
        self._progress = progress

    def look(self, artifact: Artifact) -> Staged:
        """Look at an artifact's object, without reading it.

        Raises:
            ObjectNotFound, AccessDenied, ServiceUnavailable: As S3 says, naming the artifact.
            ArtifactRejected: It is encrypted in a way that cannot be opened here.
        """
        info = self._session.store.look_at(artifact)
        refuse_s3_client(artifact, info.metadata, self._how)
        merged = self._how.layout == "merged"
        path = self._workspace.inputs if merged else self._workspace.input(artifact.name)
        return Staged(artifact, path, "planned", info)

    def with_format(self, planned: Staged) -> Staged:
        """Read the start of an artifact's object, and say what it is.

        Raises:
            ArtifactRejected: It is not what its name or Content-Type promises.
        """
        source = self._source(planned)
        head = read_head(source.blob)
        with naming(source.title):
            header = sealed_header(head, self._how)
            if header is not None:
                return replace(planned, envelope=header.document())
            found = archive_format(
                head, self._how, hint=source.hint, content_type=source.content_type
            )
            return replace(planned, format=found)

    def stage(self, todo: Sequence[Staged], staging: Path) -> tuple[list[Staged], list[Move]]:
        """Read, check and unpack artifacts below a staging directory.

        Where an object changes while it is read, all that came of it is thrown away, and it is
        read once more from its start.

        Returns:
            What was staged, and the moves that put it into its places.

        Raises:
            ArtifactRejected: An archive is unsafe, damaged or over a limit.
            WorkspaceUnavailable: Two artifacts collide in the merged layout.
            AccessDenied, ServiceUnavailable, OutOfSync: As S3 and KMS say.
            LocalIOError: The disk is full, or failed.
        """
        self._workspace.require_space(sum(one.info.size for one in todo))
        merged = self._how.layout == "merged"
        groups = [list(todo)] if merged and todo else [[one] for one in todo]
        done: list[Staged] = []
        moves: list[Move] = []
        for group in groups:
            target = group[0].path
            root = staging / target.name
            try:
                done += self._stage_group(group, root, staging)
            except ObjectChanged as error:
                _LOGGER.info("%s: beginning again", error.message)
                remove_tree(root)
                again = [self.look(one.artifact) for one in group]
                done += self._stage_group(again, root, staging)
            moves.append(Move(root, target))
        return done, moves

    def compare(
        self, doubtful: Sequence[Staged], staging: Path, warn: Callable[[str], object]
    ) -> list[Staged]:
        """Compare what is in the workspace with the contents of its objects, read anew.

        Args:
            doubtful: What is in the workspace.
            staging: Where to read the objects to; it is empty again at the end.
            warn: Is told the differences.

        Returns:
            The same, each ``unchanged`` or ``modified``.

        Raises:
            CpstageError: As :meth:`stage`.
        """
        scratch = staging / "compared"
        with local_failures(scratch):
            scratch.mkdir()
        compared = []
        different: dict[Path, list[str]] = {}
        for move in self.stage(doubtful, scratch)[1]:
            with local_failures(move.target, "compare"):
                different[move.target] = differences(move.target, move.staged)
        for one in doubtful:
            compared.append(replace(one, status="modified" if different[one.path] else "unchanged"))
        for path, names in different.items():
            if names:
                what = ", ".join(map(repr, names))
                warn(f"{path} differs from its object: {what}; --replace stages it anew")
        remove_tree(scratch)
        return compared

    def _stage_group(self, group: Sequence[Staged], root: Path, staging: Path) -> list[Staged]:
        """Stage artifacts that go into one directory."""
        intake = Intake(self._how, staging, self._progress)
        root.mkdir()
        with Tree(root) as tree:
            unpacker = Unpacker(tree, self._how.limits)
            done = [self._stage_one(one, unpacker, intake) for one in group]
            with naming(", ".join(one.artifact.title for one in group)):
                unpacker.finish()
        return done

    def _stage_one(self, planned: Staged, unpacker: Unpacker, intake: Intake) -> Staged:
        checksum = planned.info.checksum.begin() if planned.info.checksum else None
        source = replace(self._source(planned), checksum=checksum)
        taken = intake.take(source, unpacker)
        verified = _VERIFIED[taken.format]
        if checksum:
            verified = (*verified, f"{checksum.expected.algorithm} of the object")
        return replace(
            planned,
            status="staged",
            format=taken.format,
            contents=taken.contents,
            envelope=taken.envelope,
            verified=(*verified, _AUTHENTICATED) if taken.opened else verified,
        )

    def _source(self, planned: Staged) -> Source:
        artifact = planned.artifact
        return Source(
            name=artifact.name,
            title=artifact.title,
            file_name=lambda: artifact.location.file_name,
            blob=self._session.store.open(artifact, planned.info),
            keys=job_keys(self._session.job, artifact, self._session.kms, self._how),
            hint=artifact.location.key,
            content_type=planned.info.content_type,
        )
