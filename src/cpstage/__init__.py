"""Fetch and stage AWS CodePipeline job artifacts.

The public API: names handed on from the modules that define them, and loaded when first used, so
that a command which needs no AWS does not wait for it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from cpstage._version import __version__

if TYPE_CHECKING:
    from cpstage.archive import Limits
    from cpstage.codepipeline import get_job, get_job_details
    from cpstage.comparing import Comparison, compare
    from cpstage.connection import Connection
    from cpstage.content import read_member
    from cpstage.describe import describe
    from cpstage.doctor import Check, diagnose
    from cpstage.document import mask_document, parse_job
    from cpstage.environment import env_file, job_environment
    from cpstage.errors import (
        AccessDenied,
        ArtifactRejected,
        ConfigurationError,
        CpstageError,
        InternalError,
        LocalIOError,
        NotFound,
        ObjectNotFound,
        OutOfSync,
        ServiceUnavailable,
        Stopped,
        UsageError,
        WorkspaceUnavailable,
    )
    from cpstage.files import Packed, Sealing, Unpacked, pack, unpack
    from cpstage.globs import Globs
    from cpstage.intake import Unpacking
    from cpstage.job import Artifact, Job
    from cpstage.listing import Listing, list_artifacts
    from cpstage.outputs import Packing
    from cpstage.progress import Progress, Silence, progress_to
    from cpstage.results import FetchResult, PushResult
    from cpstage.s3object import ObjectInfo
    from cpstage.send import Encryption
    from cpstage.stage import fetch, push
    from cpstage.store import Store
    from cpstage.workspace import Workspace

_HOMES = {
    "archive": ("Limits",),
    "codepipeline": ("get_job", "get_job_details"),
    "comparing": ("Comparison", "compare"),
    "connection": ("Connection",),
    "content": ("read_member",),
    "describe": ("describe",),
    "doctor": ("Check", "diagnose"),
    "document": ("mask_document", "parse_job"),
    "environment": ("env_file", "job_environment"),
    "errors": (
        "AccessDenied",
        "ArtifactRejected",
        "ConfigurationError",
        "CpstageError",
        "InternalError",
        "LocalIOError",
        "NotFound",
        "ObjectNotFound",
        "OutOfSync",
        "ServiceUnavailable",
        "Stopped",
        "UsageError",
        "WorkspaceUnavailable",
    ),
    "files": ("Packed", "Sealing", "Unpacked", "pack", "unpack"),
    "globs": ("Globs",),
    "job": ("Artifact", "Job"),
    "listing": ("Listing", "list_artifacts"),
    "outputs": ("Packing",),
    "progress": ("Progress", "Silence", "progress_to"),
    "intake": ("Unpacking",),
    "results": ("FetchResult", "PushResult"),
    "send": ("Encryption",),
    "stage": ("fetch", "push"),
    "s3object": ("ObjectInfo",),
    "store": ("Store",),
    "workspace": ("Workspace",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "AccessDenied",
    "Artifact",
    "ArtifactRejected",
    "Check",
    "Comparison",
    "ConfigurationError",
    "Connection",
    "CpstageError",
    "Encryption",
    "FetchResult",
    "Globs",
    "InternalError",
    "Job",
    "Limits",
    "Listing",
    "LocalIOError",
    "NotFound",
    "ObjectInfo",
    "ObjectNotFound",
    "OutOfSync",
    "Packed",
    "Packing",
    "Progress",
    "PushResult",
    "Sealing",
    "ServiceUnavailable",
    "Silence",
    "Stopped",
    "Store",
    "Unpacked",
    "Unpacking",
    "UsageError",
    "Workspace",
    "WorkspaceUnavailable",
    "__version__",
    "compare",
    "describe",
    "diagnose",
    "env_file",
    "fetch",
    "get_job",
    "get_job_details",
    "job_environment",
    "list_artifacts",
    "mask_document",
    "pack",
    "parse_job",
    "progress_to",
    "push",
    "read_member",
    "unpack",
]


def __getattr__(name: str) -> object:
    """Load the home of a public name when it is first asked for (PEP 562)."""
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)
