"""How cpstage reaches AWS: the settings, and the one place where clients are made.

The settings have the AWS CLI's names, values and precedence: option, then environment, then
profile. Clients come from botocore itself: boto3's resources and its transfer layer would cost
every command a tenth of a second that most commands have no use for. This module knows nothing
of jobs.
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

from cpstage.errors import ConfigurationError
from cpstage.failures import aws_failures
from cpstage.retries import DEFAULT_TIMEOUT

if TYPE_CHECKING:
    from botocore.client import BaseClient
    from botocore.loaders import Loader
    from botocore.session import Session
    from mypy_boto3_codepipeline import CodePipelineClient
    from mypy_boto3_kms import KMSClient
    from mypy_boto3_s3 import S3Client


_LOGGER = logging.getLogger("cpstage")


class Credentials(Protocol):
    """What signs the requests of a client, and answers when they are refused as expired."""

    def get_frozen_credentials(self) -> Any:
        """Return what to sign the next request with."""

    def attach(self, client: BaseClient) -> None:
        """Take part in the requests of a client."""


@dataclass(frozen=True)
class _Only:
    """A provider that has these credentials, and looks for none elsewhere."""

    credentials: Credentials

    def load_credentials(self) -> Credentials:
        return self.credentials


@dataclass(frozen=True)
class Connection:
    """The caller's settings; what is None comes from the environment, then from the profile.

    Attributes:
        endpoint_url: One endpoint for every service; ``AWS_ENDPOINT_URL_S3`` and its likes
            set one for a single service.
        ca_bundle: A file of CA certificates to trust.
        verify_ssl: False switches the verification of certificates off.
        connect_timeout: Seconds to wait for a connection; None waits for ever.
        read_timeout: Seconds to wait for the next bytes of an answer; None waits for ever.
        timeout: Seconds for which a failure of the network is met with another try.
        sign_requests: False sends the calls to CodePipeline without credentials.
    """

    region: str | None = None
    profile: str | None = None
    endpoint_url: str | None = None
    ca_bundle: str | None = None
    verify_ssl: bool = True
    connect_timeout: float | None = 60
    read_timeout: float | None = 60
    timeout: float = DEFAULT_TIMEOUT
    sign_requests: bool = True

    def codepipeline(self) -> CodePipelineClient:
        """Make a client of the job API, signed with the caller's own credentials.

        Raises:
            ConfigurationError: No region, no such profile, or a setting is malformed.
        """
        with aws_failures("set up the AWS client"):
            client: CodePipelineClient = self._client(self._session(), "codepipeline")
            return client

    def s3(self, credentials: Credentials, region: str | None = None) -> S3Client:
        """Make an S3 client that has the given credentials and no others.

        Args:
            credentials: A job's. The caller's are never looked up.
            region: Where the pipeline lies, for callers who have no region of their own.

        Raises:
            ConfigurationError: No region, no such profile, or a setting is malformed.
        """
        options = {"signature_version": "s3v4", "max_pool_connections": 16}
        client: S3Client = self._job_client(credentials, "s3", region, **options)
        return client

    def kms(self, credentials: Credentials | None, region: str | None) -> KMSClient:
        """Make a KMS client of a region, with the given credentials and no others.

        Args:
            credentials: A job's; the caller's are not looked up. None is for work without a job,
                which is done with the caller's own.
            region: Where the key lies; a key can only be used in its own region.

        Raises:
            ConfigurationError: No region, no such profile, or a setting is malformed.
        """
        there = replace(self, region=region or self.region)
        client: KMSClient = there._job_client(credentials, "kms", region)
        return client

    def setting(self, name: str, environment_variable: str) -> str | None:
        """Look up a setting of the AWS CLI: first the environment, then the profile."""
        with aws_failures("read the AWS configuration"):
            value = os.environ.get(environment_variable) or self._session().get_scoped_config().get(
                name
            )
            return value if isinstance(value, str) else None

    def _session(self) -> Session:
        from botocore.session import Session

        session = Session(profile=self.profile)
        loader = _data_loader(session.get_config_variable("data_path"))
        session.register_component("data_loader", loader)
        return session

    def _job_client(
        self, credentials: Credentials | None, service: str, region: str | None, **config: Any
    ) -> Any:
        with aws_failures("set up the AWS client"):
            session = self._session()
            if credentials:
                session.register_component("credential_provider", _Only(credentials))
            client = self._client(session, service, region, **config)
        if credentials:
            credentials.attach(client)
        return client

    def _client(
        self, session: Session, service: str, region: str | None = None, **config: Any
    ) -> Any:
        from botocore import UNSIGNED
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError

        if not self.sign_requests and service == "codepipeline":
            config["signature_version"] = UNSIGNED
        try:
            client = session.create_client(
                service,
                region_name=self._region(session) or region or _no_region(),
                endpoint_url=self.endpoint_url,
                verify=self._verify(),
                config=Config(
                    connect_timeout=self._within_timeout(self.connect_timeout),
                    read_timeout=self._within_timeout(self.read_timeout),
                    retries={"mode": "standard", "total_max_attempts": 5},
                    user_agent_extra="cpstage",
                    **config,
                ),
            )
            _ = urlsplit(client.meta.endpoint_url).port
        except BotoCoreError:
            raise
        except ValueError as error:
            raise ConfigurationError(
                f"cannot set up the AWS client: {error}", hint="check --endpoint-url"
            ) from error
        client.meta.events.register("after-call", _log_call)
        return client

    def _region(self, session: Session) -> str | None:
        """Prefer AWS_REGION, which every SDK but botocore reads, over AWS_DEFAULT_REGION."""
        return (
            self.region
            or os.environ.get("AWS_REGION")
            or session.get_config_variable("region")
            or None
        )

    def _within_timeout(self, seconds: float | None) -> float | None:
        return None if seconds is None else min(seconds, self.timeout)

    def _verify(self) -> bool | str | None:
        """Return None to let botocore look at AWS_CA_BUNDLE and the profile."""
        return (self.ca_bundle or None) if self.verify_ssl else False


@cache
def _data_loader(path: str | None) -> Loader:
    """Return what reads botocore's models: one for all sessions, since it keeps what it has read.

    To see whether a service exists, botocore looks into the directories of all 400. Those that
    are used here exist, and a start is a tenth shorter.
    """
    from botocore.loaders import Loader

    class KnownServices(Loader):
        def list_available_services(self, type_name: str) -> list[str]:  # noqa: ARG002
            return ["codepipeline", "kms", "s3"]

    more = path.split(os.pathsep) if path else []
    return KnownServices([os.path.expanduser(os.path.expandvars(one)) for one in more])


def _log_call(model: Any, parsed: dict[str, Any], context: Any = None, **_: Any) -> None:
    """Log the name and outcome of a call; its parameters and answer can hold secrets."""
    answer = parsed.get("ResponseMetadata", {})
    redirect = (context or {}).get("s3_redirect", {})
    if redirect.get("redirected"):  # once for a bucket: botocore remembers where it is
        region = (context or {}).get("signing", {}).get("region", "another region")
        _LOGGER.warning("bucket %s is in %s: redirected", redirect.get("bucket"), region)
    _LOGGER.info(
        "%s.%s: status %s, %s retries",
        model.service_model.service_name,
        model.name,
        answer.get("HTTPStatusCode"),
        answer.get("RetryAttempts", 0),
    )


def _no_region() -> str:
    raise ConfigurationError(
        "no AWS region is configured",
        hint="give --region, or set AWS_REGION or the profile's region",
    )
