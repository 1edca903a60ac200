"""The form that every answer must have, and a way to send bytes that no client library would."""

import contextlib
import http.client
import io
import itertools
import json
import re
import select
import ssl
from email.message import Message

import conformance

# In every payload that the tests send and in most invalid values, so that logs and answers can be searched for it.
MARKER = "qzxMARKERqzx"

# What must not be in a log: tokens, signatures, keys.
SECRETS = set()

ENDPOINTS = ["/ingest", "/query", "/functions/v1/ingest", "/functions/v1/query"]
INGEST_PATHS = ["/ingest", "/functions/v1/ingest"]
QUERY_PATHS = ["/query", "/functions/v1/query"]

ALLOW = {"ingest": "POST, OPTIONS", "query": "GET, HEAD, OPTIONS"}


class RawAnswer:
    """An answer read from a socket, with the attributes of httpx's that the checks use."""

    def __init__(self, status_code, headers, content):
        self.status_code = status_code
        self.headers = headers
        self.content = content
        self.text = content.decode("utf-8", "replace")

    def json(self):
        return json.loads(self.content)


def header_list(answer, name):
    """All values of one header: a repeated header is an error too."""
    if isinstance(answer.headers, Message):
        return answer.headers.get_all(name, [])
    return answer.headers.get_list(name)


def header(answer, name):
    values = header_list(answer, name)
    assert len(values) <= 1, f"{name} stands {len(values)} times"
    return values[0] if values else None


def check_headers(answer, endpoint=True):
    """The headers that every answer carries."""
    assert re.fullmatch(r"[0-9a-f]{32}", header(answer, "X-Request-ID") or "")
    assert header(answer, "Access-Control-Allow-Origin") == "*"
    assert header(answer, "Access-Control-Expose-Headers") == "Retry-After, X-Request-ID"
    assert header(answer, "X-Content-Type-Options") == "nosniff"
    assert header(answer, "Access-Control-Allow-Credentials") is None
    if endpoint:
        assert header(answer, "Cache-Control") == "no-store"


def check_json(answer, endpoint=True):
    check_headers(answer, endpoint)
    assert header(answer, "Content-Type") == "application/json"
    return answer.json()


def check_retry_after(answer):
    assert re.fullmatch(r"[1-5]", header(answer, "Retry-After") or ""), header(answer, "Retry-After")


def check_error(answer, status, code, endpoint=True):
    """Check an error in the contract's form; returns its body."""
    assert answer.status_code == status, f"{answer.status_code}: {answer.text[:400]}"
    body = check_json(answer, endpoint)
    assert body["error"] == code, body
    assert isinstance(body["message"], str) and body["message"].strip()
    assert set(body) <= {"error", "message", "index", "rejected"}
    check_nothing_echoed(answer)
    if status in (429, 503):
        check_retry_after(answer)
    return body


def check_refused(answer, *allowed):
    """Check an error that may be one of several (status, code) pairs by the contract."""
    pair = (answer.status_code, answer.json().get("error"))
    assert pair in allowed, f"{pair}: {answer.text[:400]}"
    return check_error(answer, *pair)


def check_nothing_echoed(answer):
    check_nothing_quoted(answer.text)


def check_nothing_quoted(text):
    """Check that a text has no payload and no secret."""
    assert MARKER not in text
    assert secrets_in(text) == []


def secrets_in(text):
    return [secret for secret in SECRETS if len(secret) > 8 and secret in text]


def check_rejected(answer, expected):
    """Check a 422 that lists exactly these (index, code) pairs and names the first."""
    body = check_error(answer, 422, expected[0][1])
    assert body["index"] == expected[0][0]
    assert [(entry["index"], entry["error"]) for entry in body["rejected"]] == expected
    assert all(set(entry) == {"index", "error", "message"} and entry["message"] for entry in body["rejected"])
    assert str(expected[0][0]) in body["message"]
    return body


def read_answer(connection, method="POST", sent=None):
    """Read one answer; sent is the request, if known."""
    answer = http.client.HTTPResponse(connection, method=method)
    answer.begin()
    read = RawAnswer(answer.status, answer.headers, answer.read())
    conformance.record_raw(sent, read, method)
    return read


def read_answers(connection, sent=()):
    """Read all answers up to the end of the connection; sent are the requests, if known."""
    stream = connection.makefile("rb")
    sent = iter(sent)
    while line := stream.readline():
        headers = http.client.parse_headers(stream)
        read = RawAnswer(int(line.split()[1]), headers, stream.read(int(headers.get("Content-Length", 0))))
        conformance.record_raw(next(sent, None), read, "GET")
        yield read


def pipelined(stack, address, requests):
    """The answers to requests that are sent without waiting for the answers in between."""
    requests = iter(requests)
    # nginx closes a connection after 1000 requests.
    while part := list(itertools.islice(requests, 900)):
        with stack.socket(address, timeout=60) as connection:
            connection.sendall(b"".join(part))
            yield from itertools.islice(read_answers(connection, part), len(part))


class Replay(io.RawIOBase):
    """What was already read from a connection, followed by the rest, as http.client reads it."""

    def __init__(self, begun, connection):
        self.begun = begun
        self.connection = connection

    def makefile(self, _mode):
        return io.BufferedReader(self)

    def readable(self):
        return True

    def readinto(self, buffer):
        data = self.begun or self.connection.recv(len(buffer))
        self.begun = data[len(buffer):]
        data = data[:len(buffer)]
        buffer[:len(data)] = data
        return len(data)


def exchange(connection, data, method="POST"):
    """Send bytes and read one answer, even if the server answers before it has read them all."""
    timeout = connection.gettimeout()
    connection.setblocking(False)
    begun, rest = b"", memoryview(data)
    # A server that stops reading may have answered.
    with contextlib.suppress(OSError):
        while rest and not begun:
            select.select([connection], [connection], [], timeout)
            with contextlib.suppress(ssl.SSLWantReadError, ssl.SSLWantWriteError):
                rest = rest[connection.send(rest[:65536]):]
            with contextlib.suppress(ssl.SSLWantReadError, ssl.SSLWantWriteError):
                begun = connection.recv(65536)
    connection.settimeout(timeout)
    return read_answer(Replay(begun, connection), method, data)


def request_bytes(method, target, headers, body=b"", version="HTTP/1.1"):
    out = io.BytesIO()
    out.write(f"{method} {target} {version}\r\n".encode("latin-1"))
    for name, value in headers:
        out.write(f"{name}: {value}\r\n".encode("latin-1"))
    out.write(b"\r\n" + body)
    return out.getvalue()
