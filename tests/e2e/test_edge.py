"""nginx's own answers, and the form that every answer has."""

import contextlib
import os
import re
import signal
import ssl
import threading
import time

import pytest

from monitor import encode
from stack import SLOWNESS, addresses, wait_for
from test_overload import in_hand
from wire import ENDPOINTS, Replay, check_error, check_headers, header, pipelined, read_answer, request_bytes


@pytest.mark.contract
@pytest.mark.parametrize("path, kind", [("/", "text/html"), ("/page.js", "application/javascript"), ("/style.css", "text/css"),
                                        ("/icon.svg", "image/svg+xml"), ("/config.json", "application/json")])
def test_the_page_and_its_files_are_served_with_the_common_headers_and_their_policy(path, kind, client):
    answer = client.get(path)
    assert answer.status_code == 200
    assert header(answer, "Content-Type").split(";")[0] == kind
    check_headers(answer, endpoint=False)
    policy = header(answer, "Content-Security-Policy")
    assert policy.startswith("default-src 'self';") and "unsafe" not in policy


@pytest.mark.contract
@pytest.mark.parametrize("path", ["/", "/page.js", "/config.json"])
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_the_page_can_only_be_read(method, path, client):
    check_error(client.request(method, path), 405, "method_not_allowed", endpoint=False)


@pytest.mark.contract
@pytest.mark.parametrize("method, target", [("GET", "/query"), ("POST", "/ingest"), ("PUT", "/ingest"), ("OPTIONS", "/query"),
                                            ("GET", "/"), ("GET", "/nowhere")])
def test_the_status_line_has_a_space_after_its_code(method, target, stack):
    # RFC 9112, 4: the reason may be empty, but not the space before it.
    headers = [("Host", "localhost"), ("Content-Length", "0"), ("Connection", "close")]
    with stack.socket(next(addresses)) as connection:
        connection.sendall(request_bytes(method, target, headers))
        assert re.match(rb"HTTP/1\.1 \d{3} [\w ]*\r\n", connection.makefile("rb").readline())


@pytest.mark.contract
def test_a_request_id_sent_by_a_client_is_ignored(client):
    sent = "0123456789abcdef0123456789abcdef"
    answer = client.get("/query", headers={"X-Request-ID": sent})
    check_headers(answer)
    assert header(answer, "X-Request-ID") != sent


@pytest.mark.contract
def test_every_answer_has_a_request_id_of_its_own(client):
    ids = {header(client.get(path), "X-Request-ID") for path in [*ENDPOINTS, "/", "/nowhere"] * 3}
    assert len(ids) == 18


def test_a_request_can_be_found_in_both_logs_by_its_id(stack, client, monitor, query):
    # Strangers' requests have no line each: see test_strangers.py.
    for name, answer in [("ingest", monitor.post(client, [monitor.event()])), ("ingest", monitor.post(client, "[]")),
                         ("query", query()), ("query", query("?days=8"))]:
        request_id = header(answer, "X-Request-ID")
        wait_for(lambda: request_id in stack.log_text(name), f"{answer.status_code} in {name}.log", 10)
        wait_for(lambda: request_id in stack.log_text("access"), f"{answer.status_code} in access.log", 10)


@pytest.mark.contract
@pytest.mark.parametrize("host, expected", [
    ("localhost", False), ("localhost:8443", False), ("127.0.0.1", False), ("127.0.0.1:8443", False), ("[::1]", False),
    ("[::1]:8443", False), ("10.1.2.3", False), ("[2001:db8::1]", False), ("LOCALHOST", False),
    ("steep.example", True), ("steep.example:8443", True), ("localhost.example", True), ("10.example", True),
])
@pytest.mark.parametrize("path", ["/query", "/", "/nowhere"])
def test_strict_transport_security_is_sent_for_host_names_only(path, host, expected, client):
    value = header(client.get(path, headers={"Host": host}), "Strict-Transport-Security")
    assert (value is not None) == expected
    assert not expected or "max-age=63072000" in value


@pytest.mark.contract
@pytest.mark.parametrize("path", [*ENDPOINTS, "/", "/nowhere"])
def test_no_answer_has_the_version_of_the_server(path, client):
    answer = client.get(path)
    assert not any(letter.isdigit() for letter in header(answer, "Server") or "")
    assert header(answer, "X-Powered-By") is None


@pytest.mark.contract
def test_too_many_requests_from_one_address_are_429_while_others_are_served(stack, query):
    let_through = 0
    # How many it takes to reach the limit depends on their rate.
    for answer in pipelined(stack, "127.0.0.9", [request_bytes("GET", "/query", [("Host", "localhost")])] * 5400):
        if answer.status_code == 429:
            break
        check_error(answer, 401, "missing_auth")
        let_through += 1
    check_error(answer, 429, "rate_limited")
    # After an outage a monitor sends its backlog at once: the burst must pass.
    assert let_through >= 500
    assert query().status_code == 200


@pytest.mark.contract
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
        # Requests above the limit are answered before their bodies arrive.
        answer = wait_for(lambda: first_answer(slow), "the limit to be met")
        check_error(read_answer(answer), 429, "rate_limited")
        assert query().status_code == 200


@pytest.mark.contract
def test_a_limited_address_is_served_again_after_a_while(stack):
    with stack.client("127.0.0.9") as limited:
        wait_for(lambda: limited.get("/query").status_code == 401, "the address to be served", every=0.5)


def test_a_missing_program_is_503_from_nginx(stack, client, monitor):
    socket_file = stack.state / "run" / "ingest.sock"
    away = socket_file.with_name("ingest.sock.away")
    socket_file.rename(away)
    try:
        wait_for(lambda: in_hand(stack) == 0, "nginx to close the connections that it keeps")
        check_error(monitor.post(client, [monitor.event()]), 503, "unavailable")
        check_headers(client.options("/ingest"))
    finally:
        away.rename(socket_file)
    wait_for(lambda: monitor.post(client, [monitor.event()]).status_code == 200, "nginx to try the socket again", 30)


def test_a_client_that_disconnects_before_its_answer_does_no_harm(stack, monitor, client, db):
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


@pytest.mark.contract
@pytest.mark.last(1)
def test_a_client_that_is_too_slow_is_disconnected(slow_clients):
    for name, slow in slow_clients.items():
        wait_for(lambda: slow.closed, f"the client with a slow {name} to be cut off", 75)
        assert b"HTTP/1.1 2" not in slow.received and b"HTTP/1.1 5" not in slow.received
    # In a rush, nginx may need as long for a monitor's handshake as the monitor waits.
    assert slow_clients["header"].closed - slow_clients["header"].opened > 25


@pytest.fixture(scope="session", autouse=True)
def question_without_end(second_stack):
    """A query to a suspended program, started with this file, as nginx waits 25 s for the answer."""
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
