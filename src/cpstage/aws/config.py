"""How cpstage reaches AWS: the caller's settings, and the boto3 clients that are made of them.

The settings have the AWS CLI's names, values and precedence: option, then environment, then
profile. botocore reads all of them, and chooses endpoint, partition and proxy.
"""

from __future__ import annotations

import os
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

    import boto3

    from cpstage.aws.client import AwsClient, Retries
    from cpstage.aws.job_session import JobCredentials
    from cpstage.aws.sessions import Connections
    from cpstage.job.model import Secret

DEFAULT_TIMEOUT: float = 300
"""Seconds since the last progress after which a failed request is not sent again."""

DEFAULT_MAX_AGE: float = 14 * 60
"""Seconds after which a job's session credentials are refreshed: the AWS CodePipeline plugin for
Jenkins uses them for 15 minutes."""

_DEFAULT_READ_TIMEOUT = 60.0
"""Seconds: botocore's own (botocore.config.Config)."""

_Found = TypeVar("_Found")


class Caller(NamedTuple):
    """Whose the caller's credentials are (GetCallerIdentity)."""

    account: str
    arn: str


class _Cache:
    """A cache of sessions and clients by their settings; each takes some 50 ms to make.

    botocore's sessions make one client at a time.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self._objects: dict[Any, Any] = {}

    def once(self, key: Any, make: Callable[[], _Found]) -> _Found:
        if key not in self._objects:  # a made object needs no lock
            with self.lock:
                if key not in self._objects:
                    self._objects[key] = make()
        found: _Found = self._objects[key]
        return found

    def take(self, key: Any) -> Any:
        """Remove the object of a key, and return it; None without one. Waits while it is made."""
        with self.lock:
            return self._objects.pop(key, None)


@dataclass(frozen=True)
class AwsConfig:
    """The caller's settings; None means the environment's value, then the profile's.

    Attributes:
        region: The region of the pipeline.
        profile: The profile of the AWS configuration.
        endpoint_url: One endpoint for every service; ``AWS_ENDPOINT_URL_S3`` and its likes
            set one for a single service.
        ca_bundle: A file of CA certificates to trust.
        verify_ssl: False switches the verification of certificates off.
        connect_timeout: Seconds to wait for a connection; 0 waits without limit, None is
            botocore's 60.
        read_timeout: Seconds to wait for the next KiB of an answer; 0 waits without limit, None is
            botocore's 60.
        timeout: Seconds since the last progress after which a failed request is not sent again.
        sign_requests: False sends the calls to CodePipeline without credentials.
        session: A boto3 session whose credentials, settings and event handlers are used; by default
            that of ``boto3.setup_default_session``, or a new one.
    """

    region: str | None = None
    profile: str | None = None
    endpoint_url: str | None = None
    ca_bundle: str | None = None
    verify_ssl: bool = True
    connect_timeout: float | None = None
    read_timeout: float | None = None
    timeout: float = DEFAULT_TIMEOUT
    sign_requests: bool = True
    session: boto3.Session | None = field(default=None, repr=False)
    _cache: _Cache = field(default_factory=_Cache, repr=False, compare=False)

    def __getstate__(self) -> dict[str, Any]:
        """Return the settings without sessions and clients, which another process makes itself."""
        if self.given_session is not None:
            raise TypeError("a boto3 session cannot be handed to another process: give a profile")
        return {name: value for name, value in self.__dict__.items() if name != "_cache"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore the settings of another process."""
        self.__dict__.update(state, _cache=_Cache())

    def codepipeline(self) -> AwsClient:
        """Return a client of the job API, with the caller's own credentials.

        Raises:
            ConfigurationError: The region or the profile is missing, or a setting is malformed.
            AccessDenied: There are no credentials, or they cannot be read.
        """
        return self._client("codepipeline", self.require_region())

    def s3(
        self,
        credentials: JobCredentials | None,
        region: str | None = None,
        retries: Retries | None = None,
    ) -> AwsClient:
        """Return a client of S3, with a job's credentials and no others, or with the caller's.

        Args:
            credentials: The job's: then the caller's are never looked up. None is for work without
                a job.
            region: The pipeline's, for callers who have no region of their own.
            retries: The time limit of retries.

        Raises:
            ConfigurationError, AccessDenied: As :meth:`codepipeline`.
        """
        return self._client("s3", self.require_region(region), credentials, retries)

    def kms(
        self, credentials: JobCredentials | None, region: str | None, retries: Retries | None = None
    ) -> AwsClient:
        """Return a client of KMS in the region where the key lies; otherwise as :meth:`s3`."""
        return self._client("kms", region or self.require_region(), credentials, retries)

    def caller(self) -> Caller:
        """Call GetCallerIdentity, which needs no permission; errors are those of other calls."""
        from cpstage.aws.client import aws_failures, has

        with aws_failures("ask STS who the caller is"):
            client = self._client("sts", self.require_region())
            answer = client.call("GetCallerIdentity", {}, check=has("Account", "Arn"))
        return Caller(answer["Account"], answer["Arn"])

    def prepare_s3(self) -> None:
        """Make a client of S3 ahead of time, in a thread, while GetJobDetails is answered.

        Loading botocore's model of S3 and making a client takes some 30 ms. A failure here is
        raised when S3 is needed.
        """
        try:
            region = self.require_region()
            key = ("job", "s3", region, self._settings)
        except Exception:  # the call under way raises it
            return

        def make() -> None:
            with suppress(Exception):
                self._cache.once(key, lambda: self._new_client("s3", region, of_job=True))

        threading.Thread(target=make, name="cpstage-client", daemon=True).start()

    def require_region(self, fallback: str | None = None) -> str:
        """Return the configured region, or else the fallback.

        ``AWS_REGION``, which every SDK but botocore reads, comes before ``AWS_DEFAULT_REGION``.

        Raises:
            ConfigurationError: The region or the profile is missing.
        """
        from cpstage.errors import ConfigurationError

        found = (
            self._region_of_options
            or self._once("region", self._region_of_session)
            or os.environ.get("AWS_REGION")
            or fallback
        )
        if not found:
            raise ConfigurationError(
                "no AWS region is configured",
                hint="give --region, or set AWS_REGION or the profile's region",
            )
        return str(found)

    def setting(self, name: str, environment_variable: str) -> str | None:
        """Look up a setting of the AWS CLI: first the environment, then the profile."""
        value = os.environ.get(environment_variable)
        if not value:
            value = self._read(lambda: self._botocore.get_scoped_config().get(name))
        return value if isinstance(value, str) and value else None

    @property
    def given_session(self) -> boto3.Session | None:
        """The session of this process that is used: the one given, or boto3's default session."""
        if self.session is not None or self.profile is not None:
            return self.session
        loaded = sys.modules.get("boto3")
        # A signal may come while another thread imports boto3, which then has no such name yet.
        return getattr(loaded, "DEFAULT_SESSION", None)

    @property
    def _region_of_options(self) -> str | None:
        """The region that is given, or ``AWS_REGION`` where no session is given."""
        return self.region or (None if self.given_session else os.environ.get("AWS_REGION"))

    def _region_of_session(self) -> str | None:
        default = self._default_config()
        return self._session.region_name or getattr(default, "region_name", None)

    def _default_config(self) -> Any:
        return self._botocore.get_default_client_config()

    @property
    def _settings(self) -> tuple[Any, ...]:
        """The settings in which two clients of a service and a region can differ."""
        return (
            self.given_session,
            self.profile,
            self.endpoint_url,
            self.ca_bundle,
            self.verify_ssl,
            self._seconds("connect_timeout"),
            self._seconds("read_timeout"),
            self.sign_requests,
        )

    @property
    def _session(self) -> boto3.Session:
        if self.given_session is not None:
            return self.given_session
        from cpstage.aws.sessions import new_session

        profile, region = self.profile, self._region_of_options
        return self._cache.once(("session", profile, region), lambda: new_session(profile, region))

    @property
    def _botocore(self) -> Any:
        """The botocore session inside; boto3 has no public name for it."""
        return self._session._session

    def _client(
        self,
        service: str,
        region: str,
        credentials: JobCredentials | None = None,
        retries: Retries | None = None,
    ) -> AwsClient:
        from cpstage.aws.client import AwsClient, Retries

        key = (service, region, self._settings)
        if credentials is None:
            client = self._cache.once(key, lambda: self._new_client(service, region, of_job=False))
        else:  # each signs with its own credentials
            client = self._cache.take(("job", *key)) or self._new_client(
                service, region, of_job=True
            )
        return AwsClient(
            *client,
            retries or Retries(self.timeout),
            secrets=list if credentials else self.callers_secrets,
            credentials=credentials,
            retries_itself=self._has_retry_settings(),
            ca_bundle=self._ca_bundle(),
        )

    def _new_client(self, service: str, region: str, *, of_job: bool) -> tuple[Any, Connections]:
        from botocore import UNSIGNED

        from cpstage.aws.sessions import new_client, require_credentials

        signs = self.sign_requests or service != "codepipeline"
        if signs and not of_job:
            self._read(lambda: require_credentials(lambda: self._session))
        options: dict[str, Any] = {}
        for name in ("connect_timeout", "read_timeout"):
            if (seconds := self._seconds(name)) is not None:
                options[name] = seconds or None
        if not self._has_retry_settings():
            options["retries"] = {"total_max_attempts": 1}
        if not signs:
            options["signature_version"] = UNSIGNED
        settings = {
            "region_name": region,
            "endpoint_url": self.endpoint_url,
            "verify": self.ca_bundle if self.verify_ssl else False,
        }
        if of_job:
            # Placeholders: a job's credentials take their place when a request is signed.
            settings |= {"aws_access_key_id": "job", "aws_secret_access_key": "job"}
        return self._read(
            lambda: new_client(self._session, service, options, settings),
            f"the AWS client of {service}",
        )

    def callers_secrets(self) -> list[Secret]:
        """Return the secret values of the caller's credentials; empty if unreadable."""
        from cpstage.job.model import SHORTEST_SECRET, Secret

        try:
            found = self._session.get_credentials() if self.sign_requests else None
            keys = found.get_frozen_credentials() if found else ()
        except Exception:  # they cannot be refreshed, which the call that failed says
            return []
        return [Secret(value) for value in keys[:3] if value and len(value) >= SHORTEST_SECRET]

    def _has_retry_settings(self) -> bool:
        """Whether the caller has configured botocore's own retries."""

        def read() -> bool:
            if getattr(self._default_config(), "retries", None):
                return True
            return bool({"max_attempts", "retry_mode"} & self._botocore.get_scoped_config().keys())

        named = os.environ.get("AWS_MAX_ATTEMPTS") or os.environ.get("AWS_RETRY_MODE")
        return bool(named) or self._once("retries", read)

    def _ca_bundle(self) -> str | None:
        if not self.verify_ssl or self.ca_bundle:
            return self.ca_bundle
        found = self._once("bundle", lambda: self._botocore.get_config_variable("ca_bundle"))
        return found or os.environ.get("REQUESTS_CA_BUNDLE")

    def _once(self, name: str, read: Callable[[], _Found]) -> _Found:
        """Read a setting through botocore once."""
        key = (name, self.given_session, self.profile, self.region)
        return self._cache.once(key, lambda: self._read(read))

    def _seconds(self, name: str) -> float | None:
        """Return ``connect_timeout`` or ``read_timeout``, which the retry timeout bounds.

        0 waits without limit; None is the timeout of the session.
        """
        seconds: float | None = getattr(self, name)
        known = seconds
        if known is None:
            if self.timeout >= _DEFAULT_READ_TIMEOUT:
                return None  # without reading the session's
            known = getattr(self._once("config", self._default_config), name, None)
        if known is None:
            known = _DEFAULT_READ_TIMEOUT
        return seconds if self.timeout >= known else self.timeout

    def _read(self, read: Callable[[], _Found], what: str = "the AWS client") -> _Found:
        """Read settings or credentials through botocore, and translate its errors."""
        from cpstage.aws.client import aws_failures
        from cpstage.errors import ConfigurationError

        with aws_failures(f"set up {what}"):
            try:
                with self._cache.lock:
                    return read()
            except (AttributeError, KeyError, TypeError, ValueError) as error:
                if type(error).__module__.startswith("botocore"):
                    raise
                from cpstage.aws.errors import settings_hint

                why = str(error).rpartition("@")[2]  # what stands before may be a password
                failure = ConfigurationError(
                    f"cannot set up {what}: {why}", hint=settings_hint(why)
                )
            raise failure
