"""The description of the API is served and valid, and every answer of the session matches it."""

import json
import re

import pytest

import conformance
from conformance import Description
from stack import ROOT, addresses, wait_for
from wire import check_error, check_headers, exchange, header, pipelined, request_bytes


@pytest.fixture(scope="module")
def description():
    return Description.read()


@pytest.mark.contract
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_the_description_is_served(method, client):
    answer = client.request(method, "/openapi.yaml")
    assert answer.status_code == 200
    assert header(answer, "Content-Type") == "application/yaml"
    check_headers(answer, endpoint=False)
    assert method == "HEAD" or answer.content == conformance.FILE.read_bytes()


def test_its_version_is_that_of_the_programs(description):
    version = re.search(r"^VERSION = (\S+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)[1]
    assert description.document["info"]["version"] == version


def test_its_examples_match_its_schemas(description):
    contents = [(response["content"], f"{path} {status}") for path, _, responses in description.operations()
                for status, response in responses.items() if "content" in response]
    contents.append((description.document["paths"]["/ingest"]["post"]["requestBody"]["content"], "the batch"))
    examples = [(media["schema"], example, where) for content, where in contents for media in content.values()
                for example in [media[name] for name in ("example",) if name in media]
                + [each["value"] for each in media.get("examples", {}).values()]]
    assert len(examples) > 20
    assert [problem for schema, example, where in examples for problem in description.errors(schema, example, where)] == []


@pytest.mark.contract
def test_its_schema_accepts_the_batches_that_the_server_accepts(description, monitor, client):
    good = monitor.event()
    schema = description.document["paths"]["/ingest"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    batches = {200: [[good], [{**good, "type": "error", "more": 1}]],
               400: [[]],
               422: [[{**good, "id": "evt"}], [{**good, "eventType": "x"}], [{**good, "payload": []}], [{"id": "evt_1"}], [None]]}
    for status, several in batches.items():
        for batch in several:
            assert monitor.post(client, batch).status_code == status, batch
            assert (description.errors(schema, batch, "") == []) == (status == 200), batch


def served():
    """Each method and path that is described."""
    has_health = (ROOT / "nginx" / "snippets" / "health.conf").exists()
    for path, method, _ in Description.read().operations():
        if path.startswith("/metrics"):
            # These are on another listener; here, they are files that do not exist.
            continue
        if "{program}" not in path:
            yield method.upper(), path.format(file="")
        elif has_health:
            yield from ((method.upper(), path.format(program=program)) for program in ("ingest", "query"))


@pytest.fixture(scope="module")
def here(stack):
    """A client of the machine's own address."""
    with stack.client() as client:
        yield client


@pytest.mark.contract
@pytest.mark.parametrize("method, path", served())
@pytest.mark.parametrize("status, code, query, headers", [
    (400, "invalid_request", "", [("Host", "localhost"), ("X-Long", "x" * 9000)]),
    (413, "payload_too_large", "", [("Host", "localhost"), ("Content-Length", str(5 * 1024 * 1024 + 1))]),
    (414, "uri_too_long", "?" + "x" * 9000, [("Host", "localhost")]),
], ids=["400", "413", "414"])
def test_nginx_refuses_oversized_requests_at_every_path(status, code, query, headers, method, path, stack):
    with stack.socket(next(addresses)) as connection:
        answer = exchange(connection, request_bytes(method, path + query, headers), method)
    assert answer.status_code == status
    assert method == "HEAD" or check_error(answer, status, code)


@pytest.mark.contract
@pytest.mark.parametrize("method, path", [pair for pair in served() if pair[0] in ("GET", "HEAD") and pair[1] != "/query"])
def test_a_path_that_can_be_read_is_read_only(method, path, here):
    assert here.request(method, path).status_code == 200
    check_error(here.request("DELETE", path), 405, "method_not_allowed", endpoint=False)


@pytest.mark.contract
@pytest.mark.parametrize("method, path", [pair for pair in served() if pair[0] != "HEAD"])
def test_every_path_is_rate_limited(method, path, stack):
    sent = [request_bytes(method, path, [("Host", "localhost"), ("Content-Length", "0")])] * 900

    def flood():
        return any(answer.status_code == 429 for answer in pipelined(stack, "127.0.0.10", sent))

    wait_for(flood, "the address to be refused", 60)


@pytest.mark.outage
def test_a_program_whose_health_socket_is_gone_is_503(stack, here):
    asked = [path for method, path in served() if method == "GET" and path.startswith(("/healthz", "/readyz"))]
    listeners = {path.split("/")[2]: stack.state / "run" / f"{path.split('/')[2]}-health.sock" for path in asked}
    for listener in listeners.values():
        listener.rename(listener.with_name(f"{listener.name}.away"))
    try:
        for path in asked:
            check_error(here.get(path), 503, "unavailable")
        with stack.metrics_client(event_hooks={}) as local:
            for name in listeners:
                answer = local.get(f"/metrics/{name}")
                assert (answer.status_code, answer.json()["error"]) == (503, "unavailable")
    finally:
        for listener in listeners.values():
            listener.with_name(f"{listener.name}.away").rename(listener)
    for path in asked:
        wait_for(lambda: here.get(path).status_code == 200, "nginx to try the socket again", 30)


@pytest.mark.outage
@pytest.mark.parametrize("function, question", [
    ("bulk_insert_events(jsonb)", None), ("get_hourly_aggregates(integer, text)", ""),
    ("get_hourly_totals(integer, text, text[], text[])", "?group_by=hour"),
    ("get_source_totals(integer, text, text[], text[])", "?group_by=source"),
])
def test_a_missing_function_of_the_database_is_internal_error(function, question, db, monitor, client, query):
    name, arguments = function.split("(")
    db.execute(f"ALTER FUNCTION public.{function} RENAME TO away")
    try:
        answer = monitor.post(client, [monitor.event()]) if question is None else query(question)
    finally:
        db.execute(f"ALTER FUNCTION public.away({arguments} RENAME TO {name}")
    check_error(answer, 500, "internal_error")


@pytest.mark.contract
def test_a_file_supports_conditional_requests(client):
    answer = client.get("/style.css")
    assert client.get("/style.css", headers={"If-None-Match": header(answer, "ETag")}).status_code == 304
    assert client.get("/style.css", headers={"If-Match": '"another"'}).status_code == 412


GOOD_HEADERS = [("X-Request-ID", "0" * 32), ("X-Content-Type-Options", "nosniff"), ("Access-Control-Allow-Origin", "*"),
                ("Access-Control-Expose-Headers", "Retry-After, X-Request-ID"), ("Cache-Control", "no-store"),
                ("Content-Type", "application/json"), ("Date", "today")]
GOOD = {"inserted": 1, "duplicates": 0, "message": "One."}


def changed(**headers):
    return [(name, headers.get(name.replace("-", "_"), value)) for name, value in GOOD_HEADERS
            if headers.get(name.replace("-", "_"), value) is not None]


@pytest.mark.parametrize("status, headers, body, problem", [
    (200, GOOD_HEADERS, GOOD, None),
    (201, GOOD_HEADERS, GOOD, "status 201 is not described"),
    (200, GOOD_HEADERS, {**GOOD, "more": 1}, "'more' was unexpected"),
    (200, GOOD_HEADERS, {**GOOD, "inserted": "1"}, "is not of type 'integer'"),
    (200, GOOD_HEADERS, {"inserted": 1, "duplicates": 0}, "'message' is a required property"),
    (200, changed(X_Request_ID="x"), GOOD, "header x-request-id"),
    (200, changed(Cache_Control=None), GOOD, "header cache-control is missing"),
    (200, changed(Content_Type="text/html"), GOOD, "content type text/html is not described"),
    (200, [*GOOD_HEADERS, ("X-Powered-By", "x")], GOOD, "header x-powered-by is not described"),
    (200, [*GOOD_HEADERS, ("Cache-Control", "no-store")], GOOD, "header cache-control stands 2 times"),
    (401, GOOD_HEADERS, {"error": "missing_auth", "message": "x"}, None),
    (401, GOOD_HEADERS, {"error": "invalid_token", "message": "x"}, "'invalid_token' is not one of"),
    (503, GOOD_HEADERS, {"error": "unavailable", "message": "x"}, "header retry-after is missing"),
    (503, [*GOOD_HEADERS, ("Retry-After", "6")], {"error": "unavailable", "message": "x"}, "6 is greater than the maximum"),
    (405, [*GOOD_HEADERS, ("Allow", "PUT")], {"error": "method_not_allowed", "message": "x"}, "header allow"),
], ids=str)
def test_an_answer_that_differs_from_the_description_is_found(status, headers, body, problem, description):
    for path in ("/ingest", "/functions/v1/ingest"):
        found = description.check("POST", path, status, headers, json.dumps(body).encode())
        assert found == [] if problem is None else any(problem in each for each in found), found


@pytest.mark.parametrize("target, path", [("/query?days=7", "/query"), ("//query", "/query"), ("/a/../query", "/query"),
                                          ("/%71uery", "/query"), ("/query/", "/query/"), ("https://x/query", "/query"), ("https://x", "/"), ("/", "/"),
                                          ("localhost:443", None), ("*", None)])
def test_a_path_is_read_as_nginx_reads_it(target, path):
    assert conformance.path_of(target) == path


@pytest.mark.contract
@pytest.mark.last(7)
@pytest.mark.everywhere
def test_every_answer_matched_the_description(description):
    wrong = []
    for (method, path, status, _, body), headers in conformance.answers.items():
        for problem in description.check(method, path, status, headers, body):
            wrong.append(f"{method} {path}: {status}: {problem}: {body[:100]}")
    assert len(conformance.answers) > 10
    assert not wrong, "\n".join(wrong[:40])
