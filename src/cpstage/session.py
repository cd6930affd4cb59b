"""A job's session: services that are called with its credentials and no others.

This is where the credentials, the job API that renews them and the store that uses them meet.
"""

from __future__ import annotations

from functools import cached_property

from cpstage.aws.client import AwsClient
from cpstage.aws.codepipeline import get_job
from cpstage.aws.config import Connection
from cpstage.aws.credentials import DEFAULT_MAX_AGE, JobCredentials
from cpstage.aws.retries import Retries
from cpstage.aws.s3 import S3
from cpstage.errors import CpstageError, NotFound, OutOfSync
from cpstage.job import Job, SessionCredentials
from cpstage.store.artifacts import Store


class JobSession:
    """What may be done with a job's own credentials.

    Args:
        job: The job, with its credentials.
        connection: How to reach AWS; the caller's credentials are used to refresh the job's.
        max_age: Seconds after which the credentials are refreshed ahead of time.

    Raises:
        AccessDenied: The job carries no credentials.
    """

    def __init__(self, job: Job, connection: Connection, max_age: float = DEFAULT_MAX_AGE) -> None:
        self.job = job
        self._connection = connection
        self._credentials = JobCredentials(job.require_credentials(), self._refresh, max_age)
        self._clients: list[AwsClient] = []
        self._kms: dict[str | None, AwsClient] = {}
        self.retries = Retries(connection.timeout)

    def __enter__(self) -> JobSession:
        """Use it."""
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """End what is under way where something failed: nobody waits for it any more."""
        if kind is not None:
            for client in self._clients:
                client.interrupt()

    @cached_property
    def store(self) -> Store:
        """The job's artifacts in S3."""
        client = self._connection.s3(self._credentials, self.job.region, self.retries)
        self._clients.append(client)
        artifacts = (*self.job.input_artifacts, *self.job.output_artifacts)
        names = {(one.location.bucket, one.location.key): one.name for one in artifacts}
        return Store(S3(client, names), self.job.encryption_key)

    def kms(self, region: str | None) -> AwsClient:
        """Return KMS in a region; None asks for the pipeline's.

        Raises:
            ConfigurationError: There is no region, or a setting is malformed.
        """
        if region not in self._kms:
            where = region or self.job.region
            client = self._kms[region] = self._connection.kms(
                self._credentials, where, self.retries
            )
            self._clients.append(client)
        return self._kms[region]

    def _refresh(self) -> SessionCredentials:
        """Ask for new credentials, as the caller.

        Raises:
            OutOfSync: The job is gone.
            AccessDenied, ServiceUnavailable, ConfigurationError: They cannot be had, and why.
        """
        job = self.job
        try:
            new = get_job(job.id, client_token=job.client_token, connection=self._connection)
            return new.require_credentials()
        except NotFound as error:
            raise OutOfSync(
                f"the session of job {job.id} has expired, and the job is no longer in progress: "
                f"{error.message}",
                hint="release the change again",
            ) from error
        except CpstageError as error:
            raise type(error)(
                f"the session of job {job.id} has expired and cannot be refreshed: {error.message}",
                hint=error.hint,
            ) from error
