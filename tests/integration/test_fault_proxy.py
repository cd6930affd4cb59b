"""The fault proxy itself: it changes nothing but what its plan says."""

from __future__ import annotations

import os
import random
import socket
import threading
from http.client import HTTPConnection, HTTPResponse, IncompleteRead, RemoteDisconnected
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest

from aws_clients import s3
from cpstage.local import Input, LocalAWS
from fault_plans import Rule
from fault_proxy import FaultProxy
from faults import (
    SLOW_DOWN,
    Answer,
    Close,
    Drop,
    Fault,
    Flip,
    Meanwhile,
    Reset,
    Shorten,
    Stall,
    Throttle,
)
from samples import tar_of
from trees import awkward_tree, listing

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from command_line import Cli

pytestmark = pytest.mark.slow

MIB = 1 << 20
BODY = random.Random(1).randbytes(100_000)


class _Echo(ThreadingHTTPServer):
    """Answers GET with `BODY` and PUT with what was put, and keeps what came."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.heard: list[tuple[str, bytes]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of a client that went away."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Echo

    def _answer(self) -> None:
        put = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.heard.append((self.requestline, put))
        body = put or BODY
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_PUT = _answer  # noqa: N815 (the base class's names)

    def log_message(self, format: str, *args: object) -> None:
        """Keep quiet."""


@pytest.fixture
def echo() -> Iterator[_Echo]:
    with _Echo() as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield server
        server.shutdown()


def _url(listener: socket.socket) -> str:
    return f"http://127.0.0.1:{listener.getsockname()[1]}"


def _read(sock: socket.socket, length: int) -> bytes:
    """So many bytes; fewer where the other side closes."""
    sock.settimeout(60)
    with sock.makefile("rb") as file:
        return file.read(length)


def _connect(proxy: FaultProxy) -> HTTPConnection:
    return HTTPConnection(proxy.url.removeprefix("http://"), timeout=60)


def _ask(proxy: FaultProxy, method: str = "GET", body: bytes | None = None) -> HTTPResponse:
    connection = _connect(proxy)
    connection.request(method, "/bucket/key", body)
    return connection.getresponse()


def test_a_fetch_through_it_is_the_same_to_the_last_byte(
    aws: LocalAWS, cli: Cli, tmp_path: Path
) -> None:
    """S3 proves the signature of every request: none of its bytes may be another."""
    noise = os.urandom(8 * MIB + MIB // 2)
    job_id = aws.add_job([Input("App", tar_of({"noise": noise}), ".tar")])

    with FaultProxy(aws.endpoint_url) as proxy:
        done = cli("fetch", job_id, AWS_ENDPOINT_URL=proxy.url)

    assert done.returncode == 0, done.stderr
    assert (cli.directory / "in/App/noise").read_bytes() == noise
    assert proxy.operations == ["GetJobDetails", "HeadObject", *["GetObject"] * 3]
    assert {exchange.status for exchange in proxy.log} == {200, 206}
    assert {exchange.request.key for exchange in proxy.log} == {"", aws.job(job_id).inputs[0].key}


def test_a_push_in_parts_through_it_is_the_same_to_the_last_byte(aws: LocalAWS, cli: Cli) -> None:
    job_id = aws.add_job(outputs=["Built"])
    noise = os.urandom(40 * MIB)
    (cli.directory / "noise").write_bytes(noise)

    with FaultProxy(aws.endpoint_url) as proxy:
        done = cli("push", job_id, "Built=noise", AWS_ENDPOINT_URL=proxy.url)

    assert done.returncode == 0, done.stderr
    there = aws.job(job_id).outputs[0]
    answer = s3(aws.admin_environment).get_object(Bucket=there.bucket, Key=there.key)
    assert answer["Body"].read() == noise
    assert proxy.operations.count("UploadPart") == 5
    parts = [one.received for one in proxy.log if one.request.operation == "UploadPart"]
    assert sum(parts) == len(noise)


def test_a_tree_goes_both_ways_through_it(aws: LocalAWS, cli: Cli, tmp_path: Path) -> None:
    """Envelopes, too: CodePipeline, S3 and KMS are all behind it."""
    tree = awkward_tree(tmp_path / "tree")
    up = aws.add_job(outputs=["App"])

    with FaultProxy(aws.endpoint_url) as proxy:
        there = cli.with_variables({"AWS_ENDPOINT_URL": proxy.url})
        pushed = there("push", up, f"App={tree}", "--encrypt")
        location = aws.job(up).outputs[0]
        answer = s3(aws.admin_environment).get_object(Bucket=location.bucket, Key=location.key)
        fetched = there("fetch", aws.add_job([Input("App", answer["Body"].read(), "")]))

    assert pushed.returncode == fetched.returncode == 0, pushed.stderr + fetched.stderr
    assert listing(cli.directory / "in/App") == listing(tree)
    assert {"GenerateDataKey", "PutObject", "Decrypt"} <= set(proxy.operations)


def test_a_connection_has_many_requests(echo: _Echo) -> None:
    with FaultProxy(echo.url) as proxy:
        connection = _connect(proxy)
        answers = []
        for body in (b"first", b"second"):
            connection.request("PUT", "/bucket/key", body)
            answers.append(connection.getresponse().read())
            connection.auto_open = 0  # from here on, a closed connection is an error

    assert answers == [b"first", b"second"]


def test_chunks_and_expectations_go_through_as_they_are() -> None:
    """What comes in is written by hand, and compared as it was written."""
    head = (
        b"PUT /bucket/key HTTP/1.1\r\nHost:  somewhere\r\nx-Odd-CASE: 1\r\n"
        b"Transfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n"
    )
    go_on = b"HTTP/1.1 100 Continue\r\n\r\n"
    body = b"5;chunk-signature=abc\r\nhello\r\n0\r\nx-amz-checksum-crc32: AAAAAA==\r\n\r\n"
    answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nOK\r\n0\r\n\r\n"
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        FaultProxy(_url(listener)) as proxy,
        socket.create_connection(("127.0.0.1", int(proxy.url.rpartition(":")[2]))) as client,
    ):
        client.sendall(head)
        upstream, _ = listener.accept()
        with upstream:
            assert _read(upstream, len(head)) == head
            upstream.sendall(go_on)
            assert _read(client, len(go_on)) == go_on
            client.sendall(body)
            assert _read(upstream, len(body)) == body
            upstream.sendall(answer)
            assert _read(client, len(answer)) == answer


def test_an_answer_that_does_not_wait_for_the_body_is_passed_on() -> None:
    answer = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno"
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        FaultProxy(_url(listener)) as proxy,
    ):
        connection = _connect(proxy)
        connection.putrequest("PUT", "/bucket/key")
        connection.putheader("Content-Length", "1000")
        connection.endheaders()
        upstream, _ = listener.accept()
        with upstream:
            upstream.sendall(answer)
            said = connection.getresponse()
            text = said.read()
        connection.close()

    assert (said.status, text) == (403, b"no")


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Reset(1000), ConnectionResetError),
        (Reset(0.5), ConnectionResetError),
        (Close(1000), IncompleteRead),
        (Close(0.999), IncompleteRead),
    ],
)
def test_an_answer_breaks_off_in_its_body(
    echo: _Echo, fault: Fault, error: type[Exception]
) -> None:
    with FaultProxy(echo.url, [Rule(fault)]) as proxy:
        answer = _ask(proxy)
        with pytest.raises(error):
            answer.read()
        again = _ask(proxy).read()

    assert (answer.status, answer.headers["Content-Length"]) == (200, str(len(BODY)))
    assert again == BODY
    assert [one.struck for one in proxy.log] == [True, False]
    assert proxy.log[0].sent < proxy.log[1].sent == len(BODY)


def test_it_closes_behind_so_many_bytes(echo: _Echo) -> None:
    with (
        FaultProxy(echo.url, [Rule(Close(1234))]) as proxy,
        pytest.raises(IncompleteRead) as caught,
    ):
        _ask(proxy).read()

    assert caught.value.partial == BODY[:1234]


@pytest.mark.parametrize("fault", [Reset(len(BODY)), Close(len(BODY)), Stall(len(BODY))])
def test_a_break_behind_the_end_does_nothing(echo: _Echo, fault: Fault) -> None:
    with FaultProxy(echo.url, [Rule(fault)]) as proxy:
        assert _ask(proxy).read() == BODY

    assert not proxy.log[0].struck


@pytest.mark.parametrize(
    ("fault", "error"), [(Reset(None), ConnectionResetError), (Close(None), RemoteDisconnected)]
)
def test_an_answer_can_be_lost_as_a_whole(
    echo: _Echo, fault: Fault, error: type[Exception]
) -> None:
    with FaultProxy(echo.url, [Rule(fault)]) as proxy, pytest.raises(error):
        _ask(proxy, "PUT", b"put all the same")

    assert echo.heard == [("PUT /bucket/key HTTP/1.1", b"put all the same")]
    assert proxy.log[0].status is None


def test_a_dropped_request_is_never_heard_of(echo: _Echo) -> None:
    with FaultProxy(echo.url, [Rule(Drop())]) as proxy, pytest.raises(RemoteDisconnected):
        _ask(proxy, "PUT", b"x" * 1000)

    assert echo.heard == []
    assert proxy.log[0].received == 1000


def test_a_request_breaks_off_in_its_body(echo: _Echo) -> None:
    with (
        FaultProxy(echo.url, [Rule(Reset(1000, side="request"))]) as proxy,
        pytest.raises((ConnectionResetError, BrokenPipeError)),
    ):
        _ask(proxy, "PUT", bytes(10 * MIB))

    assert proxy.log[0].struck
    assert all(len(put) <= 1000 for _, put in echo.heard)


def test_a_body_is_shortened_and_the_headers_agree(echo: _Echo) -> None:
    with FaultProxy(echo.url, [Rule(Shorten(to=1000))]) as proxy:
        connection = _connect(proxy)
        connection.request("GET", "/bucket/key")
        answer = connection.getresponse()
        short = answer.read()
        connection.auto_open = 0
        connection.request("GET", "/bucket/key")
        whole = connection.getresponse().read()

    assert (answer.headers["Content-Length"], short, whole) == ("1000", BODY[:1000], BODY)


@pytest.mark.parametrize("at", [0, 70_000, len(BODY) - 1, 0.5])
def test_one_bit_is_flipped(echo: _Echo, at: int | float) -> None:
    with FaultProxy(echo.url, [Rule(Flip(at))]) as proxy:
        read = _ask(proxy).read()

    differing = [
        index for index, pair in enumerate(zip(read, BODY, strict=True)) if len({*pair}) > 1
    ]
    offset = at if isinstance(at, int) else len(BODY) // 2
    assert differing == [offset]
    assert read[offset] ^ BODY[offset] == 1


def test_one_bit_is_flipped_on_the_way_up(echo: _Echo) -> None:
    with FaultProxy(echo.url, [Rule(Flip(3, side="request"))]) as proxy:
        assert _ask(proxy, "PUT", b"aaaaaa").read() == b"aaa`aa"


@pytest.mark.parametrize("after", [None, 0, 1000])
def test_what_is_stalled_goes_on_when_it_is_released(echo: _Echo, after: int | None) -> None:
    with FaultProxy(echo.url, [Rule(Stall(after))]) as proxy:
        read: list[bytes] = []
        reader = threading.Thread(target=lambda: read.append(_ask(proxy).read()))
        reader.start()
        assert proxy.stalled.wait(60)
        assert proxy.log[0].sent == (after or 0)
        assert read == []
        proxy.release()
        reader.join()

    assert read == [BODY]


def test_what_is_stalled_ends_with_the_proxy(echo: _Echo) -> None:
    with FaultProxy(echo.url, [Rule(Stall(1000))]) as proxy:
        answer = _ask(proxy)
        assert proxy.stalled.wait(60)

    with pytest.raises(IncompleteRead) as caught:
        answer.read()
    assert caught.value.partial == BODY[:1000]


def test_what_is_stalled_ends_with_the_client() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        FaultProxy(_url(listener), [Rule(Stall())]) as proxy,
    ):
        connection = _connect(proxy)
        connection.request("GET", "/bucket/key")
        upstream, _ = listener.accept()
        with upstream:
            upstream.recv(1000)
            upstream.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
            assert proxy.stalled.wait(60)
            connection.close()
            assert upstream.recv(1000) == b""


def test_a_body_is_throttled(echo: _Echo) -> None:
    """At this rate it would take a quarter of an hour; the proxy is closed at its start."""
    with FaultProxy(echo.url, [Rule(Throttle(rate=100))]) as proxy:
        answer = _ask(proxy)
        first = answer.read(5)

    assert first == BODY[:5]
    with pytest.raises(IncompleteRead):
        answer.read()


def test_something_happens_before_a_request_goes_on(echo: _Echo) -> None:
    heard_before: list[int] = []
    note = Meanwhile(lambda: heard_before.append(len(echo.heard)))
    with FaultProxy(echo.url, [Rule(note, first=2)]) as proxy:
        bodies = [_ask(proxy).read() for _ in range(3)]

    assert bodies == [BODY] * 3
    assert heard_before == [1]


@pytest.mark.parametrize(
    ("request_headers", "kind", "document"),
    [
        ({}, "application/xml", b"<Code>SlowDown</Code>"),
        (
            {"X-Amz-Target": "CodePipeline_20150709.GetJobDetails"},
            "application/x-amz-json-1.1",
            b'"__type": "SlowDown"',
        ),
    ],
)
def test_it_answers_as_the_service_would(
    echo: _Echo, request_headers: dict[str, str], kind: str, document: bytes
) -> None:
    with FaultProxy(echo.url, [Rule(SLOW_DOWN)]) as proxy:
        connection = _connect(proxy)
        connection.request("PUT", "/bucket/key", b"put", request_headers)
        answer = connection.getresponse()
        body = answer.read()
        connection.auto_open = 0
        connection.request("PUT", "/bucket/key", b"put", request_headers)
        again = connection.getresponse().read()

    assert (answer.status, answer.headers["Content-Type"], again) == (503, kind, b"put")
    assert document in body
    assert len(echo.heard) == 1


def test_a_head_has_no_body(echo: _Echo) -> None:
    answer = Answer(400, "ExpiredToken", headers={"x-amz-bucket-region": "eu-west-1"})
    with FaultProxy(echo.url, [Rule(answer)]) as proxy:
        said = _ask(proxy, "HEAD")

    assert (said.status, said.headers["x-amz-bucket-region"]) == (400, "eu-west-1")
    assert proxy.log[0].request.operation == "HeadObject"
