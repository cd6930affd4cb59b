"""Fetch and stage AWS CodePipeline job artifacts.

The public API: every name is loaded on first use, which keeps commands that need no AWS fast. More
is in the submodules :mod:`cpstage.errors`, :mod:`cpstage.inspect`, :mod:`cpstage.job` and
:mod:`cpstage.worker`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cpstage._version import __version__, loaded_on_first_use

if TYPE_CHECKING:
    from cpstage import errors as errors
    from cpstage import inspect as inspect
    from cpstage import job as job
    from cpstage import progress as progress
    from cpstage import worker as worker
    from cpstage.archive.options import Limits
    from cpstage.aws.codepipeline import get_job, get_job_details, report_failure, report_success
    from cpstage.aws.config import AwsConfig
    from cpstage.errors import CpstageError
    from cpstage.filesystem.walk import Globs
    from cpstage.job import Job, parse_job
    from cpstage.job.result import Details
    from cpstage.progress import Progress, progress_to
    from cpstage.runner.command import CommandOptions
    from cpstage.runner.run import RunResult, run
    from cpstage.transfer.fetch import FetchResult, fetch
    from cpstage.transfer.local_archives import MessageEncryption, pack, unpack
    from cpstage.transfer.options import Encryption, FetchOptions, Packing, PushOptions, Unpacking
    from cpstage.transfer.push import PushResult, push
    from cpstage.workspace.layout import Workspace

_HOMES = {
    "_version": "__version__",
    "archive.options": "Limits",
    "aws.codepipeline": "get_job get_job_details report_failure report_success",
    "aws.config": "AwsConfig",
    "errors": "CpstageError",
    "filesystem.walk": "Globs",
    "job": "Job parse_job",
    "job.result": "Details",
    "progress": "Progress progress_to",
    "runner.command": "CommandOptions",
    "runner.run": "RunResult run",
    "transfer.fetch": "FetchResult fetch",
    "transfer.local_archives": "MessageEncryption pack unpack",
    "transfer.options": "Encryption FetchOptions Packing PushOptions Unpacking",
    "transfer.push": "PushResult push",
    "workspace.layout": "Workspace",
}

__all__ = [
    "AwsConfig",
    "CommandOptions",
    "CpstageError",
    "Details",
    "Encryption",
    "FetchOptions",
    "FetchResult",
    "Globs",
    "Job",
    "Limits",
    "MessageEncryption",
    "Packing",
    "Progress",
    "PushOptions",
    "PushResult",
    "RunResult",
    "Unpacking",
    "Workspace",
    "__version__",
    "fetch",
    "get_job",
    "get_job_details",
    "pack",
    "parse_job",
    "progress_to",
    "push",
    "report_failure",
    "report_success",
    "run",
    "unpack",
]

__getattr__, __dir__ = loaded_on_first_use(__name__, _HOMES, "errors inspect job progress worker")
