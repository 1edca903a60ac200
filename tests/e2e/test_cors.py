"""A page on another origin may send requests and read the answers."""

import pytest

from wire import ENDPOINTS, check_error, check_headers, check_json, header, header_list

pytestmark = pytest.mark.contract

ORIGIN = "https://dashboard.example"


def names(answer, header_name):
    return {name.strip().lower() for name in (header(answer, header_name) or "").split(",")}


@pytest.mark.parametrize("path", ENDPOINTS)
def test_a_preflight_is_answered_204_without_credentials(path, client):
    answer = client.options(path)
    assert answer.status_code == 204 and answer.content == b""
    check_headers(answer)
    assert header(answer, "Access-Control-Allow-Headers") == (
        "Authorization, Content-Type, X-Source-ID, X-Signature, apikey, x-client-info")
    assert header(answer, "Access-Control-Max-Age") == "86400"


@pytest.mark.parametrize("path", ENDPOINTS)
def test_a_preflight_names_the_methods_of_its_endpoint(path, client):
    methods = names(client.options(path), "Access-Control-Allow-Methods")
    expected = {"post", "options"} if path.endswith("ingest") else {"get", "head", "options"}
    assert expected - {"options"} <= methods <= expected


@pytest.mark.parametrize("path", ENDPOINTS)
def test_a_preflight_may_have_a_query_string(path, client):
    assert client.options(f"{path}?days=30&source=x").status_code == 204


def test_a_browser_reads_the_counts_after_a_preflight(client, token):
    preflight = client.options("/functions/v1/query?days=7", headers={
        "Origin": ORIGIN, "Access-Control-Request-Method": "GET",
        "Access-Control-Request-Headers": "authorization,content-type"})
    assert 200 <= preflight.status_code < 300
    assert header(preflight, "Access-Control-Allow-Origin") in ("*", ORIGIN)
    assert "get" in names(preflight, "Access-Control-Allow-Methods")
    assert {"authorization", "content-type"} <= names(preflight, "Access-Control-Allow-Headers")
    answer = client.get("/functions/v1/query?days=7", headers={
        "Origin": ORIGIN, "Authorization": f"Bearer {token}", "Content-Type": "application/json"})
    assert answer.status_code == 200
    assert header(answer, "Access-Control-Allow-Origin") in ("*", ORIGIN)
    assert check_json(answer)["aggregates"] is not None


def test_the_headers_of_supabase_js_are_allowed_and_ignored(client, token):
    more = {"apikey": "anon", "x-client-info": "supabase-js/2.39.0"}
    preflight = client.options("/query", headers={"Origin": ORIGIN, "Access-Control-Request-Method": "GET",
                                                  "Access-Control-Request-Headers": "apikey,authorization,x-client-info"})
    assert set(more) <= names(preflight, "Access-Control-Allow-Headers")
    assert client.get("/query", headers={"Authorization": f"Bearer {token}", **more}).status_code == 200
    # An API key is no token.
    check_error(client.get("/query", headers={**more, "apikey": token}), 401, "missing_auth")


def test_a_browser_may_send_a_batch(client):
    preflight = client.options("/ingest", headers={
        "Origin": ORIGIN, "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "content-type,x-source-id,x-signature"})
    assert "post" in names(preflight, "Access-Control-Allow-Methods")
    assert {"content-type", "x-source-id", "x-signature"} <= names(preflight, "Access-Control-Allow-Headers")


@pytest.mark.parametrize("origin", [ORIGIN, "null", "http://localhost:5173", "x"])
def test_an_error_can_be_read_on_any_origin(origin, client):
    answer = client.get("/query", headers={"Origin": origin})
    assert answer.status_code == 401
    check_json(answer)


@pytest.mark.parametrize("path", [*ENDPOINTS, "/", "/nowhere"])
def test_the_allowed_origin_is_sent_once(path, client):
    assert header_list(client.get(path, headers={"Origin": ORIGIN}), "Access-Control-Allow-Origin") == ["*"]


def test_credentials_do_not_change_a_preflight(client, token):
    answer = client.options("/query", headers={"Authorization": f"Bearer {token}"})
    assert answer.status_code == 204


def test_only_the_endpoints_have_preflights(client):
    assert client.options("/nowhere").status_code == 404
