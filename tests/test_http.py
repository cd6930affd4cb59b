"""HTTP as servers on the way to AWS speak it: what is an answer, and what is none."""

from __future__ import annotations

import os
import random
import socket
import string
import threading
from typing import NamedTuple

import pytest
from cpstage.aws.message import Answer, NetworkError, Request, UnsendableError
from cpstage.aws.origin import origin_of
from cpstage.aws.service import Endpoint, ServiceError
from cpstage.aws.tls import Tls
from cpstage.aws.transport import Transport

from answering import answering_server
from conftest import Cli
from cpstage.aws.retries import Retries
from cpstage.aws.s3 import S3
from cpstage.local import Input, LocalAWS
from fault_plans import Rule
from fault_proxy import FaultProxy
from faults import Answer as FaultyAnswer
from samples import zip_of
from scripted import Server, Visit, says, scripted_server

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
LARGE = os.urandom(8 << 20)


def _transport() -> Transport:
    return Transport(Tls(), 10, 10)


def _ask(
    transport: Transport,
    server: Server,
    method: str = "GET",
    body: bytes = b"",
    length: int | None = None,
    **headers: str,
) -> Answer:
    origin, _ = origin_of(server.url)
    return transport.exchange(Request(method, origin, "/", headers, (body,), length))


def _cut(server: Server, length: int | None = None) -> NetworkError:
    with pytest.raises(NetworkError) as caught:
        _ask(_transport(), server, length=length)
    assert caught.value.began
    return caught.value


def test_a_connection_is_used_again() -> None:
    with scripted_server(says(OK, OK, OK), says(b"")) as server:
        transport = _transport()
        bodies = [_ask(transport, server).body for _ in range(3)]

    assert bodies == [b"ok"] * 3


def test_a_connection_that_was_closed_while_idle_is_replaced() -> None:
    with scripted_server(says(OK), says(OK)) as server:
        transport = _transport()
        _ask(transport, server)
        assert server.gone[0].wait(10)

        assert _ask(transport, server, "PUT", LARGE).body == b"ok"


def test_a_connection_that_is_closed_with_the_next_request_is_replaced() -> None:
    """The server closes at the moment when the client sends again: nothing tells before."""

    def close_at_the_second(visit: Visit) -> None:
        visit.say(OK)
        visit.hear()

    with scripted_server(close_at_the_second, says(OK)) as server:
        transport = _transport()
        _ask(transport, server)

        assert _ask(transport, server).body == b"ok"
        assert len(server.heads) == 3


def test_a_replaced_connection_counts_for_no_retry(aws: LocalAWS, cli: Cli) -> None:
    job_id = aws.add_job([Input("App", zip_of({"f": "x"}))])
    close = {"Connection": "close"}
    rule = Rule(FaultyAnswer(400, "ExpiredToken", headers=close), "GetObject")
    with FaultProxy(aws.endpoint_url, [rule]) as proxy:
        done = cli("fetch", job_id, "--json", AWS_ENDPOINT_URL=proxy.url)

    assert done.returncode == 0, done.stderr
    assert '"retries": 0' in done.stdout


def test_who_is_silent_is_not_asked_twice() -> None:
    """A time-out on a connection that was used before is a time-out, not an old connection."""
    silent = threading.Event()

    def fall_silent(visit: Visit) -> None:
        visit.say(OK)
        visit.hear()
        silent.wait(30)

    with scripted_server(fall_silent, says(OK)) as server:
        transport = Transport(Tls(), 10, 1.0)
        _ask(transport, server)
        with pytest.raises(NetworkError, match="timed out"):
            _ask(transport, server)
        silent.set()

    assert len(server.heads) == 2


def test_bytes_after_an_answer_are_not_taken_for_the_next() -> None:
    forged = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged"
    sent = threading.Event()

    def say_too_much(visit: Visit) -> None:
        visit.say(OK)
        visit.stream.send(forged)
        sent.set()
        visit.hear()

    with scripted_server(say_too_much, says(OK)) as server:
        transport = _transport()
        _ask(transport, server)
        assert sent.wait(10)

        assert _ask(transport, server).body == b"ok"


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"1\r\no\r\n1;x=y\r\nk\r\n0\r\nA: b\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\nok",
        b"HTTP/1.0 200 OK\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 100 Continue\r\nA: b\r\n\r\n" + OK,
        b"HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nok",
    ],
    ids=["chunks", "up to the end", "HTTP/1.0", "close", "continue", "no reason"],
)
@pytest.mark.parametrize("length", [None, 2])
def test_an_answer_may_have_any_form(answer: bytes, length: int | None) -> None:
    with scripted_server(says(answer), says(OK)) as server:
        transport = _transport()

        assert _ask(transport, server, "PUT", b"body", length).body == b"ok"
        assert _ask(transport, server, "PUT", b"body", length).body == b"ok"


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\no",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-2\r\nok\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nok\r\n0\r\n\r\n",
        b"HTTP/1.1 103 Early Hints\r\n\r\n",
    ],
    ids=["cut", "endless", "no last chunk", "cut in a chunk", "negative", "no size", "hints"],
)
def test_an_answer_that_is_cut_is_told(answer: bytes) -> None:
    with scripted_server(says(answer)) as server:
        assert "was cut" in str(_cut(server))


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 206 Partial\r\nContent-Length: 3\r\n\r\nlon",
        b"HTTP/1.1 206 Partial\r\n\r\nlon",
        b"HTTP/1.1 206 Partial\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nlon\r\n0\r\n\r\n",
        b"HTTP/1.1 206 Partial\r\nContent-Length: 1\r\n\r\nl",
        b"HTTP/1.1 206 Partial\r\n\r\nl",
    ],
    ids=["longer", "longer to the end", "longer in chunks", "shorter", "shorter to the end"],
)
def test_a_body_of_another_length_than_was_asked_for_is_none(answer: bytes) -> None:
    with scripted_server(says(answer)) as server:
        _cut(server, length=2)


def test_a_document_without_end_is_not_read_for_ever() -> None:
    def go_on(visit: Visit) -> None:
        visit.hear()
        visit.stream.send(b"HTTP/1.1 500 Oops\r\n\r\n")
        while True:
            visit.stream.send(b"x" * (1 << 20))

    with scripted_server(go_on) as server:
        assert "does not end" in str(_cut(server))


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
    with scripted_server(says(answer)) as server, pytest.raises(NetworkError) as caught:
        _ask(_transport(), server)

    assert not caught.value.began
    assert "gave no answer" in str(caught.value)
    assert "SSH" not in str(caught.value)


@pytest.mark.parametrize("linger", [False, True], ids=["FIN", "RST"])
def test_a_refusal_before_the_body_has_gone_is_that_refusal(linger: bool) -> None:
    def refuse(visit: Visit) -> None:
        visit.stream.until(b"\r\n\r\n")
        visit.stream.send(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno")
        if not linger:
            visit.stream.sock.shutdown(socket.SHUT_WR)
            while visit.stream.sock.recv(1 << 20):
                pass

    with scripted_server(refuse) as server:
        answer = _ask(_transport(), server, "PUT", LARGE)

    assert (answer.status, answer.body) == (403, b"no")


@pytest.mark.parametrize("value", ["a\r\nEvil: 1", "a\nb", "a\rb", "a\x00b", "\ud800"])
def test_a_header_that_would_be_two_is_not_sent(value: str) -> None:
    with scripted_server(says(OK)) as server, pytest.raises(UnsendableError) as caught:
        _ask(_transport(), server, Header=value)

    assert value not in repr(caught.value)
    assert server.heads == []


def test_an_interrupt_ends_what_is_under_way_and_it_does_not_start_again() -> None:
    heard, over = threading.Event(), threading.Event()
    found: list[BaseException] = []

    def stay_silent(visit: Visit) -> None:
        visit.say(OK)
        visit.hear()
        heard.set()
        over.wait(30)

    def ask() -> None:
        try:
            _ask(transport, server)
        except NetworkError as error:
            found.append(error)

    with scripted_server(stay_silent, says(OK)) as server:
        transport = _transport()
        _ask(transport, server)
        asking = threading.Thread(target=ask)
        asking.start()
        assert heard.wait(10)
        transport.interrupt()
        asking.join(10)
        over.set()

        assert len(found) == 1
        assert len(server.heads) == 2
        assert _ask(transport, server).body == b"ok"


@pytest.mark.parametrize("body", [b"[]", b"null", b"<html>", b"", b'"' + b"x" * 100 + b'"'])
def test_an_answer_of_codepipeline_that_is_no_object(cli: Cli, body: bytes) -> None:
    with answering_server(200, body) as url:
        done = cli("fetch", "some-job", "--timeout", "0.2", AWS_ENDPOINT_URL=url)

    assert done.returncode in (69, 78), done.stderr
    assert len(done.stderr.splitlines()) == 1


class _Nobody(NamedTuple):
    access_key: str = "AKIANOBODY"
    secret_key: str = "nothing"
    token: str | None = None

    def get_frozen_credentials(self) -> _Nobody:
        return self


def _s3(server: Server) -> S3:
    origin, path = origin_of(server.url)
    place = Endpoint(origin, path, "us-east-1")
    return S3(lambda *_: place, _transport(), _Nobody(), Retries(0.01))


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
    answer = b"HTTP/1.1 " + head + b"\r\nContent-Length: 2\r\n\r\nok"
    with scripted_server(says(answer)) as server, pytest.raises(ServiceError) as caught:
        _s3(server).get_range("bucket", "key", 5, 2)

    assert "not the range" in caught.value.message


@pytest.mark.parametrize("length", [b"", b"Content-Length: many\r\n"])
def test_an_object_of_unknown_size_is_not_taken_for_an_empty_one(length: bytes) -> None:
    answer = b"HTTP/1.1 200 OK\r\n" + length + b"ETag: x\r\n\r\n"
    with scripted_server(says(answer)) as server, pytest.raises(ServiceError) as caught:
        _s3(server).head_object("bucket", "key")

    assert "how large" in caught.value.message


def test_a_region_that_is_no_name_is_not_followed_to() -> None:
    evil = b"x-amz-bucket-region: evil.example.com/\r\n"
    location = b"Location: http://evil.example.com/\r\n"
    answer = b"HTTP/1.1 301 Moved\r\n" + evil + location + b"Content-Length: 0\r\n\r\n"
    with scripted_server(says(answer)) as server, pytest.raises(ServiceError) as caught:
        _s3(server).get_object("bucket", "key")

    assert caught.value.code == "301"
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

    with scripted_server(quote) as server:
        origin, path = origin_of(server.url)
        place = Endpoint(origin, path, "us-east-1")
        keys = _Nobody(token=token)
        s3 = S3(lambda *_: place, _transport(), keys, Retries(0.01))
        with pytest.raises(ServiceError) as caught:
            s3.get_object("bucket", "key")

    shown = f"{caught.value.code} {caught.value.message}"
    assert caught.value.code == "403"
    assert len(caught.value.message) <= 500
    pieces = [token[start : start + 12] for start in range(len(token) - 11)]
    assert [piece for piece in pieces if piece in shown] == []
