"""Whose events they are: the source is filled in when they are sent, and each name is sent by itself."""

import json
import re

import pytest

from scripted import error, events_of, stored
from stack import wait_for


def bare(sender, **changes):
    """A line without a source."""
    event = sender.event(**changes)
    del event["source"]
    return json.dumps(event)


def own(sender, name):
    return json.dumps(sender.event(source=name))


def refusing(*names):
    """A server that knows no key of these names."""
    def answer(exchange):
        return (error(401, "unknown_source") if exchange.request.headers["x-source-id"] in names else stored)(exchange)

    return answer


def arrived(server, name):
    """The numbers of the events that a server stored under a name."""
    return sorted(event["payload"]["number"] for request in server.requests[server.began:]
                  if request.headers["x-source-id"] == name for event in events_of(request))


@pytest.fixture
def server(server):
    server.names |= {"old", "new", "third", "x" * 255}
    server.began = 0
    return server


def test_events_that_wait_are_sent_under_a_name_that_was_set_later(server, sender):
    """A first run: the host's name, of which the server has no key, and then the right one."""
    server.always = refusing("old")
    sender.start(STEEP_SOURCE="old")
    sender.feed(*[bare(sender) for _ in range(5)])
    sender.wait_for("batch", status=401)
    sender.end()
    assert sender.pending() == 5
    server.began = len(server.requests)
    sender.start(STEEP_SOURCE="new")
    wait_for(lambda: sender.pending() == 0, "nothing to be pending")
    assert arrived(server, "new") == [1, 2, 3, 4, 5] and not arrived(server, "old")
    assert not sender.rejected() and sender.counted("sent") == 5


def test_events_with_a_name_of_their_own_are_sent_under_it(server, sender):
    server.always = refusing("old", "new")
    sender.start(STEEP_SOURCE="old")
    sender.feed(own(sender, "old"), bare(sender), own(sender, "old"), bare(sender))
    sender.wait_for("batch", status=401)
    sender.end()
    server.always, server.began = stored, len(server.requests)
    sender.start(STEEP_SOURCE="new")
    wait_for(lambda: sender.pending() == 0, "nothing to be pending")
    assert arrived(server, "old") == [1, 3] and arrived(server, "new") == [2, 4]
    assert not sender.rejected()


def test_a_line_with_another_source_is_refused_when_it_is_read(server, sender):
    sender.start(STEEP_SOURCE="new")
    sender.feed(own(sender, "old"), own(sender, "new"))
    wait_for(lambda: arrived(server, "new") == [2], "the other line")
    assert sender.log("input_rejected")[0]["error"] == "source_mismatch"
    aside, = sender.rejected()
    assert aside["reason"].startswith("source_mismatch")


def test_a_401_for_one_name_delays_no_other(server, sender):
    server.always = refusing("old", "third")
    for name in ("old", "third"):
        sender.start(STEEP_SOURCE=name)
        sender.feed(own(sender, name), own(sender, name))
        sender.wait_for("batch", status=401)
        sender.end()
    sender.start(STEEP_SOURCE="new")
    for count in (2, 4, 6):
        sender.feed(bare(sender), own(sender, "new"))
        wait_for(lambda: len(arrived(server, "new")) == count, "the new name's events to be sent")
    wait_for(lambda: sender.pending() == 4, "the others to wait")
    # status says how many wait for which key, and why.
    waiting = re.findall(r"^waiting for the key of (\w+): (\d+) \((.*)\)$", sender.status(), re.MULTILINE)
    assert [(name, count) for name, count, _ in waiting] == [("old", "2"), ("third", "2")]
    assert all("401" in why for *_, why in waiting), waiting
    server.always = stored
    sender.send_now()
    wait_for(lambda: sender.pending() == 0, "nothing to be pending")
    assert not sender.rejected()


def test_a_rejection_under_one_name_proves_nothing_about_another(server, sender):
    """The 400 of a name without a key must not be taken for a bad event because another name works."""
    def answer(exchange):
        old = exchange.request.headers["x-source-id"] == "old"
        return (error(400, "invalid_request") if old else stored)(exchange)

    server.always = answer
    sender.start(STEEP_SOURCE="old")
    sender.feed(own(sender, "old"))
    sender.wait_for("skipped")
    sender.end()
    sender.start(STEEP_SOURCE="new")
    for _ in range(3):
        sender.feed(bare(sender))
        sender.send_now()
    wait_for(lambda: sender.pending() == 1, "the new name's events to be sent")
    sender.send_now()
    wait_for(lambda: len(sender.log("skipped")) >= 2, "another try")
    assert sender.pending() == 1 and not sender.rejected()


def test_the_largest_event_fits_under_the_longest_name(server, sender):
    """It is checked when it is read, and the name may change before it is sent."""
    size = 64 * 1024 - len('"source":"",') - 255

    def padded(length):
        empty = bare(sender, payload={"number": 0, "x": ""})
        return empty.replace('"x": ""', '"x": "' + "x" * (length - len(empty)) + '"')

    server.always = refusing(sender.identity.source)
    sender.start()
    sender.feed(padded(size + 1), padded(size))
    sender.wait_for("batch", status=401)
    assert [record["line"] for record in sender.log("input_rejected")] == ["1"]
    sender.end()
    sender.start(STEEP_SOURCE="x" * 255)
    wait_for(lambda: sender.pending() == 0, "the event to be sent")
    sent, = events_of(server.requests[-1])
    assert sent["source"] == "x" * 255
    assert len(server.requests[-1].body) == 64 * 1024 + len("[]")
