"""CodePipeline's job-worker API inside moto's `mock_aws`, for tests within one process.

moto has CodePipeline's pipelines, but no jobs. `mock_jobs` adds the job-worker operations to
moto's CodePipeline and puts the artifacts of jobs into moto's S3. `mock_aws` checks neither
signatures nor permissions, and session credentials do not expire; `LocalAWS` does all that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from botocore import xform_name
from moto.codepipeline.responses import CodePipelineResponse
from moto.core.models import botocore_stubber

from cpstage.local.job_api import OPERATIONS
from cpstage.local.job_service import JobService
from cpstage.local.jobs import REDELIVER_SECONDS
from cpstage.local.wire import Refusal

_Answer = tuple[int, dict[str, Any], str]


class MockJobs(JobService):
    """The jobs that `mock_jobs` makes moto answer for."""

    def __init__(self, region: str, redeliver_seconds: float) -> None:
        super().__init__(region, redeliver_seconds=redeliver_seconds)
        self._open()

    def methods(self) -> dict[str, Any]:
        """Return the job-worker operations as methods of moto's CodePipeline."""
        return {xform_name(operation): self._method(operation) for operation in OPERATIONS}

    def _method(self, operation: str) -> Callable[[CodePipelineResponse], _Answer]:
        def answer(call: CodePipelineResponse) -> _Answer:
            try:
                reply = self._api.answer(operation, call.body.encode(), call.region)
            except Refusal as refusal:
                reply = refusal.reply("codepipeline", call.method)
            # moto takes the status from this member of the headers.
            headers = {**dict(reply.headers), "status": reply.status}
            return reply.status, headers, reply.body.decode()

        return answer


@contextmanager
def mock_jobs(
    region: str = "us-east-1", *, redeliver_seconds: float = REDELIVER_SECONDS
) -> Iterator[MockJobs]:
    """Make moto answer the job-worker API inside `mock_aws`.

    Example::

        with mock_aws(), mock_jobs() as jobs:
            job_id = jobs.add_job([Input("Source", archive)], ["Build"])
            cpstage.fetch(cpstage.get_job(job_id), directory)
            ...
            assert jobs.job(job_id).status == "Succeeded"

    Args:
        region: The region of the jobs, and of the pipeline's bucket and KMS key.
        redeliver_seconds: How long a dispatched job waits for its acknowledgement before it goes
            to another poll.

    Yields:
        The jobs. `add_job` adds one, `job` returns the state of one.

    Raises:
        RuntimeError: `mock_aws` is not active: the calls would go to AWS.
    """
    if not botocore_stubber.enabled:
        raise RuntimeError("mock_aws is not active: write `with mock_aws(), mock_jobs() as jobs:`")
    jobs = MockJobs(region, redeliver_seconds)
    with patch.multiple(CodePipelineResponse, create=True, **jobs.methods()):
        yield jobs
