"""Where a request goes: an origin (RFC 6454), and the proxy on the way to it.

Proxies are those that every program knows, ``HTTPS_PROXY``, ``HTTP_PROXY`` and ``NO_PROXY``, or
those of the system on macOS and Windows.
"""

from __future__ import annotations

import base64
import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

_PORTS = {"http": 80, "https": 443}
_SENDABLE = re.compile(r"[!-~]*")
"""What can be sent in the first line of a request."""


@dataclass(frozen=True)
class Origin:
    """Scheme, host and port of a URL."""

    scheme: str
    host: str
    port: int

    @property
    def authority(self) -> str:
        """The host, and the port where it is not the scheme's own: the Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}"


@dataclass(frozen=True)
class Proxy:
    """A proxy, and what it has to be told: a password is never shown."""

    origin: Origin
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)

    def __str__(self) -> str:
        return f"the proxy {self.origin}"


def origin_of(url: str) -> tuple[Origin, str]:
    """Split a URL into its origin and its path, which has no slash at the end.

    Raises:
        ValueError: It is no URL of a web server.
    """
    no_url = ValueError(f"{url.rpartition('@')[2]!r} is no http:// or https:// URL")
    try:
        parts = urlsplit(url)
        scheme, host, path = parts.scheme, _host(parts.hostname), parts.path.rstrip("/")
        usual, port = _PORTS[scheme], parts.port
    except (KeyError, ValueError):  # which may quote a password
        raise no_url from None
    if parts.query or parts.fragment or not _SENDABLE.fullmatch(path):
        raise no_url
    return Origin(scheme, host, usual if port is None else port), path


def _host(name: str | None) -> str:
    """Return the name of a host as it goes into a request.

    Raises:
        ValueError: It is none.
    """
    host = (name or "").encode("idna").decode()
    if not host or not _SENDABLE.fullmatch(host):
        raise ValueError
    return host


def proxy_of(origin: Origin) -> Proxy | None:
    """Return the proxy that leads to an origin, if one does.

    Raises:
        ValueError: The setting is no URL.
    """
    if not _may_have_proxies():
        return None
    from urllib.request import getproxies, proxy_bypass

    proxies = getproxies()
    url = proxies.get(origin.scheme)
    if not url or proxy_bypass(origin.authority):
        return None
    return _proxy(url)


def _may_have_proxies() -> bool:
    """Spare the import of ``urllib.request`` where no variable tells of a proxy."""
    if sys.platform in ("darwin", "win32"):
        return True
    names = (name for name in os.environ if os.environ[name])
    return any(name.lower() in ("http_proxy", "https_proxy") for name in names)


def _proxy(url: str) -> Proxy:
    headers = {}
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        usual, port = _PORTS[parts.scheme], parts.port
        origin = Origin(parts.scheme, _host(parts.hostname), usual if port is None else port)
    except (KeyError, ValueError):  # which may quote a password
        raise ValueError("the proxy of the environment is no http:// or https:// URL") from None
    if parts.username is not None:
        login = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        headers["Proxy-Authorization"] = f"Basic {base64.b64encode(login.encode()).decode()}"
    return Proxy(origin, headers)
