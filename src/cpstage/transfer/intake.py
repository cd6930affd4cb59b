"""From the bytes of one artifact to a tree: envelope opened, format recognised, archive unpacked.

Where the bytes come from, an object in S3 or a local file, and what becomes of the tree is the
caller's business.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cpstage.archive.blob import Blob, ReadAhead
from cpstage.archive.formats import HEAD_BYTES, Format, not_unpacked, recognise
from cpstage.archive.members import Contents
from cpstage.archive.unpack import Unpacker
from cpstage.envelope import HEAD_BYTES as ENVELOPE_HEAD_BYTES
from cpstage.envelope import S3_CLIENT_HINT, Header, read_header, s3_client_object
from cpstage.errors import ArtifactRejected
from cpstage.job import Artifact
from cpstage.progress import Progress
from cpstage.store.checksum import RunningChecksum
from cpstage.transfer.opening import Keys, opened_envelope
from cpstage.transfer.terms import Unpacking

_LOGGER = logging.getLogger("cpstage")


@dataclass(frozen=True)
class Source:
    """One artifact to take in.

    Attributes:
        name: What to call it in messages about several of them, and in progress.
        title: What to call it in an error about it alone.
        file_name: Returns what it is called when it is kept as the file it is, or complains.
        blob: Its bytes.
        keys: What opens its envelope, if it has one.
        hint: The key or file name whose suffix hints at the format.
        content_type: The media type, which hints at it too.
        doing: What progress says is done to it.
        checksum: The checksum that all of its bytes have, if it is known and can be computed.
    """

    name: str
    title: str
    file_name: Callable[[], str]
    blob: Blob
    keys: Keys
    hint: str = ""
    content_type: str = ""
    doing: str = "fetching"
    checksum: RunningChecksum | None = None


@dataclass(frozen=True)
class Taken:
    """What an artifact turned out to be.

    Attributes:
        format: The archive format, or None for what is kept as the file it is.
        contents: What came out of it; None where nothing was unpacked.
        envelope: What the envelope says of itself that it was sealed in, if it was.
        opened: Whether that was opened, each frame of it being authentic.
        notes: What is not as the archive had it, or why nothing was unpacked.
    """

    format: Format | None
    contents: Contents | None = None
    envelope: Mapping[str, Any] | None = None
    opened: bool = False
    notes: tuple[str, ...] = ()


class Intake:
    """Takes artifacts in, each from its own source.

    Args:
        how: Whether and how they are opened and unpacked.
        scratch: A directory with room for the plaintext of envelopes.
        progress: Is told of all phases.
    """

    def __init__(self, how: Unpacking, scratch: Path, progress: Progress) -> None:
        self._how = how
        self._scratch = scratch
        self._progress = progress

    def take(self, source: Source, unpacker: Unpacker) -> Taken:
        """Read an artifact from its start to its end, and put what is in it into a tree.

        Raises:
            ArtifactRejected: It is unsafe, damaged, over a limit, or cannot be opened.
            AccessDenied, ServiceUnavailable, OutOfSync: As S3 and KMS say.
            WorkspaceUnavailable: It collides with another artifact of the same tree.
            LocalIOError: The disk is full, or failed.
        """
        with (
            self._progress.phase(f"{source.name}: {source.doing}", source.blob.size) as advance,
            ReadAhead(source.blob, advance, source.checksum) as stream,
            naming(source.title),
        ):
            taken = self._take(stream, source, unpacker)
            stream.finish()
        for note in taken.notes:
            _LOGGER.warning("%s: %s", source.title, note)
        return taken

    def _take(self, stream: ReadAhead, source: Source, unpacker: Unpacker) -> Taken:
        head = stream.peek(ENVELOPE_HEAD_BYTES)
        header = sealed_header(head, self._how)
        if header is None:
            found = self._format(head, source)
            return self._unpack(stream, found, source, unpacker)
        envelope = header.document()
        if self._how.envelopes == "keep":
            self._unpack(stream, None, source, unpacker)
            return Taken(None, None, envelope)
        with self._opened(stream, source) as plain:
            found = self._format(plain.peek(HEAD_BYTES), source)
            taken = self._unpack(plain, found, source, unpacker)
        return replace(taken, envelope=envelope, opened=True)

    def _format(self, head: bytes, source: Source) -> Format | None:
        hint, content_type = source.hint, source.content_type
        return archive_format(head, self._how, hint=hint, content_type=content_type)

    def _unpack(
        self, stream: ReadAhead, found: Format | None, source: Source, unpacker: Unpacker
    ) -> Taken:
        """Unpack an archive, and write what is none as the file it is."""
        if found is None:
            note = not_unpacked(stream.peek(HEAD_BYTES)) if self._how.unpack else ""
            unpacker.keep(stream, source.file_name(), source.name)
            return Taken(None, notes=(note,) if note else ())
        contents = unpacker.add(stream, found, source.name)
        return Taken(found, contents, notes=tuple(contents.notes))

    @contextmanager
    def _opened(self, stream: ReadAhead, source: Source) -> Iterator[ReadAhead]:
        with (
            opened_envelope(stream, source.keys, self._scratch) as plain,
            self._progress.phase(f"{source.name}: unpacking", plain.size) as advance,
            ReadAhead(plain, advance) as opened,
        ):
            yield opened


def sealed_header(head: bytes, how: Unpacking) -> Header | None:
    """Return the header of an envelope; None for what is not sealed, where that may be.

    Raises:
        ArtifactRejected: It has to be sealed, and is not.
    """
    header = read_header(head)
    if header is None and how.envelopes == "require":
        raise ArtifactRejected(
            "it is not sealed in an envelope",
            hint="it may have been replaced by somebody without the key; nothing was staged",
        )
    return header


def refuse_s3_client(artifact: Artifact, metadata: Mapping[str, str], how: Unpacking) -> None:
    """Refuse what only an Amazon S3 Encryption Client can open, unless it is kept as it is.

    Raises:
        ArtifactRejected: It is such an object, by its metadata.
    """
    what = s3_client_object(metadata)
    if what and how.envelopes != "keep":
        raise ArtifactRejected(f"{artifact.title} is {what}", hint=S3_CLIENT_HINT)


def archive_format(head: bytes, how: Unpacking, *, hint: str, content_type: str) -> Format | None:
    """Return the format of what is to be unpacked, and None for what is to be kept as it is.

    Args:
        head: The start of it.
        how: Whether it is to be unpacked.
        hint: The key or file name whose suffix hints at the format.
        content_type: The media type, which hints at it too.

    Raises:
        ArtifactRejected: It is not what its name or media type promises.
    """
    if not how.unpack:
        return None
    return recognise(head[:HEAD_BYTES], name=hint, content_type=content_type)


def read_head(blob: Blob) -> bytes:
    """Read as much of the start as tells an envelope or an archive."""
    return blob.read(0, min(ENVELOPE_HEAD_BYTES, blob.size))


@contextmanager
def naming(title: str) -> Iterator[None]:
    """Say in a rejection what it is about."""
    try:
        yield
    except ArtifactRejected as error:
        raise ArtifactRejected(f"{title}: {error.message}", hint=error.hint) from error
