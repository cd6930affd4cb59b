"""What a job of the local pipeline is made of, before the local AWS makes it.

These are plain values that travel as JSON, so that another process can ask for a job too. This
module knows no AWS, only the names of its things.
"""

from __future__ import annotations

import base64
from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SESSION_ACTIONS = frozenset(
    {
        "s3:GetObject",
        "s3:GetObjectVersion",
        "s3:PutObject",
        "s3:AbortMultipartUpload",
        "s3:ListMultipartUploadParts",
        "kms:Decrypt",
        "kms:DescribeKey",
        "kms:GenerateDataKey",
        "kms:GenerateDataKeyWithoutPlaintext",
    }
)
"""What a job's session may do: the `s3:Get…` on its inputs, the other `s3:` actions on its
outputs, the `kms:` actions on its key. Adding `s3:ListBucket` allows it on the job's bucket, and
then a missing object is 404 NoSuchKey, where it is 403 AccessDenied without."""


@dataclass(frozen=True)
class Input:
    """One input artifact: an object that an earlier action left in the bucket.

    Attributes:
        name: The artifact's name.
        body: The object's bytes; None for an object that is not there.
        suffix: What its key ends in, `.zip` or nothing.
        content_type: Its Content-Type; S3's default if None.
        key: The whole object key, in place of one that CodePipeline would make up.
        bucket: The bucket it lies in; the job's if None.
        revision: The artifact's revision.
        kms_key_id: The KMS key that encrypts it; the job's if None.
    """

    name: str
    body: bytes | None = field(default=b"", repr=False)
    suffix: str = ".zip"
    content_type: str | None = None
    key: str | None = None
    bucket: str | None = None
    revision: str | None = None
    kms_key_id: str | None = None


@dataclass(frozen=True)
class Output:
    """One output artifact: a place in the bucket.

    Attributes:
        name: The artifact's name.
        key: The whole object key, in place of one that CodePipeline would make up.
        bucket: The bucket it is to lie in; the job's if None.
    """

    name: str
    key: str | None = None
    bucket: str | None = None


@dataclass(frozen=True)
class NewJob:
    """Everything that `add_job` takes; see there."""

    inputs: tuple[Input, ...] = ()
    outputs: tuple[Output, ...] = ()
    configuration: Mapping[str, str] = field(default_factory=dict, repr=False)
    encryption_key: str | Mapping[str, str] | None = "default"
    status: str = "InProgress"
    third_party: bool = False
    continuation_token: str | None = None
    pipeline: str = "sample-pipeline"
    stage: str = "Build"
    action: str = "BuildWithCpstage"
    category: str = "Build"
    provider: str = "CpstageLocal"
    version: str = "1"
    bucket: str | None = None
    session_seconds: float | None = None
    session_actions: frozenset[str] | None = None

    def to_json(self) -> dict[str, Any]:
        """Return it as a JSON document, bodies in base64."""
        document = asdict(self)
        for item in document["inputs"]:
            if item["body"] is not None:
                item["body"] = base64.b64encode(item["body"]).decode("ascii")
        if self.session_actions is not None:
            document["session_actions"] = sorted(self.session_actions)
        return document

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> NewJob:
        """Read it back from a JSON document.

        Raises:
            TypeError: The document has a member that a job has not.
            ValueError: A body is not base64.
        """
        members = dict(document)
        members["inputs"] = tuple(
            Input(**{**item, "body": _decode(item.get("body", ""))})
            for item in members.get("inputs", ())
        )
        members["outputs"] = tuple(Output(**item) for item in members.get("outputs", ()))
        if members.get("session_actions") is not None:
            members["session_actions"] = frozenset(members["session_actions"])
        return cls(**members)


def _decode(body: str | None) -> bytes | None:
    return None if body is None else base64.b64decode(body, validate=True)


class TakesJobs(ABC):
    """Whatever jobs can be added to: the local AWS itself, or a client of it elsewhere."""

    @abstractmethod
    def submit(self, job: NewJob) -> str:
        """Make a job of a description, and return its id."""

    def add_job(
        self,
        inputs: Sequence[Input] = (),
        outputs: Sequence[str | Output] = (),
        *,
        configuration: Mapping[str, str] | None = None,
        encryption_key: str | Mapping[str, str] | None = "default",
        status: str = "InProgress",
        third_party: bool = False,
        continuation_token: str | None = None,
        pipeline: str = "sample-pipeline",
        stage: str = "Build",
        action: str = "BuildWithCpstage",
        category: str = "Build",
        provider: str = "CpstageLocal",
        version: str = "1",
        bucket: str | None = None,
        session_seconds: float | None = None,
        session_actions: frozenset[str] | None = None,
    ) -> str:
        """Add a job, and put its input objects into the bucket.

        Args:
            inputs: The input artifacts.
            outputs: The output artifacts, or their names.
            configuration: The action's configuration.
            encryption_key: The job's `encryptionKey`: `default` for the pipeline's KMS key,
                another key's id, the whole member, or None for a job without.
            status: `InProgress`, as after AcknowledgeJob; `Queued` for a job to be polled for.
            third_party: Whether it is a third-party job.
            continuation_token: The token that an earlier job of the action left.
            pipeline: The pipeline's name.
            stage: The stage's name.
            action: The action's name.
            category: The action type's category.
            provider: The action type's provider.
            version: The action type's version.
            bucket: The bucket of its artifacts; the pipeline's if None.
            session_seconds: Life of its session credentials; the local AWS's if None.
            session_actions: What its sessions may do; `SESSION_ACTIONS` if None.

        Returns:
            The job id.
        """
        return self.submit(
            NewJob(
                inputs=tuple(inputs),
                outputs=tuple(Output(o) if isinstance(o, str) else o for o in outputs),
                configuration=dict(configuration or {}),
                encryption_key=encryption_key,
                status=status,
                third_party=third_party,
                continuation_token=continuation_token,
                pipeline=pipeline,
                stage=stage,
                action=action,
                category=category,
                provider=provider,
                version=version,
                bucket=bucket,
                session_seconds=session_seconds,
                session_actions=session_actions,
            )
        )
