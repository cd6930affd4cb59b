"""boto3 sessions, clients and connections, set up as cpstage needs them.

Sessions and clients are lean, and without retries. They are set up by what botocore has a public
seam for: a loader of models, a client's Config, and event handlers.

Connections can be interrupted, and have a minimum rate of data. botocore waits for each piece of an
answer as long as the read timeout, so a peer that sends a byte now and then is never given up; and
it cannot end a request from another thread. Both are added by connection classes for urllib3's
pools. For that, :class:`Connections`, and nothing else, sets two undocumented attributes of
botocore's HTTP session.
"""

from __future__ import annotations

import io
import json
import logging
import os
import re
import socket
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from typing import Any
from urllib.parse import urlsplit

import boto3
import botocore.session
from botocore.awsrequest import (
    AWSHTTPConnection,
    AWSHTTPConnectionPool,
    AWSHTTPSConnection,
    AWSHTTPSConnectionPool,
)
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError
from botocore.handlers import BUILTIN_HANDLERS, REGISTER_FIRST, REGISTER_LAST
from botocore.loaders import JSONFileLoader, Loader
from botocore.parsers import ResponseParserError
from botocore.utils import get_environ_proxies
from urllib3.exceptions import ProtocolError

from cpstage._deflate import gunzip
from cpstage._version import __version__
from cpstage.aws.client import CALLER_EXPIRED_HINT
from cpstage.errors import AccessDenied, ConfigurationError, ServiceUnavailable, local_reason

_LOGGER = logging.getLogger("cpstage")

_SERVICES = ["codepipeline", "kms", "s3", "signin", "sso", "sso-oidc", "sts"]
"""The services that are called, and those that botocore gets credentials from."""

_SENDABLE = re.compile("[!-~]*")
"""Characters of credentials that an HTTP header can carry."""

_S3_CONNECTIONS = 32
"""Connections that are kept: as many as ranges are read at once (:mod:`cpstage.archive.blob`), and
parts are sent. One that finds no room is closed, and costs its next request a handshake."""

_LEAST_BYTES = 1 << 10
"""Bytes that a peer has to deliver within one read timeout, once its answer has begun."""

_MOST_HEADER_BYTES = 1 << 20
_MOST_DOCUMENT_BYTES = 16 << 20
"""Bytes of an answer's headers, and of an answer without an object: AWS sends far fewer."""


def new_session(profile: str | None, region: str | None) -> boto3.Session:
    """Return a session; its region is also where botocore asks for credentials."""
    session = botocore.session.Session(profile=profile, include_builtin_handlers=False)
    _register_handlers(session.get_component("event_emitter"))
    if region:
        session.set_config_variable("region", region)
    data_path = session.get_config_variable("data_path")
    session.register_component("data_loader", _loader(data_path))
    # Nothing here reads a time out of an answer; dateutil takes a fifth of a small request for it.
    session.get_component("response_parser_factory").set_parser_defaults(timestamp_parser=str)
    return boto3.Session(botocore_session=session)


def require_credentials(session: Callable[[], boto3.Session]) -> None:
    """Make botocore find and read the caller's credentials, before the first request.

    A helper program or a file may hold anything, and botocore raises what its parsers raise, also
    while the session is made.

    Raises:
        AccessDenied: The credentials are missing or cannot be read.
    """
    try:
        found = session().get_credentials()
        if found is None:
            raise NoCredentialsError
        keys = found.get_frozen_credentials()
        sendable = all(_SENDABLE.fullmatch(key or "") for key in keys[:3])
        if not (keys.access_key and keys.secret_key):
            raise ValueError
    except BotoCoreError:
        raise
    except ClientError as error:
        from cpstage.aws.errors import translated

        refused = translated(error, "")
    except ResponseParserError:  # it quotes the answer, and with it the credentials
        what = "the AWS credentials cannot be read: the answer of STS is malformed"
        refused = ServiceUnavailable(what, hint="check the proxy and AWS_ENDPOINT_URL_STS")
    except RuntimeError:  # what a refresh returned has expired as well
        what = "the AWS credentials have expired"
        refused = AccessDenied(what, hint=CALLER_EXPIRED_HINT)
    except EOFError:
        refused = AccessDenied(
            "the role needs an MFA code, which only a terminal can enter",
            hint="run 'aws sts get-session-token' first, and export its output",
        )
    except OSError as error:
        file = f" {error.filename}" if error.filename else ""
        what = f"the AWS credentials cannot be read: cannot read{file}"
        refused = AccessDenied(f"{what}: {local_reason(error)}", hint="check the profile")
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        from cpstage.aws.errors import settings_hint

        # The text of the exception may quote a secret.
        other = "check the credentials file, or what credential_process prints"
        what = "the AWS credentials cannot be read: they are malformed"
        refused = AccessDenied(what, hint=settings_hint(str(error), other))
    else:
        if sendable:
            return
        what = "the AWS credentials hold characters that cannot be sent"
        refused = AccessDenied(what, hint="check them for stray line breaks")
    raise refused


def _register_handlers(events: Any) -> None:
    """Register those of botocore's own handlers that the called services need.

    botocore registers 130, most of them for other services or for its documentation, and looks at
    the signature of each.
    """
    register = {
        None: events.register,
        REGISTER_FIRST: events.register_first,
        REGISTER_LAST: events.register_last,
    }
    for event, handler, *when in BUILTIN_HANDLERS:
        kind, _, rest = event.partition(".")
        if kind != "docs" and (not rest or rest.partition(".")[0] in _SERVICES):
            register[when[0] if when else None](event, handler)


class _FileLoader(JSONFileLoader):
    """Reads botocore's models into plain dictionaries: an OrderedDict each takes twice the time."""

    def load_file(self, file_path: str) -> Any:
        for ending, contents in ((".json", bytes), (".json.gz", gunzip)):
            path = file_path + ending
            if os.path.isfile(path):
                with open(path, "rb") as file:
                    return json.loads(contents(file.read()))
        return None


class _KnownServices(Loader):
    """Lists the services that are called: botocore would look into the directories of all 400."""

    def list_available_services(self, type_name: str) -> list[str]:  # noqa: ARG002
        return _SERVICES

    @property
    def search_paths(self) -> list[str]:
        """Where models are; a copy, since every boto3 session adds its own directory."""
        return [*super().search_paths]


@cache
def _loader(data_path: str | None) -> Loader:
    """Return the loader of botocore's models: one for all sessions, since it caches models."""
    more = data_path.split(os.pathsep) if data_path else []
    paths = [os.path.expanduser(os.path.expandvars(one)) for one in more]
    return _KnownServices(paths, _FileLoader())


def new_client(
    session: Any, service: str, options: Mapping[str, Any], settings: Mapping[str, Any]
) -> tuple[Any, Connections]:
    """Make a client, and return it with its connections.

    ``options`` are those of ``botocore.config.Config``, ``settings`` those of ``Session.client``.

    Raises:
        ConfigurationError: The endpoint or the proxy is not the URL of a web server.
        botocore.exceptions.BotoCoreError: A setting is malformed.
    """
    _check_proxy_variables()
    default = session._session.get_default_client_config()
    extra = getattr(default, "user_agent_extra", None)
    agent = " ".join(filter(None, (extra, f"cpstage/{__version__}")))
    options = {**options, "user_agent_extra": agent}
    if service == "s3":
        least = getattr(default, "max_pool_connections", 0)
        options["max_pool_connections"] = max(least, _S3_CONNECTIONS)
    client = session.client(service, config=Config(**options), **settings)
    url = client.meta.endpoint_url
    _check_url(url, "the endpoint", "check --endpoint-url and AWS_ENDPOINT_URL")
    scheme = url.partition(":")[0].lower()
    if proxy := get_environ_proxies(url).get(scheme):
        variable = f"{scheme.upper()}_PROXY"
        _check_url(proxy, f"the proxy of {variable}", f"check {variable}")
    events = client.meta.events
    if service == "s3":
        events.register_last("before-call.s3", _without_expect)
        events.register_first("needs-retry.s3.HeadObject", _without_head_bucket)
        events.register_first("needs-retry.s3.HeadBucket", _without_second_head_bucket)
        events.register_last("needs-retry.s3", _warn_of_redirect)
    if service == "codepipeline":
        events.register("before-parse.codepipeline", _keep_body)
    return client, Connections(client)


def _check_proxy_variables() -> None:
    """Refuse a blank proxy: requests for credentials use it before the client's own requests."""
    for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy"):
        value = os.environ.get(name)
        if value and not value.strip():
            raise ConfigurationError(f"{name} is blank", hint=f"unset {name}, or set a proxy's URL")


def _check_url(url: str, what: str, hint: str) -> None:
    """Refuse any other URL than a web server's, which botocore tries for minutes."""
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        _ = parts.port
        good = parts.scheme in ("http", "https") and bool(parts.hostname)
        good = good and not parts.query and not re.search(r"\s", url)
    except ValueError:  # its text may hold a password
        good = False
    if not good:
        shown = url.rpartition("@")[2].partition("?")[0]
        raise ConfigurationError(f"{what} is not an http:// or https:// URL: {shown!r}", hint=hint)


def _keep_body(
    operation_model: Any,
    response_dict: dict[str, Any],
    customized_response_dict: dict[str, Any],
    **_: Any,
) -> None:
    """Keep the body of an operation without output, which botocore ignores."""
    if operation_model.output_shape is None:
        customized_response_dict["Body"] = response_dict["body"]


def _without_expect(params: dict[str, Any], **_: Any) -> None:
    """Send a body without waiting for 100 Continue, a round trip for every part."""
    params["headers"].pop("Expect", None)


def _without_head_bucket(response: Any, **_: Any) -> None:
    """Keep botocore from calling HeadBucket for the region, which a job's session may not do.

    400 to a HEAD may be anything. S3 names the region in a header where that is the reason.
    """
    if response is None:
        return
    error, about = response[1].get("Error", {}), response[1].get("ResponseMetadata", {})
    if error.get("Code") == "400" and "x-amz-bucket-region" not in about.get("HTTPHeaders", {}):
        error["Code"] = "BadRequest"


def _without_second_head_bucket(request_dict: dict[str, Any], **_: Any) -> None:
    """Keep botocore from calling HeadBucket because HeadBucket was redirected, without end."""
    request_dict["context"].setdefault("s3_redirect", {})["redirected"] = "not followed"


def _warn_of_redirect(request_dict: dict[str, Any], attempts: int, **_: Any) -> None:
    """Warn that a bucket lies in another region than the configured one."""
    context = request_dict.get("context", {})
    redirect = context.get("s3_redirect", {})
    if attempts == 1 and redirect.get("redirected") is True:
        region = context.get("signing", {}).get("region")
        _LOGGER.warning("bucket %s is in %s: redirected", redirect.get("bucket"), region)


class _Bounds(threading.local):
    """The limits of the next answer, for the thread that waits for it."""

    most_bytes: int = _MOST_DOCUMENT_BYTES
    patience: float = 1.0
    keeps_cut: bool = False


class Connections:
    """The open connections of one boto3 client."""

    def __init__(self, client: Any) -> None:
        self.bounds = _Bounds()
        self._sockets: weakref.WeakSet[Any] = weakref.WeakSet()
        self._lock = threading.Lock()
        session = client._endpoint.http_session
        session._pool_classes_by_scheme = session._manager.pool_classes_by_scheme = _pools(self)

    def add(self, sock: Any) -> None:
        """Keep a socket, as long as something else does."""
        with self._lock:
            self._sockets.add(sock)

    def end(self) -> None:
        """Shut down every connection; threads that wait for an answer get an error."""
        with self._lock:
            sockets = [*self._sockets]
        for sock in sockets:
            with suppress(OSError):  # it may just be closed
                if isinstance(sock, socket.socket):
                    # The method of an SSLSocket would go on in plain text.
                    socket.socket.shutdown(sock, socket.SHUT_RDWR)
                else:  # TLS inside TLS, through a proxy
                    sock.socket.shutdown(socket.SHUT_RDWR)

    @contextmanager
    def expecting(
        self,
        most_bytes: int = _MOST_DOCUMENT_BYTES,
        *,
        patience: float = 1.0,
        keeps_cut: bool = False,
    ) -> Iterator[None]:
        """Set the limits of answers to requests of this thread.

        Args:
            most_bytes: Bytes of the body.
            patience: How many read timeouts the peer has for each KiB.
            keeps_cut: Whether a body that is cut ends there, for a caller that counts its bytes
                and resumes it. Otherwise the received bytes are lost in buffers.
        """
        bounds = vars(self.bounds)  # those of this thread
        bounds.update(most_bytes=most_bytes, patience=patience, keeps_cut=keeps_cut)
        try:
            yield
        finally:
            bounds.clear()


class _Answer(io.RawIOBase):
    """The bytes of one answer as they come from the socket, whose read timeout may be None."""

    def __init__(self, raw: io.RawIOBase, seconds: float | None, bounds: _Bounds) -> None:
        self._raw = raw
        self._seconds = None if seconds is None else seconds * bounds.patience
        self._most = bounds.most_bytes + _MOST_HEADER_BYTES
        self._keeps_cut = bounds.keeps_cut
        self._waited = 0.0
        self._received = 0
        self.total = 0
        self.has_ended = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        began = time.monotonic()
        try:
            count = self._raw.readinto(buffer)
        except OSError:
            if not (self._keeps_cut and self.total):
                raise
            count = 0
        if not count:
            self.has_ended = True
            return count
        if self.total:  # the time until an answer begins is the socket's own timeout
            self._waited += time.monotonic() - began
        self.total += count
        self._received += count
        if self.total > self._most:
            raise OSError(f"the answer does not end after {self._most:,} bytes")
        if self._seconds is not None and self._waited > self._seconds:
            if self._received < _LEAST_BYTES:
                raise TimeoutError(f"fewer than {_LEAST_BYTES:,} bytes in {self._seconds:g} s")
            self._waited, self._received = 0.0, 0
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Socket:
    """A connected socket with bounded answers; other methods are those of the socket."""

    def __init__(self, sock: Any, bounds: _Bounds) -> None:
        self._sock = sock
        self._bounds = bounds
        self.answer: _Answer | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)

    def makefile(self, mode: str, buffering: int | None = None, **_: Any) -> Any:
        raw = self._sock.makefile(mode, buffering=0)
        self.answer = _Answer(raw, self._sock.gettimeout(), self._bounds)
        return self.answer if buffering == 0 else io.BufferedReader(self.answer)


def _pools(connections: Connections) -> dict[str, type]:
    """Return urllib3's pool classes by scheme, with connections that are tracked."""

    class Tracked:
        """Mixed into botocore's connection classes."""

        sock: Any

        def connect(self) -> None:
            super().connect()  # type: ignore[misc]
            connections.add(self.sock)
            self.sock = _Socket(self.sock, connections.bounds)

        def getresponse(self) -> Any:
            sock = self.sock
            response = super().getresponse()  # type: ignore[misc]
            # http.client takes the end of the connection for the end of the headers.
            if sock.answer is not None and sock.answer.has_ended:
                raise ProtocolError("the answer was cut in its headers")
            return response

    class Complete:
        """Mixed into botocore's pools: a body that is shorter than announced is an error."""

        def urlopen(self, *arguments: Any, **options: Any) -> Any:
            options["enforce_content_length"] = True
            return super().urlopen(*arguments, **options)  # type: ignore[misc]

    # The two bases of botocore's classes declare the same methods otherwise.
    class Http(Tracked, AWSHTTPConnection):  # type: ignore[misc]
        """A connection without TLS."""

    class Https(Tracked, AWSHTTPSConnection):  # type: ignore[misc]
        """A connection with TLS."""

    class HttpPool(Complete, AWSHTTPConnectionPool):
        ConnectionCls = Http

    class HttpsPool(Complete, AWSHTTPSConnectionPool):
        ConnectionCls = Https

    return {"http": HttpPool, "https": HttpsPool}
