"""The outputs of a job before they are packed: where they are, their format, what is in them.

A push finds and lists every declared output before it uploads the first byte.
"""

from __future__ import annotations

import mimetypes
import os
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cpstage.archive.blob import SMALL_BYTES, FileBlob
from cpstage.archive.formats import CONTENT_TYPES, HEAD_BYTES, Format, recognise
from cpstage.archive.members import quoted
from cpstage.archive.pack import Packer
from cpstage.archive.packing_list import PackingList
from cpstage.errors import ArtifactRejected, ConfigurationError, NotFound, local_failures
from cpstage.filesystem.walk import Entry, single
from cpstage.job import Artifact, Job
from cpstage.progress import Advance, Progress
from cpstage.transfer.options import Packing
from cpstage.workspace.layout import Workspace


@dataclass(frozen=True)
class ListedOutput:
    """An output artifact and its files.

    Attributes:
        artifact: The job's artifact.
        source: The directory or file.
        format: The archive format, or ``raw`` for a single file.
        entries: The files and directories to pack.
    """

    artifact: Artifact
    source: Path
    format: Format | Literal["raw"]
    entries: PackingList

    @property
    def is_empty(self) -> bool:
        """Whether the output has no files."""
        return self.entries.directories == len(self.entries)

    @property
    def files(self) -> int:
        """How many files it holds."""
        return self.entries.files

    @property
    def size(self) -> int:
        """How many bytes its files have together."""
        return self.entries.size

    @property
    def size_bound(self) -> int:
        """How many bytes the artifact can have, roughly and at the most."""
        return self.size + self.size // 100 + 4096 * (len(self.entries) + 1)

    @property
    def is_small(self) -> bool:
        """Whether the packed artifact is kept in memory until its turn."""
        return not self.is_empty and self.size_bound <= SMALL_BYTES

    @property
    def content_type(self) -> str:
        """The media type to store it under."""
        if self.format != "raw":
            return CONTENT_TYPES[self.format]
        return _raw_content_type(next(iter(self.entries)))


def find_sources(
    job: Job, workspace: Workspace, paths: Mapping[str, Path]
) -> list[tuple[Artifact, Path]]:
    """Find the directory or file of each output of the job: in the workspace, or a given path.

    Raises:
        ConfigurationError: A path, or a directory in ``out/``, is for no output of the job.
        NotFound: A path does not exist.
        ArtifactRejected: The place of an output in ``out/`` is a symlink.
        LocalIOError: Something cannot be read.
    """
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
            f"{name}=PATH (cpstage run: --output-path {name}=PATH); nothing was uploaded",
        )
    return source


def _refuse_undeclared(job: Job, workspace: Workspace, paths: Mapping[str, Path]) -> None:
    declared = [artifact.name for artifact in job.output_artifacts]
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


def list_outputs(
    sources: Sequence[tuple[Artifact, Path]], packing: Packing, packer: Packer, progress: Progress
) -> list[ListedOutput]:
    """List the files of every output; the packer may begin to pack them now.

    Raises:
        ConfigurationError: The format is raw, and an output is not a single file.
        ArtifactRejected: An entry cannot be packed safely.
        LocalIOError: Something cannot be read.
    """
    outputs = []
    for artifact, source in sources:
        with progress.phase(f"{artifact.name}: listing", None, "entries") as listed:
            outputs.append(_listed(artifact, source, packing, packer, listed))
    return outputs


def _listed(
    artifact: Artifact, source: Path, packing: Packing, packer: Packer, listed: Advance
) -> ListedOutput:
    with local_failures(source, "read"):
        is_directory, exists = source.is_dir(), source.exists()
    output_format = packing.format
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


def _raw_content_type(entry: Entry) -> str:
    # A raw file is uploaded even if its content contradicts its suffix.
    with suppress(ArtifactRejected), closing(FileBlob(Path(entry.source))) as blob:
        found = recognise(blob.read(0, min(HEAD_BYTES, blob.size)), name=entry.path)
        if found:
            return CONTENT_TYPES[found]
    return mimetypes.guess_type(entry.path)[0] or "application/octet-stream"


def require_files(outputs: list[ListedOutput]) -> None:
    """Check that every output holds something.

    Raises:
        NotFound: One does not.
    """
    for output in outputs:
        if output.is_empty:
            name, there = output.artifact.name, output.source.exists()
            raise NotFound(
                f"there is nothing to push for output {name} in {output.source}"
                + ("" if there else ", which is not there"),
                hint="put the results there, look at "
                + ("--include and --exclude" if there else "--workspace")
                + f", or give {name}=PATH or --if-empty ignore",
            )
