"""steep-monitor and steep's own server: both validate events alike, and every line is accounted for."""

import json
import secrets

import pytest

from monitor import Monitor
from sender import Sender
from stack import wait_for


@pytest.fixture
def sender(stack, tmp_path):
    """A sender with a name that is not registered yet."""
    made = Sender(tmp_path, Monitor(f"monitor-{secrets.token_hex(6)}"), f"https://localhost:{stack.port}/functions/v1", stack.ca)
    yield made
    made.kill()


def register(stack, sender):
    stack.steepctl("monitor", "add", sender.identity.source, sender.identity.public_base64)


def stored(stack, sender):
    with stack.connect() as connection:
        return {row[0]: row[1] for row in connection.execute(
            "SELECT id, payload::text FROM public.events WHERE source = %s", (sender.identity.source,)).fetchall()}


def test_pending_events_are_stored_once_the_key_is_registered(stack, sender):
    sender.start()
    sender.feed(*sender.lines(20))
    sender.wait_for("batch", status=401)
    register(stack, sender)

    def done():
        sender.send_now()
        return len(stored(stack, sender)) == 20

    wait_for(done, "the events to be stored", every=0.5)
    wait_for(lambda: sender.pending() == 0, "nothing to be pending")


def test_an_export_of_its_events_is_sent_again(stack, sender):
    register(stack, sender)
    sender.start()
    notes = ["\\", '"', "\n", "é\u2028", "\x01", ""]
    sender.feed(*(json.dumps(sender.event(payload={"note": note})) for note in notes))
    wait_for(lambda: sender.send_now() or len(stored(stack, sender)) == len(notes), "the events to be stored", every=0.5)
    before = stored(stack, sender)
    exported = stack.steepctl("events", "export", "--source", sender.identity.source).stdout
    with stack.connect() as connection:
        connection.execute("DELETE FROM public.events WHERE source = %s", (sender.identity.source,))
    sender.feed(exported.encode())
    wait_for(lambda: sender.send_now() or stored(stack, sender) == before, "the events to be stored again", every=0.5)
    assert not sender.rejected()


# Values in a payload; monitor and server must agree on which of them are valid.
VALUES = [
    "1", "-0", "1e5", "1E+5", "0.1e-5", "123456789012345678901234567890", "1e308", "1e309", "1e-400", "01", "+1", ".5", "1.", "0x1",
    "NaN", "Infinity", "-Infinity", "nan", "true", "True", "null", "Null", '"a"', "'a'", '"\\u0000"', '"\\ud834\\udd1e"', '"\\ud834"',
    '"\\udd1e\\ud834"', '"\\x41"', '"\\u00zz"', '"\x7f"', '"\x01"', '"\\/"', '"é☃𝄞"', '"\ufeff"', "[]", "[1,]", "[,1]", "{}", '{"a":1,}',
    '{"a":1,"a":2}', "{'a':1}", "{a:1}", '{"":1}', '{"\\u0000":1}', '{"a" :1 }', "[" * 20 + "]" * 20, "[" * 30 + "]" * 30,
    "[" * 40 + "]" * 40, "/* */ 1", "1 // 2", "1 2", '"a" "b"', '"' + "x" * 60_000 + '"', '"' + "x" * 66_000 + '"', "0." + "1" * 16_500,
    "1" * 400,
]


def test_every_line_is_either_stored_or_rejected(stack, sender):
    register(stack, sender)
    ids = [f"evt_{sender.identity.source}{number:08d}" for number in range(len(VALUES))]
    lines = [sender.identity.raw_event(id=json.dumps(event_id), payload=f'{{"x":{value}}}') for event_id, value in zip(ids, VALUES)]
    sender.start()
    sender.feed(*lines, *sender.lines(1))

    def settled():
        sender.send_now()
        return sender.pending() == 0 and len(stored(stack, sender)) + len(sender.rejected()) == len(VALUES) + 1

    wait_for(settled, "all of them to be accounted for", every=0.5)
    there = stored(stack, sender)
    aside = [str(each["event"]) for each in sender.rejected()]
    for event_id, value in zip(ids, VALUES):
        assert (event_id in there) + any(event_id in each for each in aside) == 1, value
    strict = {event_id for event_id, value in zip(ids, VALUES) if is_json(value)}
    assert set(there) - set(ids) and set(there) & set(ids) <= strict
    # Most invalid events are rejected before they are sent.
    assert len([record for record in sender.log("input_rejected")]) > len(aside) / 2


def is_json(value):
    def no(constant):
        raise ValueError(constant)

    try:
        json.loads(value, parse_constant=no)
        return True
    except ValueError:
        return False


def test_the_largest_batches_are_stored(stack, sender):
    register(stack, sender)
    lines = [json.dumps(sender.event(payload={"number": n, "text": "x" * 60_000})) for n in range(60)] + sender.lines(5000)
    sender.start()
    sender.feed(*lines)
    wait_for(lambda: len(stored(stack, sender)) == len(lines), "all of them to be stored", 60)
    wait_for(lambda: sender.pending() == 0, "nothing to be pending")
    assert not sender.rejected()
    assert not [record for record in sender.log("batch") if record["status"] not in ("200", "401")]
