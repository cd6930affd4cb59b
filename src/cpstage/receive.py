"""Input artifacts on their way from S3 into hidden staging.

:func:`cpstage.stage.fetch` tells the story; this module knows what goes where in each layout, what
becomes of an envelope, and what may be claimed of the bytes that came.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO, Literal

from cpstage.archive import (
    HEAD_BYTES,
    Blob,
    Contents,
    FileBlob,
    Format,
    Limits,
    ReadAhead,
    Unpacker,
    recognise,
)
from cpstage.envelope import (
    HEAD_BYTES as ENVELOPE_HEAD_BYTES,
)
from cpstage.envelope import (
    S3_CLIENT_HINT,
    Header,
    job_context,
    open_sealed,
    read_header,
    s3_client_object,
)
from cpstage.errors import ArtifactRejected
from cpstage.job import Artifact
from cpstage.progress import Progress
from cpstage.results import Layout, Staged
from cpstage.session import JobSession
from cpstage.tree import RelativePath, Tree
from cpstage.workspace import Move, Workspace

Envelopes = Literal["open", "require", "keep"]

_CHUNK = 1 << 20

_VERIFIED: dict[Format | None, tuple[str, ...]] = {
    "zip": ("length", "entity tag", "CRC-32 of every file"),
    "tar": ("length", "entity tag"),
    "tar.gz": ("length", "entity tag", "CRC-32 of the gzip stream"),
    None: ("length", "entity tag"),
}
_AUTHENTICATED = "authentication tag of every frame"


@dataclass(frozen=True)
class Unpacking:
    """How to stage input artifacts.

    Attributes:
        layout: One directory per artifact, or one for all.
        unpack: Whether archives are unpacked.
        limits: What one artifact may unpack to.
        envelopes: ``open`` opens what is sealed with the AWS Encryption SDK, ``require`` refuses
            what is not, ``keep`` stages a sealed artifact as the file it is.
        key_ids: KMS keys that may open an envelope, besides the job's and those of its account.
        context: Pairs that the encryption context of an envelope must have, besides the names of
            the pipeline and the artifact.
    """

    layout: Layout = "per-artifact"
    unpack: bool = True
    limits: Limits = field(default_factory=Limits)
    envelopes: Envelopes = "open"
    key_ids: Sequence[str] = ()
    context: Mapping[str, str] = field(default_factory=dict)


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
        what = s3_client_object(info.metadata)
        if what and self._how.envelopes != "keep":
            raise ArtifactRejected(
                f"artifact {artifact.name} at {artifact.location} is {what}", hint=S3_CLIENT_HINT
            )
        merged = self._how.layout == "merged"
        path = self._workspace.inputs if merged else self._workspace.input(artifact.name)
        return Staged(artifact, path, "planned", info)

    def with_format(self, planned: Staged) -> Staged:
        """Read the start of an artifact's object, and say what it is.

        Raises:
            ArtifactRejected: It is not what its name or Content-Type promises.
        """
        blob = self._session.store.open(planned.artifact, planned.info)
        head = _head(blob)
        header = self._header(head, planned.artifact)
        if header is not None:
            return replace(planned, envelope=header.document())
        return replace(planned, format=self._format(head, planned))

    def stage(self, todo: Sequence[Staged], staging: Path) -> tuple[list[Staged], list[Move]]:
        """Read, check and unpack artifacts below a staging directory.

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
            root.mkdir()
            with Tree(root) as tree:
                unpacker = Unpacker(tree, self._how.limits)
                done += [self._stage_one(one, unpacker, staging) for one in group]
                with _naming(*(one.artifact for one in group)):
                    unpacker.finish()
            moves.append(Move(root, target))
        return done, moves

    def _stage_one(self, planned: Staged, unpacker: Unpacker, staging: Path) -> Staged:
        artifact = planned.artifact
        blob = self._session.store.open(artifact, planned.info)
        label = f"{artifact.name}: fetching"
        with (
            self._progress.phase(label, blob.size) as advance,
            ReadAhead(blob, advance) as stream,
            _naming(artifact),
        ):
            head = stream.peek(ENVELOPE_HEAD_BYTES)
            header = self._header(head, artifact)
            if header is None:
                return self._unpacked(planned, stream, self._format(head, planned), unpacker)
            sealed = replace(planned, envelope=header.document())
            if self._how.envelopes == "keep":
                return self._unpacked(sealed, stream, None, unpacker)
            with self._opened(stream, artifact, staging) as plain:
                found = self._format(plain.peek(HEAD_BYTES), sealed)
                done = self._unpacked(sealed, plain, found, unpacker)
                return replace(done, verified=(*done.verified, _AUTHENTICATED))

    def _unpacked(
        self, planned: Staged, stream: ReadAhead, found: Format | None, unpacker: Unpacker
    ) -> Staged:
        """Unpack an archive, and write what is none as the file it is."""
        name = planned.artifact.name
        contents: Contents | None = None
        if found is None:
            unpacker.keep(stream, planned.artifact.location.file_name, name)
        else:
            contents = unpacker.add(stream, found, name)
        return replace(
            planned, status="staged", format=found, contents=contents, verified=_VERIFIED[found]
        )

    @contextmanager
    def _opened(self, stream: ReadAhead, artifact: Artifact, staging: Path) -> Iterator[ReadAhead]:
        """Open an envelope into hidden staging: an archive is read at random."""
        path = staging / f"{artifact.name}.opened"
        with Tree(staging) as tree:
            chunks = self._plaintext(io.BufferedReader(stream, _CHUNK), artifact)
            tree.write_file(RelativePath(path.name), chunks, executable=False)
        plain = FileBlob(path)
        label = f"{artifact.name}: unpacking"
        try:
            with (
                self._progress.phase(label, plain.size) as advance,
                ReadAhead(plain, advance) as opened,
            ):
                yield opened
        finally:
            plain.close()
            path.unlink()

    def _plaintext(self, message: BinaryIO, artifact: Artifact) -> Iterator[bytes]:
        job = self._session.job
        own = job.encryption_key.kms_key_id if job.encryption_key else None
        place = job_context(pipeline=job.pipeline_context.pipeline_name, artifact=artifact.name)
        return open_sealed(
            message,
            context={**self._how.context, **place},
            key_ids=[*([own] if own else []), *self._how.key_ids],
            account_id=job.account_id,
            partition=job.partition,
            kms=self._session.kms,
        )

    def _header(self, head: bytes, artifact: Artifact) -> Header | None:
        """Return the header of an envelope; None for what is not sealed, where that may be."""
        header = read_header(head)
        if header is None and self._how.envelopes == "require":
            raise ArtifactRejected(
                f"artifact {artifact.name} at {artifact.location} is not sealed in an envelope",
                hint="it may have been replaced by somebody without the key; nothing was staged",
            )
        return header

    def _format(self, head: bytes, staged: Staged) -> Format | None:
        if not self._how.unpack:
            return None
        return recognise(
            head[:HEAD_BYTES],
            name=staged.artifact.location.key,
            content_type=staged.info.content_type,
        )


def _head(blob: Blob) -> bytes:
    """Read, once, as much of the start as tells an envelope or an archive."""
    return blob.read(0, min(ENVELOPE_HEAD_BYTES, blob.size))


@contextmanager
def _naming(*artifacts: Artifact) -> Iterator[None]:
    """Say in a rejection which artifact it is about, or which several."""
    try:
        yield
    except ArtifactRejected as error:
        where = ", ".join(f"{one.name} at {one.location}" for one in artifacts)
        raise ArtifactRejected(f"artifact {where}: {error.message}", hint=error.hint) from error
