"""Each answer a server can give, and what happens to the batch."""

import datetime
import email.utils
import json
import re
import time

import pytest

from scripted import early, encoded, error, events_of, ids_of, raw, reply, stored
from stack import wait_for

# The least delay if only an operator can fix the error.
SLOW_MS = 10_000

REFUSALS = {
    "an unknown key": (error(401, "unknown_source"), 401),
    "forbidden": (error(403, "forbidden"), 403),
    "not found": (error(404, "not_found"), 404),
    "a wrong method": (error(405, "method_not_allowed"), 405),
    "forbidden without a body": (reply(403), 403),
    "a proxy that wants a password": (reply(407, b"<html>", {"Content-Type": "text/html"}), 407),
    "blocked": (reply(451, b"<html>", {"Content-Type": "text/html"}), 451),
    "a login page": (reply(404, b"<html>", {"Content-Type": "text/html"}), 404),
    "301": (reply(301, headers={"Location": "/elsewhere"}), 301),
    "302": (reply(302, headers={"Location": "https://127.0.0.1:9/"}), 302),
    "303": (reply(303, headers={"Location": "/elsewhere"}), 303),
    "307": (reply(307, headers={"Location": "/elsewhere"}), 307),
    "308": (reply(308, headers={"Location": "/elsewhere"}), 308),
}

INVALID_BODIES = {
    "empty": b"",
    "not JSON": b"<html>Welcome to the hotel's network</html>",
    "cut off": b'{"inserted":1,"dupl',
    "not an object": b"[1]",
    "no counts": b"{}",
    "one count": b'{"duplicates":1}',
    "counts that are text": b'{"inserted":"1","duplicates":"0"}',
    "negative counts": b'{"inserted":2,"duplicates":-1}',
    "counts of another batch": b'{"inserted":17,"duplicates":4}',
    "text behind it": b'{"inserted":1,"duplicates":0} and more',
}


def test_a_200_removes_the_batch_from_the_spool(server, sender):
    sender.start()
    sender.feed(*sender.lines(3))
    first, = server.wait(1)
    assert len(events_of(first)) == 3
    wait_for(lambda: sender.pending() == 0, "nothing to be pending")
    record = sender.wait_for("batch", status=200)
    assert (record["events"], record["bytes"]) == ("3", str(len(first.body)))
    assert sender.end() == 0
    sender.start()
    sender.feed(*sender.lines(1))
    second = server.wait(2)[1]
    assert not set(ids_of(second)) & set(ids_of(first))


def test_a_200_with_only_duplicates_removes_the_batch(server, sender):
    server.answer(reply(200, {"inserted": 0, "duplicates": 2, "message": "Stored 0 of 2 events; 2 were already stored."}))
    sender.start()
    sender.feed(*sender.lines(2))
    server.wait(1)
    wait_for(lambda: sender.pending() == 0, "nothing to be pending")
    assert len(server.requests) == 1


@pytest.mark.parametrize("name", REFUSALS)
def test_a_refusal_is_logged_and_retried_slowly(server, sender, name):
    answer, status = REFUSALS[name]
    server.answer(answer)
    sender.start()
    sender.feed(*sender.lines(2))
    first, = server.wait(1)
    record = sender.wait_for("batch", status=status)
    assert record["detail"] and int(record["retry_ms"]) >= SLOW_MS, record
    assert record["level"] in ("warning", "error")
    assert sender.pending() == 2 and not sender.rejected()
    sender.send_now()
    assert server.wait(2)[1].body == first.body
    wait_for(lambda: sender.pending() == 0, "nothing to be pending")


def test_input_continues_while_the_server_refuses(server, sender):
    server.always = error(401, "invalid_signature")
    sender.start()
    sender.feed(*sender.lines(2))
    sender.wait_for("batch", status=401)
    sender.feed(*sender.lines(500))
    wait_for(lambda: sender.pending() == 502, "the events to be in the spool")
    assert len(server.requests) == 1


@pytest.mark.parametrize("name", INVALID_BODIES)
def test_a_200_with_an_invalid_body_is_not_an_acknowledgement(server, sender, name):
    server.answer(reply(200, INVALID_BODIES[name]))
    sender.start()
    sender.feed(*sender.lines(1))
    sender.wait_for("batch", status=200)
    sender.send_now()
    first, second = server.wait(2)
    assert first.body == second.body
    wait_for(lambda: sender.pending() == 0, "nothing to be pending")
    assert not sender.rejected()


@pytest.mark.parametrize("status", [201, 202, 204, 206, 418, 451, 500, 501, 502, 504, 507, 599])
def test_any_other_status_is_not_an_acknowledgement(server, sender, status):
    server.answer(reply(status, headers={"Content-Length": None} if status == 204 else None))
    sender.start()
    sender.feed(*sender.lines(2))
    sender.wait_for("batch", status=status)
    sender.send_now()
    first, second = server.wait(2)
    assert first.body == second.body
    wait_for(lambda: sender.pending() == 0, "nothing to be pending")
    assert not sender.rejected()


def test_server_errors_are_retried_with_exponential_backoff_and_jitter(server, sender):
    server.always = error(500, "internal_error")
    sender.start()
    sender.feed(*sender.lines(1))
    for _ in range(6):
        number = len(server.requests)
        sender.send_now()
        server.wait(number + 1)
        wait_for(lambda: len(sender.log("batch", status=500)) >= number + 1, "the answer's line")
    delays = [int(record["retry_ms"]) for record in sender.log("batch", status=500)]
    assert all(0 <= delay <= 1000 << attempt for attempt, delay in enumerate(delays)), delays
    # With full jitter, six equal delays are very unlikely.
    assert len(set(delays)) > 2, delays


HTML = b"<html><head><title>400 No required SSL certificate was sent</title></head></html>"

# What refuses a whole batch without naming an event, by the server or by something before it.
GENERAL_REFUSALS = {
    "a proxy's page": reply(400, HTML, {"Content-Type": "text/html"}),
    "our own code": error(400, "invalid_request"),
    "batch_too_large": error(400, "batch_too_large"),
    "too large": error(413, "payload_too_large"),
    "a list without a code of ours": error(422, "oops", rejected=[{"index": 0, "error": "oops", "message": "."}]),
    "no list": error(422, "invalid_payload"),
    "a 422 of a proxy": reply(422, HTML, {"Content-Type": "text/html"}),
}


@pytest.mark.parametrize("name", GENERAL_REFUSALS)
def test_a_refusal_of_everything_rejects_nothing(server, sender, name):
    """Whatever refuses them all is not about these events: they wait until it is gone."""
    server.always = GENERAL_REFUSALS[name]
    sender.start()
    sender.feed(*sender.lines(300))
    for number in range(1, 16):
        server.wait(number)
        sender.send_now()
    sender.wait_for("skipped")
    assert sender.pending() == 300 and not sender.rejected() and not sender.log("rejected")
    # It slows down: every second request would be another lone event otherwise.
    count = len(server.requests)
    time.sleep(2)
    assert len(server.requests) <= count + 5
    last = sender.status().splitlines()[-1]
    assert re.search("refused|rejected|too large", last), last
    server.always = stored
    sender.send_now()
    sender.wait_until_settled(300)
    assert not sender.rejected()


@pytest.mark.parametrize("name", ["a proxy's page", "our own code", "too large", "no list"])
def test_an_event_that_is_refused_alone_is_rejected_once_another_was_accepted(server, sender, name):
    bad = {4, 5, 9}

    def answer(exchange):
        numbers = {event["payload"]["number"] for event in events_of(exchange.request)}
        return (GENERAL_REFUSALS[name] if numbers & bad else stored)(exchange)

    server.always = answer
    sender.start()
    sender.feed(*sender.lines(12))
    sender.wait_until_settled(12, 40)
    assert {as_event(each)["payload"]["number"] for each in sender.rejected()} == bad
    reason = {"a proxy's page": "http_400", "our own code": "invalid_request", "too large": "payload_too_large",
              "no list": "invalid_payload"}[name]
    assert all(each["reason"].startswith(f"{reason}: ") for each in sender.rejected())
    # Each was sent alone twice, with an accepted batch in between.
    for number in bad:
        alone = [place for place, request in enumerate(server.requests)
                 if [event["payload"]["number"] for event in events_of(request)] == [number]]
        accepted = [place for place, request in enumerate(server.requests)
                    if not {event["payload"]["number"] for event in events_of(request)} & bad]
        assert len(alone) == 2 and any(alone[0] < place < alone[1] for place in accepted)


@pytest.mark.parametrize("count", [70, 200])
def test_many_refused_events_do_not_hold_up_those_behind_them(server, sender, count):
    """Those behind them are so many that a search at random doesn't pass over all of them."""
    others = total = 3000
    accepted, refused = [], set()  # those that were sent alone, since others were accepted

    def answer(exchange):
        numbers = [event["payload"]["number"] for event in events_of(exchange.request)]
        if min(numbers) > count:
            accepted.extend(numbers)
            refused.clear()
            return stored(exchange)
        refused.update(numbers if len(numbers) == 1 else [])
        return GENERAL_REFUSALS["a proxy's page"](exchange)

    def sends(condition):
        sender.send_now()
        return condition()

    # Nothing is refused until all of them are in the spool.
    server.always = error(503, "unavailable", {"Retry-After": "3600"})
    sender.start()
    sender.feed(*sender.lines(count + others))
    wait_for(lambda: sender.pending() == count + others, "the events to be in the spool")
    server.always = answer
    wait_for(lambda: sends(lambda: len(accepted) == total), "the others to be sent", 120, 0.02)
    wait_for(lambda: sends(lambda: sender.counted("rejected") > 0), "the first of them to be rejected", 60)
    # Those that were not yet refused when the last one was accepted wait until another is.
    while sender.pending() > 0:
        sender.feed(*sender.lines(1))
        total += 1
        wait_for(lambda: sends(lambda: len(accepted) == total), "another to be sent", 120, 0.02)
        wait_for(lambda: sends(lambda: len(refused) >= sender.pending()), "those that are pending to be refused", 120, 0.02)
    assert total < others + 100
    assert {as_event(each)["payload"]["number"] for each in sender.rejected()} == set(range(1, count + 1))
    assert sorted(accepted) == list(range(count + 1, count + total + 1)) and sender.counted("sent") == total
    # It looked for another event behind the first few of them.
    alone = [request for request in server.requests if len(events_of(request)) == 1]
    assert [events_of(request)[0]["payload"]["number"] > count for request in alone].index(True) < 20


def number_of(event):
    return event["payload"]["number"]


def refusing(is_refused):
    """A server before which something refuses batches with such events, without naming them."""
    def answer(exchange):
        return (GENERAL_REFUSALS["a proxy's page"] if any(map(is_refused, events_of(exchange.request))) else stored)(exchange)

    return answer


def test_an_event_that_is_still_refused_holds_up_no_other(server, sender):
    """At first all of them were refused, and tried alone."""
    server.always = refusing(lambda event: True)
    sender.start()
    sender.feed(*sender.lines(300))
    for count in range(1, 41):
        server.wait(count)
        sender.send_now()
    server.always = refusing(lambda event: number_of(event) == 1)

    def sent():
        sender.send_now()
        return sender.counted("sent")

    wait_for(lambda: sent() == 299, "the others to be sent", 60)
    sender.feed(*sender.lines(1))
    wait_for(lambda: sent() == 300 and sender.pending() == 0, "the first to be rejected", 60)
    assert [number_of(as_event(each)) for each in sender.rejected()] == [1]


def test_a_server_that_begins_to_refuse_everything_is_not_flooded(server, sender):
    def sent():
        sender.send_now()
        return sender.counted("sent")

    server.always = refusing(lambda event: number_of(event) == 1)
    sender.start()
    sender.feed(*sender.lines(1))
    sender.wait_for("skipped")
    for number in (2, 3):
        sender.feed(*sender.lines(1))
        wait_for(lambda: sent() == number - 1, "another to be sent")
    server.always = refusing(lambda event: True)
    server.requests.clear()
    sender.feed(*sender.lines(5000))
    time.sleep(6)
    assert len(server.requests) < 150
    server.always = stored
    sender.send_now()
    wait_for(lambda: sender.pending() == 0, "all of them to be sent", 60)
    # Few of them were tried alone, and are sent alone now.
    assert len(server.requests) < 400


def test_a_refused_event_at_the_end_of_the_input_holds_up_no_other(server, sender):
    server.always = refusing(lambda event: number_of(event) == 1)
    sender.start()
    sender.feed(*sender.lines(3000))
    sender.process.stdin.close()
    assert sender.end(None) == 0
    assert sender.counted("sent") == 2999 and sender.pending() == 0
    assert [number_of(as_event(each)) for each in sender.rejected()] == [1]


def test_the_only_event_is_never_rejected_for_a_general_refusal(server, sender):
    server.always = GENERAL_REFUSALS["our own code"]
    sender.start()
    sender.feed(*sender.lines(1))
    for number in range(1, 5):
        server.wait(number)
        sender.send_now()
    assert not sender.rejected() and sender.pending() == 1
    server.always = stored
    sender.send_now()
    sender.wait_until_settled(1)
    assert not sender.rejected()


def test_a_refused_event_that_is_accepted_later_is_not_rejected(server, sender):
    """Something before the server refused it, and not the server."""
    refused = []

    def answer(exchange):
        numbers = [event["payload"]["number"] for event in events_of(exchange.request)]
        if 2 in numbers and len(refused) < 3:
            refused.append(numbers)
            return GENERAL_REFUSALS["a proxy's page"](exchange)
        return stored(exchange)

    server.always = answer
    sender.start(STEEP_MAX_BATCH_SIZE="3")
    sender.feed(*sender.lines(3))
    sender.wait_until_settled(3)
    assert not sender.rejected()


def test_nginx_that_is_spoken_to_without_tls_or_a_certificate_empties_no_spool(server, sender):
    """Its 400, 495, 496 and 497 are JSON in our own form where it is our own site."""
    server.always = error(400, "invalid_request")
    sender.start()
    sender.feed(*sender.lines(1500))
    server.wait(12)
    wait_for(lambda: sender.pending() == 1500, "the events to be in the spool")
    assert not sender.rejected()


def as_event(record):
    event = record["event"]
    return json.loads(event) if isinstance(event, str) else event


def at_most(limit):
    """A server that accepts only so many events."""
    def answer(exchange):
        return (stored if len(events_of(exchange.request)) <= limit else error(413, "payload_too_large"))(exchange)

    return answer


@pytest.mark.parametrize("limit", [1, 30])
def test_a_413_halves_the_batch_until_it_fits(server, sender, limit):
    server.always = at_most(limit)
    sender.start(STEEP_MAX_BATCH_SIZE="100")
    sender.feed(*sender.lines(100))
    sender.wait_until_settled(100)
    stored_ids = [i for request in server.requests if len(events_of(request)) <= limit for i in ids_of(request)]
    assert len(stored_ids) == len(set(stored_ids)) == 100
    assert not sender.rejected()


def test_a_413_before_the_body_was_read_is_handled(server, sender):
    """nginx answers after reading Content-Length, and closes the connection."""
    server.answer(early(raw(encoded(413, {"error": "payload_too_large", "message": "."}, {"Connection": "close"}))))
    sender.start(STEEP_MAX_BATCH_SIZE="100")
    sender.feed(*sender.lines(100))
    sender.wait_until_settled(100, 30)
    assert not sender.rejected()


def test_a_single_event_that_is_too_large_is_rejected_and_the_others_are_sent(server, sender):
    large = json.dumps(sender.event(payload={"text": "x" * 50_000}))
    large_id = json.loads(large)["id"]

    def answer(exchange):
        return (error(413, "payload_too_large") if large_id in ids_of(exchange.request) else stored)(exchange)

    server.always = answer
    sender.start()
    sender.feed(*sender.lines(3), large, *sender.lines(3))
    sender.wait_for("rejected", 40)
    sender.wait_until_settled(7, 40)
    assert [as_event(each)["id"] for each in sender.rejected()] == [large_id]


def rejecting(*bad):
    """A server that rejects the events with these numbers."""
    def answer(exchange):
        numbers = [event["payload"]["number"] for event in events_of(exchange.request)]
        found = [index for index, number in enumerate(numbers) if number in bad]
        if not found:
            return stored(exchange)
        listed = [{"index": index, "error": "invalid_payload", "message": f"Event {index}: no."} for index in found]
        return error(422, "invalid_payload", index=found[0], rejected=listed)(exchange)

    return answer


@pytest.mark.parametrize("bad", [[1], [10], [2, 3, 9], list(range(1, 11))])
def test_a_422_rejects_the_listed_events_and_the_others_are_sent(server, sender, bad):
    server.always = rejecting(*bad)
    sender.start()
    lines = sender.lines(10)
    sender.feed(*lines)
    sender.wait_until_settled(10)
    aside = sender.rejected()
    assert [as_event(each)["payload"]["number"] for each in aside] == bad
    assert all("invalid_payload" in json.dumps(each["reason"]) for each in aside)
    assert sender.wait_for("rejected")["count"] == str(len(bad))
    rest = [event["payload"]["number"] for request in server.requests[1:] for event in events_of(request)]
    assert rest == [number for number in range(1, 11) if number not in bad]
    first = {event["id"]: event for event in events_of(server.requests[0])}
    assert all(first[event["id"]] == event for request in server.requests[1:] for event in events_of(request))


INVALID_LISTS = {
    "no list": {},
    "an empty list": {"rejected": []},
    "not a list": {"rejected": "all"},
    "an index out of range": {"rejected": [{"index": 7, "error": "invalid_payload", "message": "."}]},
    "a negative index": {"rejected": [{"index": -1, "error": "invalid_payload", "message": "."}]},
    "a huge index": {"rejected": [{"index": 2**64, "error": "invalid_payload", "message": "."}]},
    "an index that is text": {"rejected": [{"index": "0", "error": "invalid_payload", "message": "."}]},
    "an index that is a fraction": {"rejected": [{"index": 0.5, "error": "invalid_payload", "message": "."}]},
    "not objects": {"rejected": [0, 1]},
}


@pytest.mark.parametrize("name", INVALID_LISTS)
def test_a_422_without_a_valid_list_loses_nothing_and_does_not_loop(server, sender, name):
    server.always = error(422, "invalid_payload", **INVALID_LISTS[name])
    sender.start()
    sender.feed(*sender.lines(2))
    server.wait(1)
    wait_for(lambda: sender.log("batch", status=422), "the answer's line")
    assert sender.pending() == 2 and not sender.rejected()
    sender.send_now()
    sender.send_now()
    time.sleep(1)
    assert sender.pending() == 2 and not sender.rejected()
    assert len(server.requests) <= 8
    server.always = stored
    sender.send_now()
    sender.feed(*sender.lines(1))
    sender.send_now()
    server.wait_for_events(3)


def test_a_422_that_lists_an_event_twice_rejects_it_once(server, sender):
    twice = [{"index": 1, "error": "invalid_payload", "message": "."}] * 2
    server.answer(error(422, "invalid_payload", index=1, rejected=twice))
    sender.start()
    sender.feed(*sender.lines(3))
    sender.wait_until_settled(3)
    aside = [as_event(each)["payload"]["number"] for each in sender.rejected()]
    sent = [event["payload"]["number"] for request in server.requests[1:] for event in events_of(request)]
    assert sorted(aside + sent) == [1, 2, 3] and len(aside) < 2


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("form", ["seconds", "date"])
def test_retry_after_is_honoured(server, sender, status, form):
    until = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=4)
    value = "3" if form == "seconds" else email.utils.format_datetime(until, usegmt=True)
    server.answer(error(status, "unavailable", {"Retry-After": value}))
    sender.start()
    sender.feed(*sender.lines(1))
    first = server.wait(1)[0]
    record = sender.wait_for("batch", status=status)
    retry_ms = int(record["retry_ms"])
    assert f"retrying in {-(-retry_ms // 1000)} s" in record["detail"]
    # A date has whole seconds, and some of them passed before it was sent.
    assert (3000 if form == "seconds" else 1) <= retry_ms <= 10_000
    second = server.wait(2)[1]
    assert second.body == first.body
    assert second.at - first.at >= min(retry_ms, 3000) / 1000 - 0.1 or form == "date"
    assert second.at - first.at >= retry_ms / 1000 - 0.5


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
def test_any_retry_after_is_kept_within_limits(server, sender, value):
    server.answer(error(503, "unavailable", {"Retry-After": value}))
    sender.start()
    sender.feed(*sender.lines(1))
    retry_ms = int(sender.wait_for("batch", status=503)["retry_ms"])
    least, longest = RETRY_AFTER[value]
    # An invalid value means a backoff with full jitter.
    assert least <= retry_ms <= longest, retry_ms


@pytest.mark.parametrize("form", ["%A, %d-%b-%y %H:%M:%S GMT", "%a %b %d %H:%M:%S %Y"])
def test_retry_after_accepts_obsolete_date_formats(server, sender, form):
    """RFC 9110 requires recipients to accept these as well."""
    until = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=1000)
    server.answer(error(503, "unavailable", {"Retry-After": until.strftime(form)}))
    sender.start()
    sender.feed(*sender.lines(1))
    assert 900_000 <= int(sender.wait_for("batch", status=503)["retry_ms"]) <= 1_000_000


def test_a_retry_sends_the_same_bytes_after_any_failure(server, sender):
    server.answer(error(500, "internal_error"), raw(b""), raw(b"garbage\r\n\r\n"), error(503, "unavailable"),
                  reply(200, b"{"), error(401, "unknown_source"), error(429, "rate_limited"))
    sender.start()
    sender.feed(*sender.lines(20))
    for number in range(1, 9):
        server.wait(number)
        wait_for(lambda: len(sender.log("batch")) >= number, "the answer's line")
        # New events belong to the next batch.
        sender.feed(*sender.lines(1))
        sender.send_now()
    bodies = {request.body for request in server.requests[:8]}
    assert len(bodies) == 1
    server.wait_for_events(27)
