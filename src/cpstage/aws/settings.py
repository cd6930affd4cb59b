"""Who the caller is, and where services are: the AWS CLI's settings, names and precedence.

Where the environment alone says all of it, as on a build machine, it is read here. Wherever there
is more to know (a profile, a role, a partition, a setting that is not among the plain ones),
botocore is asked, which knows all of it; to load it costs a quarter of a second.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn
from urllib.parse import quote

from cpstage.aws.origin import origin_of
from cpstage.aws.service import Credentials, Endpoint
from cpstage.errors import AccessDenied, ConfigurationError

if TYPE_CHECKING:
    from botocore.awsrequest import AWSPreparedRequest
    from botocore.loaders import Loader
    from botocore.session import Session

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

_NO_KEYS_HINT = "set AWS_PROFILE or --profile, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"


@dataclass(frozen=True)
class Given:
    """What the command line says of how to reach AWS; None where it says nothing."""

    region: str | None = None
    profile: str | None = None
    endpoint_url: str | None = None
    ca_bundle: str | None = None
    verify_ssl: bool = True


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


@dataclass(frozen=True, repr=False)
class _FromBotocore:
    """Credentials that botocore has found, and renews by itself where they can be."""

    found: Credentials

    def get_frozen_credentials(self) -> Any:
        """Return those of this moment."""
        return _readable(self.found.get_frozen_credentials)


class Settings:
    """Answers from the environment where that is all there is, else from botocore.

    Args:
        given: What the command line says.
    """

    def __init__(self, given: Given) -> None:
        self._given = given

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
        found = _readable(self._session.get_credentials)
        if found is None:
            raise AccessDenied("no AWS credentials were found", hint=_NO_KEYS_HINT)
        return _FromBotocore(found)

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
            client = self._client(service, where).meta
            return _endpoint(client.endpoint_url, client.region_name)
        url = self._endpoint_url(service) or f"https://{service}.{where}.amazonaws.com"
        return _endpoint(url, where)

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
            return self._looked_up_bucket(name, region)
        url = self._endpoint_url("s3")
        if url is None and _HOST_BUCKET.fullmatch(name):
            return _endpoint(f"https://{name}.s3.{region}.amazonaws.com", region)
        url = (url or f"https://s3.{region}.amazonaws.com").rstrip("/")
        return _endpoint(f"{url}/{quote(name, safe='')}", region)

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
                else self._session.get_config_variable("region")
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
        return self._session.get_config_variable("ca_bundle") or plain or None

    def setting(self, name: str, environment_variable: str) -> str | None:
        """Look up a setting of the AWS CLI: first the environment, then the profile."""
        value = os.environ.get(environment_variable)
        if not value and not self.is_plain:
            value = self._session.get_scoped_config().get(name)
        return value if isinstance(value, str) and value else None

    def _endpoint_url(self, service: str) -> str | None:
        named = os.environ.get(f"AWS_ENDPOINT_URL_{service.upper()}")
        return self._given.endpoint_url or named or os.environ.get("AWS_ENDPOINT_URL") or None

    def _is_plain_in(self, region: str) -> bool:
        return self.is_plain and _PLAIN_REGION.fullmatch(region) is not None

    def _looked_up_bucket(self, name: str, region: str) -> Endpoint:
        """Let botocore's rules say where a bucket is: they are in a request that is never sent.

        A presigned URL will not do, which names the older endpoint that is one for all regions.
        """
        client = self._client("s3", region)
        client.meta.events.register("before-send.s3", _not_sent)
        try:
            client.head_object(Bucket=name, Key="key")
        except _NotSent as one:
            return _endpoint(one.url.removesuffix("/key"), one.region)
        raise AssertionError("botocore has sent what it was only asked for")

    @cached_property
    def _session(self) -> Session:
        from botocore.session import Session

        session = Session(profile=self._given.profile)
        loader = _data_loader(session.get_config_variable("data_path"))
        session.register_component("data_loader", loader)
        return session

    def _client(self, service: str, region: str) -> Any:
        """Make a client of botocore, which is asked and never sends anything."""
        from botocore.config import Config

        given = self._given
        try:
            return self._session.create_client(
                service,
                region_name=region,
                endpoint_url=given.endpoint_url,
                verify=(given.ca_bundle or None) if given.verify_ssl else False,
                aws_access_key_id="nobody",
                aws_secret_access_key="nothing",  # noqa: S106 (signs what _looked_up_bucket asks)
                config=Config(signature_version="s3v4" if service == "s3" else None),
            )
        except ValueError as error:
            if _is_botocores(error):
                raise
            raise _no_url(str(error)) from error


class _NotSent(Exception):
    """Where a request would have gone, and the region that it is signed for."""

    def __init__(self, url: str, region: str) -> None:
        super().__init__()
        self.url = url
        self.region = region


def _not_sent(request: AWSPreparedRequest, **_: object) -> NoReturn:
    authorization = str(request.headers["Authorization"])
    raise _NotSent(request.url, authorization.partition("Credential=")[2].split("/")[2])


def _is_botocores(error: Exception) -> bool:
    return type(error).__module__.startswith("botocore")


def _readable(read: Callable[[], Any]) -> Any:
    """Have botocore read credentials; a helper program or a file may hold anything at all."""
    try:
        return read()
    except (AttributeError, KeyError, OSError, TypeError, ValueError) as error:
        if _is_botocores(error):
            raise
        # What stopped it may quote a secret.
        what = "the AWS credentials cannot be read: they have another form than they should"
        hint = "check the credentials file, or what the profile's credential_process prints"
        raise AccessDenied(what, hint=hint) from None


def _endpoint(url: str, region: str) -> Endpoint:
    try:
        origin, path = origin_of(url)
    except ValueError as error:
        raise _no_url(str(error)) from error
    return Endpoint(origin, path, region)


def _no_url(why: str) -> ConfigurationError:
    return ConfigurationError(f"cannot set up the AWS client: {why}", hint="check --endpoint-url")


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
    try:
        return Path(os.path.expanduser(os.path.expandvars(file))).read_text(errors="replace")
    except OSError:
        return ""


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
