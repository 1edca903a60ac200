"""Events and batches: what is stored, what is refused, and what the answer says."""

import concurrent.futures
import gzip
import http.client
import json

import pytest

from conftest import registered, stored
from monitor import ABSENT, encode, new_id
from stack import SLOWNESS, addresses, wait_for
from wire import MARKER, check_error, check_json, check_rejected, header

TYPES = ["session", "activity", "tool", "agent", "summary", "error"]
MAX_BODY_BYTES = 5 * 1024 * 1024
MAX_EVENT_BYTES = 64 * 1024


def test_the_type_is_read_from_eventType_or_type_and_eventType_wins(accepted_all, monitor):
    rows = accepted_all([*(monitor.event(eventType=kind) for kind in TYPES),
                         *(monitor.event(eventType=ABSENT, type=kind) for kind in TYPES),
                         monitor.event(eventType="agent", type="error"), monitor.event(eventType="agent", type="nonsense")])
    assert [row.event_type for row in rows] == [*TYPES, *TYPES, "agent", "agent"]


def test_an_id_may_have_any_text_after_its_prefix_up_to_255_bytes(accepted_all, monitor, db):
    ids = ["evt_1", "evt_" + "x" * 251, "evt_" + "é" * 125, "evt_evt_", "evt_ ", "evt_-._~/%00\\\"'", "evt_日本", "evt_\U0001f600"]
    db.execute("DELETE FROM public.events WHERE id = ANY(%s)", (ids,))
    assert len(accepted_all([monitor.event(id=each) for each in ids])) == len(ids)


@pytest.mark.contract
def test_an_event_is_refused_with_the_code_of_the_first_rule_that_it_breaks(refused, monitor):
    order = ["id", "source", "timestamp", "eventType", "payload"]
    codes = ["invalid_event_id", "source_mismatch", "invalid_timestamp", "invalid_event_type", "invalid_payload"]
    events = [monitor.event(**{name: None for name in order[at:]}) for at in range(len(order))]
    check_rejected(refused(events), list(enumerate(codes)))


def test_other_fields_are_ignored(accepted_all, monitor, db):
    extras = [{"created_at": "1999-01-01T00:00:00Z"}, {"event_type": "nonsense"}, {"extra": None}, {"": ""}, {"x" * 5000: 1},
              {"nested": {"id": "evt_other", "source": "other"}}, {"inserted_count": 5}, {"Id": 1}, {"ID": 1}]
    events = [monitor.event(**extra) for extra in extras]
    assert {(row.source, row.event_type) for row in accepted_all(events)} == {(monitor.source, "tool")}
    old = db.execute("SELECT count(*) FROM public.events WHERE id = ANY(%s) AND created_at < now() - interval '1 hour'",
                     ([event["id"] for event in events],))
    assert old.fetchone() == (0,)


def test_an_event_may_have_64_KiB_of_raw_bytes(accepted, refused, monitor):
    event = monitor.raw_event(payload='{"fill":""}')
    event = event.replace('"fill":""', f'"fill":"{"x" * (MAX_EVENT_BYTES - len(event))}"')
    assert len(event) == MAX_EVENT_BYTES and accepted(event)
    check_rejected(refused(f"[{event.replace('x', 'xx', 1)}]"), [(0, "invalid_event")])


@pytest.mark.contract
def test_a_batch_may_have_1000_events(client, monitor, refused):
    events = [monitor.event() for _ in range(1000)]
    answer = monitor.post(client, events)
    assert (answer.status_code, answer.json()["inserted"]) == (200, 1000)
    check_error(refused([*events, monitor.event()]), 400, "batch_too_large")


@pytest.mark.contract
def test_an_empty_array_is_empty_batch(refused):
    check_error(refused(" [\n\t\r]\n"), 400, "empty_batch")


def test_one_bad_event_refuses_the_whole_batch(refused, monitor, db):
    events = [monitor.event(), monitor.event(id="bad"), monitor.event()]
    check_rejected(refused(events), [(1, "invalid_event_id")])
    assert stored(db, events[0]["id"]) is None


@pytest.mark.contract
def test_every_bad_event_is_listed_in_order_with_its_own_code(refused, monitor):
    events = [monitor.event() for _ in range(8)]
    events[1]["timestamp"] = MARKER
    events[2]["eventType"] = MARKER
    events[3]["payload"] = [MARKER]
    events[4]["source"] = MARKER
    events[6]["id"] = MARKER
    events[7] = MARKER
    check_rejected(refused(events), [(1, "invalid_timestamp"), (2, "invalid_event_type"), (3, "invalid_payload"),
                                     (4, "source_mismatch"), (6, "invalid_event_id"), (7, "invalid_event")])


@pytest.mark.contract
def test_a_thousand_bad_events_are_all_listed(refused):
    check_rejected(refused("[" + ",".join(["1"] * 1000) + "]"), [(at, "invalid_event") for at in range(1000)])


@pytest.mark.contract
def test_a_batch_is_stored_once_its_rejected_events_are_removed(refused, client, monitor):
    lone = r'{"note":"\ud800"}'
    events = [monitor.raw_event(), monitor.raw_event(payload=lone), monitor.raw_event(timestamp='"x"'),
              monitor.raw_event(), monitor.raw_event(payload=lone)]
    answer = refused(f"[{','.join(events)}]")
    check_rejected(answer, [(1, "invalid_payload"), (2, "invalid_timestamp"), (4, "invalid_payload")])
    bad = {entry["index"] for entry in answer.json()["rejected"]}
    kept = [event for at, event in enumerate(events) if at not in bad]
    answer = monitor.post(client, f"[{','.join(kept)}]")
    assert (answer.status_code, answer.json()["inserted"]) == (200, 2)


@pytest.mark.contract
def test_resending_a_batch_stores_nothing_and_reports_duplicates(client, monitor, contents):
    events = [monitor.event() for _ in range(3)]
    assert monitor.post(client, events).json()["inserted"] == 3
    before = contents()
    answer = monitor.post(client, events)
    assert answer.status_code == 200
    body = check_json(answer)
    assert (body["inserted"], body["duplicates"]) == (0, 3)
    assert contents() == before


@pytest.mark.contract
def test_new_and_known_events_are_counted_separately(client, monitor):
    known = monitor.event()
    monitor.post(client, [known])
    body = monitor.post(client, [monitor.event(), known, monitor.event()]).json()
    assert (body["inserted"], body["duplicates"]) == (2, 1)


def test_a_known_id_keeps_its_first_payload(client, monitor, db):
    event = monitor.event(payload={"n": 1})
    monitor.post(client, [event])
    monitor.post(client, [event | {"payload": {"n": 2}}])
    assert json.loads(stored(db, event["id"]).payload) == {"n": 1}


@pytest.mark.parametrize("position", range(3))
def test_of_equal_ids_in_one_batch_the_first_is_stored(position, client, monitor, db):
    # Between ids that sort before and after, in case insertion follows their order.
    twin = new_id()
    events = [monitor.event(id=twin, payload={"n": n}) for n in range(3)]
    events[position:position] = [monitor.event(id=f"evt_0{new_id()}"), monitor.event(id=f"evt_z{new_id()}")]
    body = monitor.post(client, events).json()
    assert (body["inserted"], body["duplicates"]) == (3, 2)
    assert json.loads(stored(db, twin).payload) == {"n": 0}


def test_an_id_of_another_monitor_is_a_duplicate_and_logged(stack, client, monitor,
                                                                                      other_monitor, db):
    event = monitor.event()
    monitor.post(client, [event])
    answer = other_monitor.post(client, [other_monitor.event(id=event["id"])])
    assert (answer.json()["inserted"], answer.json()["duplicates"]) == (0, 1)
    assert stored(db, event["id"]).source == monitor.source

    def logged():
        lines = [line for line in stack.log_text("ingest").splitlines() if header(answer, "X-Request-ID") in line]
        return any("level=warning" in line and "count=1" in line for line in lines)

    wait_for(logged, "the warning", 10)


@pytest.mark.contract
def test_ids_differ_when_their_bytes_do(client, monitor):
    # é as one and as two code points, and two cases: four ids.
    base = new_id()
    ids = [f"{base}\u00e9", f"{base}e\u0301", f"{base}X", f"{base}x"]
    assert monitor.post(client, [monitor.event(id=each) for each in ids]).json()["inserted"] == 4


def test_concurrent_overlapping_batches_store_each_event_once(stack, monitor, db):
    events = [monitor.event() for _ in range(200)]
    batches = [events, events[::-1], events[50:150], events[150:50:-1]] * 3

    def send(batch):
        with stack.client(next(addresses)) as client:
            answer = monitor.post(client, batch)
            assert answer.status_code == 200, answer.text
            return answer.json()["inserted"]

    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        assert sum(pool.map(send, batches)) == 200
    ids = [event["id"] for event in events]
    assert db.execute("SELECT count(*) FROM public.events WHERE id = ANY(%s)", (ids,)).fetchone() == (200,)


def big_batch(monitor, size):
    """A batch of exactly size bytes, the last of them white space."""
    events = [monitor.raw_event(payload=json.dumps({"fill": "x" * 5000})) for _ in range(1000)]
    body = f"[{','.join(events)}".encode()
    assert len(body) < size
    return body + b" " * (size - len(body) - 1) + b"]"


@pytest.mark.contract
def test_a_body_of_exactly_5_MiB_is_stored(client, monitor):
    answer = monitor.post(client, big_batch(monitor, MAX_BODY_BYTES))
    assert answer.status_code == 200, answer.text
    assert answer.json()["inserted"] == 1000


def test_a_batch_of_an_existing_monitor_is_stored_exactly(stack, db):
    """As existing monitors send it: the field is `type`, times have nine digits, connections are kept alive."""
    sender = registered(stack, "macbook")
    ids = [new_id() for _ in range(4)]
    connection = http.client.HTTPSConnection("127.0.0.1", stack.port, context=stack.tls, timeout=40 * SLOWNESS,
                                             source_address=(next(addresses), 0))
    sockets = set()
    for event_id in ids:
        body = (f'[{{"id":"{event_id}","source":"macbook","timestamp":"2026-02-03T14:30:00.123456789Z","type":"tool",'
                f'"payload":{{"sessionId":"5f0c","tool":"Read","status":"completed","note":"{MARKER}"}}}}]').encode()
        connection.request("POST", "/functions/v1/ingest", body, {
            "Content-Type": "application/json", "X-Source-ID": "macbook", "X-Signature": sender.sign(body)})
        answer = connection.getresponse()
        assert (answer.status, json.loads(answer.read())["inserted"]) == (200, 1)
        sockets.add(connection.sock.getsockname())
        row = stored(db, event_id)
        assert (row.source, row.event_type) == ("macbook", "tool")
        assert row.instant == "2026-02-03 14:30:00.123457"
        assert json.loads(row.payload)["status"] == "completed"
    connection.close()
    assert len(sockets) == 1


@pytest.mark.contract
def test_a_chunked_body_is_stored(client, monitor):
    body = encode([monitor.event()])
    pieces = (body[at:at + 7] for at in range(0, len(body), 7))
    answer = client.post("/ingest", content=pieces, headers=monitor.headers(body))
    assert (answer.status_code, answer.json()["inserted"]) == (200, 1)
    assert "content-length" not in answer.request.headers


@pytest.mark.contract
@pytest.mark.parametrize("kind", [ABSENT, "text/plain", "application/json; charset=utf-8", "x"], ids=str)
def test_the_content_type_of_a_request_does_not_matter(kind, client, monitor):
    body = encode([monitor.event()])
    headers = monitor.headers(body, **{"Content-Type": kind})
    assert client.post("/ingest", content=body, headers=headers).status_code == 200


@pytest.mark.contract
def test_a_query_string_does_not_matter(client, monitor):
    assert monitor.post(client, [monitor.event()], "/ingest?days=x&%zz").status_code == 200


@pytest.mark.contract
def test_a_compressed_body_is_invalid_request(refused):
    check_error(refused(gzip.compress(b"[]"), headers={"Content-Encoding": "gzip"}), 400, "invalid_request")


def test_an_event_may_hold_as_many_values_as_fit_its_size(accepted_all, monitor):
    # Only an event's bytes and depth are limited.
    room = MAX_EVENT_BYTES - len(monitor.raw_event(payload='{"list":[]}'))
    lists = [",".join([piece] * ((room + 1) // (len(piece) + 1))) for piece in ["{}", "[]", "0", '""', '{"":{}}']]
    assert len(accepted_all([monitor.raw_event(payload=f'{{"list":[{values}]}}') for values in lists])) == len(lists)


def events_of_nodes(monitor, total):
    """Events with so many objects and arrays in all; each event, its payload and its list count as three."""
    per_event = 20000
    for begin in range(0, total, per_event):
        inner = ",".join(["{}"] * (min(per_event, total - begin) - 3))
        yield monitor.raw_event(payload=f'{{"list":[{inner}]}}')


@pytest.mark.contract
def test_a_batch_may_hold_200000_objects_and_arrays(client, monitor):
    answer = monitor.post(client, f"[{','.join(events_of_nodes(monitor, 200_000))}]")
    assert (answer.status_code, answer.json().get("inserted")) == (200, 10), answer.text


@pytest.mark.contract
def test_a_batch_of_more_objects_and_arrays_is_too_large(refused, monitor):
    # 5 MiB of them would take a gigabyte of a backend's memory.
    check_error(refused(f"[{','.join(events_of_nodes(monitor, 200_003))}]"), 400, "batch_too_large")
