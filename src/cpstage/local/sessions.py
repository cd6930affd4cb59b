"""The session credentials that CodePipeline hands out with a job, and what they are good for.

Each session may read exactly the job's input objects, write exactly its output objects, and use
exactly its key; everything else it is denied.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cpstage.local.identities import Identities, Identity, Statement

if TYPE_CHECKING:
    from cpstage.local.backend import Backend
    from cpstage.local.jobs import Artifact, Book, JobState


class Sessions:
    """Issues the sessions of jobs."""

    def __init__(self, book: Book, identities: Identities, backend: Backend, region: str) -> None:
        self._book = book
        self._identities = identities
        self._backend = backend
        self._region = region

    def issue(self, job: JobState) -> Identity:
        """Make new session credentials for a job."""
        number = self._book.next_session(job.id)
        return self._identities.add_session(
            job.id, number, job.session_seconds, self._statements(job)
        )

    def key_of(self, job: JobState, bucket: str) -> str:
        """Return the ARN of the key that the job's objects in a bucket are encrypted under.

        That is the AWS managed key of S3 for a job without a key, or with one that the bucket's
        region does not have.
        """
        region = self._backend.bucket_region(bucket) or self._region
        key_id = (job.encryption_key or {}).get("id")
        if key_id:
            found = self._backend.find_key(key_id, region)
            if found is not None:
                return found[0]
        return self._backend.managed_key(region)

    def _statements(self, job: JobState) -> tuple[Statement, ...]:
        actions = job.session_actions
        buckets = {artifact.bucket for artifact in (*job.inputs, *job.outputs)}
        reading = frozenset(a for a in actions if a.startswith("s3:Get"))
        listing = frozenset(a for a in actions if a.startswith("s3:ListBucket"))
        keys = frozenset(a for a in actions if a.startswith("kms:"))
        writing = actions - reading - listing - keys
        return (
            Statement(reading, _objects(job.inputs)),
            Statement(writing, _objects(job.outputs)),
            Statement(listing, frozenset(f"arn:aws:s3:::{bucket}" for bucket in buckets)),
            Statement(keys, frozenset(self.key_of(job, bucket) for bucket in buckets)),
        )


def _objects(artifacts: tuple[Artifact, ...]) -> frozenset[str]:
    return frozenset(f"arn:aws:s3:::{artifact.bucket}/{artifact.key}" for artifact in artifacts)
