"""What an event must be, what becomes of a good one, and what a batch is worth as a whole."""

import concurrent.futures
import gzip
import http.client
import json

import pytest

from conftest import fingerprint, registered, stored
from monitor import ABSENT, encode, new_id
from stack import SLOWNESS, addresses, wait_for
from wire import MARKER, check_error, check_json, check_refused, check_rejected, header

TYPES = ["session", "activity", "tool", "agent", "summary", "error"]
MAX_BODY_BYTES = 5 * 1024 * 1024
MAX_EVENT_BYTES = 64 * 1024


@pytest.mark.parametrize("field", ["type", "eventType"])
@pytest.mark.parametrize("kind", TYPES)
def test_each_of_the_six_types_is_stored_from_either_field(kind, field, accepted, monitor):
    assert accepted(monitor.event(**({"eventType": ABSENT} | {field: kind}))).event_type == kind


def test_eventType_counts_where_both_are_given(accepted, monitor):
    assert accepted(monitor.event(eventType="agent", type="error")).event_type == "agent"


def test_eventType_counts_though_type_is_no_type_at_all(accepted, monitor):
    assert accepted(monitor.event(eventType="agent", type="nonsense")).event_type == "agent"


@pytest.mark.parametrize("bad", ["nonsense", None, 1, ""], ids=repr)
def test_a_bad_eventType_is_not_helped_by_a_good_type(bad, refused, monitor):
    check_rejected(refused([monitor.event(eventType=bad, type="tool")]), [(0, "invalid_event_type")])


FIELDS = {
    "invalid_event_id": ("id", [ABSENT, None, 1, "", "evt_", "evt", "EVT_x", " evt_x", "event_x", "xevt_1", ["evt_x"],
                                {"evt_": 1}, True, "evt_" + MARKER + "\n", "evt_\t", "evt_\x1f", "evt_\x7f",
                                "evt_" + "x" * 252, "evt_" + "x" * 5000, "evt_" + "é" * 126]),
    "source_mismatch": ("source", [ABSENT, None, 1, "", "E2E-MONITOR", "e2e-monitor ", " e2e-monitor", "e2e-monitor\0",
                                   "e2e-monito", "e2e-other", ["e2e-monitor"], "e2e-monitor" + MARKER]),
    "invalid_event_type": ("eventType", [ABSENT, None, 1, "", "Tool", "tool ", "tools", "tool\0", ["tool"], {"tool": 1},
                                         True, MARKER]),
    "invalid_payload": ("payload", [ABSENT, None, 1, "", "{}", [], [{}], True, False, MARKER]),
    "invalid_timestamp": ("timestamp", [ABSENT, None, 1, 1770129000, "", "x", [], {}, True, MARKER]),
}


@pytest.mark.parametrize("code, field, bad", [
    (code, field, bad) for code, (field, values) in FIELDS.items() for bad in values
], ids=lambda value: "absent" if value is ABSENT else ascii(value)[:40])
def test_a_field_that_breaks_its_rule_is_named_by_its_code(code, field, bad, refused, monitor):
    check_rejected(refused([monitor.event(**{field: bad})]), [(0, code)])


@pytest.mark.parametrize("event_id", [
    "evt_1", "evt_" + "x" * 251, "evt_" + "é" * 125, "evt_evt_", "evt_ ", "evt_-._~/%00\\\"'", "evt_日本", "evt_\U0001f600",
], ids=lambda value: ascii(value)[:40])
def test_an_id_may_be_anything_else_behind_its_prefix_up_to_255_bytes(event_id, client, monitor, db):
    db.execute("DELETE FROM public.events WHERE id = %s", (event_id,))
    answer = monitor.post(client, [monitor.event(id=event_id)])
    assert answer.status_code == 200 and answer.json()["inserted"] == 1, answer.text
    assert stored(db, event_id).source == monitor.source


@pytest.mark.parametrize("first_letters", ["\\u0065vt_", "e\\u0076\\u0074_"])
def test_an_id_is_judged_with_its_escapes_undone(first_letters, accepted, monitor):
    rest = new_id()[4:]
    assert accepted(monitor.raw_event(id=f'"{first_letters}{rest}"'), event_id=f"evt_{rest}") is not None


def test_a_source_is_compared_with_its_escapes_undone(accepted, monitor):
    escaped = "".join(f"\\u{ord(letter):04x}" for letter in monitor.source)
    assert accepted(monitor.raw_event(source=f'"{escaped}"')).source == monitor.source


@pytest.mark.parametrize("bad", ["{}", "[]", "null", "1", '"evt_x"', "true", "[{}]"])
def test_an_empty_object_breaks_the_id_rule_and_anything_but_an_object_is_invalid_event(bad, refused):
    code = "invalid_event_id" if bad == "{}" else "invalid_event"
    check_rejected(refused(f"[{bad}]"), [(0, code)])


def test_the_first_broken_rule_of_an_event_is_its_code(refused, monitor):
    order = ["id", "source", "timestamp", "eventType", "payload"]
    codes = ["invalid_event_id", "source_mismatch", "invalid_timestamp", "invalid_event_type", "invalid_payload"]
    events = [monitor.event(**{name: None for name in order[at:]}) for at in range(len(order))]
    check_rejected(refused(events), list(enumerate(codes)))


@pytest.mark.parametrize("extra", [
    {"created_at": "1999-01-01T00:00:00Z"}, {"event_type": "nonsense"}, {"extra": None}, {"": ""}, {"x" * 5000: 1},
    {"nested": {"id": "evt_other", "source": "other"}}, {"inserted_count": 5}, {"Id": 1}, {"ID": 1},
], ids=lambda value: str(value)[:40])
def test_other_fields_are_ignored(extra, accepted, monitor, db):
    event = monitor.event(**extra)
    row = accepted(event)
    assert (row.source, row.event_type) == (monitor.source, "tool")
    age = db.execute("SELECT now() - created_at < interval '1 hour' FROM public.events WHERE id = %s", (event["id"],))
    assert age.fetchone() == (True,)


@pytest.mark.parametrize("payload", [
    {}, {"a": None}, {"": ""}, {"k" * 5000: "v" * 5000}, {"ключ": "значение", "😀": "\U0010ffff"},
    {"list": [1, [2, [3]], {}, []]}, {"html": "</script>'\"\\--;"}, {"\u2028": "\u2029"}, {"tab": "\t\n\r\b\f/"},
], ids=lambda value: ascii(value)[:40])
def test_a_payload_is_stored_as_the_object_it_was(payload, accepted, monitor):
    assert json.loads(accepted(monitor.event(payload=payload)).payload) == payload


def test_escapes_in_a_payload_are_stored_as_what_they_mean(accepted, monitor):
    row = accepted(monitor.raw_event(payload=r'{"\u0061\ud83d\ude00": "\u00e9\/\"\\\u001f"}'))
    assert json.loads(row.payload) == {"a\U0001f600": "\u00e9/\"\\\x1f"}


@pytest.mark.parametrize("size, taken", [(MAX_EVENT_BYTES - 1, True), (MAX_EVENT_BYTES, True),
                                         (MAX_EVENT_BYTES + 1, False)])
def test_an_event_may_have_64_KiB_of_raw_bytes(size, taken, accepted, refused, monitor):
    event = monitor.raw_event(payload='{"fill":""}')
    event = event.replace('"fill":""', f'"fill":"{"x" * (size - len(event))}"')
    assert len(event) == size
    if taken:
        assert accepted(event)
    else:
        check_rejected(refused(f"[{event}]"), [(0, "invalid_event")])


def test_space_inside_an_event_is_part_of_its_size_and_space_around_it_is_not(accepted, refused, monitor):
    event = monitor.raw_event()
    assert accepted(" " * MAX_EVENT_BYTES + event + "\n" * MAX_EVENT_BYTES, event_id=json.loads(event)["id"])
    fat = "{" + " " * MAX_EVENT_BYTES + monitor.raw_event()[1:]
    check_rejected(refused(f"[{fat}]"), [(0, "invalid_event")])


def nested(levels, innermost=""):
    """A payload so deep that its event, itself the first level, is levels deep."""
    inner = levels - 2
    return '{"a":' + "[" * inner + innermost + "]" * inner + "}"


@pytest.mark.parametrize("levels, innermost, taken", [
    (31, "1", True), (32, "", True),
    # A number is no level of its own: the contract counts levels of nesting.
    (32, "1", True), (33, "", False), (33, "1", False), (34, "", False), (1000, "", False),
])
def test_an_event_may_be_32_levels_deep(levels, innermost, taken, accepted, refused, monitor):
    event = monitor.raw_event(payload=nested(levels, innermost))
    if taken:
        assert accepted(event)
    else:
        check_rejected(refused(f"[{event}]"), [(0, "invalid_event")])


def test_depth_is_counted_in_objects_too_and_in_ignored_fields(refused, accepted, monitor):
    objects = lambda count: '{"a":' * count + "1" + "}" * count
    assert accepted(monitor.raw_event(other=objects(31)))
    check_rejected(refused("[" + monitor.raw_event(other=objects(32)) + "]"), [(0, "invalid_event")])


def test_brackets_in_strings_are_no_levels(accepted, monitor):
    assert accepted(monitor.event(payload={"a": "[{" * 100 + "\\\"" + "[" * 100}))


def test_a_batch_of_1000_is_taken_and_one_of_1001_is_not(client, monitor, refused):
    events = [monitor.event() for _ in range(1000)]
    answer = monitor.post(client, events)
    assert (answer.status_code, answer.json()["inserted"]) == (200, 1000)
    check_error(refused([*events, monitor.event()]), 400, "batch_too_large")


@pytest.mark.parametrize("body", ["[]", "[ ]", " [\n\t\r]\n"], ids=repr)
def test_an_empty_array_is_empty_batch(body, refused):
    check_error(refused(body), 400, "empty_batch")


def test_one_bad_event_keeps_the_whole_batch_out(refused, monitor, db):
    events = [monitor.event(), monitor.event(id="bad"), monitor.event()]
    check_rejected(refused(events), [(1, "invalid_event_id")])
    assert stored(db, events[0]["id"]) is None


def test_every_bad_event_is_listed_in_order_with_its_own_code(refused, monitor):
    events = [monitor.event() for _ in range(8)]
    events[1]["timestamp"] = MARKER
    events[3]["payload"] = [MARKER]
    events[4]["source"] = MARKER
    events[7] = MARKER
    check_rejected(refused(events), [(1, "invalid_timestamp"), (3, "invalid_payload"), (4, "source_mismatch"),
                                     (7, "invalid_event")])


def test_a_batch_of_1000_bad_events_lists_them_all(refused):
    check_rejected(refused("[" + ",".join(["1"] * 1000) + "]"), [(at, "invalid_event") for at in range(1000)])


def test_what_is_left_when_the_rejected_are_taken_out_is_stored(refused, client, monitor):
    lone = r'{"note":"\ud800"}'
    events = [monitor.raw_event(), monitor.raw_event(payload=lone), monitor.raw_event(timestamp='"x"'),
              monitor.raw_event(), monitor.raw_event(payload=lone)]
    answer = refused(f"[{','.join(events)}]")
    check_rejected(answer, [(1, "invalid_payload"), (2, "invalid_timestamp"), (4, "invalid_payload")])
    bad = {entry["index"] for entry in answer.json()["rejected"]}
    kept = [event for at, event in enumerate(events) if at not in bad]
    answer = monitor.post(client, f"[{','.join(kept)}]")
    assert (answer.status_code, answer.json()["inserted"]) == (200, 2)


def test_what_only_the_database_can_refuse_is_listed_by_index_too(refused, monitor):
    zero = r'{"note":"\u0000"}'
    events = [monitor.raw_event(), monitor.raw_event(payload=zero), monitor.raw_event(), monitor.raw_event(payload=zero)]
    check_rejected(refused(f"[{','.join(events)}]"), [(1, "invalid_payload"), (3, "invalid_payload")])


def test_sending_a_batch_again_stores_nothing_and_says_so(client, monitor, db):
    events = [monitor.event() for _ in range(3)]
    assert monitor.post(client, events).json()["inserted"] == 3
    before = fingerprint(db)
    answer = monitor.post(client, events)
    assert answer.status_code == 200
    body = check_json(answer)
    assert (body["inserted"], body["duplicates"]) == (0, 3)
    assert fingerprint(db) == before


def test_new_and_known_events_are_counted_apart(client, monitor):
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
    # Surrounded by ids that sort before and after, in case the order of insertion is theirs.
    twin = new_id()
    events = [monitor.event(id=twin, payload={"n": n}) for n in range(3)]
    events[position:position] = [monitor.event(id=f"evt_0{new_id()}"), monitor.event(id=f"evt_z{new_id()}")]
    body = monitor.post(client, events).json()
    assert (body["inserted"], body["duplicates"]) == (3, 2)
    assert json.loads(stored(db, twin).payload) == {"n": 0}


def test_an_id_taken_by_another_monitor_is_a_duplicate_that_stays_its_own_and_is_logged(stack, client, monitor,
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


def test_ids_differ_when_their_bytes_do(client, monitor):
    # é in one and in two code points, and another case: four ids.
    base = new_id()
    ids = [f"{base}\u00e9", f"{base}e\u0301", f"{base}X", f"{base}x"]
    assert monitor.post(client, [monitor.event(id=each) for each in ids]).json()["inserted"] == 4


def test_overlapping_batches_at_once_store_each_event_once(stack, monitor, db):
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


def test_a_body_of_exactly_5_MiB_is_stored(client, monitor):
    answer = monitor.post(client, big_batch(monitor, MAX_BODY_BYTES))
    assert answer.status_code == 200, answer.text
    assert answer.json()["inserted"] == 1000


def test_a_5_MiB_body_of_empty_objects_is_too_many(refused):
    count = (MAX_BODY_BYTES - 2) // 3
    check_error(refused(b"[" + b",".join([b"{}"] * count) + b"]"), 400, "batch_too_large")


def test_a_5_MiB_body_of_commas_and_objects_that_never_ends_is_refused(refused):
    answer = refused(b"[" + b"{}," * (MAX_BODY_BYTES // 3 - 1))
    check_refused(answer, (400, "invalid_request"), (400, "batch_too_large"))


@pytest.mark.parametrize("fill", [b"[", b'{"a":', b'"', b" ", b"\\", b"\0", b"9"], ids=ascii)
def test_5_MiB_of_one_thing_is_refused(fill, refused):
    check_error(refused(fill * (MAX_BODY_BYTES // len(fill))), 400, "invalid_request")


def test_the_batch_of_a_monitor_in_the_field_is_stored_to_the_byte(stack, db):
    """What existing monitors send: the field is `type`, times have nine digits, connections are kept."""
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


def test_a_chunked_body_is_stored(client, monitor):
    body = encode([monitor.event()])
    pieces = (body[at:at + 7] for at in range(0, len(body), 7))
    answer = client.post("/ingest", content=pieces, headers=monitor.headers(body))
    assert (answer.status_code, answer.json()["inserted"]) == (200, 1)
    assert "content-length" not in answer.request.headers


@pytest.mark.parametrize("kind", [ABSENT, "text/plain", "application/json; charset=utf-8", "x"], ids=str)
def test_the_content_type_of_a_request_does_not_matter(kind, client, monitor):
    body = encode([monitor.event()])
    headers = monitor.headers(body, **{"Content-Type": kind})
    assert client.post("/ingest", content=body, headers=headers).status_code == 200


def test_a_query_string_does_not_matter(client, monitor):
    assert monitor.post(client, [monitor.event()], "/ingest?days=x&%zz").status_code == 200


def test_http2_is_spoken(stack, monitor):
    with stack.client(next(addresses), http2=True) as client:
        answer = monitor.post(client, [monitor.event()])
        assert (answer.http_version, answer.status_code) == ("HTTP/2", 200)
        check_json(answer)


def test_a_compressed_body_is_not_json(refused):
    check_error(refused(gzip.compress(b"[]"), headers={"Content-Encoding": "gzip"}), 400, "invalid_request")


@pytest.mark.parametrize("piece", ["{}", "[]", "0", '""', '{"":{}}'])
def test_an_event_may_hold_as_many_values_as_fit_its_size(piece, accepted, monitor):
    # An event's bytes and its depth are bounded, and nothing else.
    room = MAX_EVENT_BYTES - len(monitor.raw_event(payload='{"list":[]}'))
    values = ",".join([piece] * ((room + 1) // (len(piece) + 1)))
    assert accepted(monitor.raw_event(payload=f'{{"list":[{values}]}}'))


def events_of_nodes(monitor, total):
    """Events with so many objects and arrays in all: each, its payload and its list are three."""
    per_event = 20000
    for begin in range(0, total, per_event):
        inner = ",".join(["{}"] * (min(per_event, total - begin) - 3))
        yield monitor.raw_event(payload=f'{{"list":[{inner}]}}')


def test_a_batch_may_hold_200000_objects_and_arrays(client, monitor):
    answer = monitor.post(client, f"[{','.join(events_of_nodes(monitor, 200_000))}]")
    assert (answer.status_code, answer.json().get("inserted")) == (200, 10), answer.text


def test_a_batch_of_more_objects_and_arrays_is_too_large(refused, monitor):
    # 5 MiB of them cost a backend of the database a gigabyte of memory.
    check_error(refused(f"[{','.join(events_of_nodes(monitor, 200_003))}]"), 400, "batch_too_large")
