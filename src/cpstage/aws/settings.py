"""Who the caller is, and where services are: the AWS CLI's settings, names and precedence.

Where the environment alone says all of it, as on a build machine, it is read here. Wherever there
is more to know (a profile, a role, a partition, a setting that is not among the plain ones),
botocore is asked, which knows all of it; to load it costs a quarter of a second.
"""

from __future__ import annotations

import os
import re
from functools import cached_property
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from cpstage.aws.botocore_settings import Botocore, Given, endpoint_at
from cpstage.aws.service import Credentials, Endpoint
from cpstage.errors import ConfigurationError

_PLAIN_VARIABLES = {
    "AWS_ACCESS_KEY_ID",
    "AWS_CA_BUNDLE",
    "AWS_CONFIG_FILE",
    "AWS_DEFAULT_OUTPUT",
    "AWS_DEFAULT_REGION",
    "AWS_EC2_METADATA_DISABLED",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_CODEPIPELINE",
    "AWS_ENDPOINT_URL_KMS",
    "AWS_ENDPOINT_URL_S3",
    "AWS_ENDPOINT_URL_STS",
    "AWS_EXECUTION_ENV",
    "AWS_PAGER",
    "AWS_REGION",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_SHARED_CREDENTIALS_FILE",
}
"""Variables whose whole meaning is known here. Any other that begins so may change it."""

_PLAIN_REGION = re.compile(r"(af|ap|ca|eu|il|me|mx|sa|us)-[a-z]+-[0-9]")
"""A region of the partition ``aws``, whose endpoints are named alike; not ``us-gov-west-1``."""

_HOST_BUCKET = re.compile(r"[a-z0-9][a-z0-9-]{1,61}[a-z0-9]")
"""A bucket that can be a component of a host name, also of one that a certificate is for."""


class _Frozen(NamedTuple):
    access_key: str
    secret_key: str
    token: str | None

    def __repr__(self) -> str:
        return "credentials(********)"


class _FromEnvironment:
    """Credentials that are variables, and stay as they are."""

    def get_frozen_credentials(self) -> _Frozen:
        """Return them."""
        token = os.environ.get("AWS_SESSION_TOKEN") or None
        return _Frozen(os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"], token)


class Settings:
    """Answers from the environment where that is all there is, else from botocore.

    Args:
        given: What the command line says.
    """

    def __init__(self, given: Given) -> None:
        self._given = given
        self._botocore = Botocore(given)

    @cached_property
    def is_plain(self) -> bool:
        """Whether options and environment say all that botocore would find."""
        unknown = [
            name for name in os.environ if name.startswith("AWS_") and name not in _PLAIN_VARIABLES
        ]
        return not unknown and self._given.profile is None and not _has_default_profile()

    def credentials(self) -> Credentials:
        """Return the caller's credentials.

        Raises:
            AccessDenied: There are none.
            botocore.exceptions.BotoCoreError: They cannot be had.
        """
        named = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
        if self.is_plain and all(os.environ.get(name) for name in named):
            return _FromEnvironment()
        return self._botocore.credentials()

    def endpoint(self, service: str, region: str | None = None) -> Endpoint:
        """Return where a service is.

        Args:
            service: Such as ``kms``.
            region: Where it is; by default in the configured region.

        Raises:
            ConfigurationError: There is no region, or the endpoint is no URL.
            botocore.exceptions.BotoCoreError: A setting is malformed.
        """
        where = region or self.region()
        if not self._is_plain_in(where):
            return self._botocore.endpoint(service, where)
        url = self._endpoint_url(service) or f"https://{service}.{where}.amazonaws.com"
        return endpoint_at(url, where)

    def bucket(self, name: str, region: str) -> Endpoint:
        """Return where a bucket is: in the path of its endpoint, or in the host.

        Args:
            name: The bucket.
            region: Where it is.

        Raises:
            ConfigurationError: The endpoint is no URL.
            botocore.exceptions.BotoCoreError: A setting is malformed.
        """
        if not self._is_plain_in(region) or name.startswith("arn:"):
            return self._botocore.bucket(name, region)
        url = self._endpoint_url("s3")
        if url is None and _HOST_BUCKET.fullmatch(name):
            return endpoint_at(f"https://{name}.s3.{region}.amazonaws.com", region)
        url = (url or f"https://s3.{region}.amazonaws.com").rstrip("/")
        return endpoint_at(f"{url}/{quote(name, safe='')}", region)

    def region(self, fallback: str | None = None) -> str:
        """Return the configured region, or else the fallback.

        AWS_REGION, which every SDK but botocore reads, comes before AWS_DEFAULT_REGION.

        Raises:
            ConfigurationError: There is none.
        """
        found = (
            self._given.region
            or os.environ.get("AWS_REGION")
            or (
                os.environ.get("AWS_DEFAULT_REGION")
                if self.is_plain
                else self._botocore.variable("region")
            )
            or fallback
        )
        if not found:
            raise ConfigurationError(
                "no AWS region is configured",
                hint="give --region, or set AWS_REGION or the profile's region",
            )
        return str(found)

    def ca_bundle(self) -> str | None:
        """Return the file of CA certificates that is configured, if one is."""
        if self._given.ca_bundle:
            return self._given.ca_bundle
        plain = os.environ.get("AWS_CA_BUNDLE") or os.environ.get("REQUESTS_CA_BUNDLE")
        if self.is_plain:
            return plain or None
        return self._botocore.variable("ca_bundle") or plain or None

    def setting(self, name: str, environment_variable: str) -> str | None:
        """Look up a setting of the AWS CLI: first the environment, then the profile."""
        value = os.environ.get(environment_variable)
        if not value and not self.is_plain:
            value = self._botocore.of_profile(name)
        return value if isinstance(value, str) and value else None

    def _endpoint_url(self, service: str) -> str | None:
        named = os.environ.get(f"AWS_ENDPOINT_URL_{service.upper()}")
        return self._given.endpoint_url or named or os.environ.get("AWS_ENDPOINT_URL") or None

    def _is_plain_in(self, region: str) -> bool:
        return self.is_plain and _PLAIN_REGION.fullmatch(region) is not None


def _has_default_profile() -> bool:
    """Tell whether there may be settings that apply when no profile is named.

    Botocore takes settings out of the file of credentials, too.
    """
    files = {
        "AWS_CONFIG_FILE": "~/.aws/config",
        "AWS_SHARED_CREDENTIALS_FILE": "~/.aws/credentials",
    }
    return any(
        "default" in _content(os.environ.get(variable) or usual)
        for variable, usual in files.items()
    )


def _content(file: str) -> str:
    path = Path(os.path.expanduser(os.path.expandvars(file)))
    try:
        return path.read_text(errors="replace") if path.is_file() else ""
    except OSError:
        return ""
