"""What botocore says of who the caller is and where a service lies: it knows all of it.

It is asked where the environment alone does not tell; to load it costs a quarter of a second. It
never sends a request to a service that is asked for here.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any, NoReturn

from cpstage.aws.origin import origin_of
from cpstage.aws.service import Credentials, Endpoint
from cpstage.errors import AccessDenied, ConfigurationError

if TYPE_CHECKING:
    from botocore.awsrequest import AWSPreparedRequest
    from botocore.loaders import Loader
    from botocore.session import Session

_SERVICES = ["codepipeline", "kms", "s3", "signin", "sso", "sso-oidc", "sts"]
"""What is used here, and those by which botocore gets credentials: roles, SSO, ``aws login``."""

_GLOBAL_STS = {"https://sts.amazonaws.com": "us-east-1"}
"""Where STS is for those who have set ``sts_regional_endpoints = legacy``, and its one region."""

_NO_KEYS_HINT = "set AWS_PROFILE or --profile, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"


@dataclass(frozen=True)
class Given:
    """What the command line says of how to reach AWS; None where it says nothing."""

    region: str | None = None
    profile: str | None = None
    endpoint_url: str | None = None
    ca_bundle: str | None = None
    verify_ssl: bool = True


@dataclass(frozen=True, repr=False)
class _FromBotocore:
    """Credentials that botocore has found, and renews by itself where they can be."""

    found: Credentials

    def get_frozen_credentials(self) -> Any:
        """Return those of this moment."""
        return _readable(self.found.get_frozen_credentials)


class Botocore:
    """Botocore, as it is set up on this machine.

    Args:
        given: What the command line says.
    """

    def __init__(self, given: Given) -> None:
        self._given = given

    def credentials(self) -> Credentials:
        """Return the caller's credentials.

        Raises:
            AccessDenied: There are none, or they cannot be read.
            botocore.exceptions.BotoCoreError: They cannot be had.
        """
        found = _readable(self._session.get_credentials)
        if found is None:
            raise AccessDenied("no AWS credentials were found", hint=_NO_KEYS_HINT)
        return _FromBotocore(found)

    def variable(self, name: str) -> Any:
        """Return what its configuration variable says, such as ``region``."""
        return self._session.get_config_variable(name)

    def of_profile(self, name: str) -> Any:
        """Return what the profile says of anything."""
        return self._session.get_scoped_config().get(name)

    def endpoint(self, service: str, region: str) -> Endpoint:
        """Return where a service is."""
        client = self._client(service, region).meta
        signed_for = _GLOBAL_STS.get(client.endpoint_url, client.region_name)
        return endpoint_at(client.endpoint_url, signed_for)

    def bucket(self, name: str, region: str) -> Endpoint:
        """Return where a bucket is: that is in a request for an object, which is never sent.

        A presigned URL will not do, which names the older endpoint that is one for all regions.
        """
        client = self._client("s3", region)
        client.meta.events.register("before-send.s3", _not_sent)
        try:
            client.head_object(Bucket=name, Key="key")
        except _NotSent as one:
            return endpoint_at(one.url.removesuffix("/key"), one.region)
        raise AssertionError("botocore has sent what it was only asked for")

    @cached_property
    def _session(self) -> Session:
        from botocore.session import Session

        session = Session(profile=self._given.profile)
        loader = _data_loader(session.get_config_variable("data_path"))
        session.register_component("data_loader", loader)
        return session

    def _client(self, service: str, region: str) -> Any:
        from botocore.config import Config

        given = self._given
        try:
            return self._session.create_client(
                service,
                region_name=region,
                endpoint_url=given.endpoint_url,
                verify=(given.ca_bundle or None) if given.verify_ssl else False,
                aws_access_key_id="nobody",
                aws_secret_access_key="nothing",  # noqa: S106 (signs what is not sent)
                config=Config(signature_version="s3v4" if service == "s3" else None),
            )
        except ValueError as error:
            if _is_botocores(error):
                raise
            raise _no_url(str(error).rpartition("@")[2]) from None  # before it may be a password


def endpoint_at(url: str, region: str) -> Endpoint:
    """Return what is at a URL.

    Raises:
        ConfigurationError: It is no URL of a web server.
    """
    try:
        origin, path = origin_of(url)
    except ValueError as error:
        raise _no_url(str(error)) from error
    return Endpoint(origin, path, region)


def _no_url(why: str) -> ConfigurationError:
    return ConfigurationError(f"cannot set up the AWS client: {why}", hint="check --endpoint-url")


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


@cache
def _data_loader(path: str | None) -> Loader:
    """Return what reads botocore's models: one for all sessions, since it keeps what it has read.

    To see whether a service exists, botocore looks into the directories of all 400. Those that
    are used here exist, and a start is a tenth shorter.
    """
    from botocore.loaders import Loader

    class KnownServices(Loader):
        def list_available_services(self, type_name: str) -> list[str]:  # noqa: ARG002
            return _SERVICES

    more = path.split(os.pathsep) if path else []
    return KnownServices([os.path.expanduser(os.path.expandvars(one)) for one in more])
