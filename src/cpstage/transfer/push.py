"""Push: pack a job's output artifacts, and upload them to the locations that CodePipeline assigned.

Find, list, check, pack, upload. Every declared output is found and listed before the first byte is
uploaded. An output is packed, encrypted and uploaded as one stream.
"""

from __future__ import annotations

import logging
import mimetypes
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any, Literal, NamedTuple

from cpstage.archive.blob import SMALL_BYTES, FileBlob, InFlight, at_once
from cpstage.archive.formats import CONTENT_TYPES, HEAD_BYTES, Format, recognise
from cpstage.archive.pack import Packer
from cpstage.archive.packing_list import PackingList, ratio_note
from cpstage.archive.paths import quoted
from cpstage.aws.config import DEFAULT_MAX_AGE, AwsConfig
from cpstage.aws.job_session import JobSession
from cpstage.aws.uploads import StorageOptions, Upload
from cpstage.encryption.header import Header, job_context
from cpstage.errors import (
    ArtifactRejected,
    ConfigurationError,
    NotFound,
    local_failures,
    require_type,
)
from cpstage.filesystem.walk import read_file, single
from cpstage.job import Artifact, EncryptionKey, Job, location_document
from cpstage.progress import Advance, Progress, Silence
from cpstage.transfer.options import Encryption, OutputFormat, PushOptions
from cpstage.workspace.layout import Workspace

PushStatus = Literal["pushed", "planned", "skipped"]
Warn = Callable[[str], object]

_LOGGER = logging.getLogger("cpstage")

_MORE_PARTS_PER_THREAD = 1
"""Parts on their way besides the first four; packing and encrypting take memory as well."""

_ENCRYPTED_CONTENT_TYPE = "application/octet-stream"


@dataclass(frozen=True)
class Pushed:
    """One output artifact.

    Attributes:
        source: The directory or file that is packed.
        status: ``pushed`` now, ``planned`` by a dry run, or ``skipped`` since it is empty.
        format: The archive format, or ``raw`` for a single file.
        unpacked_size: How many bytes its files have together.
        envelope: The header of the encrypted message as JSON has it.
        notes: What was left out, differs from the directory, or hinders a fetch; a line each.
    """

    artifact: Artifact
    source: Path
    status: PushStatus
    format: Format | Literal["raw"]
    files: int
    unpacked_size: int
    upload: Upload | None = None
    envelope: Mapping[str, Any] | None = None
    notes: tuple[str, ...] = ()

    def document(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        upload = self.upload
        return {
            "name": self.artifact.name,
            "source": str(self.source),
            "status": self.status,
            "location": location_document(self.artifact),
            "format": self.format,
            "files": self.files,
            "unpacked_size": self.unpacked_size,
            "size": upload.size if upload else None,
            "version_id": upload.version_id if upload else None,
            "etag": upload.etag if upload else None,
            "checksum": str(upload.checksum) if upload else None,
            "encryption": upload.encryption if upload else None,
            "kms_key_id": upload.kms_key_id if upload else None,
            "envelope": self.envelope,
            "notes": list(self.notes),
        }


@dataclass(frozen=True)
class PushResult:
    """The result of a push: every output artifact of the job.

    Attributes:
        retries: How many requests to S3 and KMS had to be made again.
    """

    job: Job
    outputs: tuple[Pushed, ...]
    retries: int = 0

    def document(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {
            "job_id": self.job.id,
            "outputs": [pushed.document() for pushed in self.outputs],
            "retries": self.retries,
        }


def push(
    job: Job,
    workspace: Path | str = ".",
    options: PushOptions | None = None,
    *,
    dry_run: bool = False,
    config: AwsConfig | None = None,
    credentials_max_age: float = DEFAULT_MAX_AGE,
    progress: Progress | None = None,
    warn: Warn = lambda _: None,
) -> PushResult:
    """Upload the job's output artifacts to the locations that CodePipeline assigned.

    Args:
        job: The job, with its session credentials.
        workspace: The directory; artifacts are made of ``out/<artifact>/`` in it.
        options: What to upload, and how.
        dry_run: Report what would be done, and upload nothing.
        config: The configuration of the AWS clients.
        credentials_max_age: Seconds after which the job's credentials are refreshed.
        progress: Shows all phases.
        warn: Is called with the line of each warning.

    Raises:
        ConfigurationError: A path or a directory in ``out/`` belongs to no output of the job.
        WorkspaceUnavailable: ``out/`` belongs to another job.
        NotFound: An output has no files, or a path does not exist.
        ArtifactRejected: An entry cannot be packed safely.
        LocalIOError: A file cannot be read, or changed while it was read.
        AccessDenied, ServiceUnavailable: As S3 and KMS say, or S3 did not encrypt as asked.
    """
    options = options or PushOptions()
    require_type("the job", job, Job)
    require_type("options", options, PushOptions)
    packing, how = options.packing, options.encryption
    given = {name: Path(path) for name, path in options.paths.items()}
    shown = progress or Silence()
    place = Workspace(workspace)
    if any(one.name not in given for one in job.output_artifacts):
        place.require_own_outputs(job.id)
    sources = _find_sources(job, place, given)
    with Packer(packing, is_eager=not dry_run) as packer:
        outputs = []
        for artifact, source in sources:
            with shown.phase(f"{artifact.name}: listing", None, "entries") as listed:
                outputs.append(_listed(artifact, source, packing.format, packer, listed))
        for output in (one for one in outputs if one.is_empty):
            if options.if_empty == "error":
                raise _nothing_to_push(output)
            if options.if_empty == "warn":
                warn(f"nothing to push for output {output.artifact.name} in {output.source}")
        if dry_run:
            return PushResult(job, tuple(_planned(output) for output in outputs))

        keyed = _with_key(job, how.sse_kms_key_id)
        session = JobSession(keyed, config or AwsConfig(), credentials_max_age)
        storage = StorageOptions(how.sse, how.bucket_key, options.acl, options.tags)
        key_ids = _encryption_keys(keyed, how) if how.encrypt else ()
        uploader = _Uploader(session, packer, storage, key_ids, how.context, shown)
        with session:
            done = tuple(uploader.upload_all(outputs))
    return PushResult(job, done, session.retries.count)


@dataclass(frozen=True)
class ListedOutput:
    """An output artifact, the directory or file that it is made of, and its entries."""

    artifact: Artifact
    source: Path
    format: Format | Literal["raw"]
    entries: PackingList

    @property
    def is_empty(self) -> bool:
        """Whether the output has no files."""
        return self.entries.directories == len(self.entries)

    @property
    def size_bound(self) -> int:
        """How many bytes the artifact can have, roughly and at the most."""
        size = self.entries.size
        return size + size // 100 + 4096 * (len(self.entries) + 1)

    @property
    def is_small(self) -> bool:
        """Whether the packed artifact is kept in memory until its turn."""
        return not self.is_empty and self.size_bound <= SMALL_BYTES

    @property
    def content_type(self) -> str:
        """The media type to store it under."""
        if self.format != "raw":
            return CONTENT_TYPES[self.format]
        file = next(iter(self.entries))
        # A raw file is uploaded even if its content contradicts its suffix.
        with suppress(ArtifactRejected), closing(FileBlob(Path(file.source))) as blob:
            found = recognise(blob.read(0, min(HEAD_BYTES, blob.size)), name=file.path)
            if found:
                return CONTENT_TYPES[found]
        return mimetypes.guess_type(file.path)[0] or "application/octet-stream"


def _find_sources(
    job: Job, workspace: Workspace, paths: Mapping[str, Path]
) -> list[tuple[Artifact, Path]]:
    """Find the directory or file of each output of the job: in the workspace, or a given path."""
    _refuse_undeclared(job, workspace, paths)
    for name, path in paths.items():
        with local_failures(path, "read"):
            exists = path.exists()
        if not exists:
            raise NotFound(f"{path} does not exist; output {name} is packed from it")
    return [
        (one, paths[one.name] if one.name in paths else _own_output(one.name, workspace))
        for one in job.output_artifacts
    ]


def _own_output(name: str, workspace: Workspace) -> Path:
    """Return the directory of an output, which a build did not replace by a symlink."""
    source = workspace.output(name)
    with local_failures(source, "read"):
        target = os.readlink(source) if source.is_symlink() else None
    if target is not None:
        raise ArtifactRejected(
            f"{source} is a symlink to {quoted(target)}",
            hint=f"write the results into a directory {source}, or name the other directory with "
            f"{_another_path(name)}; nothing was uploaded",
        )
    return source


def _refuse_undeclared(job: Job, workspace: Workspace, paths: Mapping[str, Path]) -> None:
    declared = [one.name for one in job.output_artifacts]
    known = f"the job declares {', '.join(declared) or 'no outputs'}"
    for name in paths:
        if name not in declared:
            raise ConfigurationError(f"{name} is not an output of job {job.id}", hint=known)
    with local_failures(workspace.outputs, "read"):
        inside = sorted(workspace.outputs.iterdir()) if workspace.outputs.is_dir() else []
    for path in inside:
        if path.name not in declared and not path.name.startswith("."):
            raise ConfigurationError(
                f"{path} is for no output of job {job.id}", hint=f"{known}: move it elsewhere"
            )


def _listed(
    artifact: Artifact, source: Path, output_format: OutputFormat, packer: Packer, listed: Advance
) -> ListedOutput:
    """List the files of an output; the packer may begin to pack them now."""
    with local_failures(source, "read"):
        is_directory, exists = source.is_dir(), source.exists()
    if output_format == "auto":
        output_format = "raw" if exists and not is_directory else "zip"
    if is_directory:
        entries = packer.list_entries(source, output_format, listed)
    else:
        entries = PackingList([single(source)] if exists else [])
    if output_format == "raw" and entries and (entries.files, len(entries)) != (1, 1):
        raise ConfigurationError(
            f"cannot upload output {artifact.name} as raw: {source} has {len(entries)} entries",
            hint="raw takes one regular file: give the file, or another --format",
        )
    return ListedOutput(artifact, source, output_format, entries)


def _nothing_to_push(output: ListedOutput) -> NotFound:
    name, there = output.artifact.name, output.source.exists()
    return NotFound(
        f"there is nothing to push for output {name} in {output.source}"
        + ("" if there else ", which is not there"),
        hint="put the results there, look at "
        + ("--include and --exclude" if there else "--workspace")
        + f", or give {_another_path(name)} or --if-empty ignore",
    )


def _another_path(name: str) -> str:
    """Say how 'push' and 'run' take an output from another path; 'work' cannot."""
    return f"{name}=PATH (cpstage run: --output-path {name}=PATH)"


def _with_key(job: Job, key_id: str | None) -> Job:
    """Return the job with a KMS key for SSE-KMS, where its pipeline has none.

    Raises:
        ConfigurationError: The pipeline has another key.
    """
    own = job.encryption_key.kms_key_id if job.encryption_key else None
    if key_id is None or key_id == own:
        return job
    if own is not None:
        raise ConfigurationError(
            f"the pipeline has the KMS key {own}: outputs are encrypted under that key",
            hint="leave out --sse-kms-key-id",
        )
    return replace(job, encryption_key=EncryptionKey(key_id, "KMS"))


class _Uploader(NamedTuple):
    """Packs, encrypts under some KMS keys, and uploads output artifacts of one job."""

    session: JobSession
    packer: Packer
    storage: StorageOptions
    key_ids: Sequence[str]
    context: Mapping[str, str]
    progress: Progress

    def upload_all(self, outputs: Iterable[ListedOutput]) -> Iterator[Pushed]:
        """Pack and upload outputs in their order; while small ones are sent, others are packed.

        Raises:
            AccessDenied, ServiceUnavailable: As S3 and KMS say, or S3 did not encrypt as asked.
            LocalIOError: A file cannot be read, or changed since it was listed.
        """
        for is_small, some in groupby(outputs, lambda one: one.is_small):
            run = [*some]
            is_worth_it = is_small and len(run) > 1
            yield from self._upload_small(run) if is_worth_it else map(self._upload, run)

    def _upload(self, output: ListedOutput) -> Pushed:
        """Pack and upload one output as one stream."""
        if output.is_empty:
            return _planned(output)
        name = output.artifact.name
        with (
            self.progress.phase(f"{name}: uploading", None) as uploaded,
            self.progress.phase(f"{name}: packing", output.entries.size) as packed,
        ):
            sent = self._send(output, self._packed(output, packed), uploaded)
        return _uploaded(output, *sent)

    def _upload_small(self, outputs: Sequence[ListedOutput]) -> Iterator[Pushed]:
        """Pack outputs into memory one after the other, and send several at once.

        To pack one takes milliseconds, and has no phase.
        """
        packed = ((one, iter([*self._packed(one, lambda _: None)])) for one in outputs)
        with at_once(lambda one: self._send(*one), packed) as sent:
            for output, answer in zip(outputs, sent, strict=True):
                with self.progress.phase(f"{output.artifact.name}: uploading", None) as uploaded:
                    upload, header = answer.result()
                    uploaded(upload.size)
                yield _uploaded(output, upload, header)

    def _send(
        self, output: ListedOutput, chunks: Iterator[bytes], uploaded: Advance = lambda _: None
    ) -> tuple[Upload, Header | None]:
        """Upload a packed output, encrypted and bound to its place if that is requested."""
        header = None
        if self.key_ids:
            from cpstage.encryption.messages import encrypt

            kms, context = self.session.kms, self._context_of(output)
            header, chunks = encrypt(chunks, key_ids=self.key_ids, context=context, kms=kms)
        upload = self.session.store.upload(
            chunks,
            output.artifact,
            content_type=_ENCRYPTED_CONTENT_TYPE if header else output.content_type,
            size_bound=output.size_bound,
            in_flight=InFlight(time.monotonic(), _MORE_PARTS_PER_THREAD),
            options=self.storage,
            uploaded=uploaded,
        )
        return upload, header

    def _packed(self, output: ListedOutput, advance: Advance) -> Iterator[bytes]:
        if output.format == "raw":
            return read_file(next(iter(output.entries)), advance)
        return self.packer.pack(output.entries, output.format, advance)

    def _context_of(self, output: ListedOutput) -> dict[str, str]:
        job = self.session.job
        place = job_context(
            account=job.account_id,
            pipeline=job.pipeline_context.pipeline_name,
            stage=job.pipeline_context.stage_name,
            action=job.pipeline_context.action_name,
            artifact=output.artifact.name,
        )
        return {**self.context, **place}


def _encryption_keys(job: Job, encryption: Encryption) -> Sequence[str]:
    key = job.encryption_key
    own = [key.kms_key_id] if key and key.kms_key_id else []
    key_ids = encryption.key_ids or own
    if not key_ids:
        raise ConfigurationError(
            f"job {job.id} has no KMS key to encrypt artifacts under",
            hint="give one with --encrypt-key",
        )
    return key_ids


def _uploaded(output: ListedOutput, upload: Upload, header: Header | None) -> Pushed:
    if output.format != "raw":
        for note in ratio_note(output.entries.size, upload.size):
            _LOGGER.warning("%s: %s", output.source, note)
            output.entries.notes.append(note)
    envelope = header.document() if header else None
    return replace(_planned(output), status="pushed", upload=upload, envelope=envelope)


def _planned(output: ListedOutput) -> Pushed:
    """Return the planned result of an output; an empty output is skipped."""
    return Pushed(
        artifact=output.artifact,
        source=output.source,
        status="skipped" if output.is_empty else "planned",
        format=output.format,
        files=output.entries.files,
        unpacked_size=output.entries.size,
        notes=tuple(output.entries.notes),
    )
