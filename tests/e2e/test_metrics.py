"""Each counter is compared with what was sent to change it."""

import contextlib
import re
import socket
import subprocess
import time
from pathlib import Path

import pytest

import wire
from fastcgi import begin, ingest_params, program, query_params, read_answer
from monitor import Monitor, encode
from stack import free_port, reachable_folder, running, wait_for
from test_health import BOTH, NAMES, waiting
from test_outage import locked
from test_run import run_until_it_ends
from wire import check_error, header, request_bytes

TYPE = "text/plain; version=0.0.4; charset=utf-8"


def parse(text):
    """The values by name and labels, without the endpoint's label."""
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    pairs = [line.rsplit(" ", 1) for line in lines]
    found = {re.sub(r'endpoint="\w+",?', "", name).replace("{}", ""): float(value) for name, value in pairs}
    assert len(found) == len(lines), "a series stands twice"
    return found


def scrape(instance, name):
    answer = instance.ask_health(f"/metrics/{name}")
    assert answer.status_code == 200 and answer.headers.get_list("Content-Type") == [TYPE]
    return parse(answer.text)


def counts(scraped):
    """The counters of requests, without the buckets of durations."""
    return {name: value for name, value in scraped.items()
            if re.search(r"_(total|count)(\{|$)", name) and name != "steep_connections_total"}


def request(status, code):
    return {f'steep_requests_total{{status="{status}",code="{code}"}}': 1, "steep_request_duration_seconds_count": 1}


VERIFIED = {"steep_verification_duration_seconds_count": 1}
ASKED = {"steep_database_duration_seconds_count": 1}


def batch(result, **events):
    return {f'steep_batches_total{{result="{result}"}}': 1} | {
        f'steep_events_total{{result="{name}"}}': count for name, count in events.items()}


def refused(**reasons):
    return {f'steep_events_refused_total{{reason="{name}"}}': count for name, count in reasons.items()}


@pytest.fixture(scope="module")
def ingest(stack, monitor, other_monitor):
    with program(stack, "ingest", passed=BOTH, STEEP_DATABASE_WAIT="1") as instance:
        wait_for(lambda: instance.ask_health("/readyz/ingest").status_code == 200, "the keys to be read")
        yield instance


@pytest.fixture(scope="module")
def query(stack):
    with program(stack, "query", passed=BOTH, VIBETEA_SUBSCRIBER_TOKEN="metrics-token") as instance:
        wait_for(lambda: instance.ask_health("/readyz/query").status_code == 200, "the tokens to be read")
        yield instance


@contextlib.contextmanager
def counted(instance, name, *expected):
    """Check that the block changes exactly the expected counters."""
    wanted = {key: value for part in expected for key, value in part.items()}
    before = counts(scrape(instance, name))
    yield

    def difference():
        after = counts(scrape(instance, name))
        return {key: after[key] - before[key] for key in after if after[key] != before[key]}

    # A request is counted after its answer was sent.
    with contextlib.suppress(AssertionError):
        wait_for(lambda: difference() == wanted, "the counts", 3)
    assert difference() == wanted


def send(instance, sender, events, status, **changes):
    body = encode(events)
    answer = instance.ask(ingest_params(body, sender, **changes), body)
    assert answer.status_code == status, answer.text[:300]
    return answer


def test_new_events_and_duplicates_are_counted(ingest, monitor):
    events = [monitor.event() for _ in range(3)]
    with counted(ingest, "ingest", request(200, "ok"), VERIFIED, ASKED, batch("stored", inserted=3)):
        send(ingest, monitor, events, 200)
    with counted(ingest, "ingest", request(200, "ok"), VERIFIED, ASKED, batch("stored", inserted=1, duplicate=3)):
        send(ingest, monitor, [*events, monitor.event()], 200)


def test_ids_of_another_source_are_counted(ingest, monitor, other_monitor):
    event = monitor.event()
    send(ingest, monitor, [event], 200)
    foreign = [other_monitor.event(id=event["id"]), other_monitor.event()]
    with counted(ingest, "ingest", request(200, "ok"), VERIFIED, ASKED, batch("stored", inserted=1, duplicate=1),
                 {"steep_foreign_ids_total": 1}):
        send(ingest, other_monitor, foreign, 200)


def test_a_request_that_is_not_authenticated_is_not_counted_as_a_batch(ingest, monitor):
    events = [monitor.event()]
    with counted(ingest, "ingest", request(401, "missing_auth")):
        send(ingest, None, events, 401)
    with counted(ingest, "ingest", request(401, "unknown_source")):
        send(ingest, Monitor("metrics-nobody"), events, 401)
    with counted(ingest, "ingest", request(401, "invalid_signature")):
        send(ingest, monitor, events, 401, HTTP_X_SIGNATURE="x")
    with counted(ingest, "ingest", request(401, "invalid_signature"), VERIFIED):
        send(ingest, Monitor(monitor.source), events, 401)
    with counted(ingest, "ingest", request(405, "method_not_allowed")):
        send(ingest, monitor, events, 405, REQUEST_METHOD="PUT")
    with counted(ingest, "ingest", request(413, "payload_too_large")):
        send(ingest, monitor, events, 413, CONTENT_LENGTH=str(5 * 1024 * 1024 + 1))


@pytest.mark.parametrize("body, code", [("x", "invalid_request"), ("[]", "empty_batch"), ("[" + "{}," * 1000 + "{}]", "batch_too_large")],
                         ids=["x", "none", "1001"])
def test_an_invalid_body_is_counted_as_a_refused_batch_without_events(body, code, ingest, monitor):
    with counted(ingest, "ingest", request(400, code), VERIFIED, batch("refused")):
        send(ingest, monitor, body, 400)


@pytest.mark.parametrize("code, change", {
    "invalid_event_id": {"id": "x"}, "source_mismatch": {"source": "metrics-other"}, "invalid_timestamp": {"timestamp": "x"},
    "invalid_event_type": {"eventType": "x"}, "invalid_payload": {"payload": []},
}.items())
def test_refused_events_are_counted_by_reason(code, change, ingest, monitor):
    events = [monitor.event(), monitor.event(**change), monitor.event(**change)]
    with counted(ingest, "ingest", request(422, code), VERIFIED, batch("refused", refused=2, not_stored=1), refused(**{code: 2})):
        send(ingest, monitor, events, 422)


def test_reasons_are_counted_event_by_event_and_those_of_the_database_too(ingest, db, monitor):
    with counted(ingest, "ingest", request(422, "invalid_event"), VERIFIED, batch("refused", refused=2, not_stored=1),
                 refused(invalid_event=1, invalid_payload=1)):
        send(ingest, monitor, [1, monitor.event(), monitor.event(payload=None)], 422)
    db.execute("ALTER TABLE public.events ADD CONSTRAINT e2e_metrics CHECK (NOT payload ? 'forbidden')")
    try:
        with counted(ingest, "ingest", request(422, "invalid_event"), VERIFIED, ASKED, batch("refused", refused=1, not_stored=1),
                     refused(invalid_event=1)):
            send(ingest, monitor, [monitor.event(), monitor.event(payload={"forbidden": 1})], 422)
    finally:
        db.execute("ALTER TABLE public.events DROP CONSTRAINT e2e_metrics")


def test_a_batch_that_fails_with_an_internal_error_is_counted(ingest, db, monitor):
    db.execute("REVOKE EXECUTE ON FUNCTION public.bulk_insert_events(jsonb) FROM steep_ingest")
    try:
        with counted(ingest, "ingest", request(500, "internal_error"), VERIFIED, ASKED, batch("failed", not_stored=2)):
            send(ingest, monitor, [monitor.event(), monitor.event()], 500)
    finally:
        db.execute("GRANT EXECUTE ON FUNCTION public.bulk_insert_events(jsonb) TO steep_ingest")


def test_reconnections_to_the_database_are_counted(ingest, db, monitor):
    send(ingest, monitor, [monitor.event()], 200)
    before = scrape(ingest, "ingest")["steep_database_reconnects_total"]
    db.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'steep_ingest'")
    for _ in range(8):
        send(ingest, monitor, [monitor.event()], 200)
    after = wait_for(lambda: (now := scrape(ingest, "ingest")["steep_database_reconnects_total"]) >= before + 2 and now,
                     "a connection of the pool and the keyring's")
    for _ in range(8):
        send(ingest, monitor, [monitor.event()], 200)
    assert scrape(ingest, "ingest")["steep_database_reconnects_total"] <= after + 3


def test_an_unavailable_database_is_counted(stack):
    sender = Monitor("metrics-lonely")
    with program(stack, "ingest", passed=BOTH, database=False, STEEP_DATABASE_WAIT="0",
                 VIBETEA_PUBLIC_KEYS=f"{sender.source}:{sender.public_base64}") as instance:
        send(instance, sender, [sender.event()] * 2, 503)
        found = wait_for(lambda: (now := scrape(instance, "ingest"))['steep_batches_total{result="unavailable"}'] and now,
                         "the batch to be counted")
    assert found['steep_requests_total{status="503",code="unavailable"}'] == 1
    assert found['steep_events_total{result="not_stored"}'] == 2
    assert found["steep_database_connect_failures_total"] >= 2
    assert found["steep_database_reconnects_total"] == 0
    assert found["steep_ready"] == 0
    assert "steep_keyring_age_seconds" not in found
    assert found['steep_keyring_entries{origin="environment"}'] == 1
    assert found['steep_keyring_entries{origin="database"}'] == 0


def test_workers_and_the_keyring_are_reported(stack, db, monitor):
    body = encode([monitor.event()])
    entries = 'steep_keyring_entries{origin="database"}'
    with program(stack, "ingest", passed=BOTH, STEEP_WORKERS="3", STEEP_CONNECTIONS="2") as instance:
        wait_for(lambda: instance.ask_health("/readyz/ingest").status_code == 200, "the keys to be read")
        found = scrape(instance, "ingest")
        assert (found["steep_workers"], found["steep_workers_busy"], found["steep_longest_request_seconds"]) == (3, 0, 0)
        assert found["steep_database_connections"] == 2
        assert found[entries] == db.execute("SELECT count(*) FROM public.monitor_keys").fetchone()[0]
        assert 0 <= found["steep_keyring_age_seconds"] < 60 and found["steep_ready"] == 1
        with contextlib.closing(locked(stack)) as lock, contextlib.ExitStack() as opened:
            sent = [opened.enter_context(begin(instance.path, ingest_params(body, monitor), body)) for _ in range(2)]
            wait_for(lambda: waiting(db) == 2, "both to wait")
            found = scrape(instance, "ingest")
            assert found["steep_workers_busy"] == 2 and found["steep_longest_request_seconds"] > 0
            lock.rollback()
            assert [read_answer(each).status_code for each in sent] == [200, 200]
        wait_for(lambda: scrape(instance, "ingest")["steep_workers_busy"] == 0, "both to be at rest")
        stack.steepctl("monitor", "add", "metrics-added", Monitor("metrics-added").public_base64)
        try:
            wait_for(lambda: scrape(instance, "ingest")[entries] == db.execute("SELECT count(*) FROM public.monitor_keys").fetchone()[0],
                     "the new key")
        finally:
            stack.steepctl("monitor", "remove", "metrics-added")


@pytest.mark.parametrize("given, counted_as", [
    (query_params("metrics-token"), [request(200, "ok"), VERIFIED, ASKED]),
    (query_params("metrics-token", "group_by=hour"), [request(200, "ok"), VERIFIED, ASKED]),
    (query_params("metrics-token", "group_by=source"), [request(200, "ok"), VERIFIED, ASKED]),
    (query_params("metrics-token", "days=8"), [request(400, "invalid_days"), VERIFIED]),
    (query_params("metrics-token", "source="), [request(400, "invalid_source"), VERIFIED]),
    (query_params("metrics-token", "group_by="), [request(400, "invalid_group_by"), VERIFIED]),
    (query_params("metrics-token", "days=%"), [request(400, "invalid_request"), VERIFIED]),
    (query_params("nobodys"), [request(401, "invalid_token"), VERIFIED]),
    (query_params(), [request(401, "missing_auth")]),
    (query_params("metrics-token", REQUEST_METHOD="POST"), [request(405, "method_not_allowed")]),
], ids=["200", "by hour", "by source", "days", "source", "group_by", "query string", "token", "no token", "method"])
def test_queries_are_counted_by_status_and_code(given, counted_as, query):
    with counted(query, "query", *counted_as):
        query.ask(given)


def test_durations_are_in_seconds(ingest, monitor):
    send(ingest, monitor, [monitor.event()], 200)
    found = scrape(ingest, "ingest")
    for name in ("request", "verification", "database"):
        mean = found[f"steep_{name}_duration_seconds_sum"] / found[f"steep_{name}_duration_seconds_count"]
        assert 1e-6 < mean < 10, name
        assert found[f'steep_{name}_duration_seconds_bucket{{le="+Inf"}}'] == found[f"steep_{name}_duration_seconds_count"]
    assert found["steep_verification_duration_seconds_sum"] < found["steep_request_duration_seconds_sum"]


def test_the_wait_for_a_worker_is_part_of_the_duration(ingest, monitor):
    before = scrape(ingest, "ingest")["steep_request_duration_seconds_sum"]
    send(ingest, monitor, "[]", 400, REQUEST_MSEC=f"{time.time() - 3:.3f}")
    wait_for(lambda: scrape(ingest, "ingest")["steep_request_duration_seconds_sum"] - before >= 2.9, "3 s to be counted", 3)


def test_no_label_comes_from_a_client(ingest, query, monitor):
    mark = "metricsMARK"
    ingest.ask(ingest_params(b"[]", monitor, REQUEST_METHOD=mark, SCRIPT_NAME=mark, HTTP_X_SOURCE_ID=mark))
    send(ingest, Monitor(mark), [], 401)
    query.ask(query_params(mark, f"source={mark}"))
    for instance, name in ((ingest, "ingest"), (query, "query")):
        text = instance.ask_health(f"/metrics/{name}").text
        assert mark not in text and monitor.source not in text


@pytest.fixture(scope="module")
def local(stack):
    """A client of the metrics' own listener."""
    with stack.metrics_client() as client:
        yield client


@pytest.mark.parametrize("name", NAMES)
def test_promtool_accepts_what_nginx_serves_locally(name, local):
    answer = local.get(f"/metrics/{name}")
    assert answer.status_code == 200
    assert header(answer, "Content-Type") == TYPE and header(answer, "Cache-Control") == "no-store"
    done = subprocess.run(["promtool", "check", "metrics"], input=answer.text, text=True, capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.1.1"])
def test_the_site_has_no_metrics_for_anybody(address, name, stack):
    with stack.client(address) as client:
        check_error(client.get(f"/metrics/{name}"), 404, "not_found", endpoint=False)


def test_the_site_has_no_metrics_over_ipv6(stack):
    with socket.create_connection(("::1", stack.port), 20) as plain:
        with stack.tls.wrap_socket(plain, server_hostname="::1") as connection:
            connection.sendall(request_bytes("GET", "/metrics/ingest", [("Host", "[::1]")]))
            check_error(wire.read_answer(connection, "GET"), 404, "not_found", endpoint=False)


@pytest.mark.parametrize("name", ["X-Forwarded-For", "X-Real-IP", "Forwarded", "Via", "X-Client-IP", "True-Client-IP"])
@pytest.mark.parametrize("value", ["127.0.0.1", "::1", "for=127.0.0.1", "127.0.0.1, 127.0.0.1"])
def test_a_header_that_claims_a_local_address_is_ignored(name, value, client):
    check_error(client.get("/metrics/ingest", headers={name: value}), 404, "not_found", endpoint=False)


def test_a_trusted_proxy_cannot_ask_for_metrics(second_stack):
    """With a trusted proxy as in limits.conf, and with what it says of its clients."""
    trusting = "set_real_ip_from 127.0.0.0/8; real_ip_header X-Real-IP;"
    with (second_stack.changed_snippet("limits.conf", r"(?s)\A.*\Z", trusting),
          second_stack.client("127.0.1.9") as proxy, second_stack.metrics_client() as local):
        for address in ("127.0.0.1", "::1", "192.0.2.1"):
            assert proxy.get("/metrics/ingest", headers={"X-Real-IP": address}).status_code == 404
        assert local.get("/metrics/ingest").status_code == 200


def listening(port):
    """The addresses that listen on a port."""
    lines = [line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]]
    return {fields[1].split(":")[0] for fields in lines
            if fields[3] == "0A" and int(fields[1].split(":")[1], 16) == port}


def test_the_metrics_are_on_addresses_of_this_machine_only(stack):
    assert listening(stack.metrics_port) == {"0100007F", "00000000000000000000000001000000"}


def test_the_metrics_are_served_over_ipv6_too(stack):
    with stack.metrics_client(host="[::1]") as local:
        assert local.get("/metrics/query").status_code == 200


def test_the_listener_of_the_metrics_serves_nothing_else(stack):
    local = stack.metrics_client(event_hooks={})
    for path in ("/", "/query", "/ingest", "/healthz/ingest", "/config.json", "/metrics", "/metrics/", "/metrics/other", "/_error"):
        answer = local.get(path)
        assert (answer.status_code, answer.json()["error"]) == (404, "not_found"), path
        assert local.options(path).status_code == 404


@pytest.mark.parametrize("name", NAMES)
def test_the_metrics_can_only_be_read(name, stack):
    local = stack.metrics_client(event_hooks={})
    assert local.head(f"/metrics/{name}").status_code == 200
    for method in ("POST", "PUT", "DELETE", "OPTIONS"):
        answer = local.request(method, f"/metrics/{name}")
        assert (answer.status_code, answer.json()["error"]) == (405, "method_not_allowed")


def test_a_page_of_another_origin_cannot_read_the_metrics(local):
    answer = local.get("/metrics/ingest", headers={"Origin": "https://evil.example"})
    assert not [name for name in answer.headers if name.startswith("access-control-")]


def test_installations_side_by_side_have_metrics_of_their_own(stack, second_stack):
    assert stack.metrics_port != second_stack.metrics_port
    with stack.metrics_client() as one, second_stack.metrics_client() as another:
        started = [client.get("/metrics/ingest").text.split("process_start_time_seconds{")[1] for client in (one, another)]
    assert started[0] != started[1]


def test_the_port_of_the_metrics_can_be_chosen():
    port = free_port()
    with running("metrics", STEEP_METRICS_PORT=str(port)) as chosen:
        assert chosen.values["STEEP_METRICS_URL"] == f"http://127.0.0.1:{port}"
        with chosen.metrics_client() as local:
            assert local.get("/metrics/ingest").status_code == 200


@pytest.mark.parametrize("port", ["0", "65536", "x", "-1"])
def test_an_invalid_port_of_the_metrics_is_refused(port):
    assert "STEEP_METRICS_PORT must be a port number" in refusal(STEEP_METRICS_PORT=port)


def test_a_port_in_use_or_used_twice_is_refused_for_the_metrics(stack):
    assert f"port {stack.port} is in use; set another with STEEP_METRICS_PORT" in refusal(STEEP_METRICS_PORT=str(stack.port))
    port = str(free_port())
    assert "must differ" in refusal(STEEP_METRICS_PORT=port, STEEP_PORT=port)


def refusal(**environment):
    """What deploy/run prints when it does not start."""
    folder = reachable_folder("refused")
    try:
        done = run_until_it_ends(**{"STEEP_STATE": str(folder / "state"), "STEEP_PORT": str(free_port())} | environment)
        assert done.returncode == 1 and not (folder / "state" / "run.env").exists()
        return done.stderr
    finally:
        subprocess.run(["rm", "-rf", str(folder)], check=False)
