"""steep-monitor rejected list, retry and discard."""

import fcntl
import json
import signal
import subprocess
import sys
import termios
import time

import pytest

from scripted import error, events_of
from sender import PROGRAM
from stack import wait_for
from test_answers import rejecting


def rejected_number(record):
    return record["event"]["payload"]["number"]


def test_list_prints_each_with_its_reason_and_time(server, sender):
    server.always = rejecting(2)
    sender.start()
    sender.feed(*sender.lines(3), "bad \x00\x07 ünï", b"\xff\xfe\n")
    wait_for(lambda: len(sender.rejected()) == 3, "the rejected ones")
    first, second, third = sorted(sender.rejected(), key=lambda record: record["line"] or 9)
    assert first["line"] == 4 and first["event"] == "bad \x00\x07 ünï" and first["reason"].startswith("invalid_json: ")
    assert second["line"] == 5 and second["event"] == "\ufffd\ufffd"
    assert third["line"] is None and rejected_number(third) == 2 and third["reason"] == "invalid_payload: Event 1: no."
    assert all(record["time"].endswith("Z") for record in (first, second, third))


def test_a_list_that_nobody_reads_does_not_stop_the_journal(server, sender):
    sender.start("--spool-size", "2")
    sender.feed(*["x" * 500] * 400)
    wait_for(lambda: sender.counted("rejected and kept") == 400, "the lines to be rejected")
    command = subprocess.Popen([str(PROGRAM), "rejected", "list"], env=sender.environment, stdout=subprocess.PIPE)
    try:
        time.sleep(1)
        assert command.poll() is None
        for number in range(1, 7):
            sender.feed(*sender.lines(2500))
            wait_for(lambda: sender.counted("sent") == number * 2500, "the events to be sent")
        assert sender.held() <= 1.3 * (2 << 20)
        # It goes on where it was.
        printed = command.stdout.read().splitlines()
        assert [json.loads(line)["line"] for line in printed] == list(range(1, 401))
    finally:
        command.kill()
        command.wait()


def test_retry_sends_them_again_while_it_runs(server, sender):
    server.always = rejecting(1, 2)
    sender.start(STEEP_BATCH_INTERVAL_SECS="3600")
    sender.feed(*sender.lines(3))
    wait_for(lambda: sender.pending() == 3, "the events to be in the spool")
    sender.send_now()
    wait_for(lambda: len(sender.rejected()) == 2 and sender.pending() == 0, "two to be rejected")
    server.always = rejecting(1)
    done = sender.run("rejected", "retry")
    assert done.returncode == 0 and done.stdout == "2 rejected events are sent again\n"
    wait_for(lambda: sender.counted("sent") == 2, "one to be stored")
    wait_for(lambda: [rejected_number(record) for record in sender.rejected()] == [1], "the other to be rejected again")


def test_retry_takes_effect_at_the_next_start(server, sender):
    server.always = rejecting(1)
    sender.start()
    sender.feed(*sender.lines(1), json.dumps(sender.event(source="other")))
    wait_for(lambda: len(sender.rejected()) == 2, "both to be rejected")
    sender.end()
    server.always = rejecting()
    server.names.add("other")
    # A line is read again, under the name that is right for it.
    done = sender.run("rejected", "retry", STEEP_SOURCE="other")
    assert done.returncode == 0 and done.stdout.startswith("2 ") and "next start" in done.stdout
    assert not sender.rejected() and sender.pending() == 2
    sender.start(STEEP_SOURCE="other")
    wait_for(lambda: sender.pending() == 0, "both to be stored")
    assert sorted(event["source"] for request in server.requests[1:] for event in events_of(request)) in (
        ["other", "other"], sorted(["other", sender.identity.source]))
    assert sender.counted("sent") == 2 and not sender.rejected()


def test_a_running_process_says_under_which_name_lines_are_read_again(server, sender):
    server.names |= {"first", "second"}
    sender.start(STEEP_SOURCE="first")
    sender.feed(json.dumps(sender.event(source="second")))
    wait_for(lambda: len(sender.rejected()) == 1, "the line to be rejected")
    sender.end()
    sender.start(STEEP_SOURCE="second")
    done = sender.run("rejected", "retry", STEEP_SOURCE="third")
    assert done.returncode == 0 and done.stdout == "1 rejected event is sent again\n"
    wait_for(lambda: sender.counted("sent") == 1, "the line's event to be stored")
    assert [event["source"] for event in events_of(server.requests[0])] == ["second"]


def unread(sender):
    """How many bytes of its standard input it has not read yet."""
    return int.from_bytes(fcntl.ioctl(sender.process.stdin, termios.FIONREAD, bytes(4)), sys.byteorder)


@pytest.mark.parametrize("how", [None, signal.SIGTERM, signal.SIGKILL])
def test_retry_while_the_input_is_paused_sends_each_line_once(server, sender, how):
    server.always = error(503, "unavailable", {"Retry-After": "1"})
    server.names.add("other")
    sender.start()
    lines = [{key: value for key, value in sender.event(source="other").items() if key != "id"} for _ in range(20)]
    sender.feed(*map(json.dumps, lines))
    wait_for(lambda: len(sender.rejected()) == 20, "the lines to be rejected")
    sender.end(signal.SIGKILL)

    # No more is read than what fits, so that it would go on by itself.
    sender.start("--spool-size", "1", "--block", STEEP_SOURCE="other")
    fed = 0
    while not sender.log("input_paused"):
        sender.feed(*[json.dumps(sender.event(source="other", payload={"number": 0, "text": "x" * 800})) for _ in range(20)])
        fed += 20
        # A pipe that is full when the input pauses would hold up the next line for ever.
        wait_for(lambda: unread(sender) == 0 or sender.log("input_paused"), "the lines to be read")
    for count in (20, 0, 0):
        assert sender.run("rejected", "retry").stdout.startswith(f"{count} ")
    assert not sender.rejected()
    server.requests.clear()
    if how is not None:
        sender.end(how)
        sender.start("--spool-size", "1", "--block", STEEP_SOURCE="other")
    server.always = rejecting()
    sender.send_now()
    # What it had not committed of a pipe is gone, but not what was rejected.
    expected = 20 if how == signal.SIGKILL else fed + 20
    wait_for(lambda: sender.pending() == 0 and sender.counted("sent") >= expected, "all of them to be sent", 40)
    numbers = [event["payload"]["number"] for request in server.requests if request.headers["x-source-id"] == "other"
               for event in events_of(request) if event["payload"]["number"] > 0]
    ids = {event["id"] for request in server.requests for event in events_of(request) if event["payload"]["number"] > 0}
    assert set(numbers) == set(range(1, 21)) and len(ids) == 20
    assert how == signal.SIGKILL or sender.counted("sent") == expected


def test_what_is_still_invalid_stays_rejected(server, sender):
    sender.start()
    sender.feed("bad")
    wait_for(lambda: len(sender.rejected()) == 1, "the bad line")
    for _ in range(3):
        done = sender.run("rejected", "retry")
        assert done.returncode == 0 and done.stdout.splitlines() == ["0 rejected events are sent again",
                                                                    "1 is still invalid"]
    sender.feed(*sender.lines(1))
    sender.send_now()
    server.wait_for_events(1)
    assert [record["event"] for record in sender.rejected()] == ["bad"]


def test_discard_deletes_them(server, sender):
    sender.start()
    sender.feed("bad", "worse")
    wait_for(lambda: len(sender.rejected()) == 2, "the bad lines")
    assert sender.run("rejected", "discard").returncode == 0
    assert not sender.rejected() and sender.counted("rejected") == 2
    sender.feed("third")
    wait_for(lambda: [record["event"] for record in sender.rejected()] == ["third"], "another one")


def test_what_is_dropped_of_them_is_counted_and_reported(server, sender):
    sender.start("--spool-size", "1")
    sender.feed(*["x" * 1000 for _ in range(2000)])
    wait_for(lambda: sender.counted("rejected") == 2000, "all of them to be rejected")
    kept, dropped = sender.counted("rejected and kept"), sender.counted("rejected and dropped")
    assert kept + dropped == 2000 and 50 <= kept <= 130 and len(sender.rejected()) == kept
    assert sum(int(record["events"]) for record in sender.log("rejected_dropped")) == dropped
    assert sender.held() <= 1.3 * (1 << 20)


def test_rejected_events_do_not_displace_pending_ones(server, sender):
    server.always = error(503, "unavailable", {"Retry-After": "3600"})
    sender.start("--spool-size", "1")
    sender.feed(*sender.lines(1500))
    wait_for(lambda: sender.pending() == 1500, "the events to be in the spool")
    sender.feed(*["x" * 1000 for _ in range(2000)])
    wait_for(lambda: sender.counted("rejected") == 2000, "all of them to be rejected")
    assert sender.pending() == 1500 and not sender.log("spool_dropped")


def test_rejected_without_a_spool_is_an_error(sender):
    for command in ("list", "retry", "discard"):
        done = sender.run("rejected", command)
        assert done.returncode == 1 and len(done.stderr.strip()) > 10
    for arguments in ([], ["everything"], ["list", "more"]):
        assert sender.run("rejected", *arguments).returncode == 2
