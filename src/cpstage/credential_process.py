"""A job's session credentials in the form that AWS tools take from a ``credential_process``.

CodePipeline says nothing of how long they last, and the tools keep what has no expiry for ever: so
they are given one, earlier than the true one. This module prints nothing.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING

from cpstage.errors import AccessDenied

if TYPE_CHECKING:
    from cpstage.job import Job


def process_credentials(
    job: Job, *, lifetime: float = 14 * 60, age: float | None = None
) -> dict[str, str | int]:
    """Return a job's session credentials as a ``credential_process`` prints them.

    Args:
        job: The job, with its session credentials.
        lifetime: Seconds after they were handed out at which tools are to ask for new ones.
        age: How old they are, in seconds, where that is known.

    Raises:
        AccessDenied: The job carries none, or they are older than that.
    """
    credentials = job.require_credentials()
    left = lifetime - (age or 0)
    if left <= 0:
        raise AccessDenied(
            f"the session credentials of job {job.id} are {age or 0:.0f} seconds old",
            hint="give the job id in place of a saved document",
        )
    expiration = datetime.now(timezone.utc) + timedelta(seconds=left)
    document: dict[str, str | int] = {
        "Version": 1,
        "AccessKeyId": credentials.access_key_id,
        "SecretAccessKey": credentials.secret_access_key.reveal(),
    }
    if credentials.session_token is not None:
        document["SessionToken"] = credentials.session_token.reveal()
    return {**document, "Expiration": expiration.strftime("%Y-%m-%dT%H:%M:%SZ")}
