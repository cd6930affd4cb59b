"""AWS behind a proxy of the environment."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

import pytest

from certificates import Authority, https_in_front
from cpstage.local import Input, LocalAWS
from http_proxy import Proxy, proxy_server
from samples import zip_of

if TYPE_CHECKING:
    from pathlib import Path

    from command_line import Cli

pytestmark = pytest.mark.slow

LOGIN = "Basic " + base64.b64encode(b"me:pass word").decode()
AS_ME = "me:pass%20word@"


def _job(aws: LocalAWS) -> str:
    return aws.add_job([Input("App", zip_of({"f": "x"}))])


def _through(cli: Cli, variable: str, url: str, no_proxy: str = "") -> Cli:
    return cli.with_variables({variable: url, "NO_PROXY": no_proxy})


def _failed(cli: Cli, aws: LocalAWS, code: int, *says: str) -> None:
    done = cli("fetch", _job(aws), "--retry-timeout", "1", "--debug")
    lines = done.stderr.splitlines()
    assert done.returncode == code, done.stderr
    for text in says:
        assert text in lines[-1]
    for secret in ("pass word", "pass%20word", LOGIN, LOGIN.split()[1]):
        assert secret not in done.stderr


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy"])
def test_http_goes_through_the_proxy(aws: LocalAWS, cli: Cli, variable: str) -> None:
    with proxy_server(LOGIN) as proxy:
        there = _through(cli, variable, f"http://{AS_ME}{proxy.url}")
        done = there("fetch", _job(aws))

    assert done.returncode == 0, done.stderr
    assert (cli.directory / "in/App/f").read_text() == "x"
    assert proxy.targets[0] == f"POST {aws.endpoint_url}/"
    assert [target.split()[0] for target in proxy.targets] == ["POST", "HEAD", "GET"]


@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "https_proxy"])
def test_https_goes_through_a_tunnel(
    aws: LocalAWS, cli: Cli, variable: str, tmp_path: Path
) -> None:
    authority = Authority(tmp_path)
    with (
        https_in_front(aws.endpoint_url, authority.context("127.0.0.1")) as url,
        proxy_server(LOGIN) as proxy,
    ):
        there = _through(cli, variable, f"http://{AS_ME}{proxy.url}")
        done = there("fetch", _job(aws), AWS_ENDPOINT_URL=url, AWS_CA_BUNDLE=str(authority.file))

    assert done.returncode == 0, done.stderr
    assert (cli.directory / "in/App/f").read_text() == "x"
    assert set(proxy.targets) == {f"CONNECT {url.removeprefix('https://')}"}
    assert all("authorization" not in head.headers for head in proxy.heads)


@pytest.mark.parametrize("no_proxy", ["127.0.0.1", "example.com,127.0.0.1", "*"])
def test_no_proxy_where_it_is_not_wanted(aws: LocalAWS, cli: Cli, no_proxy: str) -> None:
    with proxy_server() as proxy:
        there = _through(cli, "HTTP_PROXY", f"http://{proxy.url}", no_proxy)
        done = there("fetch", _job(aws))

    assert done.returncode == 0, done.stderr
    assert proxy.heads == []


def _refuses(aws: LocalAWS, cli: Cli, proxy: Proxy, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    with https_in_front(aws.endpoint_url, authority.context("127.0.0.1")) as url:
        there = _through(cli, "HTTPS_PROXY", f"http://{AS_ME}{proxy.url}")
        there = there.with_variables(
            {"AWS_ENDPOINT_URL": url, "AWS_CA_BUNDLE": str(authority.file)}
        )
        _failed(there, aws, 69, f'proxy URL: "http://{proxy.url}"', "407")


def test_a_proxy_that_refuses_is_named(aws: LocalAWS, cli: Cli, tmp_path: Path) -> None:
    """It quotes the password, which nobody repeats."""
    with proxy_server("Basic another") as proxy:
        _refuses(aws, cli, proxy, tmp_path)


def test_a_proxy_that_is_not_there_is_named(aws: LocalAWS, cli: Cli) -> None:
    there = _through(cli, "HTTP_PROXY", f"http://{AS_ME}127.0.0.1:1")
    _failed(there, aws, 69, 'proxy URL: "http://127.0.0.1:1"')


@pytest.mark.parametrize(
    "url",
    [
        f"socks5://{AS_ME}127.0.0.1:1",
        "http://",
        f"http://{AS_ME}127.0.0.1:port",
        f"http://{AS_ME}[::1",
        f"http://{AS_ME}exa℀mple:1",
        f"http://{AS_ME}a b:1",
    ],
)
def test_a_proxy_that_is_none_is_a_wrong_setting(aws: LocalAWS, cli: Cli, url: str) -> None:
    _failed(_through(cli, "HTTP_PROXY", url), aws, 78, "HTTP_PROXY")
