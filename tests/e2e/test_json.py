"""JSON that is not JSON, JSON that PostgreSQL can't hold, and numbers."""

import json
import re
import sys

import pytest

from monitor import new_id
from wire import MARKER, check_error, check_refused, check_rejected

# The values in these tests have thousands of digits, which Python otherwise refuses to read.
sys.set_int_max_str_digits(0)

NOT_AN_ARRAY = ["null", "true", "1", '"[]"', "{}", '{"events":[]}', "[1]]", "[]]", "[],", "[] []", "[]x", "[]\0", "\0[]",
                "[]\0junk", "[", "]", "[{", "[{}", "[}", "[,]", "[{},]", "[,{}]", "[{}{}]", "[{} {}]", "[{}:{}]", "",
                " ", "\n", "x", "nul", "[nul]", "[tru]", "[True]", "[NULL]", "[undefined]", "'[]'", "[//x\n]", "[/**/]",
                "[{}]//x", "[#\n]", "<xml/>", "a=b", "[{]}", "[(1)]", "[1 2]", "[\"", "[\"x", "[\"\\", "\v[]", "\f[]",
                "[\v]", "\u00a0[]", "[\u2003]", "[-]", "[+1]", "[.5]", "[5.]", "[1e]", "[1e+]", "[0x1]", "[01]", "[1_0]",
                "[--1]", "[1.e5]", "[Infinity]", "[NaN]", "[-Infinity]", "[\\u005b]", "[;]", "[{};]"]


@pytest.mark.parametrize("body", NOT_AN_ARRAY, ids=ascii)
def test_what_is_no_json_array_is_invalid_request(body, refused):
    answer = refused(body)
    # A broken number or word alone in its place may be judged like any event that is no object.
    one_word = re.fullmatch(r"\[[-+.\w]+\]", body, re.ASCII)
    check_refused(answer, (400, "invalid_request"), *([(422, "invalid_event")] if one_word else []))


@pytest.mark.parametrize("body", [
    b"\xef\xbb\xbf[]", b"\xff\xfe[\0]\0", b"\xfe\xff\0[\0]", b"[\0]\0", "[]".encode("utf-32"), b"\xef\xbb\xbf", b"\xff",
    b"[\xff]", b"[]\xff", b"[]\xc0\x80", b"\x80[]", b"[]\xe2\x82",
], ids=ascii)
def test_a_byte_order_mark_or_another_encoding_is_invalid_request(body, refused):
    check_error(refused(body), 400, "invalid_request")


INVALID_UTF8 = {
    "a lone continuation byte": b"\x80", "a lead byte without its tail": b"\xc3", "0xff": b"\xff", "0xfe": b"\xfe",
    "an overlong slash": b"\xc0\xaf", "an overlong NUL": b"\xc0\x80", "an overlong three": b"\xe0\x80\xaf",
    "an overlong four": b"\xf0\x80\x80\xaf", "a high surrogate": b"\xed\xa0\x80", "a low surrogate": b"\xed\xbf\xbf",
    "a pair of surrogates (CESU-8)": b"\xed\xa0\xbd\xed\xb8\x80", "above U+10FFFF": b"\xf4\x90\x80\x80",
    "five bytes": b"\xf8\x88\x80\x80\x80", "six bytes": b"\xfc\x84\x80\x80\x80\x80", "0xf5": b"\xf5\x80\x80\x80",
    "cut short at the quote": b"\xf0\x9f\x98", "Latin-1": "é".encode("latin-1"),
}
PLACES = {
    "a payload's value": lambda m: m.raw_event(payload='{"note":"@"}'),
    "a payload's key": lambda m: m.raw_event(payload='{"@":1}'),
    "the id": lambda m: m.raw_event(id='"evt_@"'),
    "an ignored field": lambda m: m.raw_event(other='"@"'),
    "an ignored name": lambda m: m.raw_event(**{"@": "1"}),
}


@pytest.mark.parametrize("kind", INVALID_UTF8)
@pytest.mark.parametrize("place", PLACES)
def test_invalid_utf8_is_not_json(place, kind, refused, monitor):
    bad = INVALID_UTF8[kind]
    body = b"[" + PLACES[place](monitor).encode().replace(b"@", bad) + b"]"
    check_error(refused(body), 400, "invalid_request")


@pytest.mark.parametrize("text", ["\x7f", "\u0080", "\ud7ff", "\ue000", "\ufffd", "\ufffe", "\uffff", "\U0001fffe",
                                  "\U0010ffff", "\ufeff", "\u200b"], ids=ascii)
def test_every_other_character_is_kept(text, accepted, monitor):
    assert json.loads(accepted(monitor.event(payload={text: text})).payload) == {text: text}


# RFC 8259 allows these; jsonb can't hold them. The contract names the code for the payload.
UNSTORABLE = {
    "NUL": r"\u0000", "a NUL inside": r"a\u0000b", "a lone high surrogate": r"\ud800", "a lone low surrogate": r"\udc00",
    "a high surrogate at the end": r"x\udbff", "two high surrogates": r"\ud800\ud800",
    "a pair the wrong way round": r"\ude00\ud83d", "a high surrogate before a letter": r"\ud83dx",
    "a high surrogate before an escape": r"\ud83d\n",
}


@pytest.mark.parametrize("kind", UNSTORABLE)
@pytest.mark.parametrize("payload", ['{"note":"@"}', '{"@":1}', '{"a":[{"b":["@"]}]}'])
def test_a_payload_that_jsonb_cant_hold_is_invalid_payload(payload, kind, refused, monitor):
    event = monitor.raw_event(payload=payload.replace("@", UNSTORABLE[kind]))
    check_rejected(refused(f"[{event}]"), [(0, "invalid_payload")])


@pytest.mark.parametrize("kind", UNSTORABLE)
def test_an_unstorable_character_in_the_id_is_refused(kind, refused, monitor):
    event = monitor.raw_event(id=f'"evt_{UNSTORABLE[kind]}"')
    # A NUL is a control character; for half a surrogate pair the contract has no row.
    allowed = {"NUL": ["invalid_event_id"], "a NUL inside": ["invalid_event_id"]}
    answer = refused(f"[{event}]")
    check_refused(answer, *[(422, code) for code in allowed.get(kind, ["invalid_event_id", "invalid_payload",
                                                                       "invalid_event"])])


@pytest.mark.parametrize("kind", UNSTORABLE)
@pytest.mark.parametrize("field, code", [("source", "source_mismatch"), ("eventType", "invalid_event_type"),
                                         ("timestamp", "invalid_timestamp")])
def test_an_unstorable_character_in_another_field_breaks_its_rule(field, code, kind, refused, monitor):
    good = {"source": monitor.source, "eventType": "tool", "timestamp": "2026-02-03T14:30:00Z"}[field]
    event = monitor.raw_event(**{field: f'"{good}{UNSTORABLE[kind]}"'})
    check_rejected(refused(f"[{event}]"), [(0, code)])


@pytest.mark.parametrize("kind", UNSTORABLE)
@pytest.mark.parametrize("other", ['"other":"@"', '"@":1', '"other":{"@":1}'])
def test_an_unstorable_character_in_an_ignored_field_is_refused_or_does_no_harm(other, kind, client, monitor, db):
    # "Other fields are ignored", yet jsonb can't take the bytes as they came: either is a reading. Never a 5xx.
    event_id = new_id()
    event = monitor.raw_event(id=f'"{event_id}"')[:-1] + "," + other.replace("@", UNSTORABLE[kind]) + "}"
    answer = monitor.post(client, f"[{event}]")
    count = db.execute("SELECT count(*) FROM public.events WHERE id = %s", (event_id,)).fetchone()[0]
    if answer.status_code == 200:
        assert count == 1
    else:
        check_refused(answer, (422, "invalid_payload"), (422, "invalid_event"), (400, "invalid_request"))
        assert count == 0


def test_a_name_cut_short_by_a_nul_is_not_that_name(client, monitor, db):
    # json-c ends a key at a NUL; then `source\u0000` would be the source.
    for name, value in [("source", '"e2e-other"'), ("id", '"evt_forged"'), ("payload", "1"), ("eventType", '"x"')]:
        event_id = new_id()
        event = monitor.raw_event(id=f'"{event_id}"')[:-1] + f',"{name}\\u0000":{value}}}'
        answer = monitor.post(client, f"[{event}]")
        assert answer.status_code in (200, 400, 422)
        if answer.status_code == 200:
            assert db.execute("SELECT source FROM public.events WHERE id = %s", (event_id,)).fetchone() == \
                (monitor.source,)
    missing = monitor.raw_event().replace('"source"', '"source\\u0000x"')
    answer = monitor.post(client, f"[{missing}]")
    check_refused(answer, (422, "source_mismatch"), (422, "invalid_payload"), (422, "invalid_event"),
                  (400, "invalid_request"))


# Not in RFC 8259 at all, so `invalid_request` by the ladder; the payload's row names `invalid_payload`.
NOT_STRICT = ["NaN", "Infinity", "-Infinity", "nan", "inf", "01", "-01", "00", "+1", ".5", "5.", "1.e2", "1e", "1e+", "0x10",
              "1f", "--1", "- 1", "1 000", "True", "None", "nul", "nulll", "undefined", "'x'", "`x`", "\"\t\"", "\"\n\"",
              "\"\r\n\"", "\"\x00\"", "\"\x1f\"", "\"\\x\"", "\"\\'\"", "\"\\u12\"", "\"\\u12g4\"", "\"\\U0041\"",
              "\"\\0\"", "\"\\\n\"", "[1,]", "[,1]", "[1 2]", "[1", "{\"a\"}", "{\"a\":}", "{\"a\":1,}", "{\"a\" 1}",
              "{a:1}", "{'a':1}", "{1:1}", "{null:1}", "/*x*/1", "1//x\n", "1#x\n", "()", "1;", "\"x", "\\", "",
              "{\"\t\":1}", "{,}", "{\"a\":1 \"b\":2}", "[1}", "{\"a\":1]", "\u00a01", "\ufeff1", "1\0"]


@pytest.mark.parametrize("value", NOT_STRICT, ids=ascii)
@pytest.mark.parametrize("place", ["payload", "other"])
def test_what_strict_json_does_not_allow_is_refused(place, value, refused, monitor):
    text = f'{{"note":{value}}}' if place == "payload" else value
    answer = refused("[" + monitor.raw_event(**{place: text}) + "]")
    check_refused(answer, (400, "invalid_request"), (422, "invalid_payload"), (422, "invalid_event"))


@pytest.mark.parametrize("value", ["1e999", "-1e999", "1e-999", "1e309", "1.8e308", "-1.8e308", "1e-400", "1e-20000", "1e20000",
                                   "1e999999", "-1e-999999", "1e999999999999999999999", "1e-999999999999999999999",
                                   "1E+400", "9" * 400, "-" + "9" * 400, "1" + "0" * 309, "0." + "0" * 400 + "1",
                                   "1e131072", "1e131071", "123456789e400", "1" * 60000], ids=lambda value: value[:24])
def test_a_number_no_double_can_hold_is_invalid_payload(value, refused, monitor):
    event = monitor.raw_event(payload=f'{{"n":[{value}]}}')
    check_rejected(refused(f"[{event}]"), [(0, "invalid_payload")])


@pytest.mark.parametrize("value", ["0", "-0", "0.0", "0e0", "0e5", "0e999999", "0E+999999", "-0e400", "0.000e400"])
def test_zero_is_zero_with_any_exponent(value, accepted, monitor):
    row = accepted(monitor.raw_event(payload=f'{{"n":{value}}}'))
    assert float(json.loads(row.payload)["n"]) == 0


@pytest.mark.parametrize("value", ["0e-999", "0e-20000", "0e-999999", "0.0e-999999999999999999999", "0e999999999999999999999",
                                   "0." + "0" * 20000])
def test_zero_with_more_places_than_the_database_has_is_taken_or_refused_but_no_fault(value, client, monitor):
    # A double holds all of these; PostgreSQL's numeric does not.
    answer = monitor.post(client, "[" + monitor.raw_event(payload=f'{{"n":{value}}}') + "]")
    assert answer.status_code == 200 or check_refused(answer, (422, "invalid_payload"))


PRECISE = ["9007199254740993", "-9007199254740993", "9223372036854775808", "18446744073709551616",
           "123456789012345678901234567890", "9" * 300, "0.1000000000000000055511151231257827021181583404541015625",
           "3.14159265358979323846264338327950288419716939937510", "1.10", "-0.30000000000000000000000000001",
           "179769313486231570000000000000000000000.000000000000000000000001", "0." + "0" * 300 + "123"]


@pytest.mark.parametrize("value", PRECISE, ids=lambda value: value[:40])
def test_a_precise_number_keeps_every_digit(value, accepted, monitor):
    row = accepted(monitor.raw_event(payload=f'{{"n":{value}}}'))
    assert row.payload == f'{{"n": {value}}}'


@pytest.mark.parametrize("value", ["1e308", "1.7976931348623157e308", "-1.7976931348623157e308", "5e-324", "2.5E-300", "1e22",
                                   "1E2", "12.5e-1"])
def test_a_number_that_a_double_can_hold_keeps_its_value(value, accepted, db, monitor):
    row = accepted(monitor.raw_event(payload=f'{{"n":{value}}}'))
    same = db.execute("SELECT (%s::jsonb->>'n')::numeric = %s::numeric", (row.payload, value)).fetchone()
    assert same == (True,)


@pytest.mark.parametrize("text, codes", [
    ("[" * 50000 + "]" * 50000, [(422, "invalid_event"), (400, "invalid_request")]),
    ("[" * 50000, [(400, "invalid_request"), (422, "invalid_event")]),
    ('[{"a":' * 25000 + "1" + "}]" * 25000, [(422, "invalid_event"), (400, "invalid_request")]),
], ids=["arrays", "arrays that never end", "objects in arrays"])
def test_50000_levels_of_nesting_are_refused(text, codes, refused):
    check_refused(refused(text), *codes)


@pytest.mark.parametrize("field", ["payload", "other", "id"])
def test_50000_levels_in_a_field_are_an_event_too_deep(field, refused, monitor):
    deep = "[" * 30000 + "]" * 30000
    event = monitor.raw_event(**{field: f'{{"a":{deep}}}' if field == "payload" else deep})
    check_rejected(refused(f"[{event}]"), [(0, "invalid_event")])


def test_what_is_checked_of_a_repeated_field_is_what_is_stored(client, monitor, db):
    # RFC 8259 leaves the meaning of a repeated name open; two readings of one event must not differ.
    good = {"id": None, "source": f'"{monitor.source}"', "timestamp": '"2026-02-03T14:30:00Z"', "eventType": '"tool"',
            "payload": '{"good":true}'}
    bad = {"id": '"forged"', "source": '"e2e-other"', "timestamp": '"now"', "eventType": '"x"', "payload": "[1]"}
    for name in good:
        for good_last in (True, False):
            event_id = new_id()
            fine = good[name] or f'"{event_id}"'
            pair = (bad[name], fine) if good_last else (fine, bad[name])
            changes = {} if name == "id" else {"id": f'"{event_id}"'}
            event = monitor.raw_event(**changes, **{name: pair[0]})[:-1] + f',"{name}":{pair[1]}}}'
            answer = monitor.post(client, f"[{event}]")
            rows = db.execute("SELECT source, payload->>'good' FROM public.events WHERE id IN (%s, 'forged')",
                              (event_id,)).fetchall()
            if answer.status_code == 200:
                assert good_last
                assert rows == [(monitor.source, "true" if name == "payload" else None)]
            else:
                assert answer.status_code in (400, 422) and rows == []


@pytest.mark.parametrize("name, escaped", [("id", r"\u0069d"), ("source", r"s\u006furce"), ("payload", r"payl\u006Fad"),
                                           ("timestamp", r"\u0074imestamp"), ("eventType", r"event\u0054ype")])
def test_a_name_may_be_written_with_escapes(name, escaped, accepted, monitor):
    event = monitor.raw_event()
    assert accepted(event.replace(f'"{name}"', f'"{escaped}"', 1), event_id=json.loads(event)["id"])


@pytest.mark.parametrize("escaped, value, code", [
    (r"\u0069d", '"forged"', "invalid_event_id"), (r"sourc\u0065", '"e2e-other"', "source_mismatch"),
    (r"\u0070ayload", "[]", "invalid_payload"), (r"timestam\u0070", '"now"', "invalid_timestamp"),
    (r"\u0065ventType", '"x"', "invalid_event_type"),
])
def test_an_escaped_name_repeats_the_plain_one(escaped, value, code, refused, monitor):
    event = monitor.raw_event()[:-1] + f',"{escaped}":{value}}}'
    answer = refused(f"[{event}]")
    check_refused(answer, (422, code), (422, "invalid_event"))


def test_a_repeated_name_in_a_payload_is_no_fault(client, monitor):
    answer = monitor.post(client, "[" + monitor.raw_event(payload='{"a":1,"a":2}') + "]")
    assert answer.status_code == 200 or check_refused(answer, (422, "invalid_payload"))


@pytest.mark.parametrize("white", [" ", "\t", "\n", "\r\n", " \t\r\n" * 50], ids=ascii)
def test_white_space_may_stand_between_any_two_tokens(white, client, monitor):
    tokens = ["[", "{"]
    for at, (name, value) in enumerate(monitor.event().items()):
        tokens += ([","] if at else []) + [json.dumps(name), ":", json.dumps(value)]
    body = white + white.join(tokens + ["}", "]"]) + white
    assert monitor.post(client, body).status_code == 200


def test_the_marker_is_in_what_was_stored(accepted, monitor):
    # The search of the logs in test_logs.py means something only if payloads do carry it.
    assert MARKER in accepted(monitor.event()).payload
