"""The staged artifacts of a workspace, by its manifest, and which of them are unchanged.

The manifest has for each artifact the object it came from and the options it was staged with. An
artifact is unchanged when the same object would be staged the same way again, and its tree has the
fingerprint that the manifest has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal, NamedTuple

from cpstage.archive.formats import Format
from cpstage.archive.members import Contents, contents_document, read_contents
from cpstage.aws.s3 import ObjectInfo
from cpstage.errors import ConfigurationError, WorkspaceUnavailable
from cpstage.filesystem.tree import fingerprint
from cpstage.job import (
    Artifact,
    ArtifactName,
    ArtifactSet,
    PipelineContext,
    S3Location,
    check_artifact_name,
    location_document,
    plain_name,
)
from cpstage.job.document import is_plain
from cpstage.progress import Progress, phase_of_many
from cpstage.transfer.options import Unpacking
from cpstage.workspace.layout import Workspace

_OBJECT = ("path", "location", "version_id", "etag", "size")
"""Members that have to be the same for an artifact to count as unchanged."""

_CONTEXT = ("pipeline", "stage", "action", "action_execution_id", "pipeline_arn", "execution_id")
"""The members of a pipeline context, in the order of its fields."""


@dataclass(frozen=True)
class Staged:
    """One input artifact.

    Attributes:
        path: Where it is, or would be, staged.
        status: ``staged`` now; ``unchanged`` or ``modified`` since an earlier fetch; or ``planned``
            by a dry run.
        format: The archive format; None for a kept file, as are the contents.
        verified: What was compared to prove that the bytes are those of the object.
        envelope: The header of the encrypted message as JSON has it.
        notes: What differs from the archive, or why nothing was unpacked.
        made: Whether it is an output of a past execution, and not an input.
    """

    artifact: Artifact
    path: Path
    status: Literal["staged", "unchanged", "modified", "planned"]
    info: ObjectInfo
    format: Format | None = None
    contents: Contents | None = None
    verified: tuple[str, ...] = ()
    envelope: Mapping[str, Any] | None = None
    notes: tuple[str, ...] = ()
    made: bool = False

    def document(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        info = self.info
        return {
            "name": self.artifact.name,
            "path": str(self.path),
            "status": self.status,
            "location": location_document(self.artifact),
            "revision": self.artifact.revision,
            "version_id": info.version_id,
            "etag": info.etag,
            "size": info.size,
            "checksum": str(info.checksum) if info.checksum else None,
            "unverified_checksum": info.unverified_checksum,
            "encryption": info.encryption,
            "kms_key_id": info.kms_key_id,
            "envelope": self.envelope,
            "format": self.format,
            **contents_document(self.contents),
            "verified": list(self.verified),
            "notes": list(self.notes),
        }


class Sorted(NamedTuple):
    """The inputs of a fetch, by what is to be done with them.

    Attributes:
        todo: Inputs to be staged.
        settled: Inputs that are staged: ``unchanged``, or ``modified`` since.
        doubtful: Inputs that are staged, and have to be compared with their objects' contents.
    """

    todo: list[Staged]
    settled: list[Staged]
    doubtful: list[Staged]


class Manifest:
    """The manifest of a locked workspace, and the options that artifacts are staged with now."""

    def __init__(self, workspace: Workspace, unpacking: Unpacking, progress: Progress) -> None:
        self._workspace = workspace
        self._progress = progress
        self._unpacking = unpacking
        messages = unpacking.encrypted_messages
        self._how = {
            "layout": unpacking.layout,
            "unsafe_link_handling": unpacking.unsafe_links,
            "mtime": unpacking.mtime,
            "envelopes": "open" if messages == "decrypt" else messages,  # as version 0.1 has it
            "expected_context": dict(unpacking.context),
            "decrypt_keys": list(unpacking.key_ids),
        }
        self._entries = workspace.manifest()

    def _how_staged(self, name: str) -> dict[str, Any]:
        """Return the options that an artifact is staged with, as the manifest has them."""
        return {**self._how, "unpack": self._unpacking.of_artifact(name).unpack}

    def sort(
        self, found: Sequence[Staged], *, replace: bool = False, verify: bool = False
    ) -> Sorted:
        """Separate inputs that must be staged from those that the workspace has.

        ``replace`` stages all of them; ``verify`` compares the contents of staged ones.

        Raises:
            WorkspaceUnavailable: ``in/`` was fetched in the other layout.
        """
        merged = self._how["layout"] == "merged"
        if not merged and any(one.get("layout") == "merged" for one in self._entries.values()):
            raise WorkspaceUnavailable(
                f"{self._workspace.inputs} holds artifacts that were fetched with --layout merged",
                hint="remove it, or give another --workspace",
            )
        known = [] if replace else [one for one in map(self._known, found) if one is not None]
        if merged and not len(known) == len(found) == len(self._entries):
            # They share one directory, which is replaced as a whole.
            return Sorted(list(found), [], [])
        names = {one.artifact.name for one in known}
        todo = [one for one in found if one.artifact.name not in names]
        if verify:
            return Sorted(todo, [], known)
        if self._workspace.was_written_in_this_boot():
            return Sorted(todo, known, [])
        same = [one for one in known if one.status == "unchanged"]
        return Sorted(todo, [one for one in known if one.status != "unchanged"], same)

    def entries(self, result: Sequence[Staged], fingerprints: Mapping[Path, str]) -> dict[str, Any]:
        """Return the manifest's new entries: those of this fetch, and others that still hold.

        The fingerprints are of the trees that were staged or compared now, by their places.
        """
        now = datetime.now(timezone.utc).isoformat(timespec="seconds")
        kept = {one.artifact.name for one in result if one.status in ("unchanged", "modified")}
        entries = {
            name: entry
            for name, entry in self._entries.items()
            # All of a merged layout share one directory: it holds what was fetched last.
            if name in kept
            or (
                self._how["layout"] == entry.get("layout") == "per-artifact"
                and Path(str(entry.get("path"))).is_dir()
            )
        }
        for staged in result:
            if staged.status == "staged":
                role = "made" if staged.made else "input"
                how = self._how_staged(staged.artifact.name)
                facts = {**staged.document(), "role": role, **how, "staged_at": now}
                entries[staged.artifact.name] = facts
            if staged.path in fingerprints:
                entries[staged.artifact.name]["fingerprint"] = fingerprints[staged.path]
        return entries

    def _known(self, staged: Staged) -> Staged | None:
        """Return an artifact as the manifest has it, where the same object is staged already."""
        entry = self._entries.get(staged.artifact.name, {})
        how = self._how_staged(staged.artifact.name)
        if not entry.get("unsafe_links"):  # then the tree is the same for each of the options
            del how["unsafe_link_handling"]
        now = {**staged.document(), **how}
        identity = (*_OBJECT, *how)
        same = all(name in entry and entry[name] == now[name] for name in identity)
        if not same or not _is_there(staged.path, entry):
            return None
        files = entry.get("files")
        total = files if isinstance(files, int) else 0
        label = f"{staged.artifact.name}: looking for changes"
        with phase_of_many(self._progress, label, total) as advance:
            is_same = entry.get("fingerprint") == fingerprint(staged.path, advance)
        try:
            return replace(
                staged,
                status="unchanged" if is_same else "modified",
                format=entry["format"],
                contents=read_contents(entry),
                verified=tuple(entry["verified"]),
                envelope=entry["envelope"],
                notes=tuple(entry.get("notes", ())),
            )
        except (KeyError, TypeError, ValueError):
            return None  # the manifest was edited


def record_of(job: ArtifactSet) -> dict[str, Any]:
    """Return the facts of a job that may lie on disk: a list of what is public, by name."""
    context = job.pipeline_context
    return {
        "id": job.id,
        "read_with": job.read_with,
        "account_id": job.account_id,
        "action_type": str(job.action_type_id) if job.action_type_id else None,
        "pipeline": context.pipeline_name,
        "stage": context.stage_name,
        "action": context.action_name,
        "action_execution_id": context.action_execution_id,
        "pipeline_arn": context.pipeline_arn,
        "execution_id": context.pipeline_execution_id,
        "inputs": {one.name: location_document(one) for one in job.input_artifacts},
        "outputs": {one.name: location_document(one) for one in job.artifacts_to_build},
        "made": {one.name: location_document(one) for one in job.made_artifacts},
        "kms_key_id": job.encryption_key.kms_key_id if job.encryption_key else None,
    }


def job_of(record: Mapping[str, Any]) -> ArtifactSet | None:
    """Return the job of such facts, without what is secret or unknown; None for other values."""
    try:
        return ArtifactSet(
            id=_text(record, "id") or "",
            account_id=_text(record, "account_id"),
            action_type_id=None,
            pipeline_context=PipelineContext(*(_text(record, name) for name in _CONTEXT)),
            input_artifacts=_artifacts_of(record["inputs"]),
            output_artifacts=_artifacts_of(record["outputs"]),
            encryption_key=None,
            read_with="caller" if record.get("read_with") == "caller" else "job",
        )
    except (AttributeError, KeyError, TypeError, ConfigurationError):
        return None  # the record was edited


def staged_inputs(workspace: Workspace, job: ArtifactSet) -> dict[str, Path]:
    """Return where which input of a job is staged, by the manifest."""
    entries = workspace.manifest()
    return {
        one.name: workspace.inputs if entry["layout"] == "merged" else workspace.input(one.name)
        for one in job.input_artifacts
        if (entry := entries.get(one.name, {})).get("location") == location_document(one)
        and "layout" in entry
    }


def _text(record: Mapping[str, Any], name: str) -> str | None:
    value = record[name]
    if not isinstance(value, str | None) or not is_plain(value or ""):
        raise TypeError(name)
    return value


def _artifacts_of(documents: Mapping[str, Mapping[str, str]]) -> tuple[Artifact, ...]:
    for name in documents:
        # An action's name may stand before that of the artifact.
        check_artifact_name(plain_name(name))
        if "/" in name or not name.isprintable():
            raise ConfigurationError(f"{name!r} is not the name of an artifact")
    return tuple(
        Artifact(ArtifactName(name), S3Location(place["bucket"], place["key"]))
        for name, place in documents.items()
    )


def _is_there(path: Path, entry: Mapping[str, Any]) -> bool:
    """Whether the directory still exists and has contents."""
    if path.is_symlink() or not path.is_dir():
        return False
    return entry.get("files") == 0 or any(path.iterdir())
