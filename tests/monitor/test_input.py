"""What a line may be, what is filled in, and what becomes of a line that is no event."""

import datetime
import json
import re
import signal
import time

import pytest

from monitor import now, rfc3339
from scripted import events_of
from stack import wait_for

EVENT_BYTES = 64 * 1024


@pytest.fixture
def taken(server, sender):
    """Feed lines, and return the events that came of them, in their order."""
    def feed(*lines, count):
        sender.start()
        sender.feed(*lines)
        sender.send_now()
        if count:
            server.wait_for_events(count)
        wait_for(lambda: sender.waiting() == 0, "nothing to wait any more")
        return [event for request in server.requests for event in events_of(request)]

    return feed


def without(event, *names):
    return {name: value for name, value in event.items() if name not in names}


def test_missing_fields_are_filled_in(sender, taken, identity):
    before = now()
    bare = without(sender.event(), "id", "source", "timestamp")
    event, = taken(json.dumps(bare), count=1)
    assert re.fullmatch(r"evt_[a-z0-9]{20}", event["id"])
    assert event["source"] == identity.source
    at = datetime.datetime.fromisoformat(event["timestamp"].replace("Z", "+00:00"))
    assert before - datetime.timedelta(seconds=1) <= at <= now()
    assert without(event, "id", "source", "timestamp") == bare


def test_each_field_is_filled_in_by_itself(sender, taken):
    whole = [sender.event() for _ in range(3)]
    events = taken(*[json.dumps(without(event, name)) for event, name in zip(whole, ["id", "source", "timestamp"])], count=3)
    for event, given, name in zip(events, whole, ["id", "source", "timestamp"]):
        assert event[name] and without(event, name) == without(given, name)


def test_ids_that_are_filled_in_never_repeat_and_use_the_whole_alphabet(sender, taken):
    bare = json.dumps(without(sender.event(), "id"))
    ids = [event["id"] for event in taken(*[bare] * 3000, count=3000)]
    assert len(set(ids)) == 3000
    assert all(re.fullmatch(r"evt_[a-z0-9]{20}", i) for i in ids)
    # 60,000 characters of 36: a letter twice as frequent as another is no accident.
    counts = [sum(i[4:].count(c) for i in ids) for c in "abcdefghijklmnopqrstuvwxyz0123456789"]
    assert min(counts) > 1400 and max(counts) < 1950, counts


def test_an_event_that_is_whole_goes_out_as_it_came(server, sender, taken):
    """Its bytes, not what a parser makes of them: numbers, order, escapes and white space."""
    line = sender.identity.raw_event(payload='{"a": 1.10, "big": 123456789012345678901234567890, "e":"\\u00e9é \\/" , "z":[ 1 ]}')
    taken(line, count=1)
    assert line.encode() in server.requests[0].body


@pytest.mark.parametrize("ending", [b"\n", b"\r\n"])
def test_lines_end_in_either_way(sender, taken, ending):
    lines = [line.encode() + ending for line in sender.lines(3)]
    assert [event["payload"]["number"] for event in taken(*lines, count=3)] == [1, 2, 3]


def test_empty_lines_are_no_events_and_no_errors(sender, taken):
    first, second = sender.lines(2)
    taken(b"\n\n", first, b"\r\n", b"   \n", b"\t\n", second, count=2)
    assert not sender.set_aside() and not sender.log("input_rejected")


def test_a_last_line_without_its_end_counts(server, sender):
    sender.start()
    sender.feed(sender.lines(1)[0].encode())
    sender.process.stdin.close()
    server.wait_for_events(1)
    assert sender.end(None) == 0


def test_a_line_that_comes_in_pieces_is_one(server, sender):
    sender.start()
    line = sender.lines(1)[0].encode() + b"\n"
    for start in range(0, len(line), 7):
        sender.feed(line[start:start + 7])
        time.sleep(0.005)
    server.wait_for_events(1)


BAD = {
    "no JSON": b"what is this",
    "an array": b"[]",
    "a number": b"17",
    "text": b'"evt_a"',
    "two in a line": b"{} {}",
    "not closed": b'{"payload":{',
    "invalid UTF-8": b'{"type":"tool","payload":{"x":"\xff\xfe"}}',
    "a NUL": b'{"type":"tool","payload":{"x":"a\0b"}}',
    "a NUL alone": b"\0",
    "an escaped NUL": b'{"type":"tool","payload":{"x":"\\u0000"}}',
    "a lone surrogate": b'{"type":"tool","payload":{"x":"\\ud800"}}',
    "a control character": b'{"type":"tool","payload":{"x":"\x01"}}',
    "NaN": b'{"type":"tool","payload":{"x":NaN}}',
    "a number no double holds": b'{"type":"tool","payload":{"x":1e999}}',
    "a leading zero": b'{"type":"tool","payload":{"x":01}}',
    "no type": b'{"payload":{}}',
    "an unknown type": b'{"type":"party","payload":{}}',
    "a type that is no text": b'{"type":1,"payload":{}}',
    "no payload": b'{"type":"tool"}',
    "a payload that is no object": b'{"type":"tool","payload":[]}',
    "another source": b'{"type":"tool","payload":{},"source":"somebody"}',
    "a source that is no text": b'{"type":"tool","payload":{},"source":null}',
    "an id that is none": b'{"type":"tool","payload":{},"id":"17"}',
    "an empty id": b'{"type":"tool","payload":{},"id":""}',
    "an id that is null": b'{"type":"tool","payload":{},"id":null}',
    "a long id": b'{"type":"tool","payload":{},"id":"evt_' + b"x" * 252 + b'"}',
    "a timestamp of yesterday's": b'{"type":"tool","payload":{},"timestamp":"yesterday"}',
    "a timestamp without an offset": b'{"type":"tool","payload":{},"timestamp":"2026-02-03T14:35:00"}',
    "a day that isn't": b'{"type":"tool","payload":{},"timestamp":"2026-02-30T14:35:00Z"}',
    "too deep": b'{"type":"tool","payload":' + b'{"a":' * 40 + b"1" + b"}" * 40 + b"}",
    "too large": b'{"type":"tool","payload":{"x":"' + b"x" * EVENT_BYTES + b'"}}',
    "far too large": b'{"type":"tool","payload":{"x":"' + b"x" * (20 << 20) + b'"}}',
    "a huge line without sense": b"[" * (8 << 20),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_line_is_reported_set_aside_and_stops_nobody(server, sender, taken, name):
    first, second = sender.lines(2)
    events = taken(first, BAD[name] + b"\n", second, count=2)
    assert [event["payload"]["number"] for event in events] == [1, 2]
    record, = sender.log("input_rejected")
    assert record["line"] == "2" and (record.get("error") or record.get("detail"))
    aside, = sender.set_aside()
    assert aside["line"] == 2 and aside["reason"]
    if len(BAD[name]) < 4096 and b"\xff" not in BAD[name]:
        assert aside["event"] == BAD[name].decode() or json.loads(json.dumps(aside["event"])) == json.loads(BAD[name])
    assert sender.peak_mib() < 24


def test_lines_are_counted_with_the_empty_and_the_bad_ones(sender, taken):
    taken(b"\n", b"bad\n", sender.lines(1)[0], b"\r\n", b"bad too\n", count=1)
    assert [record["line"] for record in sender.log("input_rejected")] == ["2", "5"]


def test_a_flood_of_bad_lines_neither_fills_the_disk_nor_stops_the_others(server, sender):
    sender.start()
    bad = b'{"type":"party","payload":{"text":"' + b"x" * 3000 + b'"}}\n'
    for _ in range(20):
        sender.feed(*[bad] * 2000, *sender.lines(1))
    server.wait_for_events(20, 60)
    size = sum(file.stat().st_size for file in sender.state.glob("rejected*"))
    assert size < 120_000_000 and sender.set_aside()


def sized(sender, size):
    """A whole event of exactly so many bytes."""
    event = sender.event(payload={"number": 0, "x": ""})
    return json.dumps(event | {"payload": {"number": 0, "x": "x" * (size - len(json.dumps(event)))}})


def test_an_event_of_64_KiB_is_taken_and_one_byte_more_is_not(sender, taken):
    good, bad = sized(sender, EVENT_BYTES), sized(sender, EVENT_BYTES + 1)
    assert len(good) == EVENT_BYTES
    taken(bad, good, count=1)
    assert [record["line"] for record in sender.log("input_rejected")] == ["1"]


def test_an_event_that_only_grows_too_large_by_what_is_filled_in_is_refused(sender, taken):
    """The server measures what it is sent."""
    event = {"type": "tool", "payload": {"number": 0, "x": ""}}
    line = json.dumps(event | {"payload": {"number": 0, "x": "x" * (EVENT_BYTES - len(json.dumps(event)))}})
    assert len(line) == EVENT_BYTES
    taken(line, *sender.lines(1), count=1)
    assert [record["line"] for record in sender.log("input_rejected")] == ["1"]


def test_large_events_go_in_batches_of_at_most_1_MiB(server, sender, taken):
    lines = [sized(sender, 60_000) for _ in range(60)]
    taken(*lines, count=60)
    # The server judges each of them; none is wastefully small either.
    assert len(server.requests) <= 8


def test_unknown_fields_and_both_type_names_go_through(sender, taken):
    both = sender.event(eventType="agent", extra={"kept": True})
    old = without(sender.event(), "type") | {"eventType": "session"}
    assert taken(json.dumps(both), json.dumps(old), count=2) == [both, old]


def test_ids_and_times_in_their_odd_but_valid_forms_are_kept(sender, taken):
    events = [sender.event(id="evt_ü ☃"), sender.event(timestamp="2016-12-31t23:59:60z"),
              sender.event(timestamp=rfc3339(now()).replace("Z", "+15:59"))]
    assert taken(*[json.dumps(event) for event in events], count=3) == events


def test_end_of_input_sends_what_waits_and_ends(server, sender):
    sender.start(STEEP_BATCH_INTERVAL_SECS="3600")
    sender.feed(*sender.lines(2500))
    sender.process.stdin.close()
    assert sender.end(None, 60) == 0
    assert len(server.wait_for_events(2500)) == 2500
    assert sender.log("stopped")[-1]["waiting"] == "0"


def test_end_of_input_without_a_server_keeps_what_waits(server, sender):
    server.close()
    sender.start()
    sender.feed(*sender.lines(10))
    sender.process.stdin.close()
    assert sender.end(None, 20) == 0
    assert sender.log("stopped")[-1]["waiting"] == "10"
    assert sender.waiting() == 10


def test_an_empty_input_is_none(server, sender):
    sender.start(stdin=None)
    sender.end(signal.SIGTERM)
    sender.start("-")
    sender.process.stdin.close()
    assert sender.end(None) == 0
    assert not server.requests
