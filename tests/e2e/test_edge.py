"""What nginx answers by itself, and that every answer has the same form."""

import contextlib
import http.client
import itertools
import json
import os
import signal
import socket
import ssl
import threading
import time
import warnings

import h2.config
import h2.connection
import pytest

from monitor import encode
from stack import SLOWNESS, addresses, wait_for
from wire import (ENDPOINTS, RawAnswer, Replay, check_error, check_headers, check_json, exchange,
                  header, read_answer, request_bytes)

MAX_BODY_BYTES = 5 * 1024 * 1024


@pytest.fixture
def raw(stack):
    """Send bytes as they are over TLS and read the answer."""
    def send(data, method="POST"):
        with stack.socket(next(addresses)) as connection:
            return exchange(connection, data, method)
    return send


@pytest.mark.parametrize("path", ["/nowhere", "/functions/v1/nowhere", "/functions/v1/", "/functions/", "/functions", "/ingest/",
                                  "/query/", "/ingest/x", "/queryx", "/ingest.fcgi", "/functions/v2/query", "/INGEST",
                                  "/.git/config", "/run.env", "/index.php", "/_error", "/favicon.php", "/%00", "/%zz",
                                  "/nowhere?token=x"])
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_anything_else_is_not_found(method, path, raw):
    # Raw, as a client library would tidy these up. To nginx a path that can't be decoded is a bad request.
    answer = raw(request_bytes(method, path, [("Host", "localhost"), ("Content-Length", "0")]), method)
    if path in ("/%00", "/%zz"):
        check_error(answer, 400, "invalid_request", endpoint=False)
    else:
        check_error(answer, 404, "not_found", endpoint=False)


@pytest.mark.parametrize("path", ["/../etc/passwd", "/..%2f..%2fetc%2fpasswd", "/%2e%2e/%2e%2e/etc/passwd",
                                  "/functions/../../etc/passwd"])
def test_a_path_out_of_the_page_leads_nowhere(path, raw):
    answer = raw(request_bytes("GET", path, [("Host", "localhost")]), "GET")
    assert answer.status_code in (400, 404)
    check_json(answer, endpoint=False)


@pytest.mark.parametrize("path, kind", [("/", "text/html"), ("/page.js", "application/javascript"), ("/style.css", "text/css"),
                                        ("/icon.svg", "image/svg+xml"), ("/config.json", "application/json")])
def test_the_page_and_its_files_are_served_with_the_common_headers_and_their_policy(path, kind, client):
    answer = client.get(path)
    assert answer.status_code == 200
    assert header(answer, "Content-Type").split(";")[0] == kind
    check_headers(answer, endpoint=False)
    policy = header(answer, "Content-Security-Policy")
    assert policy.startswith("default-src 'self';") and "unsafe" not in policy


@pytest.mark.parametrize("path", ["/", "/page.js", "/config.json"])
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_the_page_can_only_be_read(method, path, client):
    check_error(client.request(method, path), 405, "method_not_allowed", endpoint=False)


@pytest.mark.parametrize("path", ENDPOINTS)
def test_trace_is_refused_in_json(path, raw):
    answer = raw(request_bytes("TRACE", path, [("Host", "localhost")]), "TRACE")
    check_error(answer, 405, "method_not_allowed", endpoint=False)


def test_the_405_of_trace_names_what_is_allowed(raw):
    answer = raw(request_bytes("TRACE", "/query", [("Host", "localhost")]), "TRACE")
    assert header(answer, "Allow"), "RFC 9110, 15.5.6: a 405 must have Allow"


def test_connect_is_refused_in_json(raw):
    answer = raw(request_bytes("CONNECT", "localhost:443", [("Host", "localhost")]), "GET")
    assert answer.status_code in (400, 405)
    check_json(answer, endpoint=False)


@pytest.mark.parametrize("path", ENDPOINTS)
def test_a_body_of_5_MiB_and_one_byte_is_too_large(path, raw):
    headers = [("Host", "localhost"), ("Content-Length", str(MAX_BODY_BYTES + 1))]
    check_error(raw(request_bytes("POST", path, headers, b" " * (MAX_BODY_BYTES + 1))), 413, "payload_too_large")


def test_a_chunked_body_of_5_MiB_and_one_byte_is_too_large(raw):
    chunks = b"100000\r\n" + b" " * 0x100000 + b"\r\n"
    headers = [("Host", "localhost"), ("Transfer-Encoding", "chunked")]
    answer = raw(request_bytes("POST", "/ingest", headers, chunks * 5 + b"1\r\n \r\n0\r\n\r\n"))
    check_error(answer, 413, "payload_too_large")


def test_413_comes_before_405_and_401(raw):
    headers = [("Host", "localhost"), ("Content-Length", str(10 * MAX_BODY_BYTES))]
    check_error(raw(request_bytes("PUT", "/ingest", headers)), 413, "payload_too_large")


def test_a_client_that_waits_for_100_continue_is_told_to_go_on(stack, monitor):
    body = encode([monitor.event()])
    headers = [("Host", "localhost"), ("Content-Length", str(len(body))), ("Expect", "100-continue"),
               ("X-Source-ID", monitor.source), ("X-Signature", monitor.sign(body))]
    with stack.socket(next(addresses)) as connection:
        connection.sendall(request_bytes("POST", "/ingest", headers))
        first = connection.recv(100)
        assert first.startswith(b"HTTP/1.1 100")
        connection.sendall(body)
        assert read_answer(connection).status_code == 200


@pytest.mark.parametrize("size", [9000, 40000])
@pytest.mark.parametrize("path", ["/query", "/ingest", "/nowhere"])
def test_a_very_long_target_is_414(path, size, raw):
    answer = raw(request_bytes("GET", path + "?x=" + "x" * size, [("Host", "localhost")]), "GET")
    check_error(answer, 414, "uri_too_long", endpoint=False)


def test_a_very_long_target_is_414_for_a_client_that_reads_only_when_it_has_sent_all(stack):
    # As curl does. A server that closes with bytes unread resets the connection and takes its answer back.
    data = request_bytes("GET", "/query?x=" + "x" * 40000, [("Host", "localhost")])
    for _ in range(10):
        with stack.socket(next(addresses)) as connection:
            connection.sendall(data)
            check_error(read_answer(connection, "GET"), 414, "uri_too_long", endpoint=False)


@pytest.mark.parametrize("headers", [[("X-Filler", "x" * 40000)], [(f"X-Filler-{n}", "x" * 4000) for n in range(20)],
                                     [("Authorization", "Bearer " + "x" * 40000)]], ids=["one", "many", "token"])
def test_headers_too_large_are_invalid_request(headers, raw):
    answer = raw(request_bytes("GET", "/query", [("Host", "localhost"), *headers]), "GET")
    check_error(answer, 400, "invalid_request", endpoint=False)


@pytest.mark.parametrize("data", [
    b"GET /query HTTP/1.1\r\n\r\n", b"GET /query HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    b"GET /query HTTP/1.1\r\nHost: a b\r\n\r\n", b"GET /query HTTP/1.1\r\nHost: localhost\r\nX: \0\r\n\r\n",
    b"get /query HTTP/1.1\r\nHost: localhost\r\n\r\n", b"GET query HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /query HTTP/1.x\r\nHost: localhost\r\n\r\n", b"GARBAGE\r\n\r\n", b"\x16\x03\x01\0\xff\r\n\r\n",
    b"POST /ingest HTTP/1.1\r\nHost: localhost\r\nContent-Length: x\r\n\r\n",
    b"POST /ingest HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
    b"POST /ingest HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n[]",
    b"POST /ingest HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n[]",
    b"POST /ingest HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    b"GET /query HTTP/2.0\r\nHost: localhost\r\n\r\n", b"GET /query HTTP/3.0\r\nHost: localhost\r\n\r\n",
    b"GET /query HTTP/9.9\r\nHost: localhost\r\n\r\n",
], ids=ascii)
def test_a_malformed_request_is_invalid_request(data, raw):
    check_error(raw(data), 400, "invalid_request", endpoint=False)


def test_an_unknown_transfer_coding_is_refused_in_json(raw):
    answer = raw(b"POST /ingest HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: gzip\r\n\r\n")
    assert 400 <= answer.status_code < 600 and answer.status_code != 500
    check_json(answer, endpoint=False)


def test_plain_http_on_the_tls_port_is_invalid_request(stack):
    with socket.create_connection(("127.0.0.1", stack.port), 20, (next(addresses), 0)) as connection:
        connection.sendall(b"GET /query HTTP/1.1\r\nHost: localhost\r\n\r\n")
        check_error(read_answer(connection, "GET"), 400, "invalid_request", endpoint=False)


def test_a_request_id_sent_by_a_client_is_ignored(client):
    sent = "0123456789abcdef0123456789abcdef"
    answer = client.get("/query", headers={"X-Request-ID": sent})
    check_headers(answer)
    assert header(answer, "X-Request-ID") != sent


def test_every_answer_has_a_request_id_of_its_own(client):
    ids = {header(client.get(path), "X-Request-ID") for path in [*ENDPOINTS, "/", "/nowhere"] * 3}
    assert len(ids) == 18


def test_a_request_can_be_found_in_both_logs_by_its_id(stack, client, monitor, query):
    for name, answer in [("ingest", monitor.post(client, [monitor.event()])), ("ingest", client.post("/ingest")),
                         ("query", query()), ("query", client.get("/query"))]:
        request_id = header(answer, "X-Request-ID")
        wait_for(lambda: request_id in stack.log_text(name), f"{answer.status_code} in {name}.log", 10)
        wait_for(lambda: request_id in stack.log_text("access"), f"{answer.status_code} in access.log", 10)


@pytest.mark.parametrize("host, expected", [
    ("localhost", False), ("localhost:8443", False), ("127.0.0.1", False), ("127.0.0.1:8443", False), ("[::1]", False),
    ("[::1]:8443", False), ("10.1.2.3", False), ("[2001:db8::1]", False), ("LOCALHOST", False),
    ("steep.example", True), ("steep.example:8443", True), ("localhost.example", True), ("10.example", True),
])
@pytest.mark.parametrize("path", ["/query", "/", "/nowhere"])
def test_strict_transport_security_is_for_names_only(path, host, expected, client):
    value = header(client.get(path, headers={"Host": host}), "Strict-Transport-Security")
    assert (value is not None) == expected
    assert not expected or "max-age=63072000" in value


@pytest.mark.parametrize("path", [*ENDPOINTS, "/", "/nowhere"])
def test_the_servers_version_is_told_to_nobody(path, client):
    answer = client.get(path)
    assert not any(letter.isdigit() for letter in header(answer, "Server") or "")
    assert header(answer, "X-Powered-By") is None


@pytest.mark.parametrize("version, taken", [(ssl.TLSVersion.TLSv1, False), (ssl.TLSVersion.TLSv1_1, False),
                                            (ssl.TLSVersion.TLSv1_2, True), (ssl.TLSVersion.TLSv1_3, True)])
def test_tls_is_1_2_or_newer(version, taken, stack):
    tls = ssl.create_default_context(cafile=stack.ca)
    # Otherwise this side would refuse the old versions first.
    tls.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        tls.minimum_version = version
        tls.maximum_version = version
    if taken:
        with stack.socket(tls=tls) as connection:
            assert connection.version().replace("v1.", "v1_") == version.name
    else:
        with pytest.raises((ssl.SSLError, ConnectionError)) as refusal:
            stack.socket(tls=tls)
        assert "NO_PROTOCOLS" not in str(refusal.value)


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1"])
def test_the_certificate_is_good_for_localhost_and_its_address(name, stack):
    with stack.socket(server_name=name) as connection:
        assert connection.getpeercert()


def test_the_certificate_is_good_over_ipv6(stack):
    with socket.create_connection(("::1", stack.port), 20) as plain:
        with stack.tls.wrap_socket(plain, server_hostname="::1") as connection:
            connection.sendall(request_bytes("GET", "/query", [("Host", "[::1]")]))
            check_error(read_answer(connection, "GET"), 401, "missing_auth")


def pipelined(stack, address, count):
    """Ask count times on one connection without waiting for an answer in between."""
    with stack.socket(address) as connection:
        connection.sendall(request_bytes("GET", "/query", [("Host", "localhost")]) * count)
        stream = connection.makefile("rb")
        for _ in range(count):
            status = stream.readline().split()[1]
            headers = http.client.parse_headers(stream)
            yield RawAnswer(int(status), headers, stream.read(int(headers["Content-Length"])))


def test_too_many_requests_from_one_address_are_429_while_others_are_served(stack, query):
    let_through = 0
    # nginx ends a connection after its thousandth request; how many it takes depends on how quick they are.
    for answer in itertools.chain.from_iterable(pipelined(stack, "127.0.0.9", 900) for _ in range(6)):
        if answer.status_code == 429:
            break
        check_error(answer, 401, "missing_auth")
        let_through += 1
    check_error(answer, 429, "rate_limited")
    # A monitor that comes back after an outage sends its backlog in one go: the burst is let through.
    assert let_through >= 500
    assert query().status_code == 200


def test_many_bodies_sent_slowly_from_one_address_are_429_while_others_are_served(stack, query):
    head = request_bytes("POST", "/ingest", [("Host", "localhost"), ("Content-Length", "1000")], b"[")

    def first_answer(connections):
        for connection in connections:
            connection.setblocking(False)
            with contextlib.suppress(ssl.SSLWantReadError):
                return Replay(connection.recv(65536), connection)
        return None

    with contextlib.ExitStack() as opened:
        slow = [opened.enter_context(stack.socket("127.0.0.8")) for _ in range(102)]
        for connection in slow:
            connection.sendall(head)
        # Those above the limit are answered though their bodies are not there.
        answer = wait_for(lambda: first_answer(slow), "the limit to be met")
        check_error(read_answer(answer), 429, "rate_limited")
        assert query().status_code == 200


def test_a_request_that_is_cut_off_before_its_answer_is_logged_as_json(stack):
    # A line break in a header's value is a protocol error of HTTP/2, at which nginx ends the stream.
    tls = ssl.create_default_context(cafile=stack.ca)
    tls.set_alpn_protocols(["h2"])
    address = "127.0.0.7"

    def logged():
        entries = map(json.loads, stack.log_text("access").splitlines())
        return [entry for entry in entries if entry["remote_address"] == address]

    with stack.socket(address, tls=tls) as connection:
        http2 = h2.connection.H2Connection(h2.config.H2Configuration(validate_outbound_headers=False,
                                                                     normalize_outbound_headers=False))
        http2.initiate_connection()
        http2.send_headers(1, [(":method", "GET"), (":scheme", "https"), (":authority", "localhost"),
                               (":path", "/query"), ("x-broken", "a\nb")], end_stream=True)
        connection.sendall(http2.data_to_send())
        entries = wait_for(logged, "the request to be logged")
    assert [entry["status"] for entry in entries] == [0]


def test_a_limited_address_is_served_again_after_a_while(stack):
    with stack.client("127.0.0.9") as limited:
        wait_for(lambda: limited.get("/query").status_code == 401, "the address to be served", every=0.5)


def test_a_missing_program_is_503_from_nginx(stack, client, monitor):
    socket_file = stack.state / "run" / "ingest.sock"
    away = socket_file.with_name("ingest.sock.away")
    socket_file.rename(away)
    try:
        check_error(monitor.post(client, [monitor.event()]), 503, "unavailable")
        check_headers(client.options("/ingest"))
    finally:
        away.rename(socket_file)
    wait_for(lambda: monitor.post(client, [monitor.event()]).status_code == 200, "nginx to try the socket again", 30)


@pytest.mark.parametrize("cut", [1, 10, 100])
def test_a_body_cut_short_is_never_stored(cut, stack, monitor, db):
    event = monitor.event()
    body = encode([event])
    headers = [("Host", "localhost"), ("Content-Length", str(len(body))), ("X-Source-ID", monitor.source),
               ("X-Signature", monitor.sign(body))]
    data = b""
    with stack.socket(next(addresses)) as connection:
        connection.sendall(request_bytes("POST", "/ingest", headers, body[:-cut]))
        # The TCP half alone: SSLSocket's own shutdown would forget how to read the answer.
        socket.socket.shutdown(connection, socket.SHUT_WR)
        with contextlib.suppress(OSError):
            data = connection.recv(65536)
        # Closed without an answer, or a 400 in the contract's form.
        if data:
            assert data.startswith(b"HTTP/1.1 400")
            assert json.loads(data.partition(b"\r\n\r\n")[2])["error"] == "invalid_request"
    count = db.execute("SELECT count(*) FROM public.events WHERE id = %s", (event["id"],)).fetchone()
    assert count == (0,)


def test_a_client_that_leaves_before_its_answer_does_no_harm(stack, monitor, client, db):
    event = monitor.event()
    body = encode([event])
    headers = [("Host", "localhost"), ("Content-Length", str(len(body))), ("X-Source-ID", monitor.source),
               ("X-Signature", monitor.sign(body))]
    for _ in range(5):
        connection = stack.socket(next(addresses))
        connection.sendall(request_bytes("POST", "/ingest", headers, body))
        connection.close()
    assert monitor.post(client, [event]).status_code == 200
    assert db.execute("SELECT count(*) FROM public.events WHERE id = %s", (event["id"],)).fetchone() == (1,)


@pytest.mark.last(1)
def test_a_client_that_is_too_slow_is_disconnected(slow_clients):
    for name, slow in slow_clients.items():
        wait_for(lambda: slow.closed, f"the client with a slow {name} to be cut off", 75)
        assert b"HTTP/1.1 2" not in slow.received and b"HTTP/1.1 5" not in slow.received


@pytest.fixture(scope="session", autouse=True)
def question_without_end(second_stack):
    """A question to a program that is stopped in its tracks: begun with this file, as nginx waits 25 s for it."""
    pid = second_stack.pid("query")
    os.kill(pid, signal.SIGSTOP)
    result = {}

    def ask():
        with second_stack.client(timeout=60 * SLOWNESS) as client:
            started = time.monotonic()
            result["answer"] = client.get("/query", headers={"Authorization": f"Bearer {second_stack.token}"})
            result["seconds"] = time.monotonic() - started

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    def answered():
        asking.join(60 * SLOWNESS)
        os.kill(pid, signal.SIGCONT)
        return result

    yield answered
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)


@pytest.mark.last(1)
def test_a_program_that_does_not_answer_is_503_within_the_30_seconds_a_monitor_waits(question_without_end):
    result = question_without_end()
    check_error(result["answer"], 503, "unavailable")
    assert result["seconds"] < 30
