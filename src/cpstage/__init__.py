"""Fetch and stage AWS CodePipeline job artifacts.

The public API: names handed on from the modules that define them, and loaded when first used, so
that a command which needs no AWS does not wait for it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from cpstage._version import __version__

if TYPE_CHECKING:
    from cpstage.archive.options import Limits
    from cpstage.aws.codepipeline import acknowledge_job, get_job, get_job_details, poll_for_jobs
    from cpstage.aws.config import AwsConfig
    from cpstage.aws.credentials import process_credentials
    from cpstage.aws.job_session import ObjectInfo, Store
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
    from cpstage.globs import Globs
    from cpstage.inspect.comparison import Comparison, compare
    from cpstage.inspect.content import read_member
    from cpstage.inspect.description import describe
    from cpstage.inspect.doctor import Check, diagnose
    from cpstage.inspect.listing import Listing, list_artifacts
    from cpstage.job import ActionTypeId, Artifact, Job, mask_document, parse_job
    from cpstage.localfiles import Packed, Sealing, Unpacked, pack, unpack
    from cpstage.masking import Secret
    from cpstage.progress import Progress, Silence, progress_to
    from cpstage.report.details import Details, Reported, Revision
    from cpstage.report.put import report_failure, report_success
    from cpstage.runner.command import CommandOptions, Finished
    from cpstage.runner.environment import env_file, job_environment, staged_environment
    from cpstage.runner.result import RunResult
    from cpstage.runner.run import run
    from cpstage.runner.signals import Interrupts
    from cpstage.transfer.fetch import FetchResult, fetch
    from cpstage.transfer.options import Encryption, FetchOptions, Packing, PushOptions, Unpacking
    from cpstage.transfer.push import PushResult, push
    from cpstage.worker.claims import JobQueue, read_client_tokens
    from cpstage.worker.events import WorkerEvent
    from cpstage.worker.health import WorkerHealth, health_page
    from cpstage.worker.loop import Worker, WorkerTerms
    from cpstage.worker.process import JobCommand
    from cpstage.worker.workingjob import JobPlaces
    from cpstage.workspace.layout import Workspace

_HOMES = {
    "archive.options": ("Limits",),
    "worker.claims": ("JobQueue", "read_client_tokens"),
    "aws.codepipeline": ("acknowledge_job", "get_job", "get_job_details", "poll_for_jobs"),
    "inspect.comparison": ("Comparison", "compare"),
    "aws.config": ("AwsConfig",),
    "inspect.description": ("describe",),
    "inspect.content": ("read_member",),
    "inspect.doctor": ("Check", "diagnose"),
    "runner.environment": ("env_file", "job_environment", "staged_environment"),
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
    "worker.events": ("WorkerEvent",),
    "localfiles": ("Packed", "Sealing", "Unpacked", "pack", "unpack"),
    "globs": ("Globs",),
    "worker.health": ("WorkerHealth", "health_page"),
    "job": ("ActionTypeId", "Artifact", "Job", "mask_document", "parse_job"),
    "masking": ("Secret",),
    "worker.process": ("JobCommand",),
    "inspect.listing": ("Listing", "list_artifacts"),
    "aws.credentials": ("process_credentials",),
    "progress": ("Progress", "Silence", "progress_to"),
    "transfer.options": ("Encryption", "FetchOptions", "Packing", "PushOptions", "Unpacking"),
    "transfer.fetch": ("FetchResult", "fetch"),
    "transfer.push": ("PushResult", "push"),
    "aws.job_session": ("ObjectInfo", "Store"),
    "runner.command": ("CommandOptions", "Finished"),
    "runner.result": ("RunResult",),
    "report.put": ("report_failure", "report_success"),
    "report.details": ("Details", "Reported", "Revision"),
    "runner.run": ("run",),
    "runner.signals": ("Interrupts",),
    "worker.loop": ("Worker", "WorkerTerms"),
    "worker.workingjob": ("JobPlaces",),
    "workspace.layout": ("Workspace",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "AccessDenied",
    "ActionTypeId",
    "Artifact",
    "ArtifactRejected",
    "AwsConfig",
    "Check",
    "CommandFailed",
    "CommandNotStarted",
    "CommandOptions",
    "Comparison",
    "ConfigurationError",
    "CpstageError",
    "Details",
    "Encryption",
    "FetchOptions",
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
    "Listing",
    "LocalIOError",
    "NotFound",
    "ObjectInfo",
    "ObjectNotFound",
    "OutOfSync",
    "Packed",
    "Packing",
    "Progress",
    "PushOptions",
    "PushResult",
    "Reported",
    "Revision",
    "RunResult",
    "Sealing",
    "Secret",
    "ServiceUnavailable",
    "Silence",
    "Stopped",
    "Store",
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
    "compare",
    "describe",
    "diagnose",
    "env_file",
    "fetch",
    "get_job",
    "get_job_details",
    "health_page",
    "job_environment",
    "list_artifacts",
    "mask_document",
    "pack",
    "parse_job",
    "poll_for_jobs",
    "process_credentials",
    "progress_to",
    "push",
    "read_client_tokens",
    "read_member",
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
