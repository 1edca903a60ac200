"""What strangers cause leaves no line each in nginx's log, and what an authenticated client causes is logged."""

import collections
import contextlib
import itertools
import json
import socket
import sys

import httpx
import pytest

import test_http2
from conftest import query_with
from stack import wait_for
from test_http2 import END_HEADERS, END_STREAM, HEADERS, PING, RST_STREAM, Connection, frame, question
from test_outage import locked
from wire import header, pipelined, read_answers, request_bytes

HOST = ("Host", "localhost")
COUNT = 2700
addresses = (f"127.0.7.{number}" for number in itertools.count(1))


def batch(*headers):
    return request_bytes("POST", "/ingest", [HOST, ("Content-Length", "0"), *headers])


# Requests, and what they may be answered.
FLOODS = {
    "preflights": (request_bytes("OPTIONS", "/ingest", [HOST]), {204, 429}),
    "batches without a signature": (batch(), {401, 429}),
    "batches of an unknown source": (batch(("X-Source-ID", "flood"), ("X-Signature", "x")), {401, 429}),
    "questions without a token": (request_bytes("GET", "/query", [HOST]), {401, 429}),
    "questions with a wrong token": (request_bytes("GET", "/query", [HOST, ("Authorization", "Bearer flood")]), {401, 429}),
    "the page": (request_bytes("GET", "/", [HOST]), {200, 429}),
    "health": (request_bytes("GET", "/healthz/query", [HOST]), {200, 429}),
    "files that do not exist": (request_bytes("GET", "/nowhere", [HOST]), {404, 429}),
    "metrics": (request_bytes("GET", "/metrics/ingest", [HOST]), {404, 429}),
    "writes to the page": (request_bytes("DELETE", "/page.js", [HOST]), {405, 429}),
    "another method": (request_bytes("PUT", "/query", [HOST]), {405, 429}),
}

# nginx refuses these before it applies a limit, and closes the connection.
REFUSED = {
    "TRACE": (request_bytes("TRACE", "/query", [HOST]), 405),
    "a path with a control character": (request_bytes("GET", "/a\x7f", [HOST]), 400),
    "an invalid request": (b"GET /query\x00 HTTP/1.1\r\n\r\n", 400),
    "a path that is too long": (request_bytes("GET", "/" + "x" * 9000, [HOST]), 414),
    "a body that is too large": (request_bytes("POST", "/ingest", [HOST, ("Content-Length", "9999999")]), 413),
}


def size(stack):
    return {name: stack.log(name).stat().st_size for name in ("access", "ingest", "query", "nginx-error")}


@pytest.fixture
def lines(stack, token):
    """The test's lines of the access log about an address, after one more request of it, which is logged."""
    before = stack.log("access").stat().st_size

    def find(address):
        with stack.client(address) as client:
            last = header(query_with(client, token), "X-Request-ID")

        def found():
            text = stack.log("access").read_bytes()[before:].decode()
            entries = [json.loads(line) for line in text.splitlines() if f'"{address}"' in line]
            return entries if entries and entries[-1]["request_id"] == last else None

        return wait_for(found, "the last request to be logged")[:-1]
    return find


def flood(stack, address, request):
    """The answers to many of a request, by status."""
    statuses = collections.Counter(answer.status_code for answer in pipelined(stack, address, [request] * COUNT))
    assert sum(statuses.values()) == COUNT
    return statuses


@pytest.mark.parametrize("kind", FLOODS)
def test_a_flood_of_strangers_leaves_no_line_in_the_access_log(kind, stack, lines, capsys):
    request, expected = FLOODS[kind]
    address, before = next(addresses), size(stack)
    statuses = flood(stack, address, request)
    grown = {name: after - before[name] for name, after in size(stack).items()}
    with capsys.disabled():
        print(f"\n{COUNT} {kind}, answered {dict(statuses)}: "
              + ", ".join(f"{name}.log grew by {count} bytes" for name, count in grown.items()), file=sys.stderr)
    assert set(statuses) <= expected
    assert lines(address) == []


@pytest.mark.parametrize("kind", REFUSED)
def test_what_nginx_itself_refuses_leaves_no_line_in_the_access_log(kind, stack, lines):
    request, status = REFUSED[kind]
    address = next(addresses)
    with stack.socket(address) as connection:
        connection.sendall(request)
        assert next(read_answers(connection)).status_code == status
    assert lines(address) == []


REFUSED_HTTP2 = test_http2.REFUSED | {
    "an invalid block": lambda connection: connection.send_frames(frame(HEADERS, END_HEADERS, 1, 4 * b"\xff"))}


@pytest.mark.parametrize("kind", REFUSED_HTTP2)
def test_what_nginx_itself_refuses_of_http2_leaves_no_line_in_the_access_log(kind, stack, lines):
    address = next(addresses)
    connection = Connection(stack, address)
    with connection.socket:
        REFUSED_HTTP2[kind](connection)
    assert lines(address) == []


def test_requests_that_are_cut_off_leave_no_line_in_the_access_log(stack, lines):
    address = next(addresses)
    connection = Connection(stack, address)
    encode = connection.state.encoder.encode
    frames = [frame(HEADERS, END_HEADERS | END_STREAM, stream, encode([*question(), ("authorization", f"Bearer {stream}")]))
              + frame(RST_STREAM, 0, stream, b"\0\0\0\x08") for stream in range(1, 201, 2)]
    with connection.socket:
        connection.socket.sendall(connection.state.data_to_send() + b"".join(frames) + frame(PING, payload=b"the last"))
        received = b""
        while b"the last" not in received:
            received += connection.socket.recv(65536)
    assert lines(address) == []


def client_hello(key_share, extensions=b""):
    """A ClientHello of TLS 1.3, with a key share for X25519."""
    def part(length, content):
        return len(content).to_bytes(length, "big") + content

    fields = b"".join(kind.to_bytes(2, "big") + part(2, content) for kind, content in [
        (43, part(1, b"\x03\x04")), (10, part(2, b"\x00\x1d")), (13, part(2, b"\x04\x03\x08\x04")),
        (51, part(2, b"\x00\x1d" + part(2, key_share)))]) + extensions
    hello = b"\x03\x03" + bytes(32) + part(1, b"") + part(2, b"\x13\x01") + part(1, b"\x00") + part(2, fields)
    return b"\x16\x03\x01" + part(2, b"\x01" + part(3, hello))


HANDSHAKES = {
    "a key share of zeros": client_hello(bytes(32)),
    "a key share that is too short": client_hello(b"short"),
    "an extension twice": client_hello(b"\x09" + bytes(31), 2 * b"\x00\x17\x00\x00"),
    "an invalid extension": client_hello(b"\x09" + bytes(31), b"\x00\x10\x00\x02\x00\x01"),
    "a record that is too long": b"\x16\x03\x01\xff\xff" + bytes(100),
}


@pytest.mark.parametrize("kind", HANDSHAKES)
def test_a_malformed_handshake_leaves_no_line_in_the_error_log(kind, stack):
    address, log = next(addresses), stack.log("nginx-error")
    with socket.create_connection(("127.0.0.1", stack.port), 10, (address, 0)) as connection:
        connection.sendall(HANDSHAKES[kind])
        # nginx logs the failure before it closes the connection, which is a reset where bytes were left unread.
        try:
            received = connection.makefile("rb").read()
        except ConnectionResetError:
            received = b"\x15"
    assert received[:1] == b"\x15", "no alert of TLS"
    assert f"client: {address}," not in log.read_text()


def test_a_batch_whose_sender_stops_waiting_is_logged(stack, lines, monitor):
    address = next(addresses)
    with contextlib.closing(locked(stack)), stack.client(address, timeout=2) as client, pytest.raises(httpx.ReadTimeout):
        monitor.post(client, [monitor.event()])
    assert [(entry["path"], entry["status"]) for entry in lines(address)] == [("/ingest", 499)]


def test_what_an_authenticated_client_causes_is_logged(stack, lines, monitor, token):
    address = next(addresses)
    with stack.client(address) as client:
        event = monitor.event()
        answers = [monitor.post(client, [event]), monitor.post(client, "[]"), monitor.post(client, "x"),
                   monitor.post(client, [monitor.event(id="x")]), query_with(client, token, "?days=8"), query_with(client, token)]
    assert [answer.status_code for answer in answers] == [200, 400, 400, 422, 400, 200]
    assert [entry["request_id"] for entry in lines(address)] == [header(answer, "X-Request-ID") for answer in answers]
