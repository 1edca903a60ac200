"""Each answer a server can give, and what becomes of the batch."""

import datetime
import email.utils
import json

import pytest

from scripted import early, encoded, error, events_of, ids_of, raw, reply, stored
from stack import wait_for

# What "slowly" is at least, where nothing but a person can change the answer.
SLOW_MS = 10_000

REFUSALS = {
    "an unknown key": (error(401, "unknown_source"), 401),
    "forbidden": (error(403, "forbidden"), 403),
    "not found": (error(404, "not_found"), 404),
    "a wrong method": (error(405, "method_not_allowed"), 405),
    "forbidden without a word": (reply(403), 403),
    "a login page": (reply(404, b"<html>", {"Content-Type": "text/html"}), 404),
    "301": (reply(301, headers={"Location": "/elsewhere"}), 301),
    "302": (reply(302, headers={"Location": "https://127.0.0.1:9/"}), 302),
    "303": (reply(303, headers={"Location": "/elsewhere"}), 303),
    "307": (reply(307, headers={"Location": "/elsewhere"}), 307),
    "308": (reply(308, headers={"Location": "/elsewhere"}), 308),
}

UNREADABLE = {
    "empty": b"",
    "no JSON": b"<html>Welcome to the hotel's network</html>",
    "cut off": b'{"inserted":1,"dupl',
    "no object": b"[1]",
    "no counts": b"{}",
    "one count": b'{"duplicates":1}',
    "counts that are text": b'{"inserted":"1","duplicates":"0"}',
    "negative counts": b'{"inserted":2,"duplicates":-1}',
    "counts of another batch": b'{"inserted":17,"duplicates":4}',
    "text behind it": b'{"inserted":1,"duplicates":0} and more',
}


def test_200_and_it_is_forgotten(server, sender):
    sender.start()
    sender.feed(*sender.lines(3))
    first, = server.wait(1)
    assert len(events_of(first)) == 3
    wait_for(lambda: sender.waiting() == 0, "nothing to wait any more")
    record = sender.wait_for("batch", status=200)
    assert (record["events"], record["bytes"]) == ("3", str(len(first.body)))
    assert sender.end() == 0
    sender.start()
    sender.feed(*sender.lines(1))
    second = server.wait(2)[1]
    assert not set(ids_of(second)) & set(ids_of(first))


def test_duplicates_are_good_news_too(server, sender):
    server.answer(reply(200, {"inserted": 0, "duplicates": 2, "message": "Stored 0 of 2 events; 2 were already stored."}))
    sender.start()
    sender.feed(*sender.lines(2))
    server.wait(1)
    wait_for(lambda: sender.waiting() == 0, "nothing to wait any more")
    assert len(server.requests) == 1


@pytest.mark.parametrize("name", REFUSALS)
def test_a_refusal_keeps_the_batch_says_so_and_tries_slowly(server, sender, name):
    answer, status = REFUSALS[name]
    server.answer(answer)
    sender.start()
    sender.feed(*sender.lines(2))
    first, = server.wait(1)
    record = sender.wait_for("batch", status=status)
    assert record["detail"] and int(record["wait_ms"]) >= SLOW_MS, record
    assert record["level"] in ("warning", "error")
    assert sender.waiting() == 2 and not sender.set_aside()
    sender.send_now()
    assert server.wait(2)[1].body == first.body
    wait_for(lambda: sender.waiting() == 0, "nothing to wait any more")


def test_input_goes_on_while_the_server_refuses(server, sender):
    server.always = error(401, "invalid_signature")
    sender.start()
    sender.feed(*sender.lines(2))
    sender.wait_for("batch", status=401)
    sender.feed(*sender.lines(500))
    wait_for(lambda: sender.waiting() == 502, "the spool to have them")
    assert len(server.requests) == 1


@pytest.mark.parametrize("name", UNREADABLE)
def test_a_200_whose_body_is_unreadable_is_no_acknowledgement(server, sender, name):
    server.answer(reply(200, UNREADABLE[name]))
    sender.start()
    sender.feed(*sender.lines(1))
    sender.wait_for("batch", status=200)
    sender.send_now()
    first, second = server.wait(2)
    assert first.body == second.body
    wait_for(lambda: sender.waiting() == 0, "nothing to wait any more")
    assert not sender.set_aside()


@pytest.mark.parametrize("status", [201, 202, 204, 206, 418, 451, 500, 501, 502, 504, 507, 599])
def test_any_other_status_is_no_acknowledgement(server, sender, status):
    server.answer(reply(status, headers={"Content-Length": None} if status == 204 else None))
    sender.start()
    sender.feed(*sender.lines(2))
    sender.wait_for("batch", status=status)
    sender.send_now()
    first, second = server.wait(2)
    assert first.body == second.body
    wait_for(lambda: sender.waiting() == 0, "nothing to wait any more")
    assert not sender.set_aside()


def test_a_server_error_backs_off_from_one_second_with_jitter_and_without_end(server, sender):
    server.answer(*[error(500, "internal_error")] * 6)
    sender.start()
    sender.feed(*sender.lines(1))
    for _ in range(6):
        number = len(server.requests)
        sender.send_now()
        server.wait(number + 1)
        wait_for(lambda: len(sender.log("batch", status=500)) >= number + 1, "the answer's line")
    waits = [int(record["wait_ms"]) for record in sender.log("batch", status=500)]
    assert all(0 <= wait <= 1000 << tries for tries, wait in enumerate(waits)), waits
    # Full jitter: six equal waits, or six as long as they may be, are no accident.
    assert len(set(waits)) > 2, waits


def test_a_400_sets_the_whole_batch_aside_and_the_next_goes_on(server, sender):
    server.answer(error(400, "invalid_request"))
    sender.start()
    bad, good = sender.lines(3), sender.lines(2)
    sender.feed(*bad)
    server.wait(1)
    record = sender.wait_for("rejected")
    assert record["count"] == "3"
    sender.feed(*good)
    assert ids_of(server.wait(2)[1]) == [json.loads(line)["id"] for line in good]
    aside = sender.set_aside()
    assert [as_event(each)["id"] for each in aside] == [json.loads(line)["id"] for line in bad]
    assert all("invalid_request" in json.dumps(each["reason"]) or "400" in json.dumps(each["reason"]) for each in aside), aside


def as_event(record):
    event = record["event"]
    return json.loads(event) if isinstance(event, str) else event


def most(limit):
    """A server that takes only so many events."""
    def answer(exchange):
        return (stored if len(events_of(exchange.request)) <= limit else error(413, "payload_too_large"))(exchange)

    return answer


@pytest.mark.parametrize("limit", [1, 30])
def test_a_413_is_halved_until_it_fits(server, sender, limit):
    server.always = most(limit)
    sender.start(STEEP_MAX_BATCH_SIZE="100")
    sender.feed(*sender.lines(100))
    sender.wait_until_settled(100)
    stored_ids = [i for request in server.requests if len(events_of(request)) <= limit for i in ids_of(request)]
    assert len(stored_ids) == len(set(stored_ids)) == 100
    assert not sender.set_aside()


def test_a_413_before_the_body_was_read_is_heard(server, sender):
    """nginx answers when it has read Content-Length, and then closes."""
    server.answer(early(raw(encoded(413, {"error": "payload_too_large", "message": "."}, {"Connection": "close"}))))
    sender.start(STEEP_MAX_BATCH_SIZE="100")
    sender.feed(*sender.lines(100))
    sender.wait_until_settled(100, 30)
    assert not sender.set_aside()


def test_a_single_event_that_is_too_large_is_set_aside_and_stops_nobody(server, sender):
    large = json.dumps(sender.event(payload={"text": "x" * 50_000}))
    large_id = json.loads(large)["id"]

    def answer(exchange):
        return (error(413, "payload_too_large") if large_id in ids_of(exchange.request) else stored)(exchange)

    server.always = answer
    sender.start()
    sender.feed(*sender.lines(3), large, *sender.lines(3))
    sender.wait_for("rejected", 40)
    sender.wait_until_settled(7, 40)
    assert [as_event(each)["id"] for each in sender.set_aside()] == [large_id]


def rejecting(*bad):
    """A server that knows an invalid event by its number."""
    def answer(exchange):
        numbers = [event["payload"]["number"] for event in events_of(exchange.request)]
        found = [index for index, number in enumerate(numbers) if number in bad]
        if not found:
            return stored(exchange)
        listed = [{"index": index, "error": "invalid_payload", "message": f"Event {index}: no."} for index in found]
        return error(422, "invalid_payload", index=found[0], rejected=listed)(exchange)

    return answer


@pytest.mark.parametrize("bad", [[1], [10], [2, 3, 9], list(range(1, 11))])
def test_a_422_sets_the_listed_events_aside_and_sends_the_rest(server, sender, bad):
    server.always = rejecting(*bad)
    sender.start()
    lines = sender.lines(10)
    sender.feed(*lines)
    sender.wait_until_settled(10)
    aside = sender.set_aside()
    assert [as_event(each)["payload"]["number"] for each in aside] == bad
    assert all("invalid_payload" in json.dumps(each["reason"]) for each in aside)
    assert sender.wait_for("rejected")["count"] == str(len(bad))
    rest = [event["payload"]["number"] for request in server.requests[1:] for event in events_of(request)]
    assert rest == [number for number in range(1, 11) if number not in bad]
    first = {event["id"]: event for event in events_of(server.requests[0])}
    assert all(first[event["id"]] == event for request in server.requests[1:] for event in events_of(request))


STRANGE_LISTS = {
    "no list": {},
    "an empty list": {"rejected": []},
    "no list at all": {"rejected": "all"},
    "an index that is not there": {"rejected": [{"index": 7, "error": "invalid_payload", "message": "."}]},
    "a negative index": {"rejected": [{"index": -1, "error": "invalid_payload", "message": "."}]},
    "a huge index": {"rejected": [{"index": 2**64, "error": "invalid_payload", "message": "."}]},
    "an index that is text": {"rejected": [{"index": "0", "error": "invalid_payload", "message": "."}]},
    "an index that is half one": {"rejected": [{"index": 0.5, "error": "invalid_payload", "message": "."}]},
    "no objects": {"rejected": [0, 1]},
}


@pytest.mark.parametrize("name", STRANGE_LISTS)
def test_a_422_without_a_usable_list_loses_nothing_and_does_not_loop(server, sender, name):
    """Set aside like a 400's, or kept and tried slowly: either way every event is still there."""
    server.always = error(422, "invalid_payload", **STRANGE_LISTS[name])
    sender.start()
    sender.feed(*sender.lines(2))
    server.wait(1)
    wait_for(lambda: sender.log("batch", status=422), "the answer's line")
    wait_for(lambda: sender.waiting() + len(sender.set_aside()) == 2, "both events to be accounted for")
    sender.send_now()
    sender.send_now()
    # An event is set aside before it is forgotten.
    wait_for(lambda: sender.waiting() + len(sender.set_aside()) == 2, "both events to be accounted for once")
    assert len(server.requests) <= 4
    server.always = stored
    sender.send_now()
    sender.feed(*sender.lines(1))
    sender.send_now()
    server.wait_for_events(3)


def test_a_422_that_names_an_event_twice_sets_it_aside_once(server, sender):
    twice = [{"index": 1, "error": "invalid_payload", "message": "."}] * 2
    server.answer(error(422, "invalid_payload", index=1, rejected=twice))
    sender.start()
    sender.feed(*sender.lines(3))
    sender.wait_until_settled(3)
    aside = [as_event(each)["payload"]["number"] for each in sender.set_aside()]
    sent = [event["payload"]["number"] for request in server.requests[1:] for event in events_of(request)]
    assert sorted(aside + sent) == [1, 2, 3] and len(aside) < 2


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("form", ["seconds", "date"])
def test_retry_after_is_waited_for(server, sender, status, form):
    until = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=4)
    value = "3" if form == "seconds" else email.utils.format_datetime(until, usegmt=True)
    server.answer(error(status, "unavailable", {"Retry-After": value}))
    sender.start()
    sender.feed(*sender.lines(1))
    first = server.wait(1)[0]
    wait_ms = int(sender.wait_for("batch", status=status)["wait_ms"])
    # A date has whole seconds, and some of them passed before it was sent.
    assert (3000 if form == "seconds" else 1) <= wait_ms <= 10_000
    second = server.wait(2)[1]
    assert second.body == first.body
    assert second.at - first.at >= min(wait_ms, 3000) / 1000 - 0.1 or form == "date"
    assert second.at - first.at >= wait_ms / 1000 - 0.5


RETRY_AFTER = {
    "600": (590_000, 660_000),
    "86400": (600_000, 3_600_000),
    "99999999999999999999999": (0, 3_600_000),
    "0": (0, 1_000),
    "-5": (0, 1_000),
    "soon": (0, 1_000),
    "": (0, 1_000),
    "3.5": (0, 5_000),
    "Sun, 06 Nov 1994 08:49:37 GMT": (0, 1_000),
    "Fri, 31 Dec 9999 23:59:59 GMT": (600_000, 3_600_000),
    "Xyz, 99 Abc 2099 99:99:99 GMT": (0, 1_000),
}


@pytest.mark.parametrize("value", RETRY_AFTER)
def test_retry_after_of_any_value_is_kept_within_reason(server, sender, value):
    server.answer(error(503, "unavailable", {"Retry-After": value}))
    sender.start()
    sender.feed(*sender.lines(1))
    wait_ms = int(sender.wait_for("batch", status=503)["wait_ms"])
    least, longest = RETRY_AFTER[value]
    # With full jitter where nothing usable was said, and never at once for ever.
    assert least <= wait_ms <= longest, wait_ms


@pytest.mark.parametrize("form", ["%A, %d-%b-%y %H:%M:%S GMT", "%a %b %d %H:%M:%S %Y"])
def test_retry_after_in_the_obsolete_forms_of_a_date_is_understood(server, sender, form):
    """RFC 9110 has a recipient accept these as well."""
    until = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=1000)
    server.answer(error(503, "unavailable", {"Retry-After": until.strftime(form)}))
    sender.start()
    sender.feed(*sender.lines(1))
    assert 900_000 <= int(sender.wait_for("batch", status=503)["wait_ms"]) <= 1_000_000


def test_the_same_bytes_go_out_again_whatever_went_wrong(server, sender):
    server.answer(error(500, "internal_error"), raw(b""), raw(b"garbage\r\n\r\n"), error(503, "unavailable"),
                  reply(200, b"{"), error(401, "unknown_source"), error(429, "rate_limited"))
    sender.start()
    sender.feed(*sender.lines(20))
    for number in range(1, 9):
        server.wait(number)
        wait_for(lambda: len(sender.log("batch")) >= number, "the answer's line")
        # What comes meanwhile belongs to the next batch.
        sender.feed(*sender.lines(1))
        sender.send_now()
    bodies = {request.body for request in server.requests[:8]}
    assert len(bodies) == 1
    server.wait_for_events(27)
