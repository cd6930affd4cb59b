"""The job-worker operations of the CodePipeline API, version 2015-07-09, in JSON 1.1.

PollForJobs, AcknowledgeJob, GetJobDetails, PutJobSuccessResult, PutJobFailureResult and their
third-party twins, as the CodePipeline API Reference describes them. Requests are checked against
botocore's model of the service: required members, types, lengths, ranges, enumerations, patterns.

`mock_jobs` adds the operations to moto's `mock_aws`, for tests within one process: moto has
CodePipeline's pipelines, but no jobs. `mock_aws` checks neither signatures nor permissions, and
session credentials do not expire; `LocalAWS` does all that.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any, NoReturn

from botocore import xform_name
from botocore.loaders import Loader
from botocore.model import MapShape, ServiceModel, Shape, StructureShape
from werkzeug.wrappers import Response

from cpstage.local.access import ACCOUNT, Refusal, json_reply
from cpstage.local.jobs import (
    OPEN,
    REDELIVER_SECONDS,
    ActionType,
    JobService,
    JobState,
    StoredArtifact,
)

if TYPE_CHECKING:
    from moto.codepipeline.responses import CodePipelineResponse

OPERATIONS = (
    "PollForJobs",
    "AcknowledgeJob",
    "GetJobDetails",
    "PutJobSuccessResult",
    "PutJobFailureResult",
    "PollForThirdPartyJobs",
    "AcknowledgeThirdPartyJob",
    "GetThirdPartyJobDetails",
    "PutThirdPartyJobSuccessResult",
    "PutThirdPartyJobFailureResult",
)
_OUTPUT_VARIABLES_LIMIT = 122_880
_Document = dict[str, Any]


class JobWorkerAPI:
    """Answers the job-worker operations about the jobs of one region."""

    def __init__(self, jobs: JobService) -> None:
        self._jobs = jobs

    def answer(self, operation: str, body: bytes, region: str) -> Response:
        """Answer one call.

        Raises:
            Refusal: One of the operation's errors.
        """
        if operation not in OPERATIONS:
            raise Refusal(400, "UnknownOperationException", f"No operation {operation} here")
        document = read_request(operation, body)
        third_party = "ThirdParty" in operation
        if operation.startswith("Poll"):
            return json_reply({"jobs": self._poll(document, third_party)})
        job = self._find(document, third_party, region)
        if operation.startswith("Get"):
            return json_reply({"jobDetails": self._details(job)})
        if operation.startswith("Acknowledge"):
            return json_reply({"status": self._acknowledge(job.id, document["nonce"])})
        if operation.endswith("SuccessResult"):
            _check_variables(document)
        self._finish(job.id, "Succeeded" if "Success" in operation else "Failed", document)
        return Response()  # the operations without output have an empty body

    def _find(self, document: _Document, third_party: bool, region: str) -> JobState:
        """Refuse a job that is unknown in the region, or of the other kind."""
        job_id = document["jobId"]
        job = self._jobs.find(job_id)
        if job is None or region != self._jobs.region or (job.third_party and not third_party):
            _not_found(job_id)
        if third_party and not job.third_party:
            raise Refusal(400, "InvalidJobException", f"Job {job_id} is not a third-party job")
        if third_party and job.client_token != document["clientToken"]:
            raise Refusal(400, "InvalidClientTokenException", "The client token does not match")
        return job

    def _poll(self, document: _Document, third_party: bool) -> list[_Document]:
        action_type = ActionType(**document["actionTypeId"])
        owner = "ThirdParty" if third_party else "Custom"
        if action_type.owner != owner or action_type not in self._jobs.polled_types:
            message = f"The action type {'/'.join(document['actionTypeId'].values())} is not known"
            raise Refusal(400, "ActionTypeNotFoundException", message)
        query = (document.get("queryParam") or {}).items()
        jobs = self._jobs.dispatch(action_type, query, document.get("maxBatchSize") or 1)
        if third_party:
            return [{"clientId": one.client_id, "jobId": one.id} for one in jobs]
        return [{**self._job(one), "nonce": one.nonce, "accountId": ACCOUNT} for one in jobs]

    def _acknowledge(self, job_id: str, nonce: str) -> str:
        status = self._jobs.acknowledge(job_id, nonce)
        if status is None:
            message = "The nonce is not valid: another worker has polled for the job since"
            raise Refusal(400, "InvalidNonceException", message)
        return status

    def _details(self, job: JobState) -> _Document:
        if job.status not in OPEN:
            _not_found(job.id)
        more = {"nonce": job.nonce} if job.third_party else {"accountId": ACCOUNT}
        return {**self._job(job), **more}

    def _finish(self, job_id: str, status: str, document: _Document) -> None:
        kept = {k: v for k, v in document.items() if k not in ("jobId", "clientToken")}
        if not self._jobs.finish(job_id, status, kept):
            message = f"Job {job_id} is not in progress"
            raise Refusal(400, "InvalidJobStateException", message)

    def _job(self, job: JobState) -> _Document:
        session = self._jobs.issue_session(job)
        context: _Document = {
            "pipelineName": job.pipeline,
            "stage": {"name": job.stage},
            "action": {"name": job.action, "actionExecutionId": job.action_execution_id},
        }
        if not job.third_party:
            context["pipelineArn"] = (
                f"arn:aws:codepipeline:{self._jobs.region}:{ACCOUNT}:{job.pipeline}"
            )
            context["pipelineExecutionId"] = job.pipeline_execution_id
        data: _Document = {
            "actionTypeId": job.action_type._asdict(),
            "actionConfiguration": {"configuration": dict(job.configuration)},
            "pipelineContext": context,
            "inputArtifacts": [_artifact(artifact) for artifact in job.inputs],
            "outputArtifacts": [_artifact(artifact) for artifact in job.outputs],
            "artifactCredentials": {
                "accessKeyId": session.access_key,
                "secretAccessKey": session.secret,
                "sessionToken": session.token,
            },
        }
        if job.continuation_token is not None:
            data["continuationToken"] = job.continuation_token
        if job.encryption_key is not None:
            data["encryptionKey"] = dict(job.encryption_key)
        return {"id": job.id, "data": data}


def _check_variables(document: _Document) -> None:
    variables = document.get("outputVariables") or {}
    if variables and document.get("continuationToken"):
        message = "outputVariables and continuationToken cannot be given together"
        raise Refusal(400, "ValidationException", message)
    size = sum(len(f"{key}{value}".encode()) for key, value in variables.items())
    if size > _OUTPUT_VARIABLES_LIMIT:
        message = f"The output variables take {size} bytes of {_OUTPUT_VARIABLES_LIMIT}"
        raise Refusal(400, "OutputVariablesSizeExceededException", message)


def _artifact(artifact: StoredArtifact) -> _Document:
    place = {"bucketName": artifact.bucket, "objectKey": artifact.key}
    location = {"type": "S3", "s3Location": place}
    revision = {} if artifact.revision is None else {"revision": artifact.revision}
    return {"name": artifact.name, "location": location, **revision}


def _not_found(job_id: str) -> NoReturn:
    raise Refusal(400, "JobNotFoundException", f"Job {job_id} was not found")


@cache
def _model() -> ServiceModel:
    return ServiceModel(Loader().load_service_model("codepipeline", "service-2"))


def read_request(operation: str, body: bytes) -> _Document:
    """Read the JSON of a request, and check it against the model of its operation.

    Raises:
        Refusal: SerializationException or ValidationException.
    """
    try:
        document: _Document = json.loads(body or b"{}")
    except ValueError:
        raise Refusal(400, "SerializationException", "The body is not JSON") from None
    shape = _model().operation_model(operation).input_shape
    faults = [*_faults(document, shape, "")] if shape else []
    if faults:
        plural = "s" if len(faults) > 1 else ""
        message = f"{len(faults)} validation error{plural} detected: {'; '.join(faults)}"
        raise Refusal(400, "ValidationException", message)
    return document


_TYPES: dict[str, Any] = {
    "structure": dict,
    "map": dict,
    "string": str,
    "integer": int,
    "timestamp": (int, float),
}


def _faults(value: Any, shape: Shape, path: str) -> Iterator[str]:
    """Yield what is wrong; no job-worker input has a list or a boolean."""
    # bool is an int to Python, but not to the service.
    if not isinstance(value, _TYPES[shape.type_name]) or isinstance(value, bool):
        raise Refusal(400, "SerializationException", f"{path or 'The body'} has a wrong type")
    failed = "failed to satisfy constraint: Member must"
    for constraint in _broken(value, shape):
        yield f"Value at '{path}' {failed} {constraint}"
    prefix = f"{path}." if path else ""
    if isinstance(shape, StructureShape):
        for name, member in shape.members.items():
            # A null member counts as one left out.
            if value.get(name) is not None:
                yield from _faults(value[name], member, prefix + name)
            elif name in shape.required_members:
                yield f"Value at '{prefix}{name}' {failed} not be null"
    elif isinstance(shape, MapShape):
        for key, item in value.items():
            yield from _faults(key, shape.key, f"{prefix}key")
            yield from _faults(item, shape.value, f"{prefix}{key}")


def _broken(value: Any, shape: Shape) -> Iterator[str]:
    """Yield the constraints of a value's shape that it breaks."""
    measured = value if shape.type_name == "integer" else None
    noun = "have value"
    if isinstance(value, str | dict):
        measured, noun = len(value), "have length"
    least, most = shape.metadata.get("min"), shape.metadata.get("max")
    if measured is not None and least is not None and measured < least:
        yield f"{noun} greater than or equal to {least}"
    if measured is not None and most is not None and measured > most:
        yield f"{noun} less than or equal to {most}"
    allowed = shape.metadata.get("enum")
    if allowed and value not in allowed:
        yield f"satisfy enum value set: [{', '.join(allowed)}]"
    pattern = shape.metadata.get("pattern")
    # An id of another form is simply not found: AWS's own examples break the pattern.
    if pattern and shape.name != "JobId" and not re.fullmatch(pattern, value):
        yield f"satisfy regular expression pattern: {pattern}"


class MockJobs(JobService):
    """The jobs that `mock_jobs` makes moto answer for."""

    def __init__(self, region: str, redeliver_seconds: float) -> None:
        super().__init__(region, redeliver_seconds=redeliver_seconds)
        self._open()
        self._api = JobWorkerAPI(self)

    def answer(self, operation: str, call: CodePipelineResponse) -> tuple[int, dict[str, Any], str]:
        """Answer a call as a method of moto's CodePipeline does."""
        try:
            reply = self._api.answer(operation, call.body.encode(), call.region)
        except Refusal as refusal:
            reply = refusal.reply("codepipeline")
        # moto takes the status from this member of the headers.
        headers = {**dict(reply.headers), "status": reply.status_code}
        return reply.status_code, headers, reply.get_data(as_text=True)


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
    # `LocalAWS` does without these, which take 40 ms to load.
    from unittest.mock import patch

    from moto.codepipeline.responses import CodePipelineResponse
    from moto.core.models import botocore_stubber

    if not botocore_stubber.enabled:
        raise RuntimeError("mock_aws is not active: write `with mock_aws(), mock_jobs() as jobs:`")
    jobs = MockJobs(region, redeliver_seconds)
    methods: dict[str, Any] = {
        xform_name(name): lambda call, name=name: jobs.answer(name, call) for name in OPERATIONS
    }
    with patch.multiple(CodePipelineResponse, create=True, **methods):
        yield jobs
