"""Fetch and stage AWS CodePipeline job artifacts.

The public API: every name is loaded on first use, which keeps commands that need no AWS fast. More
is in the submodules :mod:`cpstage.errors`, :mod:`cpstage.inspect`, :mod:`cpstage.job` and
:mod:`cpstage.worker`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cpstage._version import __version__ as __version__
from cpstage._version import loaded_on_first_use

if TYPE_CHECKING:
    from cpstage import errors as errors
    from cpstage import inspect as inspect
    from cpstage import job as job
    from cpstage import progress as progress
    from cpstage import worker as worker
    from cpstage.archive.options import Limits as Limits
    from cpstage.aws.codepipeline import get_job as get_job
    from cpstage.aws.codepipeline import get_job_details as get_job_details
    from cpstage.aws.codepipeline import report_failure as report_failure
    from cpstage.aws.codepipeline import report_success as report_success
    from cpstage.aws.config import AwsConfig as AwsConfig
    from cpstage.errors import CpstageError as CpstageError
    from cpstage.filesystem.walk import Globs as Globs
    from cpstage.job import Job as Job
    from cpstage.job import parse_job as parse_job
    from cpstage.job.result import Details as Details
    from cpstage.progress import Progress as Progress
    from cpstage.progress import progress_to as progress_to
    from cpstage.runner.command import CommandOptions as CommandOptions
    from cpstage.runner.run import RunResult as RunResult
    from cpstage.runner.run import run as run
    from cpstage.transfer.fetch import FetchResult as FetchResult
    from cpstage.transfer.fetch import fetch as fetch
    from cpstage.transfer.local_archives import MessageEncryption as MessageEncryption
    from cpstage.transfer.local_archives import pack as pack
    from cpstage.transfer.local_archives import unpack as unpack
    from cpstage.transfer.options import Encryption as Encryption
    from cpstage.transfer.options import FetchOptions as FetchOptions
    from cpstage.transfer.options import Packing as Packing
    from cpstage.transfer.options import PushOptions as PushOptions
    from cpstage.transfer.options import Unpacking as Unpacking
    from cpstage.transfer.push import PushResult as PushResult
    from cpstage.transfer.push import push as push
    from cpstage.workspace.layout import Workspace as Workspace

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

__getattr__, __dir__, __all__ = loaded_on_first_use(
    __name__, _HOMES, "errors inspect job progress worker"
)
