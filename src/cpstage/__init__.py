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
    from cpstage.claims import JobQueue, read_client_tokens
    from cpstage.codepipeline import acknowledge_job, get_job, get_job_details, poll_for_jobs
    from cpstage.command import Execution, Finished
    from cpstage.connection import Connection
    from cpstage.describe import describe
    from cpstage.details import Details, Reported, Revision
    from cpstage.document import mask_document, parse_job
    from cpstage.environment import env_file, job_environment, staged_environment
    from cpstage.errors import (
        AccessDenied,
        ArtifactRejected,
        CommandFailed,
        CommandNotStarted,
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
    from cpstage.events import WorkerEvent
    from cpstage.files import Packed, Sealing, Unpacked, pack, unpack
    from cpstage.globs import Globs
    from cpstage.health import WorkerHealth, health_page
    from cpstage.intake import Unpacking
    from cpstage.interrupts import Interrupts
    from cpstage.job import ActionTypeId, Artifact, Job
    from cpstage.jobprocess import JobCommand
    from cpstage.outputs import Packing
    from cpstage.process_credentials import process_credentials
    from cpstage.progress import Progress, Silence, progress_to
    from cpstage.reporting import report_failure, report_success
    from cpstage.results import FetchResult, PushResult
    from cpstage.rundata import Delivery, RunResult, Staging, Surroundings
    from cpstage.runner import run
    from cpstage.s3object import ObjectInfo
    from cpstage.send import Encryption
    from cpstage.stage import fetch, push
    from cpstage.store import Store
    from cpstage.worker import Worker, WorkerTerms
    from cpstage.workingjob import JobPlaces
    from cpstage.workspace import Workspace

_HOMES = {
    "archive": ("Limits",),
    "claims": ("JobQueue", "read_client_tokens"),
    "codepipeline": ("acknowledge_job", "get_job", "get_job_details", "poll_for_jobs"),
    "connection": ("Connection",),
    "describe": ("describe",),
    "document": ("mask_document", "parse_job"),
    "environment": ("env_file", "job_environment", "staged_environment"),
    "errors": (
        "AccessDenied",
        "ArtifactRejected",
        "CommandFailed",
        "CommandNotStarted",
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
    "events": ("WorkerEvent",),
    "files": ("Packed", "Sealing", "Unpacked", "pack", "unpack"),
    "globs": ("Globs",),
    "health": ("WorkerHealth", "health_page"),
    "job": ("ActionTypeId", "Artifact", "Job"),
    "jobprocess": ("JobCommand",),
    "outputs": ("Packing",),
    "process_credentials": ("process_credentials",),
    "progress": ("Progress", "Silence", "progress_to"),
    "intake": ("Unpacking",),
    "results": ("FetchResult", "PushResult"),
    "send": ("Encryption",),
    "stage": ("fetch", "push"),
    "s3object": ("ObjectInfo",),
    "store": ("Store",),
    "worker": ("Worker", "WorkerTerms"),
    "workingjob": ("JobPlaces",),
    "command": ("Execution", "Finished"),
    "rundata": ("Delivery", "RunResult", "Staging", "Surroundings"),
    "reporting": ("report_failure", "report_success"),
    "details": ("Details", "Reported", "Revision"),
    "runner": ("run",),
    "interrupts": ("Interrupts",),
    "workspace": ("Workspace",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "AccessDenied",
    "ActionTypeId",
    "Artifact",
    "ArtifactRejected",
    "CommandFailed",
    "CommandNotStarted",
    "ConfigurationError",
    "Connection",
    "CpstageError",
    "Delivery",
    "Details",
    "Encryption",
    "Execution",
    "FetchResult",
    "Finished",
    "Globs",
    "InternalError",
    "Interrupts",
    "Job",
    "JobCommand",
    "JobPlaces",
    "JobQueue",
    "Limits",
    "LocalIOError",
    "NotFound",
    "ObjectInfo",
    "ObjectNotFound",
    "OutOfSync",
    "Packed",
    "Packing",
    "Progress",
    "PushResult",
    "Reported",
    "Revision",
    "RunResult",
    "Sealing",
    "ServiceUnavailable",
    "Silence",
    "Staging",
    "Stopped",
    "Store",
    "Surroundings",
    "Unpacked",
    "Unpacking",
    "UsageError",
    "Worker",
    "WorkerEvent",
    "WorkerHealth",
    "WorkerTerms",
    "Workspace",
    "WorkspaceUnavailable",
    "__version__",
    "acknowledge_job",
    "describe",
    "env_file",
    "fetch",
    "get_job",
    "get_job_details",
    "health_page",
    "job_environment",
    "mask_document",
    "pack",
    "parse_job",
    "poll_for_jobs",
    "process_credentials",
    "progress_to",
    "push",
    "read_client_tokens",
    "report_failure",
    "report_success",
    "run",
    "staged_environment",
    "unpack",
]


def __getattr__(name: str) -> object:
    """Load the home of a public name when it is first asked for (PEP 562)."""
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)
