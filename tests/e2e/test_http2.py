"""HTTP/2: requests that no client library would send, and their effect on other clients."""

import json
import socket
import struct
from email.message import Message

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import pytest

import tls
from conftest import query_with, stored
from monitor import encode
from stack import addresses, wait_for
from wire import RawAnswer, check_error, check_json

HEADERS, RST_STREAM, SETTINGS, PING, CONTINUATION = 1, 3, 4, 6, 9
END_STREAM, END_HEADERS = 1, 4


def question(**changes):
    """The pseudo-headers of a query, with some changed or, if None, left out."""
    fields = {"method": "GET", "scheme": "https", "authority": "localhost", "path": "/query"} | changes
    return [(f":{name}", value) for name, value in fields.items() if value is not None]


def batch(monitor, body):
    return [*question(method="POST", path="/ingest"), ("x-source-id", monitor.source), ("x-signature", monitor.sign(body))]


def frame(kind, flags=0, stream=0, payload=b""):
    return struct.pack("!I", len(payload))[1:] + bytes([kind, flags]) + struct.pack("!I", stream) + payload


class Connection:
    """A connection that sends what it is given and records the outcome of its first stream."""

    def __init__(self, stack, address):
        context = tls.trusting(stack.ca)
        context.set_alpn_protocols(["h2"])
        self.socket = stack.socket(address, context=context)
        self.state = h2.connection.H2Connection(h2.config.H2Configuration(
            validate_outbound_headers=False, normalize_outbound_headers=False, header_encoding="utf-8"))
        self.state.initiate_connection()
        self.status, self.headers, self.body, self.outcome = None, Message(), b"", None

    def send(self, headers, body=None):
        self.state.send_headers(1, headers, end_stream=body is None)
        if body is not None:
            self.state.send_data(1, body, end_stream=True)
        return self.read()

    def send_frames(self, *frames):
        self.socket.sendall(self.state.data_to_send())
        try:
            self.socket.sendall(b"".join(frames))
        except OSError:
            self.outcome = "closed"
        return self.read()

    def read(self):
        while self.outcome is None:
            self.socket.sendall(self.state.data_to_send())
            data = self.socket.recv(65536)
            if not data:
                self.outcome = "closed"
            for event in self.state.receive_data(data):
                self.note(event)
        return self

    def note(self, event):
        if isinstance(event, h2.events.ResponseReceived):
            for name, value in event.headers:
                self.headers[name] = value
            self.status = int(self.headers[":status"])
        elif isinstance(event, h2.events.DataReceived):
            self.body += event.data
        elif isinstance(event, h2.events.StreamEnded):
            self.outcome = "answered"
        elif isinstance(event, h2.events.StreamReset):
            self.outcome = "reset"
        elif isinstance(event, h2.events.ConnectionTerminated):
            self.outcome = "closed"

    def error(self):
        assert self.outcome == "answered", self.outcome
        code = json.loads(self.body)["error"]
        check_error(RawAnswer(self.status, self.headers, self.body), self.status, code, endpoint=False)
        return self.status, code


@pytest.fixture
def http2(stack):
    connection = Connection(stack, next(addresses))
    with connection.socket:
        yield connection


@pytest.mark.contract
def test_http2_is_spoken(stack, monitor, token):
    with stack.client(next(addresses), http2=True) as client:
        for answer in (query_with(client, token), monitor.post(client, [monitor.event()])):
            assert (answer.http_version, answer.status_code) == ("HTTP/2", 200)
            check_json(answer)


@pytest.mark.parametrize("length", ["0", "1", "+{}", "-1", "x", "{}0", "{},{}", "9999999999999999999999"])
def test_a_content_length_that_differs_from_the_frames_is_refused(length, http2, monitor, db):
    # A server behind nginx would read the rest as the next request.
    event = monitor.event()
    body = encode([event])
    headers = [*batch(monitor, body), ("content-length", length.format(len(body), len(body)))]
    assert http2.send(headers, body).error() in [(400, "invalid_request"), (413, "payload_too_large")]
    assert stored(db, event["id"]) is None


def test_a_repeated_content_length_is_refused(http2, monitor, db):
    event = monitor.event()
    body = encode([event])
    headers = [*batch(monitor, body), *[("content-length", str(len(body)))] * 2]
    assert http2.send(headers, body).error() == (400, "invalid_request")
    assert stored(db, event["id"]) is None


@pytest.mark.contract
def test_a_transfer_coding_does_not_change_where_the_body_ends(http2, monitor):
    body = b"2\r\n[]\r\n0\r\n\r\n"
    assert http2.send([*batch(monitor, body), ("transfer-encoding", "chunked")], body).error() == (400, "invalid_request")


def check_invalid(connection, version):
    """A byte that is not allowed in a header: nginx resets the stream, and answers since 1.23.4."""
    if version < (1, 23, 4):
        assert connection.outcome == "reset"
    else:
        assert connection.error() == (400, "invalid_request")


@pytest.mark.parametrize("headers", [
    [("x", "a\r\nx-source-id: demo")], [("x", "a\nb")], [("x", "a\0b")], [("x\r\ny", "z")], [("x y", "z")], [("x:y", "z")],
    [("X-Source-ID", "demo")],
], ids=ascii)
def test_an_invalid_header_is_refused(headers, http2, nginx_version):
    check_invalid(http2.send(question() + headers), nginx_version)


@pytest.mark.parametrize("changes", [{"path": "/query HTTP/1.1\r\nX: y"}, {"path": "/query\0"}, {"authority": "a\r\nx: y"},
                                     {"method": "GET / HTTP/1.1\r\nX: y"}], ids=str)
def test_an_invalid_pseudo_header_is_refused(changes, http2, nginx_version):
    check_invalid(http2.send(question(**changes)), nginx_version)


@pytest.mark.contract
@pytest.mark.parametrize("headers", [
    question(path=None), question(method=None), question(scheme=None), question(authority=None), question(path=""),
    question(path="*"), question(path="query"), question(path="https://localhost/query"), question(path="/query x"),
    question(path="/.."), question(method="get"), question(scheme="x y"), [*question(), (":path", "/ingest")],
    [*question(), (":foo", "x")], [*question(), ("host", "evil.example")],
], ids=lambda headers: ascii(dict(headers))[:80])
def test_a_malformed_request_is_invalid_request(headers, http2):
    assert http2.send(headers).error() == (400, "invalid_request")


@pytest.mark.contract
@pytest.mark.parametrize("headers", [[("connection", "close")], [("upgrade", "h2c")], [("te", "trailers")]], ids=ascii)
def test_a_connection_header_changes_nothing(headers, http2):
    assert http2.send(question() + headers).error() == (401, "missing_auth")


@pytest.mark.contract
@pytest.mark.parametrize("method", ["TRACE", "CONNECT", "DELETE"])
def test_another_method_is_405(method, http2):
    assert http2.send(question(method=method)).error() == (405, "method_not_allowed")


@pytest.mark.contract
def test_a_header_with_underscores_is_ignored(http2, monitor):
    headers = [*question(method="POST", path="/ingest"), ("x_source_id", monitor.source), ("x_signature", monitor.sign(b"[]"))]
    assert http2.send(headers, b"[]").error() == (401, "missing_auth")


@pytest.mark.contract
@pytest.mark.parametrize("headers", [question(path="/query?" + "~" * 40000), [*question(), ("x", "~" * 16000)]],
                         ids=["address", "header"])
def test_an_oversized_path_or_header_closes_the_connection(headers, http2):
    assert http2.send(headers).outcome == "closed"


def question_frame(connection, stream, flags=END_HEADERS | END_STREAM):
    return frame(HEADERS, flags, stream, connection.state.encoder.encode(question()))


FLOODS = {
    "streams that are reset": lambda c: [question_frame(c, n) + frame(RST_STREAM, 0, n, b"\0\0\0\x08") for n in range(1, 40001, 2)],
    "headers without end": lambda c: [question_frame(c, 1, END_STREAM), *[frame(CONTINUATION, 0, 1, b"\0\1a\1b" * 20)] * 20000],
    "headers of nothing": lambda c: [question_frame(c, 1, END_STREAM), *[frame(CONTINUATION, 0, 1)] * 100000],
    "settings": lambda c: [frame(SETTINGS)] * 100000,
    "pings": lambda c: [frame(PING, payload=b"12345678")] * 100000,
}


@pytest.mark.contract
@pytest.mark.parametrize("kind", FLOODS)
def test_a_flood_of_frames_closes_only_its_own_connection(kind, http2, client, monitor):
    frames = FLOODS[kind](http2)
    try:
        assert http2.send_frames(*frames).outcome == "closed"
    except (OSError, h2.exceptions.ProtocolError):
        # Disconnected within a frame, or an answer to a stream unknown on this side.
        pass
    assert monitor.post(client, [monitor.event()]).status_code == 200


def end_within_headers(connection):
    """Close a connection before the end of a request's headers, and wait until nginx closes it."""
    connection.socket.sendall(connection.state.data_to_send() + question_frame(connection, 1, END_STREAM))
    # Of TCP, without TLS: it would try to answer.
    socket.socket.shutdown(connection.socket, socket.SHUT_WR)
    while socket.socket.recv(connection.socket, 65536):
        pass


REFUSED = {
    "an invalid header": lambda c: c.send([*question(), ("x", "a\nb")]),
    "an invalid name": lambda c: c.send([*question(), ("Authorization", "x")]),
    "an invalid path": lambda c: c.send(question(path="/query\0")),
    "no path": lambda c: c.send(question(path=None)),
    "an oversized header": lambda c: c.send([*question(), ("x", "~" * 16000)]),
    "a connection closed within the headers": end_within_headers,
}


@pytest.fixture
def everything_logged(second_stack):
    """An installation whose access log leaves out no request."""
    with second_stack.changed_snippet("log.conf", r" if=\$steep_is_logged;", ";"):
        yield second_stack


# The fixture's reload would end the request that test_edge.py's last test waits for.
@pytest.mark.last(1)
@pytest.mark.parametrize("number, kind", enumerate(REFUSED))
def test_a_refused_request_could_be_logged_as_json(number, kind, everything_logged, nginx_version):
    # nginx writes 000, which is not a number in JSON, for a request without an answer.
    address = f"127.0.8.{number}"

    def logged():
        entries = map(json.loads, everything_logged.log_text("access").splitlines())
        return [entry for entry in entries if entry["remote_address"] == address]

    before = len(logged())
    connection = Connection(everything_logged, address)
    with connection.socket:
        REFUSED[kind](connection)
        entries = wait_for(lambda: logged()[before:], "the request to be logged")
    answered = connection.outcome == "answered"
    assert answered == (kind == "no path" or "an invalid" in kind and nginx_version >= (1, 23, 4))
    assert [entry["status"] for entry in entries] == [400 if answered else 0]
