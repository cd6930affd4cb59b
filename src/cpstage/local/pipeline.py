"""The pipeline: makes jobs of their descriptions, as the actions before would have left them.

It places artifacts in the bucket under keys like CodePipeline's, and stores the input objects
encrypted. It knows nothing of HTTP.
"""

from __future__ import annotations

import secrets
import string
import uuid
from typing import TYPE_CHECKING

from cpstage.local.jobs import STATUSES, ActionType, Artifact, Book, JobState, new_nonce
from cpstage.local.new_job import Input, NewJob, Output

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cpstage.local.backend import Backend
    from cpstage.local.sessions import Sessions

_KEY_ALPHABET = string.ascii_letters + string.digits


class Pipeline:
    """Every pipeline of the local AWS, with one bucket and one key between them.

    Args:
        backend: Where the objects go.
        book: Where the jobs are entered.
        sessions: Knows under which key a job's objects lie.
        bucket: The bucket of jobs that name none.
        key_arn: The key of jobs that ask for the default.
        session_seconds: Life of the sessions of jobs that do not say.
        session_actions: What the sessions of jobs that do not say may do.
    """

    def __init__(
        self,
        backend: Backend,
        book: Book,
        sessions: Sessions,
        *,
        bucket: str,
        key_arn: str,
        session_seconds: float,
        session_actions: frozenset[str],
    ) -> None:
        self._backend = backend
        self._book = book
        self._sessions = sessions
        self._bucket = bucket
        self._key_arn = key_arn
        self._session_seconds = session_seconds
        self._session_actions = session_actions

    def submit(self, job: NewJob) -> str:
        """Make a job of a description, put its inputs into the bucket, and return its id.

        Raises:
            ValueError: It names a status, bucket or key that there is not.
        """
        check_status(job.status)
        seconds, actions = job.session_seconds, job.session_actions
        state = JobState(
            id=str(uuid.uuid4()),
            status=job.status,
            nonce=new_nonce(),
            client_id=str(uuid.uuid4()) if job.third_party else None,
            client_token=str(uuid.uuid4()) if job.third_party else None,
            action_type=action_type(job),
            configuration=job.configuration,
            pipeline=job.pipeline,
            stage=job.stage,
            action=job.action,
            action_execution_id=str(uuid.uuid4()),
            pipeline_execution_id=str(uuid.uuid4()),
            inputs=tuple(self._place(job, item) for item in job.inputs),
            outputs=tuple(self._place(job, item) for item in job.outputs),
            encryption_key=self._encryption_key(job.encryption_key),
            continuation_token=job.continuation_token,
            session_seconds=self._session_seconds if seconds is None else seconds,
            session_actions=self._session_actions if actions is None else actions,
        )
        for item, artifact in zip(job.inputs, state.inputs, strict=True):
            self._store(item, artifact, state)
        self._book.add(state)
        return state.id

    def _encryption_key(self, key: str | Mapping[str, str] | None) -> Mapping[str, str] | None:
        if isinstance(key, str):
            return {"id": self._key_arn if key == "default" else key, "type": "KMS"}
        return key

    def _store(self, item: Input, artifact: Artifact, state: JobState) -> None:
        """Put the object of an input artifact into its bucket."""
        region = self._backend.bucket_region(artifact.bucket)
        if region is None:
            raise ValueError(f"There is no bucket {artifact.bucket}; add_bucket makes one")
        key = self._sessions.key_of(state, artifact.bucket)
        if item.kms_key_id is not None:
            found = self._backend.find_key(item.kms_key_id, region)
            if found is None:
                raise ValueError(f"There is no key {item.kms_key_id} in {region}")
            key = found[0]
        if item.body is not None:
            self._backend.put_object(
                artifact.bucket, artifact.key, item.body, item.content_type, key
            )

    def _place(self, job: NewJob, item: Input | Output) -> Artifact:
        suffix = item.suffix if isinstance(item, Input) else ""
        name = "".join(secrets.choice(_KEY_ALPHABET) for _ in range(7))
        # CodePipeline cuts the pipeline's name to 20 characters in keys, the artifact's to 10.
        key = item.key or f"{job.pipeline[:20]}/{item.name[:10]}/{name}{suffix}"
        bucket = item.bucket or job.bucket or self._bucket
        revision = item.revision if isinstance(item, Input) else None
        return Artifact(item.name, bucket, key, revision)


def action_type(job: NewJob) -> ActionType:
    """Return the action type that a job is for."""
    owner = "ThirdParty" if job.third_party else "Custom"
    return ActionType(job.category, owner, job.provider, job.version)


def check_status(status: str) -> None:
    """Refuse what is no JobStatus.

    Raises:
        ValueError: It is none.
    """
    if status not in STATUSES:
        raise ValueError(f"A job cannot be {status}; it is one of {sorted(STATUSES)}")
