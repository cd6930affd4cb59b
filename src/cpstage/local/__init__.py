"""An AWS emulator: S3, KMS, STS, IAM and the CodePipeline job-worker API.

`LocalAWS` serves them on a loopback port, for any tool; `mock_jobs` adds the job-worker API to
moto's `mock_aws`, for tests within one process. The rest of cpstage does not depend on this
package. It needs the extra `local` (moto, Flask); the names that need moto are imported when they
are first used, so that `LocalAWSClient` works without it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from cpstage.local.client import (
    SESSION_ACTIONS,
    ActionRun,
    Call,
    Input,
    LocalAWSClient,
    Output,
    Revision,
)

if TYPE_CHECKING:
    from cpstage.local.job_api import MockJobs, mock_jobs
    from cpstage.local.server import LocalAWS

__all__ = [
    "SESSION_ACTIONS",
    "ActionRun",
    "Call",
    "Input",
    "LocalAWS",
    "LocalAWSClient",
    "MockJobs",
    "Output",
    "Revision",
    "mock_jobs",
]

_HOMES = {"LocalAWS": "server", "MockJobs": "job_api", "mock_jobs": "job_api"}


def __getattr__(name: str) -> Any:
    """Import the home of a name that needs moto when it is first asked for (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
