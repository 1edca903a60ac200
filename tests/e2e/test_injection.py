"""Names and paths that strangers send are values in logs and answers, and nothing more."""

import json
import re
import secrets
from urllib.parse import quote

import pytest

from monitor import Monitor
from stack import addresses, wait_for
from wire import check_error, header, request_bytes

# Paths are in the access log, so this is not the marker that no log may contain.
SENT = "qzxsentqzx"

# As Latin-1, which is how header values travel.
NAMES = ["a level=error", 'a" level=error b="', "a\\", 'a\\" status=200', "a=b", "a\tb", "a\x1b[31m", "é".encode().decode("latin-1"),
         "\xff\xfe", "\u202eabc".encode().decode("latin-1"), "\x85x", "%0Atime=1", "$request_id", "{}", "x" * 250]


def fields(line):
    """A line of a program's log as pairs, unquoted and unescaped."""
    pairs = re.findall(r'([a-z_]+)=("(?:[^"\\]|\\.)*"|[^ "]+)(?: |$)', line)
    assert " ".join(f"{key}={value}" for key, value in pairs) == line

    def plain(value):
        inner = value[1:-1] if value.startswith('"') else value
        return re.sub(r"\\(?:x([0-9a-f]{2})|(.))", lambda m: chr(int(m[1], 16)) if m[1] else m[2], inner)

    return [(key, plain(value)) for key, value in pairs]


@pytest.fixture
def logged(stack):
    """The only line of a log about an answer's request."""
    def find(name, answer):
        request_id = header(answer, "X-Request-ID")
        lines = wait_for(lambda: [line for line in stack.log_text(name).split("\n") if request_id in line],
                         f"the request in {name}.log")
        assert len(lines) == 1
        return lines[0]
    return find


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_the_name_of_a_monitor_is_one_value_of_its_log_line(name, stack, raw):
    headers = [("Host", "localhost"), ("Content-Length", "2"), ("X-Source-ID", name), ("X-Signature", "x")]
    sent = []

    def logged_line():
        answer = raw(request_bytes("POST", "/ingest", headers, b"[]"))
        check_error(answer, 401, "unknown_source")
        sent.append(header(answer, "X-Request-ID"))
        return [line for line in stack.log_text("ingest").split("\n") if any(each in line for each in sent)]

    # One a second has a line.
    line = fields(wait_for(logged_line, "one of the requests in ingest.log", every=0.2)[0])
    assert [key for key, _ in line if key != "left_out"] == ["time", "level", "event", "request_id", "status", "error", "source", "bytes", "ms"]
    assert (dict(line)["level"], dict(line)["status"], dict(line)["source"]) == ("info", "401", name)


@pytest.mark.parametrize("name", [*(name for name in NAMES if name.isprintable()), "é", "\u202eabc", "\U0001f600"], ids=ascii)
def test_the_source_of_a_query_is_one_value_of_its_log_line(name, query, logged):
    answer = query(f"?source={quote(name, safe='')}")
    assert answer.status_code == 200
    line = fields(logged("query", answer))
    assert [key for key, _ in line] == ["time", "level", "event", "request_id", "status", "token", "days", "rows", "source", "ms"]
    assert dict(line)["source"].encode("latin-1") == name.encode()


@pytest.mark.parametrize("grouping", ["hour", "source"])
def test_the_grouping_of_a_query_is_in_its_log_line(grouping, query, logged):
    line = fields(logged("query", query(f"?group_by={grouping}&source=x")))
    assert [key for key, _ in line] == ["time", "level", "event", "request_id", "status", "token", "days", "rows", "source", "group_by", "ms"]
    assert dict(line)["group_by"] == grouping


@pytest.mark.parametrize("path", ['/"},{"status":200,"x":"', "/a\\", '/\\"', "/\xe9", "/\u2028", "/%0a%0d", "/$status"], ids=ascii)
def test_a_path_is_one_value_of_its_log_line(path, raw, logged, token):
    # The path of an answer that is logged: that of a query, spelled another way.
    path = f"{path}/../query"
    headers = [("Host", "localhost"), ("Authorization", f"Bearer {token}")]
    answer = raw(request_bytes("GET", path.encode().decode("latin-1"), headers), "GET")
    assert answer.status_code == 200
    line = json.loads(logged("access", answer))
    assert list(line) == ["time", "request_id", "remote_address", "method", "path", "status", "bytes_received", "bytes_sent",
                          "duration", "program_status", "program_duration", "tls", "http"]
    # A path that is not plain ASCII is left out.
    assert (line["status"], line["path"]) == (answer.status_code, path if path.isascii() and path.isprintable() else "")


def test_headers_and_query_strings_are_not_logged(stack, raw, logged, token):
    sent = f"sent{secrets.token_hex(8)}"
    names = ["User-Agent", "Referer", "Origin", "Cookie", "X-Forwarded-For", "X-Request-ID", "Authorization", "X-Signature",
             "Content-Type", "Accept"]
    answer = raw(request_bytes("GET", f"/query?{sent}", [("Host", sent), *((name, sent) for name in names)]), "GET")
    check_error(answer, 401, "invalid_token")
    # A refusal is not in the access log; with a token, all the rest is.
    others = [(name, sent) for name in names if name != "Authorization"]
    answer = raw(request_bytes("GET", f"/query?{sent}", [("Host", sent), ("Authorization", f"Bearer {token}"), *others]), "GET")
    assert answer.status_code == 200
    logged("access", answer)
    assert [path.name for path in (stack.state / "log").iterdir() if sent in path.read_text(errors="replace")] == []


@pytest.mark.contract
@pytest.mark.parametrize("target, status", [(f"/query?{SENT}", 401), (f"/query?source={SENT}%00", 401), (f"/{SENT}", 404),
                                            (f"/query?{SENT}={'x' * 40000}", 414), (f"/%00{SENT}", 400)],
                         ids=lambda value: str(value)[:30])
def test_no_answer_repeats_what_was_sent(target, status, stack):
    stranger = Monitor(SENT)
    headers = [("Host", SENT), ("Connection", "close"), ("Origin", SENT), ("X-Request-ID", SENT), ("User-Agent", SENT),
               *stranger.headers(b"").items()]
    with stack.socket(next(addresses)) as connection:
        connection.sendall(request_bytes("GET", target, headers))
        answer = connection.makefile("rb").read().decode("latin-1")
    assert answer.startswith(f"HTTP/1.1 {status} ") and SENT not in answer
