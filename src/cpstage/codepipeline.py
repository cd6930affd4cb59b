"""The CodePipeline job API: one job by its id, for both kinds of job.

The operations are those of the API reference, ``GetJobDetails`` and ``GetThirdPartyJobDetails``.
This module calls them with the caller's own credentials, and knows nothing of S3.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from cpstage.connection import Connection
from cpstage.document import parse_job
from cpstage.failures import aws_failures
from cpstage.job import Job


def get_job_details(
    job_id: str, *, client_token: str | None = None, connection: Connection | None = None
) -> dict[str, Any]:
    """Fetch the job's document as the service gives it, secrets included.

    Args:
        job_id: The id of the job.
        client_token: The client's half of a third-party job's token; makes the call
            GetThirdPartyJobDetails.
        connection: How to reach AWS; by default as the AWS CLI would.

    Returns:
        The output of the call, members in the order of the API's model.

    Raises:
        NotFound: There is no such job in the region, or it has ended.
        AccessDenied: No credentials, or they do not allow the call.
        ServiceUnavailable: CodePipeline could not be reached.
        ConfigurationError: No region, or a malformed id.
    """
    client = (connection or Connection()).codepipeline()
    operation = "GetThirdPartyJobDetails" if client_token else "GetJobDetails"
    where = f"get job {job_id} in {client.meta.region_name}"
    answer: dict[str, Any]
    denied_hint = f"the caller needs codepipeline:{operation}"
    with aws_failures(where, denied_hint=denied_hint, secret=client_token):
        if client_token:
            answer = {**client.get_third_party_job_details(jobId=job_id, clientToken=client_token)}
        else:
            answer = {**client.get_job_details(jobId=job_id)}
    answer.pop("ResponseMetadata", None)
    return answer


def get_job(
    job_id: str, *, client_token: str | None = None, connection: Connection | None = None
) -> Job:
    """Fetch a job: arguments and errors as in :func:`get_job_details`."""
    job = parse_job(get_job_details(job_id, client_token=client_token, connection=connection))
    return replace(job, client_token=client_token)
