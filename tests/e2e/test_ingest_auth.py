"""Authentication of batches, and the order of the refusals."""

import base64

import pytest

from conftest import stored
from monitor import ABSENT, Monitor, base64_text, encode
from stack import addresses
from wire import (ALLOW, INGEST_PATHS, SECRETS, check_error, check_headers, check_json, check_refused, exchange, header,
                  request_bytes)


@pytest.mark.parametrize("path", INGEST_PATHS)
def test_a_signed_batch_is_stored_under_both_paths(path, client, monitor, db):
    event = monitor.event()
    answer = monitor.post(client, [event], path)
    assert answer.status_code == 200
    body = check_json(answer)
    assert set(body) == {"inserted", "duplicates", "message"}
    assert (body["inserted"], body["duplicates"]) == (1, 0) and body["message"]
    assert stored(db, event["id"]).source == monitor.source


@pytest.mark.contract
@pytest.mark.parametrize("path", INGEST_PATHS)
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "BREW"])
def test_a_method_other_than_post_is_refused_before_the_credentials_are_checked(path, method, client):
    answer = client.request(method, path)
    check_error(answer, 405, "method_not_allowed")
    assert header(answer, "Allow") == ALLOW["ingest"]


@pytest.mark.contract
@pytest.mark.parametrize("path", INGEST_PATHS)
def test_head_is_refused_with_headers_only(path, client):
    answer = client.head(path)
    check_headers(answer)
    assert answer.status_code == 405 and answer.content == b""
    assert header(answer, "Allow") == ALLOW["ingest"]


@pytest.mark.contract
@pytest.mark.parametrize("changes", [
    {"X-Source-ID": ABSENT}, {"X-Signature": ABSENT}, {"X-Source-ID": ABSENT, "X-Signature": ABSENT},
    {"X-Source-ID": ""}, {"X-Signature": ""},
], ids=str)
def test_a_missing_or_empty_header_is_missing_auth(changes, client, monitor):
    body = encode([monitor.event()])
    check_error(client.post("/ingest", content=body, headers=monitor.headers(body, **changes)), 401, "missing_auth")


@pytest.mark.contract
def test_missing_auth_comes_before_unknown_source(client):
    check_error(client.post("/ingest", content=b"x", headers={"X-Source-ID": "nobody-knows"}), 401, "missing_auth")


@pytest.mark.contract
@pytest.mark.parametrize("signature", ["x", "A" * 88])
def test_unknown_source_comes_before_the_signature_is_checked(signature, client):
    headers = {"X-Source-ID": "nobody-knows", "X-Signature": signature}
    check_error(client.post("/ingest", content=b"[]", headers=headers), 401, "unknown_source")


@pytest.mark.contract
def test_a_good_signature_of_an_unregistered_monitor_is_unknown_source(client, contents):
    stranger = Monitor("nobody-knows")
    before = contents()
    check_error(stranger.post(client, [stranger.event()]), 401, "unknown_source")
    assert contents() == before


@pytest.mark.contract
@pytest.mark.parametrize("name", [
    "E2E-MONITOR", "e2e-monito", "e2e-monitor2", "e2e-monitor\x7f", "e2e-monitor%00", "e2e-monitor,", "*", "%",
    "' OR '1'='1", "x" * 256, "x" * 4000,
], ids=ascii)
def test_a_source_is_known_by_its_exact_name_only(name, client, monitor):
    body = b"[]"
    headers = [(b"X-Source-ID", name.encode("latin-1")), (b"X-Signature", monitor.sign(body).encode())]
    answer = client.post("/ingest", content=body, headers=headers)
    # nginx may refuse a control character in a header before the name is looked up.
    if "\x7f" in name:
        check_refused(answer, (401, "unknown_source"), (400, "invalid_request"))
    else:
        check_error(answer, 401, "unknown_source")


def raw_post(stack, body, *headers):
    """Post with spaces around the values of headers, which client libraries would strip."""
    with stack.socket(next(addresses)) as connection:
        length = ("Content-Length", str(len(body)))
        return exchange(connection, request_bytes("POST", "/ingest", [("Host", "localhost"), length, *headers], body))


@pytest.mark.contract
def test_spaces_around_the_value_of_a_header_are_ignored(stack, monitor):
    body = encode([monitor.event()])
    answer = raw_post(stack, body, ("X-Source-ID", f"  {monitor.source} "), ("X-Signature", f" {monitor.sign(body)}  "))
    assert answer.status_code == 200


@pytest.mark.contract
@pytest.mark.parametrize("blank", ["X-Source-ID", "X-Signature"])
def test_a_header_of_spaces_counts_as_empty(blank, stack, monitor):
    headers = monitor.headers(b"[]") | {blank: "   "}
    check_error(raw_post(stack, b"[]", *headers.items()), 401, "missing_auth")


BAD_SIGNATURES = {
    "of other bytes": lambda signature, monitor: monitor.sign(b"[ ]"),
    "one bit off": lambda signature, _: base64_text(bytes([base64.b64decode(signature)[0] ^ 1]) + base64.b64decode(signature)[1:]),
    "without padding": lambda signature, _: signature.rstrip("="),
    "the public key": lambda _, monitor: monitor.public_base64,
    "very long": lambda *_: "A" * 7000,
}


@pytest.mark.contract
@pytest.mark.parametrize("how", BAD_SIGNATURES)
def test_a_bad_signature_is_refused(how, refused, monitor):
    body = encode([monitor.event()])
    signature = BAD_SIGNATURES[how](monitor.sign(body), monitor)
    SECRETS.add(signature)
    check_error(refused(body, headers={"X-Signature": signature}), 401, "invalid_signature")


@pytest.mark.contract
def test_the_key_of_another_monitor_is_refused(client, monitor, other_monitor, contents):
    body = encode([monitor.event()])
    before = contents()
    answer = client.post("/ingest", content=body,
                         headers={"X-Source-ID": monitor.source, "X-Signature": other_monitor.sign(body)})
    check_error(answer, 401, "invalid_signature")
    assert contents() == before


@pytest.mark.contract
def test_the_signature_covers_the_exact_bytes_of_the_body(client, monitor, contents):
    body = encode([monitor.event()])
    before = contents()
    for changed in (body + b" ", body + b"\n", body.replace(b'"tool"', b'"TOOL"'), body[:-1], b" " + body):
        answer = client.post("/ingest", content=changed, headers=monitor.headers(body))
        check_error(answer, 401, "invalid_signature")
    assert contents() == before


@pytest.mark.contract
@pytest.mark.parametrize("body", [b"", b"not json", b"[{}]"], ids=ascii)
def test_invalid_signature_comes_before_the_body_is_parsed(body, client, monitor):
    headers = {"X-Source-ID": monitor.source, "X-Signature": "A" * 86 + "=="}
    check_error(client.post("/ingest", content=body, headers=headers), 401, "invalid_signature")


@pytest.mark.contract
def test_an_authorization_header_does_not_authenticate_a_batch(client, token):
    answer = client.post("/ingest", content=b"[]", headers={"Authorization": f"Bearer {token}"})
    check_error(answer, 401, "missing_auth")


@pytest.mark.parametrize("first_is_good", [True, False])
@pytest.mark.parametrize("name", ["X-Source-ID", "X-Signature"])
def test_a_repeated_header_is_refused_or_the_first_value_counts(name, first_is_good, client, monitor, other_monitor, db, nginx_version):
    # The contract doesn't say which. Since 1.23.0 nginx joins the values with a comma.
    event = monitor.event()
    body = encode([event])
    good = list(monitor.headers(body).items())
    bad = (name, {"X-Source-ID": other_monitor.source, "X-Signature": other_monitor.sign(body)}[name])
    answer = client.post("/ingest", content=body, headers=[*good, bad] if first_is_good else [bad, *good])
    row = stored(db, event["id"])
    if nginx_version < (1, 23) and first_is_good:
        assert (answer.status_code, row.source) == (200, monitor.source)
    else:
        joined = name == "X-Source-ID" and nginx_version >= (1, 23)
        check_error(answer, 401, "unknown_source" if joined else "invalid_signature")
        assert row is None


@pytest.mark.contract
def test_a_header_with_underscores_is_ignored(client, monitor):
    body = b"[]"
    headers = {"X_Source_ID": monitor.source, "X_Signature": monitor.sign(body)}
    check_error(client.post("/ingest", content=body, headers=headers), 401, "missing_auth")


@pytest.mark.contract
@pytest.mark.parametrize("body, status, code", [
    (b"", 400, "invalid_request"),
    (b"[]", 400, "empty_batch"),
    (b"[{}]", 422, "invalid_event_id"),
], ids=ascii)
def test_the_body_is_checked_after_a_valid_signature(body, status, code, refused):
    check_error(refused(body), status, code)


@pytest.mark.contract
def test_batch_too_large_comes_before_the_errors_of_events(refused):
    check_error(refused(b"[" + b",".join([b"{}"] * 1001) + b"]"), 400, "batch_too_large")


@pytest.mark.contract
def test_invalid_json_comes_before_the_errors_of_events(refused):
    check_error(refused(b"[{},{]"), 400, "invalid_request")
