"""A job described (``show``), and checks of everything that a run of it needs (``doctor``).

Secrets are masked. After a failed check, the other checks are still made where they can be. The
check of an output creates a multipart upload and aborts it at once.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from cpstage.aws.client import ServiceError, UnreadableAnswer, aws_failures
from cpstage.aws.codepipeline import secret_properties
from cpstage.aws.config import AwsConfig
from cpstage.aws.job_session import JobSession
from cpstage.aws.s3 import ObjectInfo
from cpstage.encryption.header import s3_client_object
from cpstage.errors import (
    AccessDenied,
    ArtifactRejected,
    CpstageError,
    UsageError,
    WorkspaceUnavailable,
    local_failures,
)
from cpstage.job import Artifact, ArtifactSet, Job, artifact_document
from cpstage.job.execution import Execution, iso, moment
from cpstage.job.model import MASK
from cpstage.transfer.artifact import identify, read_head
from cpstage.transfer.options import Unpacking

Status = Literal["ok", "warning", "failed", "skipped"]

_MOST_SECONDS_OFF = 300.0
"""AWS refuses signatures that are older or newer (AWS General Reference; S3 takes 15 minutes)."""

_NOTICEABLE_SECONDS_OFF = 60.0

_WRONG_CREDENTIALS = {
    *("InvalidClientTokenId", "UnrecognizedClientException", "InvalidAccessKeyId"),
    *("SignatureDoesNotMatch", "InvalidSignatureException", "IncompleteSignature"),
}
"""Codes for credentials that AWS does not know: every call with them is refused (AWS General
Reference, common errors)."""

_SECONDS_FOR_STS = 5.0
"""A network without a route to STS often drops packets silently."""


def describe(job: ArtifactSet, *, config: AwsConfig | None = None) -> dict[str, Any]:
    """Describe a job, with what S3 says of its inputs; secrets are masked.

    An input whose HEAD fails is described by the error: a person who debugs a job wants to see the
    rest of it all the same. Of a past execution, the outputs are described as well.

    A value of the action's configuration is shown where the action type says that the property is
    not secret.

    Args:
        job: The job, or a past execution.
        config: The configuration of the AWS clients.
    """
    where = config or AwsConfig()
    session = JobSession(job, where)
    token = job.continuation_token if isinstance(job, Job) else None
    return {
        "id": job.id,
        "account_id": job.account_id,
        "action_type": str(job.action_type_id) if job.action_type_id else None,
        "pipeline_context": job.pipeline_context._asdict(),
        "region": job.region,
        "configuration": _configuration(job, where),
        "encryption_key": job.encryption_key._asdict() if job.encryption_key else None,
        "continuation_token": MASK if token else None,
        "credentials": _credentials(job),
        "read_with": job.read_with,
        "execution": _execution(job) if isinstance(job, Execution) else None,
        "inputs": [_object(one, session) for one in job.input_artifacts],
        "outputs": [_object(one, session) for one in job.made_artifacts]
        or [*map(artifact_document, job.output_artifacts)],
    }


def _credentials(job: ArtifactSet) -> dict[str, Any]:
    found = job.credentials if isinstance(job, Job) else None
    age = found.age_seconds if found else None
    return {
        "present": found is not None,
        "age_seconds": None if age is None else round(age),
        "expires_at": iso(found.expires_at if found else None),
    }


def _execution(job: Execution) -> dict[str, Any]:
    """Describe a past execution: the whole, and the action that was chosen."""
    summary = job.summary.document() if job.summary else {}
    action = job.action
    return {
        "status": summary.get("status"),
        "start_time": summary.get("start_time"),
        "duration_seconds": summary.get("duration_seconds"),
        "source_revisions": summary.get("source_revisions", []),
        "action_status": action.status if action else None,
        "action_error": action.error if action else None,
        "action_url": action.external_url if action else None,
    }


def _configuration(job: ArtifactSet, config: AwsConfig) -> dict[str, str]:
    """Return the action's configuration; every value that may be a secret is masked."""
    values, kind = job.action_configuration, job.action_type_id
    if not values:
        return {}
    if not config.region and job.region:  # which a saved document tells too
        config = replace(config, region=job.region)
    is_secret = (secret_properties(kind, config=config) if kind else None) or {}
    return {
        name: MASK if is_secret.get(name, True) else value.reveal()
        for name, value in values.items()
    }


def _object(artifact: Artifact, session: JobSession) -> dict[str, Any]:
    known = {**artifact_document(artifact), "revision": artifact.revision}
    try:
        store = session.store
        info = store.head(artifact)
        head = read_head(store.open(artifact, info))
    except CpstageError as error:
        return {**known, "error": str(error)}
    return {
        **known,
        **info._asdict(),
        "last_modified": iso(moment(info.last_modified)),
        "checksum": str(info.checksum) if info.checksum else None,
        "unverified_checksum": info.unverified_checksum,
        "client_side": s3_client_object(info.metadata),
        **_identity(head, artifact, info),
        "error": None,
    }


def _identity(head: bytes, artifact: Artifact, info: ObjectInfo) -> dict[str, Any]:
    name, content_type = artifact.location.key, info.content_type
    try:
        found = identify(head, Unpacking(), name=name, content_type=content_type)
    except ArtifactRejected as error:
        return {"envelope": None, "format": error.message}
    kind = "sealed" if found.header else found.format or "file"
    return {"envelope": found.message, "format": kind}


@dataclass(frozen=True)
class Check:
    """The result of one check.

    Attributes:
        name: ``region``, ``network``, ``clock``, ``caller``, ``job``, ``credentials``, ``input``,
            ``output``, ``key`` or ``workspace``.
        subject: The artifact, where there are several.
        status: ``skipped`` where an earlier failure prevents the check.
        detail: The finding.
        fix: What to change.
        exit_code: The exit code of a run that fails here.
    """

    name: str
    status: Status
    detail: str
    subject: str | None = None
    fix: str | None = None
    exit_code: int = 0

    def document(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return asdict(self)


def diagnose(
    load: Callable[[], ArtifactSet], workspace: Path | str = ".", *, config: AwsConfig | None = None
) -> Iterator[Check]:
    """Check everything that a run of a job needs.

    Args:
        load: Returns the job, or the past execution, or raises an error.
        workspace: The workspace of the run.
        config: The configuration of the AWS clients; its timeout applies to each check.

    Raises:
        UsageError: No job is given.
    """
    where = config or AwsConfig()
    yield from _of_the_caller(where)
    job: ArtifactSet | None = None

    def get() -> str:
        nonlocal job
        job = load()
        context = job.pipeline_context
        names = (context.pipeline_name, context.stage_name, context.action_name)
        # An execution of which no action is selected has no stage either.
        return f"{job.id} of {' / '.join(filter(None, names)) or 'an unknown pipeline'}"

    yield _tried("job", get)
    sizes: list[int] = []
    if job is None:
        yield from _skipped(("credentials", "input", "output", "key"), "no job was loaded")
    elif isinstance(job, Job):
        yield from _of_the_job(job, where, sizes)
    else:
        yield Check("credentials", "ok", "the caller's own read the artifacts of a past execution")
        yield from _readable("input", job, job.input_artifacts, where, sizes)
        yield from _readable("output", job, job.made_artifacts, where, sizes)
        yield from _skipped(("key",), "nothing is uploaded for a past execution")
    size = sum(sizes) if job else None

    def examine() -> str:
        with local_failures(Path(workspace), "look at"):
            return _examine_workspace(workspace, size)

    yield _tried("workspace", examine)


def exit_code(checks: Iterable[Check]) -> int:
    """Return the exit code of the first check that failed, or 0."""
    return next((check.exit_code for check in checks if check.status == "failed"), 0)


def _of_the_caller(where: AwsConfig) -> Iterator[Check]:
    """Check what GetJobDetails needs."""
    found = _tried("region", where.require_region)
    yield found
    if found.status == "failed":
        yield from _skipped(("network", "clock", "caller"), "no region is configured")
        return
    try:
        endpoint, stamp = _ask_for_time(where)
    except CpstageError as error:
        yield _failed("network", error)
        yield from _skipped(("clock",), "the endpoint did not answer")
    else:
        yield Check("network", "ok", f"{endpoint} answers")
        yield _clock(stamp)
    yield _tried("caller", lambda: _whose_credentials(where))


def _of_the_job(job: Job, where: AwsConfig, sizes: list[int]) -> Iterator[Check]:
    """Check what the job's own session may do."""

    def credentials() -> str:
        if not (job.credentials or job.input_artifacts or job.output_artifacts):
            return "the job has no artifacts, and needs none"
        expires = job.require_credentials().expires_at
        until = f" until {expires:%Y-%m-%dT%H:%M:%SZ}" if expires else ""
        return f"the job carries those of its session{until}"

    carried = _tried("credentials", credentials)
    yield carried
    if carried.status == "failed":
        yield from _skipped(("input", "output", "key"), "the job has no credentials")
        return
    yield from _readable("input", job, job.input_artifacts, where, sizes)
    yield from _writable(job, where)


def _readable(
    name: str, job: ArtifactSet, artifacts: Iterable[Artifact], where: AwsConfig, sizes: list[int]
) -> Iterator[Check]:
    """Check whether objects can be read, and add their sizes in bytes to a list."""

    def read(artifact: Artifact) -> str:
        # Each check has the whole timeout, and begins with the same credentials.
        store = JobSession(job, where).store
        info = store.head(artifact)
        sizes.append(info.size)
        store.open(artifact, info).read(0, min(1, info.size))
        encryption = " ".join(filter(None, (info.encryption or "no encryption", info.kms_key_id)))
        unverified = info.unverified_checksum
        missing = f"; its {unverified} is not verified without the extra crt" if unverified else ""
        return f"{info.size:,} bytes can be read, {encryption}{missing}"

    for artifact in artifacts:
        yield _tried(name, partial(read, artifact), artifact.name)


def _writable(job: Job, where: AwsConfig) -> Iterator[Check]:
    """Begin an upload of each output and abort it, which tells whether the key can be used."""
    used: set[str | None] = set()
    about_key: list[CpstageError] = []
    for artifact in job.output_artifacts:
        try:
            trial = JobSession(job, where).store.begin_upload(artifact)
        except CpstageError as error:
            yield _failed("output", error, artifact.name)
            cause = error.__cause__
            if isinstance(cause, ServiceError) and (
                cause.code.startswith("KMS.") or "kms:" in cause.message
            ):
                about_key.append(error)
            continue
        used.add(trial.kms_key_id)
        detail = f"{artifact.location} can be written to"
        if trial.left is None:
            yield Check("output", "ok", detail, artifact.name)
            continue
        yield Check(
            "output",
            "warning",
            f"{detail}, but the upload that was begun to see that stays open, without parts: "
            f"{trial.left}",
            artifact.name,
            "allow s3:AbortMultipartUpload, and give the bucket a lifecycle rule with "
            "AbortIncompleteMultipartUpload",
        )
    key = job.encryption_key.kms_key_id if job.encryption_key else None
    wanted = key or "the bucket's own key: the job has none"
    if about_key:
        yield _failed("key", about_key[0])
    elif not used:
        failed, unused = "no upload could be begun with it", "the job has no outputs"
        why = failed if job.output_artifacts else unused
        yield Check("key", "skipped", f"{wanted}: {why}")
    else:
        names = ", ".join(sorted(one for one in used if one)) or wanted
        yield Check("key", "ok", f"S3 encrypts uploads under {names}")


def _ask_for_time(where: AwsConfig) -> tuple[str, str | None]:
    """Return CodePipeline's endpoint and the Date of its refusal of a call without credentials."""
    client = replace(where, sign_requests=False).codepipeline()
    with aws_failures("reach CodePipeline"):
        try:
            answer = client.call("GetJobDetails", {"jobId": "ping"})
        except ServiceError as error:
            if error.may_pass or isinstance(error, UnreadableAnswer):
                raise
            return client.endpoint_url, error.date
    return client.endpoint_url, answer["ResponseMetadata"]["HTTPHeaders"].get("date")


def _whose_credentials(where: AwsConfig) -> str:
    """Return the caller's identity and the source of its credentials.

    A run does not call STS: an unreachable STS is not a failure, and neither is a denial by policy.

    Raises:
        AccessDenied: There are no credentials, or AWS does not accept them.
    """
    where.codepipeline()
    origin = "credentials that the AWS configuration leads to"
    if profile := where.profile or os.environ.get("AWS_PROFILE"):
        origin = f"credentials of the profile {profile}"
    elif os.environ.get("AWS_ACCESS_KEY_ID"):
        origin = "credentials of the environment, AWS_ACCESS_KEY_ID"
    try:
        caller = replace(where, timeout=min(where.timeout, _SECONDS_FOR_STS)).caller()
    except CpstageError as error:
        refusal = error.__cause__
        if isinstance(refusal, ServiceError) and (
            refusal.is_expired or refusal.code in _WRONG_CREDENTIALS
        ):
            raise
        return f"{origin}; the identity, which a run does not need, is unknown: {error.message}"
    return f"{caller.arn} of account {caller.account}, by {origin}"


def _clock(stamp: str | None) -> Check:
    """Compare this machine's clock with the date of an answer."""
    from cpstage.aws.errors import seconds_off

    off = seconds_off(stamp)
    if off is None:
        return Check("clock", "skipped", "the answer of the endpoint has no date")
    detail = f"off by {off:+.0f} s"
    fix = "set the clock of this machine, and have it kept by NTP"
    if abs(off) >= _MOST_SECONDS_OFF:
        return Check("clock", "failed", detail, fix=fix, exit_code=AccessDenied.exit_code)
    if abs(off) >= _NOTICEABLE_SECONDS_OFF:
        return Check("clock", "warning", detail, fix=fix)
    return Check("clock", "ok", detail)


def _examine_workspace(workspace: Path | str, size: int | None) -> str:
    """Check that the workspace, or its nearest existing parent, can be written to and has space.

    ``size`` is the size of the inputs in S3, in bytes; None without a job.
    """
    from cpstage.workspace.layout import Workspace
    from cpstage.workspace.lock import require_locks

    root = Workspace(workspace).root
    existing = next((path for path in (root, *root.parents) if path.exists()), root)
    require_locks(root, existing)
    Workspace(existing).require_space(size or 0)
    if left := Workspace(root).leftovers():
        raise WorkspaceUnavailable(
            f"an earlier run left {', '.join(map(str, left))}, which cannot be removed",
            hint="remove it as its owner, for example as root after a build in a container",
        )
    free = shutil.disk_usage(existing).free
    needed = "" if size is None else f"; the inputs have {size:,} bytes in S3"
    return f"{root} can be written to; {free:,} bytes are free{needed}"


def _tried(name: str, examine: Callable[[], str], subject: str | None = None) -> Check:
    """Return the check for the result of a function, or for its error."""
    try:
        return Check(name, "ok", examine(), subject)
    except UsageError:
        raise
    except CpstageError as error:
        return _failed(name, error, subject)


def _failed(name: str, error: CpstageError, subject: str | None = None) -> Check:
    return Check(name, "failed", error.message, subject, error.hint or None, error.exit_code)


def _skipped(names: Iterable[str], why: str) -> Iterator[Check]:
    return (Check(name, "skipped", why) for name in names)
