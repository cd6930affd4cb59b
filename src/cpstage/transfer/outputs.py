"""Which directory or file is which output artifact: all of it settled before a byte goes up.

Every output that the job declares has to be found, and nothing else is taken for one: a release
that misses a part, or has one that the pipeline knows nothing of, is an error and not a surprise.
"""

from __future__ import annotations

import mimetypes
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cpstage.archive.blob import FileBlob
from cpstage.archive.formats import CONTENT_TYPES, HEAD_BYTES, Format, recognise
from cpstage.archive.pack import Packer
from cpstage.archive.packing_list import PackingList
from cpstage.errors import ArtifactRejected, ConfigurationError, NotFound
from cpstage.filesystem import local_failures
from cpstage.job import Artifact, Job
from cpstage.progress import Advance, Progress
from cpstage.transfer.terms import Packing
from cpstage.walk import Entry, single
from cpstage.workspace.layout import Workspace


@dataclass(frozen=True)
class Output:
    """An output artifact, and what it is made of.

    Attributes:
        artifact: The job's artifact.
        source: The directory or file.
        format: The archive format, or ``raw`` for the one file as it is.
        entries: What goes into it.
    """

    artifact: Artifact
    source: Path
    format: Format | Literal["raw"]
    entries: PackingList

    @property
    def is_empty(self) -> bool:
        """Tell whether there is nothing in it but directories."""
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
    def content_type(self) -> str:
        """The media type to store it under."""
        if self.format != "raw":
            return CONTENT_TYPES[self.format]
        return _raw_content_type(next(iter(self.entries)))


def find_sources(
    job: Job, workspace: Workspace, paths: Mapping[str, Path]
) -> list[tuple[Artifact, Path]]:
    """Find the directory or file that each output of the job is made of.

    Args:
        job: The job.
        workspace: Where outputs are that no path is given for.
        paths: Other places, by the artifact's name.

    Raises:
        ConfigurationError: A path, or a directory in ``out/``, is for no output of the job.
        NotFound: A path does not exist.
        LocalIOError: Something cannot be read.
    """
    _refuse_undeclared(job, workspace, paths)
    for name, path in paths.items():
        with local_failures(path, "read"):
            exists = path.exists()
        if not exists:
            raise NotFound(f"there is no {path}, which output {name} is to be made of")
    return [
        (artifact, paths.get(artifact.name, workspace.output(artifact.name)))
        for artifact in job.output_artifacts
    ]


def list_outputs(
    sources: Sequence[tuple[Artifact, Path]], packing: Packing, packer: Packer, progress: Progress
) -> list[Output]:
    """List what goes into every output.

    Args:
        sources: Outputs, and what they are made of, where there is anything.
        packing: How to pack.
        packer: What packs them later, and may begin now.
        progress: Is told of the entries that are listed.

    Raises:
        ConfigurationError: An output is to go up raw, and is not one file.
        ArtifactRejected: An entry cannot be packed safely.
        LocalIOError: Something cannot be read.
    """
    outputs = []
    for artifact, source in sources:
        with progress.phase(f"{artifact.name}: listing", None, "entries") as listed:
            outputs.append(_listed(artifact, source, packing, packer, listed))
    return outputs


def require_contents(outputs: list[Output]) -> None:
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


def _refuse_undeclared(job: Job, workspace: Workspace, paths: Mapping[str, Path]) -> None:
    declared = [artifact.name for artifact in job.output_artifacts]
    known = f"the job declares {', '.join(declared) or 'no outputs'}"
    for name in paths:
        if name not in declared:
            raise ConfigurationError(f"{name} is no output of job {job.id}", hint=known)
    with local_failures(workspace.outputs, "read"):
        inside = sorted(workspace.outputs.iterdir()) if workspace.outputs.is_dir() else []
    for path in inside:
        if path.name not in declared and not path.name.startswith("."):
            raise ConfigurationError(
                f"{path} is for no output of job {job.id}", hint=f"{known}: move it elsewhere"
            )


def _listed(
    artifact: Artifact, source: Path, packing: Packing, packer: Packer, listed: Advance
) -> Output:
    with local_failures(source, "read"):
        is_directory, exists = source.is_dir(), source.exists()
    output_format = packing.format
    if output_format == "auto":
        output_format = "raw" if exists and not is_directory else "zip"
    if is_directory:
        entries = packer.list_entries(source, output_format, listed)
    else:
        entries = PackingList([single(source)] if exists else [])
    if output_format == "raw":
        _require_one_file(artifact, source, entries)
    return Output(artifact, source, output_format, entries)


def _require_one_file(artifact: Artifact, source: Path, entries: PackingList) -> None:
    if entries and (entries.files, len(entries)) != (1, 1):
        raise ConfigurationError(
            f"output {artifact.name} is to go up raw, but {source} holds {len(entries)} entries",
            hint="raw takes one regular file: give the file, or another --format",
        )


def _raw_content_type(entry: Entry) -> str:
    blob = FileBlob(Path(entry.source))
    try:
        found = recognise(blob.read(0, min(HEAD_BYTES, blob.size)), name=entry.path)
    except ArtifactRejected:
        # A file that is no archive in spite of its name still goes up as it is.
        found = None
    finally:
        blob.close()
    if found:
        return CONTENT_TYPES[found]
    return mimetypes.guess_type(entry.path)[0] or "application/octet-stream"
