"""An AWS of one's own on the loopback: S3, KMS, STS, IAM and the CodePipeline job-worker API.

It stands apart from the rest of cpstage and must not know it. It needs the extra `local`
(moto, Flask); the names below that need it are imported when they are first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cpstage.local.client import LocalAWSClient
from cpstage.local.new_job import SESSION_ACTIONS, Input, Output
from cpstage.local.record import Call

if TYPE_CHECKING:
    from cpstage.local.server import LocalAWS

__all__ = ["SESSION_ACTIONS", "Call", "Input", "LocalAWS", "LocalAWSClient", "Output"]


def __getattr__(name: str) -> Any:
    """Import the server when it is asked for, so that the client can do without moto."""
    if name == "LocalAWS":
        from cpstage.local.server import LocalAWS

        return LocalAWS
    raise AttributeError(name)
