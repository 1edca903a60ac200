"""Where a request begins and ends: its size and length, and no request that can be read in two ways."""

import contextlib
import json
import socket

import pytest

from monitor import encode
from stack import addresses
from wire import ENDPOINTS, check_error, check_json, read_answer, read_answers, request_bytes

MAX_BODY_BYTES = 5 * 1024 * 1024

# Found as one more request by a server that reads the first one differently.
SECOND = b"GET /query HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


@pytest.fixture
def statuses(stack):
    """Send a request followed by another: the statuses of all answers up to the end of the connection."""
    def send(head, body, target="POST /ingest HTTP/1.1"):
        with stack.socket(next(addresses)) as connection:
            connection.sendall(f"{target}\r\nHost: localhost\r\n".encode() + head + b"\r\n\r\n" + body + SECOND)
            answers = list(read_answers(connection))
        for answer in answers:
            check_json(answer, endpoint=False)
        return [answer.status_code for answer in answers]
    return send


@pytest.mark.contract
@pytest.mark.parametrize("head", [
    b"Content-Length: 5\r\nTransfer-Encoding: chunked", b"Transfer-Encoding: chunked\r\nContent-Length: 5",
    b"Content-Length: 5\r\nTransfer-Encoding: CHUNKED", b"Content-Length: 5\r\nTransfer-Encoding:chunked ",
    b"Content-Length: 0\r\nTransfer-Encoding: identity", b"Content-Length: 5\r\nContent-Length: 5",
    b"Content-Length: 5\r\nContent-Length: 0", b"Content-Length: 0\r\nContent-Length: 5", b"Content-Length: 5, 5",
    b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", b"Transfer-Encoding: chunked\r\nTransfer-Encoding: x",
], ids=ascii)
def test_an_ambiguous_body_length_is_refused_and_nothing_after_it_is_answered(head, statuses):
    assert statuses(head, b"0\r\n\r\n") == [400]


@pytest.mark.contract
@pytest.mark.parametrize("head", [
    b"Transfer-Encoding: xchunked", b"Transfer-Encoding: chunked, identity", b"Transfer-Encoding: identity, chunked",
    b"Transfer-Encoding: gzip, chunked", b"Transfer-Encoding: chunked;q=1", b'Transfer-Encoding: "chunked"',
    b"Transfer-Encoding:\tchunked", b"Transfer-Encoding: \x0bchunked", b"Transfer-Encoding : chunked",
    b"Transfer-Encoding:\r\n chunked", b" Transfer-Encoding: chunked", b"X: y\rTransfer-Encoding: chunked",
    b"Transfer-Encoding: chun\0ked", b"Transfer-Encoding:",
], ids=ascii)
@pytest.mark.parametrize("length", [b"", b"Content-Length: 5\r\n"], ids=["alone", "with a length"])
def test_a_transfer_coding_that_servers_read_differently_is_refused(length, head, statuses):
    assert statuses(length + head, b"0\r\n\r\n") == [400]


@pytest.mark.contract
def test_a_chunked_body_in_http_1_0_is_refused(statuses):
    assert statuses(b"Transfer-Encoding: chunked", b"0\r\n\r\n", "POST /ingest HTTP/1.0") == [400]


@pytest.mark.contract
@pytest.mark.parametrize("length", [b"+5", b"-5", b"0x5", b"5 0", b"5;", b"5.0", b"5_", b"", b"\t5", b"5\x0b", b"x",
                                    b"99999999999999999999", b"18446744073709551621"], ids=ascii)
def test_an_invalid_content_length_is_refused_and_nothing_after_it_is_answered(length, statuses):
    assert statuses(b"Content-Length: " + length, b"[   ]") == [400]


@pytest.mark.contract
@pytest.mark.parametrize("chunks", [
    b"-1\r\n\r\n", b"+0\r\n\r\n", b"0x0\r\n\r\n", b" 0\r\n\r\n", b"zz\r\n", b"\r\n", b"2\r\n[]X\r\n0\r\n\r\n", b"2\r\n[]0\r\n\r\n",
    b"2\r\n[]\r0\r\n\r\n", b"2\r\n[]\r\n\r\n", b"ffffffffffffffff\r\n", b"fffffffffffffffff\r\n", b"7fffffffffffffff\r\n",
    b"0\r\n\rX",
], ids=ascii)
def test_invalid_chunks_are_refused_and_nothing_after_them_is_answered(chunks, statuses):
    assert statuses(b"Transfer-Encoding: chunked", chunks) == [400]


@pytest.mark.contract
@pytest.mark.parametrize("head, body", [
    (b"Content-Length: 5", b"[   ]"), (b"Content-Length: 005", b"[   ]"), (b"Content-Length: %d" % len(SECOND), SECOND),
    (b"Transfer-Encoding: chunked", b"5\r\n[   ]\r\n0\r\n\r\n"), (b"Transfer-Encoding: chunked", b"%x\r\n%b\r\n0\r\n\r\n" %
                                                                  (len(SECOND), SECOND)),
    (b"Transfer-Encoding: chunked", b"2;x=1\r\n[]\r\n0;y\r\n\r\n"), (b"Transfer-Encoding: chunked", b"0\r\nX: y\r\n\r\n"),
    (b"Transfer-Encoding: chunked", b"0\r\nContent-Length: 99\r\n\r\n"), (b"X: y\nContent-Length: 5", b"[   ]"),
], ids=lambda value: ascii(value[:40]))
def test_a_body_ends_where_its_length_says_whatever_it_contains(head, body, statuses):
    assert statuses(head, body) == [401, 401]


@pytest.mark.contract
def test_the_body_of_a_query_is_not_read_as_the_next_request(statuses):
    assert statuses(b"Content-Length: %d" % len(SECOND), SECOND, "GET /query HTTP/1.1") == [401, 401]


@pytest.mark.contract
def test_credentials_in_trailers_are_ignored(monitor, raw):
    trailers = f"X-Source-ID: {monitor.source}\r\nX-Signature: {monitor.sign(b'[]')}\r\n\r\n".encode()
    headers = [("Host", "localhost"), ("Transfer-Encoding", "chunked"), ("Trailer", "X-Source-ID, X-Signature")]
    check_error(raw(request_bytes("POST", "/ingest", headers, b"2\r\n[]\r\n0\r\n" + trailers)), 401, "missing_auth")


@pytest.mark.contract
@pytest.mark.parametrize("head", [[f"X{n}: y" for n in range(5000)], ["a:"] * 20000], ids=["names", "blanks"])
def test_too_many_headers_are_refused(head, raw):
    data = "\r\n".join(["GET /query HTTP/1.1", "Host: localhost", *head, "", ""])
    check_error(raw(data.encode(), "GET"), 400, "invalid_request", endpoint=False)


@pytest.mark.contract
@pytest.mark.parametrize("path", ENDPOINTS)
def test_a_body_of_5_MiB_and_one_byte_is_too_large(path, raw):
    headers = [("Host", "localhost"), ("Content-Length", str(MAX_BODY_BYTES + 1))]
    check_error(raw(request_bytes("POST", path, headers, b" " * (MAX_BODY_BYTES + 1))), 413, "payload_too_large")


@pytest.mark.contract
def test_a_chunked_body_of_5_MiB_and_one_byte_is_too_large(raw):
    chunks = b"100000\r\n" + b" " * 0x100000 + b"\r\n"
    headers = [("Host", "localhost"), ("Transfer-Encoding", "chunked")]
    answer = raw(request_bytes("POST", "/ingest", headers, chunks * 5 + b"1\r\n \r\n0\r\n\r\n"))
    check_error(answer, 413, "payload_too_large")


@pytest.mark.contract
def test_413_comes_before_405_and_401(raw):
    headers = [("Host", "localhost"), ("Content-Length", str(10 * MAX_BODY_BYTES))]
    check_error(raw(request_bytes("PUT", "/ingest", headers)), 413, "payload_too_large")


@pytest.mark.contract
def test_a_client_that_waits_for_100_continue_gets_it(stack, monitor):
    body = encode([monitor.event()])
    headers = [("Host", "localhost"), ("Content-Length", str(len(body))), ("Expect", "100-continue"),
               ("X-Source-ID", monitor.source), ("X-Signature", monitor.sign(body))]
    with stack.socket(next(addresses)) as connection:
        connection.sendall(request_bytes("POST", "/ingest", headers))
        first = connection.recv(100)
        assert first.startswith(b"HTTP/1.1 100")
        connection.sendall(body)
        assert read_answer(connection).status_code == 200


@pytest.mark.contract
@pytest.mark.parametrize("size", [9000, 40000])
@pytest.mark.parametrize("path", ["/query", "/ingest", "/nowhere"])
def test_a_very_long_target_is_414(path, size, raw):
    answer = raw(request_bytes("GET", path + "?x=" + "x" * size, [("Host", "localhost")]), "GET")
    check_error(answer, 414, "uri_too_long", endpoint=False)


@pytest.mark.contract
def test_a_very_long_target_is_414_for_a_client_that_reads_after_sending(stack):
    # As curl does. A server that closes with bytes unread resets the connection, and its answer is lost.
    data = request_bytes("GET", "/query?x=" + "x" * 40000, [("Host", "localhost")])
    for _ in range(10):
        with stack.socket(next(addresses)) as connection:
            connection.sendall(data)
            check_error(read_answer(connection, "GET"), 414, "uri_too_long", endpoint=False)


@pytest.mark.contract
@pytest.mark.parametrize("headers", [[("X-Filler", "x" * 40000)], [(f"X-Filler-{n}", "x" * 4000) for n in range(20)],
                                     [("Authorization", "Bearer " + "x" * 40000)]], ids=["one", "many", "token"])
def test_headers_too_large_are_invalid_request(headers, raw):
    answer = raw(request_bytes("GET", "/query", [("Host", "localhost"), *headers]), "GET")
    check_error(answer, 400, "invalid_request", endpoint=False)


@pytest.mark.contract
@pytest.mark.parametrize("data", [
    b"GET /query HTTP/1.1\r\n\r\n", b"GET /query HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    b"GET /query HTTP/1.1\r\nHost: a b\r\n\r\n", b"GET /query HTTP/1.1\r\nHost: localhost\r\nX: \0\r\n\r\n",
    b"get /query HTTP/1.1\r\nHost: localhost\r\n\r\n", b"GET query HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /query HTTP/1.x\r\nHost: localhost\r\n\r\n", b"GARBAGE\r\n\r\n", b"\x16\x03\x01\0\xff\r\n\r\n",
    b"GET /query HTTP/2.0\r\nHost: localhost\r\n\r\n", b"GET /query HTTP/3.0\r\nHost: localhost\r\n\r\n",
    b"GET /query HTTP/9.9\r\nHost: localhost\r\n\r\n",
], ids=ascii)
def test_a_malformed_request_is_invalid_request(data, raw):
    check_error(raw(data), 400, "invalid_request", endpoint=False)


@pytest.mark.contract
def test_an_unknown_transfer_coding_is_refused_in_json(raw):
    answer = raw(b"POST /ingest HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: gzip\r\n\r\n")
    assert 400 <= answer.status_code < 600 and answer.status_code != 500
    check_json(answer, endpoint=False)


@pytest.mark.parametrize("cut", [1, 10, 100])
def test_a_body_cut_short_is_never_stored(cut, stack, monitor, db):
    event = monitor.event()
    body = encode([event])
    headers = [("Host", "localhost"), ("Content-Length", str(len(body))), ("X-Source-ID", monitor.source),
               ("X-Signature", monitor.sign(body))]
    data = b""
    with stack.socket(next(addresses)) as connection:
        connection.sendall(request_bytes("POST", "/ingest", headers, body[:-cut]))
        # Only the TCP half: SSLSocket's own shutdown could no longer decrypt the answer.
        socket.socket.shutdown(connection, socket.SHUT_WR)
        with contextlib.suppress(OSError):
            data = connection.recv(65536)
        # Closed without an answer, or a 400 in the contract's form.
        if data:
            assert data.startswith(b"HTTP/1.1 400")
            assert json.loads(data.partition(b"\r\n\r\n")[2])["error"] == "invalid_request"
    count = db.execute("SELECT count(*) FROM public.events WHERE id = %s", (event["id"],)).fetchone()
    assert count == (0,)
