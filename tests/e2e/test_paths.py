"""What each path means, however it is spelled and whatever the host and method."""

import pytest

from conftest import query_with
from stack import addresses
from wire import ALLOW, ENDPOINTS, check_error, check_json, header, request_bytes

pytestmark = pytest.mark.contract

EVIL = "evil.example"


@pytest.mark.parametrize("path", ["/nowhere", "/functions/v1/nowhere", "/functions/v1/", "/functions/", "/functions", "/ingest/",
                                  "/query/", "/ingest/x", "/queryx", "/ingest.fcgi", "/functions/v2/query", "/INGEST",
                                  "/.git/config", "/run.env", "/index.php", "/_error", "/favicon.php", "/%00", "/%zz",
                                  "/nowhere?token=x"])
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_any_other_path_is_not_found(method, path, raw):
    # Sent as bytes, as a client library would normalize these. nginx refuses a path that it cannot decode.
    answer = raw(request_bytes(method, path, [("Host", "localhost"), ("Content-Length", "0")]), method)
    if path in ("/%00", "/%zz"):
        check_error(answer, 400, "invalid_request", endpoint=False)
    else:
        check_error(answer, 404, "not_found", endpoint=False)


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


@pytest.mark.parametrize("base", ["/functions/v1" * n for n in (0, 1, 2, 3, 20)] + ["/functions/v1//functions/v1/"])
def test_the_base_path_may_be_repeated(base, client, monitor, token):
    answers = [monitor.post(client, [monitor.event()], path=f"{base}/ingest"), query_with(client, token, path=f"{base}/query?days=30")]
    assert [answer.status_code for answer in answers] == [200, 200]
    assert (client.options(f"{base}/ingest").status_code, client.options(f"{base}/query").status_code) == (204, 204)
    for endpoint in ("ingest", "query"):
        refused = client.delete(f"{base}/{endpoint}")
        check_error(refused, 405, "method_not_allowed")
        assert header(refused, "Allow") == ALLOW[endpoint]


@pytest.mark.parametrize("path", ["/functions/v1/functions/v1", "/functions/v1/functions/v1/", "/functions/v1/functions/query",
                                  "/functions/v1functions/v1/query", "/functions/v1/functions/v2/query", "/x/functions/v1/query",
                                  "/functions/v1/functions/v1/healthz/ingest"])
def test_nothing_else_is_at_a_repeated_base_path(path, client):
    check_error(client.get(path), 404, "not_found", endpoint=False)


@pytest.mark.parametrize("path", [
    "//query", "///query", "/./query", "/x/../query", "/x/..%2fquery", "/%71uery", "/quer%79", "/query/../query", "/query#x",
    "/functions//v1//query", "//functions/v1/query", "/functions%2fv1%2fquery", "/functions/v1/../../query",
    f"http://{EVIL}/query", f"HTTPS://{EVIL}:99/query", "http://[::1]/query?days=7",
])
def test_another_spelling_of_an_endpoint_needs_credentials_too(path, raw):
    check_error(raw(request_bytes("GET", path, [("Host", "localhost")]), "GET"), 401, "missing_auth")


@pytest.mark.parametrize("path", ["/QUERY", "/Functions/v1/query", "/query/", "/query%2f", "/query/.", "/query;x", "/query%20",
                                  "/query%3fdays=7", "/query%23", "/query%0a", "/query%0d%0aX:y", "/%5cquery", "/query\\",
                                  "/functions\\v1\\query", "/functions/v1/query/..;/", "/query\xff", "/qu\xc3\xa9ry", "//_error",
                                  "/%5ferror", "/x/../_error"], ids=ascii)
def test_what_only_looks_like_an_endpoint_is_not_found(path, raw):
    check_error(raw(request_bytes("GET", path, [("Host", "localhost")]), "GET"), 404, "not_found", endpoint=False)


@pytest.mark.parametrize("path", ["/..", "/../etc/passwd", "/..%2f..%2fetc%2fpasswd", "/%2e%2e/%2e%2e/etc/passwd",
                                  "/functions/../../etc/passwd", "/../run.env", "/../../run.env", "/..%5c..%5crun.env",
                                  "/..;/run.env", "/....//run.env", "/%c0%ae%c0%ae/run.env", "/%252e%252e/run.env",
                                  "/index.html/../../run.env", "/lib/nginx/html", "/index.html%00.env", "//../run.env",
                                  "/./../run.env", f"http://{EVIL}/../run.env"])
def test_no_path_leads_outside_the_page(path, raw):
    answer = raw(request_bytes("GET", path, [("Host", "localhost")]), "GET")
    assert answer.status_code in (400, 404)
    check_json(answer, endpoint=False)


@pytest.mark.parametrize("method", ["TRACE", "CONNECT", "TRACK", "DELETE"])
@pytest.mark.parametrize("path, endpoint", [("//query", "query"), ("/functions//v1//ingest", "ingest")])
def test_a_405_at_a_path_with_double_slashes_names_the_methods(path, endpoint, method, raw):
    answer = raw(request_bytes(method, path, [("Host", "localhost")]), method)
    assert (answer.status_code, header(answer, "Allow")) == (405, ALLOW[endpoint])


@pytest.mark.parametrize("method", ["GE\0T", "GET\t", "G\xc3T", "get", "G;T", 'G"T'], ids=ascii)
def test_an_invalid_method_is_invalid_request(method, raw):
    check_error(raw(request_bytes(method, "/query", [("Host", "localhost")])), 400, "invalid_request", endpoint=False)


def test_an_oversized_method_is_refused(raw):
    check_error(raw(request_bytes("M" * 9000, "/query", [("Host", "localhost")])), 414, "uri_too_long", endpoint=False)


def everything(stack, target, headers):
    """The whole answer as text."""
    with stack.socket(next(addresses)) as connection:
        connection.sendall(request_bytes("GET", target, [*headers, ("Connection", "close")]))
        return connection.makefile("rb").read().decode("latin-1")


@pytest.mark.parametrize("target", ["/query", "/", "/nowhere", "/functions", f"http://{EVIL}/nowhere"])
@pytest.mark.parametrize("host", [EVIL, f"{EVIL}:99", f'{EVIL}"><script>', f"{EVIL},localhost", f"{EVIL}'{{}}"])
def test_no_answer_repeats_the_host_header(host, target, stack):
    answer = everything(stack, target, [("Host", host)])
    assert "evil" not in answer and "Location" not in answer
    assert answer.startswith("HTTP/1.1 ") and "X-Request-ID" in answer


@pytest.mark.parametrize("host", ["", "..", "a..b", "a b", "localhost/", "localhost\0", "localhost\t", "%0d%0aX: y"], ids=ascii)
def test_an_invalid_host_is_invalid_request(host, raw):
    check_error(raw(request_bytes("GET", "/query", [("Host", host)]), "GET"), 400, "invalid_request", endpoint=False)


@pytest.mark.parametrize("name, value", [
    ("X-Original-URL", "/ingest"), ("X-Rewrite-URL", "/ingest"), ("X-Accel-Redirect", "/_error"),
    ("X-HTTP-Method-Override", "DELETE"), ("X-Forwarded-Host", EVIL), ("X-Forwarded-For", "127.0.0.1"), ("Forwarded", f"host={EVIL}"),
    ("Proxy", f"http://{EVIL}"), ("Expect", "x"), ("Range", "bytes=0-1"), ("If-Match", '"x"'), ("Cookie", "x" * 7000),
    ("Proxy-Authorization", "Bearer x"), ("Origin", f"https://{EVIL}\xff"),
])
def test_headers_that_other_servers_obey_are_ignored(name, value, stack):
    answer = everything(stack, "/query", [("Host", "localhost"), (name, value)])
    assert " 401 " in answer.partition("\r\n")[0] and '"missing_auth"' in answer and EVIL not in answer


@pytest.mark.parametrize("upgrade", ["h2c", "websocket", "TLS/1.2"])
def test_a_connection_is_not_upgraded(upgrade, stack):
    answer = everything(stack, "/query", [("Host", "localhost"), ("Upgrade", upgrade), ("HTTP2-Settings", "AAMAAABkAAQAAP__"),
                                          ("Sec-WebSocket-Key", "x")])
    assert " 401 " in answer.partition("\r\n")[0]
