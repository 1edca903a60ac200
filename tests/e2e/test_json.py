"""JSON, from the wire to jsonb and back. What is valid is tested in tests/unit/json.c."""

import decimal
import json
import sys

import pytest

from monitor import encode, new_id
from wire import MARKER, check_error, check_rejected

# The values in these tests have thousands of digits, which Python otherwise refuses to read.
sys.set_int_max_str_digits(0)


@pytest.mark.contract
@pytest.mark.parametrize("body", ["", "null", "{}", "[{}]x", b"[\xff]", b"\xef\xbb\xbf[]", "[" * 50000], ids=lambda body: ascii(body)[:20])
def test_a_body_that_is_not_a_json_array_is_invalid_request(body, refused):
    check_error(refused(body), 400, "invalid_request")


@pytest.mark.contract
def test_a_payload_that_jsonb_cannot_store_is_refused_by_its_index(refused, monitor):
    bad = [r'{"note":"\u0000"}', r'{"note":"\ud800"}', '{"note":NaN}', '{"note":"\n"}', '{"n":1e999}', '{"n":0e-20000}']
    events = [monitor.raw_event(), *(monitor.raw_event(payload=payload) for payload in bad)]
    check_rejected(refused(f"[{','.join(events)}]"), [(at, "invalid_payload") for at in range(1, len(events))])


PAYLOADS = [
    {}, {"a": None}, {"": ""}, {"k" * 5000: "v" * 5000}, {"ключ": "значение", "😀": "\U0010ffff"},
    {"list": [1, [2, [3]], {}, []]}, {"html": "</script>'\"\\--;"}, {"\u2028": "\u2029"}, {"tab": "\t\n\r\b\f/"},
    {"brackets": "[{" * 100 + "\\\"" + "[" * 100},
    *({text: text} for text in "\x7f\u0080\ud7ff\ue000\ufffd\ufffe\uffff\U0001fffe\U0010ffff\ufeff\u200b"),
]
RAW_PAYLOADS = [
    r'{"\u0061\ud83d\ude00": "\u00e9\/\"\\\u001f"}', '{"a":1,"a":2}',
    # Zero with any exponent, and the largest and smallest numbers that a double holds.
    '{"n":[0,-0,0.0,0e0,0e5,0e999999,0E+999999,-0e400,0.000e400,0e-999]}',
    '{"n":[1e308,1.7976931348623157e308,-1.7976931348623157e308,5e-324,2.5E-300,1e22,1E2,12.5e-1]}',
]


def test_a_payload_is_stored_as_it_was_sent(accepted_all, monitor):
    def read(text):
        return json.loads(text, parse_int=decimal.Decimal, parse_float=decimal.Decimal)

    sent = [*(encode(payload).decode() for payload in PAYLOADS), *RAW_PAYLOADS]
    rows = accepted_all([monitor.raw_event(payload=payload) for payload in sent])
    assert [read(row.payload) for row in rows] == [read(payload) for payload in sent]
    # The search of the logs in test_logs.py means something only if payloads do carry the marker.
    assert MARKER in accepted_all([monitor.event()])[0].payload


def test_a_number_keeps_every_digit(accepted_all, monitor):
    numbers = ["9007199254740993", "-9007199254740993", "9223372036854775808", "18446744073709551616",
               "123456789012345678901234567890", "9" * 300, "0.1000000000000000055511151231257827021181583404541015625",
               "3.14159265358979323846264338327950288419716939937510", "1.10", "-0.30000000000000000000000000001",
               "179769313486231570000000000000000000000.000000000000000000000001", "0." + "0" * 300 + "123"]
    rows = accepted_all([monitor.raw_event(payload=f'{{"n":{number}}}') for number in numbers])
    assert [row.payload for row in rows] == [f'{{"n": {number}}}' for number in numbers]


def test_the_last_of_a_repeated_name_is_stored(accepted, monitor):
    # RFC 8259 leaves the meaning open; what is checked and what is stored must not differ.
    bad = ['"id":"forged"', '"source":"e2e-other"', '"timestamp":"now"', '"eventType":"x"', '"payload":[1]']
    event = "{" + ",".join(bad) + "," + monitor.raw_event(timestamp='"2026-02-03T14:30:00Z"')[1:]
    row = accepted(event)
    assert (row.source, row.instant, row.event_type) == (monitor.source, "2026-02-03 14:30:00.000000", "tool")
    assert MARKER in row.payload


def test_names_and_values_may_be_written_with_escapes(accepted, monitor):
    event_id = new_id()
    escaped = "".join(f"\\u{ord(letter):04x}" for letter in monitor.source)
    event = (fr'{{"\u0069d":"\u0065{event_id[1:]}","s\u006furce":"{escaped}","\u0074imestamp":"2026-02-03\u005414:30:00Z",'
             r'"event\u0054ype":"t\u006fol","payl\u006Fad":{"\u0061":1}}')
    row = accepted(event)
    assert (row.source, row.instant, row.event_type) == (monitor.source, "2026-02-03 14:30:00.000000", "tool")
    assert row.payload == '{"a": 1}'


def test_escapes_may_stand_beside_characters_beyond_ascii(accepted, monitor):
    # json-c 0.18 refuses these characters in its strict mode.
    event_id = new_id()
    row = accepted(monitor.raw_event(id=fr'"\u0065{event_id[1:]}ü"', eventType=r'"\u0074ool"', payload='{"note":"ü"}'))
    assert (row.event_type, row.payload) == ("tool", '{"note": "ü"}')


@pytest.mark.contract
def test_white_space_may_stand_between_any_two_tokens(client, monitor):
    white = " \t\r\n"
    tokens = ["[", "{"]
    for at, (name, value) in enumerate(monitor.event().items()):
        tokens += ([","] if at else []) + [json.dumps(name), ":", json.dumps(value)]
    body = white + white.join(tokens + ["}", "]"]) + white
    assert monitor.post(client, body).status_code == 200


def test_an_event_may_be_32_levels_deep(accepted, refused, monitor):
    def nested(levels):
        return monitor.raw_event(payload='{"a":' + "[" * (levels - 2) + "]" * (levels - 2) + "}")

    assert accepted(nested(32)).payload.count("[") == 30
    check_rejected(refused(f"[{nested(33)}]"), [(0, "invalid_event")])
