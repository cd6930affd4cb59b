"""HTTP as servers on the way to AWS speak it: what is an answer, and what is none."""

from __future__ import annotations

import math
import os
import random
import socket
import string
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from constant_server import answering_server
from cpstage import AwsConfig
from cpstage.aws.client import NetworkError, Retries, ServiceError, has
from cpstage.aws.config import DEFAULT_TIMEOUT
from cpstage.aws.job_session import JobCredentials
from cpstage.aws.s3 import S3
from cpstage.job import SessionCredentials
from cpstage.job.model import Secret
from cpstage.local import Input, LocalAWS
from fault_plans import Rule
from fault_proxy import FaultProxy
from faults import Answer as FaultyAnswer
from raw_http_server import Server, Visit, says, scripted_server
from samples import zip_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from command_line import Cli
    from cpstage.aws.client import AwsClient, Check

HEADERS = b"ETag: x\r\nContent-Length: 2\r\n"
OK = b"HTTP/1.1 200 OK\r\n" + HEADERS + b"\r\nok"
STORED = b"HTTP/1.1 200 OK\r\nETag: x\r\nContent-Length: 0\r\n\r\n"
PART = b"HTTP/1.1 206 Partial\r\nContent-Range: bytes 5-6/10\r\n" + HEADERS + b"\r\nok"
LARGE = os.urandom(8 << 20)


def _client(
    server: Server, *, timeout: float = 300, token: str = "t" * 20, retries: Retries | None = None
) -> AwsClient:
    keys = SessionCredentials("AKIANOBODY", Secret("nothing-secret"), Secret(token))
    config = AwsConfig(
        region="us-east-1", endpoint_url=server.url, timeout=timeout, read_timeout=10
    )
    return config.s3(JobCredentials(keys, lambda: keys, math.inf), retries=retries or Retries(0))


def _get(client: AwsClient) -> bytes:
    members = {"Bucket": "bucket", "Key": "key"}
    body = client.call("GetObject", members, check=has("ETag", "Body"))["Body"]
    return bytes(body.read())


def _range(client: AwsClient) -> bytes:
    return S3(client).get_range("bucket", "key", 5, 2)


def _put(client: AwsClient, body: bytes = b"body", **members: Any) -> Any:
    return S3(client).put_object([body], "AAAAAA==", {"Bucket": "b", "Key": "k", **members})


def _cut(server: Server, ask: Callable[[AwsClient], object] = _get) -> Exception:
    with pytest.raises((NetworkError, ServiceError)) as caught:
        ask(_client(server))
    return caught.value


def test_a_connection_is_used_again() -> None:
    with scripted_server(says(OK, OK, OK), says(b"")) as server:
        client = _client(server)
        bodies = [_get(client) for _ in range(3)]

    assert bodies == [b"ok"] * 3


def test_a_connection_that_was_closed_while_idle_is_replaced() -> None:
    with scripted_server(says(OK), says(STORED)) as server:
        client = _client(server)
        _get(client)
        assert server.gone[0].wait(10)

        assert _put(client, LARGE)["ETag"] == "x"


def test_a_replaced_connection_counts_for_no_retry(aws: LocalAWS, cli: Cli) -> None:
    job_id = aws.add_job([Input("App", zip_of({"f": "x"}))])
    close = {"Connection": "close"}
    rule = Rule(FaultyAnswer(400, "ExpiredToken", headers=close), "GetObject")
    with FaultProxy(aws.endpoint_url, [rule]) as proxy:
        done = cli("fetch", job_id, "--json", AWS_ENDPOINT_URL=proxy.url)

    assert done.returncode == 0, done.stderr
    assert '"retries": 0' in done.stdout


def test_bytes_after_an_answer_are_not_taken_for_the_next() -> None:
    forged = b"HTTP/1.1 200 OK\r\nETag: x\r\nContent-Length: 6\r\n\r\nforged"
    sent = threading.Event()

    def say_too_much(visit: Visit) -> None:
        visit.say(OK)
        visit.stream.send(forged)
        sent.set()
        visit.hear()

    with scripted_server(say_too_much, says(OK)) as server:
        client = _client(server, retries=Retries(DEFAULT_TIMEOUT))
        _get(client)
        assert sent.wait(10)

        assert _get(client) == b"ok"


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 206 Partial\r\nETag: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"1\r\no\r\n1;x=y\r\nk\r\n0\r\nA: b\r\n\r\n",
        b"HTTP/1.1 206 Partial\r\nETag: x\r\n\r\nok",
        b"HTTP/1.0 206 Partial\r\nETag: x\r\n\r\nok",
        PART.replace(b"ETag", b"Connection: close\r\nETag"),
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 100 Continue\r\nA: b\r\n\r\n" + PART,
        PART.replace(b" Partial", b""),
    ],
    ids=["chunks", "up to the end", "HTTP/1.0", "close", "continue", "no reason"],
)
def test_an_answer_may_have_any_form(answer: bytes) -> None:
    with scripted_server(says(answer), says(PART)) as server:
        client = _client(server, retries=Retries(DEFAULT_TIMEOUT))

        assert _range(client) == b"ok"
        assert _range(client) == b"ok"


@pytest.mark.parametrize(
    "answer",
    [
        PART.replace(b"Length: 2", b"Length: 3"),
        PART.replace(b"Length: 2", b"Length: 99999999999"),
        b"HTTP/1.1 206 P\r\nETag: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n",
        b"HTTP/1.1 206 P\r\nETag: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\no",
        b"HTTP/1.1 206 P\r\nETag: x\r\nTransfer-Encoding: chunked\r\n\r\n-2\r\nok\r\n0\r\n\r\n",
        b"HTTP/1.1 206 P\r\nETag: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nok\r\n0\r\n\r\n",
        b"HTTP/1.1 103 Early Hints\r\n\r\n",
        PART[:-1],
        PART[:-2],
        b"HTTP/1.1 206 P\r\nETag: x\r\n",
        b"HTTP/1.1 206 P\r\nETag: x",
        b"HTTP/1.1 206 P\r\n",
        b"HTTP/1.1 206 P\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 2\r\n\r\nok",
    ],
    ids=[
        *("cut", "endless", "no last chunk", "cut in a chunk", "negative", "no size", "hints"),
        *("cut in the body", "no body", "cut after a header", "cut in a header", "no headers"),
        *("no ETag", "page"),
    ],
)
def test_an_answer_that_is_cut_is_none(answer: bytes) -> None:
    with scripted_server(says(answer)) as server:
        _cut(server, _range)


@pytest.mark.parametrize(
    "answer",
    [
        b"Content-Length: 3\r\n\r\nlon",
        b"\r\nlon",
        b"Transfer-Encoding: chunked\r\n\r\n3\r\nlon\r\n0\r\n\r\n",
        b"Content-Length: 1\r\n\r\nl",
        b"\r\nl",
    ],
    ids=["longer", "longer to the end", "longer in chunks", "shorter", "shorter to the end"],
)
def test_a_body_of_another_length_than_was_asked_for_is_none(answer: bytes) -> None:
    with scripted_server(says(b"HTTP/1.1 206 Partial\r\nETag: x\r\n" + answer)) as server:
        _cut(server, _range)


@pytest.mark.parametrize(
    "head",
    [b"HTTP/1.1 500 Oops\r\n\r\n", b"HTTP/1.1 200 OK\r\nETag: ", b"HTTP/1.1 200 OK\r\n"],
    ids=["body", "header", "headers"],
)
def test_an_answer_without_end_is_not_read_for_ever(head: bytes) -> None:
    def go_on(visit: Visit) -> None:
        visit.hear()
        visit.stream.send(head)
        more = b"A: b\r\n" if head.endswith(b"OK\r\n") else b"x"
        while True:
            visit.stream.send(more * (1 << 17))

    with scripted_server(go_on) as server:
        _cut(server)


@pytest.mark.parametrize("drip", [b"A: b\r\n", b"HTTP/1.1 100 Continue\r\n\r\n", b"x"])
def test_a_peer_that_drips_is_given_up(drip: bytes) -> None:
    """In its headers, with interim answers, and in the body."""
    over = threading.Event()

    def drip_on(visit: Visit) -> None:
        visit.hear()
        if drip == b"x":
            visit.stream.send(PART.partition(b"ok")[0].replace(b"Length: 2", b"Length: 2000000"))
        if drip == b"A: b\r\n":
            visit.stream.send(b"HTTP/1.1 206 Partial\r\n")
        while not over.wait(0.05):
            visit.stream.send(drip)

    with scripted_server(drip_on) as server:
        client = _client(server, timeout=1)
        began = time.monotonic()
        with pytest.raises((NetworkError, ServiceError)):
            S3(client).get_range("bucket", "key", 5, 2_000_000)
        over.set()

    assert time.monotonic() - began < 8


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"SSH-2.0-OpenSSH\r\n",
        b"HTTP/1.1 huh\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA: " + b"x" * 100_000,
        b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 200 + b"\r\n",
    ],
    ids=["nothing", "another protocol", "no status", "a long header", "many headers"],
)
def test_what_is_no_answer_is_told_without_quoting_it(answer: bytes) -> None:
    with scripted_server(says(answer)) as server:
        assert "SSH" not in str(_cut(server))


@pytest.mark.parametrize("linger", [False, True], ids=["FIN", "RST"])
def test_a_refusal_before_the_body_has_gone_is_that_refusal(linger: bool) -> None:
    def refuse(visit: Visit) -> None:
        visit.stream.until(b"\r\n\r\n")
        visit.stream.send(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
        if not linger:
            visit.stream.sock.shutdown(socket.SHUT_WR)
            while visit.stream.sock.recv(1 << 20):
                pass

    with scripted_server(refuse) as server, pytest.raises(ServiceError) as caught:
        _put(_client(server), LARGE)

    assert caught.value.status == 403


def test_an_interrupt_ends_what_is_under_way_and_nothing_is_sent_again() -> None:
    heard, over = threading.Event(), threading.Event()
    found: list[BaseException] = []

    def stay_silent(visit: Visit) -> None:
        visit.say(OK)
        visit.hear()
        heard.set()
        over.wait(30)

    def ask() -> None:
        try:
            _get(client)
        except NetworkError as error:
            found.append(error)

    with scripted_server(stay_silent, says(OK)) as server:
        client = _client(server, retries=Retries(DEFAULT_TIMEOUT))
        _get(client)
        asking = threading.Thread(target=ask)
        asking.start()
        assert heard.wait(10)
        client.interrupt()
        asking.join(2)
        over.set()

        assert not asking.is_alive()
        assert len(found) == 1
        assert len(server.heads) == 2
        with pytest.raises(NetworkError, match="interrupted"):
            _get(client)


@pytest.mark.parametrize(
    "body", [b"[]", b"null", b"<html>", b"", b'"' + b"x" * 100 + b'"', b"[" * 100_000]
)
def test_an_answer_of_codepipeline_that_is_no_job(cli: Cli, body: bytes) -> None:
    with answering_server(200, body) as url:
        done = cli("fetch", "some-job", "--retry-timeout", "0.2", AWS_ENDPOINT_URL=url)

    assert done.returncode == 69, done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("status", "headers"),
    [
        (302, {"Location": "http://127.0.0.1:1/login"}),
        (403, {"Content-Type": "text/html"}),
        (404, {"Content-Type": "text/html; charset=utf-8"}),
    ],
)
@pytest.mark.parametrize("command", [("fetch", "some-job"), ("report", "success", "some-job")])
def test_the_page_of_a_proxy_is_not_an_answer_of_aws(
    cli: Cli, command: tuple[str, ...], status: int, headers: dict[str, str]
) -> None:
    with answering_server(status, b"<html>login</html>", headers) as url:
        done = cli(*command, "--retry-timeout", "0.2", AWS_ENDPOINT_URL=url)

    assert done.returncode == 69, done.stderr
    assert "the answer is not from AWS: status" in done.stderr
    assert "html" not in done.stderr


@pytest.mark.parametrize(
    "head",
    [
        b"206 Partial\r\nContent-Range: bytes 0-1/10",
        b"206 Partial\r\nContent-Range: bytes 5-66/10",
        b"206 Partial\r\nContent-Range: bytes */10",
        b"200 OK",
    ],
)
def test_a_range_that_was_not_asked_for_is_not_taken(head: bytes) -> None:
    """It has the right length, and other bytes."""
    answer = b"HTTP/1.1 " + head + b"\r\n" + HEADERS + b"\r\nok"
    with scripted_server(says(answer)) as server:
        assert "not the range" in str(_cut(server, _range))


@pytest.mark.parametrize("status", [b"301 Moved", b"302 Found", b"307 Temporary"])
def test_a_redirect_of_everything_is_not_followed_without_end(status: bytes) -> None:
    answer = b"HTTP/1.1 " + status + b"\r\nLocation: /login\r\nContent-Length: 0\r\n\r\n"
    with scripted_server(says(*[answer] * 50)) as server:
        for ask in (_head, _get):
            with pytest.raises((NetworkError, ServiceError)):
                ask(_client(server))

    assert len(server.heads) <= 4


def _head(client: AwsClient) -> object:
    return S3(client).head_object("bucket", "key")


@pytest.mark.parametrize("length", [b"", b"Content-Length: many\r\n"])
def test_an_object_of_unknown_size_is_not_taken_for_an_empty_one(length: bytes) -> None:
    answer = b"HTTP/1.1 200 OK\r\n" + length + b"ETag: x\r\n\r\n"
    with scripted_server(says(answer)) as server:
        assert "UnreadableAnswer" in str(_cut(server, _head))


@pytest.mark.parametrize("location", [b"", b"Location: http://evil.example.com/\r\n"])
def test_a_region_that_is_no_name_is_not_followed_to(
    aws: LocalAWS, cli: Cli, location: bytes
) -> None:
    job_id = aws.add_job([Input("App", zip_of({"f": "x"}))])
    evil = b"HTTP/1.1 301 Moved\r\nx-amz-bucket-region: evil.example.com/\r\n" + location
    answer = evil + b"Content-Length: 0\r\n\r\n"
    with scripted_server(says(answer)) as server:
        done = cli("fetch", job_id, AWS_ENDPOINT_URL_S3=server.url)

    assert done.returncode == 78, done.stderr
    assert len(server.heads) == 1


def test_a_secret_that_a_service_cuts_is_not_shown() -> None:
    """Neither its start, nor its end, nor what comes at the end of what is shown."""
    token = "".join(random.Random(1).choices(string.ascii_letters + string.digits, k=900))

    def quote(visit: Visit) -> None:
        visit.hear()
        said = f"{'a' * 450} {token[:100]} b {token[50:]} c {token}"
        body = f"<Error><Code>{token[:40]}</Code><Message>{said}</Message></Error>".encode()
        head = f"HTTP/1.1 403 Forbidden\r\nContent-Length: {len(body)}\r\n\r\n"
        visit.stream.send(head.encode() + body)

    with scripted_server(quote) as server, pytest.raises(ServiceError) as caught:
        _get(_client(server, token=token))

    shown = f"{caught.value.code} {caught.value.message}"
    assert caught.value.code == "403"
    assert len(caught.value.message) <= 500
    pieces = [token[start : start + 12] for start in range(len(token) - 11)]
    assert [piece for piece in pieces if piece in shown] == []


def test_an_answer_that_lacks_something_is_asked_for_again() -> None:
    def lacks_once() -> Check:
        answers = iter(["the answer has no news", None])
        return lambda _: next(answers)

    with scripted_server(says(OK, OK)) as server:
        client = _client(server, retries=Retries(DEFAULT_TIMEOUT))
        client.call("HeadObject", {"Bucket": "b", "Key": "k"}, check=lacks_once())

        assert len(server.heads) == 2
