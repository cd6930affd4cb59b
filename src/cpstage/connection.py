"""How cpstage reaches AWS: the settings, and the one place where services are set up.

The settings have the AWS CLI's names, values and precedence: option, then environment, then
profile. This module knows nothing of jobs.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from cpstage.aws.botocore_settings import Given
from cpstage.aws.json_api import Api, JsonService
from cpstage.aws.message import Request
from cpstage.aws.s3_api import S3
from cpstage.aws.service import Endpoint, Renewing
from cpstage.aws.settings import Settings
from cpstage.aws.tls import Tls
from cpstage.aws.transport import Transport
from cpstage.failures import aws_failures
from cpstage.retries import DEFAULT_TIMEOUT, Retries

if TYPE_CHECKING:
    from cpstage.aws.sts_api import Caller

_CODEPIPELINE = Api("codepipeline", "CodePipeline_20150709")
_KMS = Api("kms", "TrentService")


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

    def codepipeline(self, retries: Retries | None = None) -> JsonService:
        """Set up the job API, signed with the caller's own credentials.

        Args:
            retries: How long to go on when something fails that may pass.

        Raises:
            ConfigurationError: No region, no such profile, or a setting is malformed.
            AccessDenied: There are no credentials, or they cannot be had.
        """
        with aws_failures("set up the AWS client"):
            endpoint = self._settings.endpoint("codepipeline")
            return JsonService(
                _CODEPIPELINE,
                endpoint,
                self._transport(),
                self._settings.credentials() if self.sign_requests else None,
                retries or Retries(self.timeout),
            )

    def s3(
        self, credentials: Renewing, region: str | None = None, retries: Retries | None = None
    ) -> S3:
        """Set up S3 with the given credentials and no others.

        Args:
            credentials: A job's. The caller's are never looked up.
            region: Where the pipeline lies, for callers who have no region of their own.
            retries: How long to go on when something fails that may pass.

        Raises:
            ConfigurationError: No region, no such profile, or a setting is malformed.
        """
        with aws_failures("set up the AWS client"):
            home = self._settings.region(region)

            def locate(bucket: str, moved: str | None) -> Endpoint:
                return self._settings.bucket(bucket, moved or home)

            return S3(
                locate,
                self._transport(),
                credentials,
                retries or Retries(self.timeout),
                renew=credentials.renew_after,
            )

    def kms(
        self,
        credentials: Renewing | None,
        region: str | None,
        retries: Retries | None = None,
    ) -> JsonService:
        """Set up KMS in a region, with the given credentials and no others.

        Args:
            credentials: A job's; the caller's are not looked up. None is for work without a job,
                which is done with the caller's own.
            region: Where the key lies; a key can only be used in its own region.
            retries: How long to go on when something fails that may pass.

        Raises:
            ConfigurationError: No region, no such profile, or a setting is malformed.
            AccessDenied: There are no credentials, or they cannot be had.
        """
        with aws_failures("set up the AWS client"):
            return JsonService(
                _KMS,
                self._settings.endpoint("kms", region),
                self._transport(),
                credentials or self._settings.credentials(),
                retries or Retries(self.timeout),
                renew=credentials.renew_after if credentials else None,
            )

    def caller(self) -> Caller:
        """Ask STS in the configured region whose the caller's credentials are.

        Raises:
            ConfigurationError: No region, no such profile, or a setting is malformed.
            AccessDenied: There are no credentials, or STS refuses them.
            ServiceUnavailable: There was no answer.
        """
        from cpstage.aws.sts_api import Sts

        with aws_failures("ask STS who the caller is"):
            sts = Sts(
                self._settings.endpoint("sts"),
                self._transport(),
                self._settings.credentials(),
                Retries(self.timeout),
            )
            return sts.caller()

    def ask_for_time(self) -> tuple[str, str | None]:
        """Ask the endpoint of the job API for nothing at all: its answer tells the time.

        Returns:
            The endpoint, and the Date header of what it answered, whatever that was.

        Raises:
            ConfigurationError: No region, a malformed setting, or a certificate is not trusted.
            ServiceUnavailable: There was no answer.
        """
        with aws_failures("reach CodePipeline"):
            origin = self._settings.endpoint("codepipeline").origin
            answer = self._transport().exchange(Request("GET", origin, "/ping", {}))
        return str(origin), answer.headers.get("date")

    def setting(self, name: str, environment_variable: str) -> str | None:
        """Look up a setting of the AWS CLI: first the environment, then the profile."""
        with aws_failures("read the AWS configuration"):
            return self._settings.setting(name, environment_variable)

    @cached_property
    def _settings(self) -> Settings:
        given = Given(self.region, self.profile, self.endpoint_url, self.ca_bundle, self.verify_ssl)
        return Settings(given)

    @cached_property
    def _tls(self) -> Tls:
        return Tls(self.verify_ssl, self._settings.ca_bundle())

    def _transport(self) -> Transport:
        return Transport(
            self._tls,
            self._within_timeout(self.connect_timeout),
            self._within_timeout(self.read_timeout),
        )

    def _within_timeout(self, seconds: float | None) -> float | None:
        return None if seconds is None else min(seconds, self.timeout)
