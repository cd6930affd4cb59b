"""Push: pack a job's output artifacts, and upload them to the locations that CodePipeline assigned.

Find, list, check, pack, upload. Every declared output is found and listed before the first byte is
uploaded. An output is packed, encrypted and uploaded as one stream.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

from cpstage.archive.blob import at_once
from cpstage.archive.formats import Format
from cpstage.archive.pack import Packer
from cpstage.archive.packing_list import ratio_note
from cpstage.aws.config import DEFAULT_MAX_AGE, AwsConfig
from cpstage.aws.job_session import JobSession
from cpstage.aws.uploads import StorageOptions, Upload
from cpstage.encryption.header import Header
from cpstage.errors import ConfigurationError
from cpstage.filesystem.walk import read_file
from cpstage.job import Artifact, EncryptionKey, Job, location_document
from cpstage.progress import Advance, Progress, Silence
from cpstage.transfer.options import Encryption, PushOptions
from cpstage.transfer.outputs import ListedOutput, find_sources, list_outputs, require_files
from cpstage.workspace.layout import Workspace

PushStatus = Literal["pushed", "planned", "skipped"]
Warn = Callable[[str], object]

_LOGGER = logging.getLogger("cpstage")

_ENCRYPTED_CONTENT_TYPE = "application/octet-stream"


@dataclass(frozen=True)
class Pushed:
    """One output artifact.

    Attributes:
        artifact: The job's artifact.
        source: The directory or file that is packed.
        status: ``pushed`` now, ``planned`` by a dry run, or ``skipped`` since it is empty.
        format: The archive format, or ``raw`` for a single file.
        files: How many files it holds.
        unpacked_size: How many bytes they have together.
        upload: The answer of S3 to the upload.
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
    packing = options.packing
    given = {name: Path(path) for name, path in options.paths.items()}
    shown = progress or Silence()
    place = Workspace(workspace)
    if any(one.name not in given for one in job.output_artifacts):
        place.require_own_outputs(job.id)
    sources = find_sources(job, place, given)
    with Packer(packing, is_eager=not dry_run) as packer:
        outputs = list_outputs(sources, packing, packer, shown)
        if options.if_empty == "error":
            require_files(outputs)
        if options.if_empty == "warn":
            for output in (one for one in outputs if one.is_empty):
                warn(f"nothing to push for output {output.artifact.name} in {output.source}")
        if dry_run:
            return PushResult(job, tuple(_planned(output) for output in outputs))

        how = options.encryption
        keyed = _with_key(job, how.sse_kms_key_id)
        session = JobSession(keyed, config or AwsConfig(), credentials_max_age)
        storage = StorageOptions(how.sse, how.bucket_key, options.acl, options.tags)
        uploader = _Uploader(session, how, storage, packer=packer, progress=shown)
        with session:
            done = tuple(uploader.upload_all(outputs))
    return PushResult(job, done, session.retries.count)


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


class _Uploader:
    """Packs, encrypts and uploads output artifacts of one job.

    Raises:
        ConfigurationError: Encryption is requested without a key.
    """

    def __init__(
        self,
        session: JobSession,
        encryption: Encryption,
        storage: StorageOptions,
        *,
        packer: Packer,
        progress: Progress,
    ) -> None:
        self._session = session
        self._encryption = encryption
        self._storage = storage
        self._packer = packer
        self._progress = progress
        self._key_ids = self._encryption_keys() if encryption.encrypt else ()

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
            self._progress.phase(f"{name}: uploading", None) as uploaded,
            self._progress.phase(f"{name}: packing", output.size) as packed,
        ):
            sent = self._send(output, self._packed(output, packed), uploaded)
        return _uploaded(output, *sent)

    def _upload_small(self, outputs: Sequence[ListedOutput]) -> Iterator[Pushed]:
        """Pack outputs into memory one after the other, and send several at once."""
        with at_once(lambda packed: self._send(*packed), map(self._collected, outputs)) as sent:
            for output, answer in zip(outputs, sent, strict=True):
                with self._progress.phase(f"{output.artifact.name}: uploading", None) as uploaded:
                    upload, header = answer.result()
                    uploaded(upload.size)
                yield _uploaded(output, upload, header)

    def _collected(self, output: ListedOutput) -> tuple[ListedOutput, Iterator[bytes]]:
        """Pack an output into memory, which takes milliseconds and has no phase of its own."""
        return output, iter([*self._packed(output, lambda _: None)])

    def _send(
        self, output: ListedOutput, chunks: Iterator[bytes], uploaded: Advance = lambda _: None
    ) -> tuple[Upload, Header | None]:
        """Encrypt and upload a packed output."""
        chunks, header = self._encrypted(output, chunks)
        upload = self._session.store.upload(
            chunks,
            output.artifact,
            content_type=_ENCRYPTED_CONTENT_TYPE if header else output.content_type,
            size_bound=output.size_bound,
            options=self._storage,
            uploaded=uploaded,
        )
        return upload, header

    def _packed(self, output: ListedOutput, advance: Advance) -> Iterator[bytes]:
        if output.format == "raw":
            return read_file(next(iter(output.entries)), advance)
        return self._packer.pack(output.entries, output.format, advance)

    def _encrypted(
        self, output: ListedOutput, chunks: Iterator[bytes]
    ) -> tuple[Iterator[bytes], Header | None]:
        """Encrypt a stream, bound to its place, if requested."""
        if not self._key_ids:
            return chunks, None
        from cpstage.encryption.kms import job_context
        from cpstage.encryption.messages import encrypt

        job = self._session.job
        place = job_context(
            account=job.account_id,
            pipeline=job.pipeline_context.pipeline_name,
            stage=job.pipeline_context.stage_name,
            action=job.pipeline_context.action_name,
            artifact=output.artifact.name,
        )
        context = {**self._encryption.context, **place}
        message = encrypt(chunks, key_ids=self._key_ids, context=context, kms=self._session.kms)
        return message.chunks, message.header

    def _encryption_keys(self) -> Sequence[str]:
        key = self._session.job.encryption_key
        own = [key.kms_key_id] if key and key.kms_key_id else []
        key_ids = self._encryption.key_ids or own
        if not key_ids:
            raise ConfigurationError(
                f"job {self._session.job.id} has no KMS key to encrypt artifacts under",
                hint="give one with --encrypt-key",
            )
        return key_ids


def _uploaded(output: ListedOutput, upload: Upload, header: Header | None) -> Pushed:
    if output.format != "raw":
        for note in ratio_note(output.size, upload.size):
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
        files=output.files,
        unpacked_size=output.size,
        notes=tuple(output.entries.notes),
    )
