"""What a line may be, what is filled in, and what happens to a line that is not a valid event."""

import datetime
import json
import re
import signal
import subprocess
import time

import pytest

from monitor import now, rfc3339
from scripted import events_of
from stack import wait_for

EVENT_BYTES = 64 * 1024


@pytest.fixture
def taken(server, sender):
    """Feed lines, and return the events made of them, in order."""
    def feed(*lines, count):
        sender.start()
        sender.feed(*lines)
        sender.send_now()
        if count:
            server.wait_for_events(count)
        wait_for(lambda: sender.pending() == 0, "nothing to be pending")
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


def test_each_missing_field_is_filled_in_separately(sender, taken):
    whole = [sender.event() for _ in range(3)]
    events = taken(*[json.dumps(without(event, name)) for event, name in zip(whole, ["id", "source", "timestamp"])], count=3)
    events.sort(key=lambda event: event["payload"]["number"])
    for event, given, name in zip(events, whole, ["id", "source", "timestamp"]):
        assert event[name] and without(event, name) == without(given, name)


def test_generated_ids_never_repeat_and_use_the_whole_alphabet(sender, taken):
    bare = json.dumps(without(sender.event(), "id"))
    ids = [event["id"] for event in taken(*[bare] * 3000, count=3000)]
    assert len(set(ids)) == 3000
    assert all(re.fullmatch(r"evt_[a-z0-9]{20}", i) for i in ids)
    # Of 60,000 characters out of 36, none may be twice as frequent as another by chance.
    counts = [sum(i[4:].count(c) for i in ids) for c in "abcdefghijklmnopqrstuvwxyz0123456789"]
    assert min(counts) > 1400 and max(counts) < 1950, counts


def test_a_complete_event_is_sent_unchanged(server, sender, taken):
    """Byte for byte: numbers, order, escapes and white space."""
    line = sender.identity.raw_event(payload='{"a": 1.10, "big": 123456789012345678901234567890, "e":"\\u00e9é \\/" , "z":[ 1 ]}')
    taken(line, count=1)
    assert line.encode() in server.requests[0].body


@pytest.mark.parametrize("ending", [b"\n", b"\r\n"])
def test_lines_end_in_lf_or_crlf(sender, taken, ending):
    lines = [line.encode() + ending for line in sender.lines(3)]
    assert [event["payload"]["number"] for event in taken(*lines, count=3)] == [1, 2, 3]


def test_empty_lines_are_ignored(sender, taken):
    first, second = sender.lines(2)
    taken(b"\n\n", first, b"\r\n", b"   \n", b"\t\n", second, count=2)
    assert not sender.rejected() and not sender.log("input_rejected")


def test_a_last_line_without_a_newline_is_sent(server, sender):
    sender.start()
    sender.feed(sender.lines(1)[0].encode())
    sender.process.stdin.close()
    server.wait_for_events(1)
    assert sender.end(None) == 0


def test_a_line_may_arrive_in_pieces(server, sender):
    sender.start()
    line = sender.lines(1)[0].encode() + b"\n"
    for start in range(0, len(line), 7):
        sender.feed(line[start:start + 7])
        time.sleep(0.005)
    server.wait_for_events(1)


def test_an_escape_in_a_needed_member_and_another_character_elsewhere_are_valid(sender, taken):
    """The scanner judges what is strict JSON: json-c 0.18 refuses some of these when it is asked to be strict."""
    lines = [sender.identity.raw_event(id=json.dumps(f"evt_{number}é{'x' * 20}").replace("\\u00e9", escaped),
                                       payload=f'{{"number":{number},"note":"{other}"}}')
             for number, (escaped, other) in enumerate([("\\u00e9", "ü"), ("\\/", "☃"), ("\\ud834\\udd1e", "𝄞"), ("é", "\\u00e9")])]
    assert sorted(event["payload"]["number"] for event in taken(*lines, count=4)) == [0, 1, 2, 3]
    assert not sender.rejected()


BAD = {
    "not JSON": b"what is this",
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
    "a number beyond a double's range": b'{"type":"tool","payload":{"x":1e999}}',
    "a leading zero": b'{"type":"tool","payload":{"x":01}}',
    "no type": b'{"payload":{}}',
    "an unknown type": b'{"type":"party","payload":{}}',
    "a type that is not a string": b'{"type":1,"payload":{}}',
    "no payload": b'{"type":"tool"}',
    "a payload that is not an object": b'{"type":"tool","payload":[]}',
    "another source": b'{"type":"tool","payload":{},"source":"somebody"}',
    "a source that is not a string": b'{"type":"tool","payload":{},"source":null}',
    "an invalid id": b'{"type":"tool","payload":{},"id":"17"}',
    "an empty id": b'{"type":"tool","payload":{},"id":""}',
    "an id that is null": b'{"type":"tool","payload":{},"id":null}',
    "a long id": b'{"type":"tool","payload":{},"id":"evt_' + b"x" * 252 + b'"}',
    "an invalid timestamp": b'{"type":"tool","payload":{},"timestamp":"yesterday"}',
    "a timestamp without an offset": b'{"type":"tool","payload":{},"timestamp":"2026-02-03T14:35:00"}',
    "a date that doesn't exist": b'{"type":"tool","payload":{},"timestamp":"2026-02-30T14:35:00Z"}',
    "a timestamp with two spaces": b'{"type":"tool","payload":{},"timestamp":"2026-02-03  14:35:00Z"}',
    "too deep": b'{"type":"tool","payload":' + b'{"a":' * 40 + b"1" + b"}" * 40 + b"}",
    "too large": b'{"type":"tool","payload":{"x":"' + b"x" * EVENT_BYTES + b'"}}',
    "far too large": b'{"type":"tool","payload":{"x":"' + b"x" * (20 << 20) + b'"}}',
    "a huge line of brackets": b"[" * (8 << 20),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_line_is_logged_and_rejected_and_the_others_are_sent(server, sender, taken, name):
    first, second = sender.lines(2)
    events = taken(first, BAD[name] + b"\n", second, count=2)
    assert [event["payload"]["number"] for event in events] == [1, 2]
    record, = sender.log("input_rejected")
    assert record["line"] == "2" and (record.get("error") or record.get("detail"))
    aside, = sender.rejected()
    assert aside["line"] == 2 and aside["reason"]
    if len(BAD[name]) < 4096 and b"\xff" not in BAD[name]:
        assert aside["event"] == BAD[name].decode() or json.loads(json.dumps(aside["event"])) == json.loads(BAD[name])
    assert sender.peak_mib() < 24


def test_line_numbers_count_empty_and_bad_lines(sender, taken):
    taken(b"\n", b"bad\n", sender.lines(1)[0], b"\r\n", b"bad too\n", count=1)
    assert [record["line"] for record in sender.log("input_rejected")] == ["2", "5"]


def test_a_flood_of_bad_lines_neither_fills_the_disk_nor_stops_the_others(server, sender):
    sender.start()
    bad = b'{"type":"party","payload":{"text":"' + b"x" * 3000 + b'"}}\n'
    for _ in range(20):
        sender.feed(*[bad] * 2000, *sender.lines(1))
    server.wait_for_events(20, 60)
    assert sender.held() < 120_000_000 and sender.rejected()


def sized(sender, size):
    """A complete event of exactly so many bytes."""
    event = sender.event(payload={"number": 0, "x": ""})
    return json.dumps(event | {"payload": {"number": 0, "x": "x" * (size - len(json.dumps(event)))}})


def test_an_event_may_have_64_KiB_and_not_one_byte_more(sender, taken):
    good, bad = sized(sender, EVENT_BYTES), sized(sender, EVENT_BYTES + 1)
    assert len(good) == EVENT_BYTES
    taken(bad, good, count=1)
    assert [record["line"] for record in sender.log("input_rejected")] == ["1"]


def test_the_size_limit_includes_fields_that_are_filled_in(sender, taken):
    """The server checks the size of what it receives."""
    event = {"type": "tool", "payload": {"number": 0, "x": ""}}
    line = json.dumps(event | {"payload": {"number": 0, "x": "x" * (EVENT_BYTES - len(json.dumps(event)))}})
    assert len(line) == EVENT_BYTES
    taken(line, *sender.lines(1), count=1)
    assert [record["line"] for record in sender.log("input_rejected")] == ["1"]


def test_large_events_are_sent_in_batches_of_at_most_1_MiB(server, sender):
    sender.start(STEEP_BATCH_INTERVAL_SECS="3600")
    sender.feed(*[sized(sender, 60_000) for _ in range(60)])
    wait_for(lambda: sender.pending() == 60, "the events to be in the spool")
    sender.send_now()
    wait_for(lambda: sender.counted("sent") == 60, "all of them to be sent")
    # The scripted server checks the size of each; few of them are small.
    assert len(server.requests) <= 8


def test_unknown_fields_and_both_names_of_the_type_are_kept(sender, taken):
    both = sender.event(eventType="agent", extra={"kept": True})
    old = without(sender.event(), "type") | {"eventType": "session"}
    assert taken(json.dumps(both), json.dumps(old), count=2) == [both, old]


def test_unusual_but_valid_ids_and_timestamps_are_kept(sender, taken):
    date = subprocess.run(["date", "--rfc-3339=ns"], capture_output=True, text=True, check=True).stdout.strip()
    assert date[10] == " "
    events = [sender.event(id="evt_ü ☃"), sender.event(timestamp=date), sender.event(timestamp="2016-12-31t23:59:60z"),
              sender.event(timestamp=rfc3339(now()).replace("Z", "+15:59"))]
    assert taken(*[json.dumps(event) for event in events], count=4) == events


def test_end_of_input_sends_pending_events_and_ends(server, sender):
    sender.start(STEEP_BATCH_INTERVAL_SECS="3600")
    sender.feed(*sender.lines(2500))
    sender.process.stdin.close()
    assert sender.end(None, 60) == 0
    assert len(server.wait_for_events(2500)) == 2500
    assert sender.log("stopped")[-1]["pending"] == "0"


def test_end_of_input_without_a_server_keeps_pending_events(server, sender):
    server.close()
    sender.start()
    sender.feed(*sender.lines(10))
    sender.process.stdin.close()
    assert sender.end(None, 20) == 0
    assert sender.log("stopped")[-1]["pending"] == "10"
    assert sender.pending() == 10


def test_an_empty_input_sends_nothing(server, sender):
    sender.start(stdin=None)
    sender.end(signal.SIGTERM)
    sender.start("-")
    sender.process.stdin.close()
    assert sender.end(None) == 0
    assert not server.requests
