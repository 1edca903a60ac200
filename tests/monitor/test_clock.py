"""A machine that boots without a clock: events without a timestamp wait until it is set."""

import datetime
import json
import subprocess
from pathlib import Path

import pytest

from monitor import now
from scripted import events_of
from stack import SLOWNESS, wait_for

YEAR_2000 = datetime.datetime(2000, 1, 1, tzinfo=datetime.timezone.utc)


class Clock:
    """The clock and the boot of the processes that use it."""

    def __init__(self, folder, library):
        self.folder = folder
        self.environment = {"LD_PRELOAD": str(library), "SHIFTED": str(folder), "ASAN_OPTIONS": "verify_asan_link_order=0"}

    def shift(self, realtime, boottime=0):
        made = self.folder / "clock.new"
        made.write_text(f"{int(realtime)} {int(boottime)}")
        made.rename(self.folder / "clock")

    def unset(self):
        self.shift((YEAR_2000 - now()).total_seconds())

    def set(self, boottime=0):
        self.shift(0, boottime)

    def boot(self, number):
        (self.folder / "boot").write_text(f"{number:08d}-0000-0000-0000-000000000000\n")


@pytest.fixture(scope="session")
def library(tmp_path_factory):
    made = tmp_path_factory.mktemp("shifted") / "shifted.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-D_GNU_SOURCE", "-O2", "-o", made, Path(__file__).with_name("shifted.c")], check=True)
    return made


def unset_clock(tmp_path, library, sender):
    """A sender's clock that is not set."""
    folder = tmp_path / "clock"
    folder.mkdir()
    made = Clock(folder, library)
    made.unset()
    made.boot(1)
    sender.environment |= made.environment
    return made


@pytest.fixture
def clock(tmp_path, library, sender):
    return unset_clock(tmp_path, library, sender)


def undated(sender):
    event = sender.event()
    del event["timestamp"]
    return json.dumps(event)


def times(server):
    return {event["payload"]["number"]: datetime.datetime.fromisoformat(event["timestamp"].replace("Z", "+00:00"))
            for request in server.requests for event in events_of(request)}


def assert_near(at, expected, seconds=2):
    assert abs((at - expected).total_seconds()) <= seconds * SLOWNESS, (at, expected)


def test_events_without_a_timestamp_wait_for_the_clock_and_get_the_right_time(server, sender, clock):
    sender.start()
    began = now()
    sender.feed(undated(sender))
    wait_for(lambda: "waiting for the clock to be set: 1\n" in sender.status(), "status to say so")
    wait_for(lambda: now() - began > datetime.timedelta(seconds=4), "some time to pass")
    assert not server.requests and sender.pending() == 1
    clock.set()
    server.wait_for_events(1)
    assert_near(times(server)[1], began)
    wait_for(lambda: sender.pending() == 0, "nothing to be pending")
    assert "clock" not in sender.status()
    # From now on it is filled in as usual.
    sender.feed(undated(sender))
    server.wait_for_events(2)
    assert_near(times(server)[2], now(), 4)


def test_events_with_a_timestamp_do_not_wait_behind_them(server, sender, clock):
    """TLS needs the clock: the server's certificate is not valid yet. So it is tried, and they go first."""
    sender.start()
    sender.feed(undated(sender), *sender.lines(2))
    sender.wait_for("batch", status=0)
    assert sender.log("batch")[0]["events"] == "2"
    clock.set()
    sender.send_now()
    server.wait_for_events(3)
    assert times(server).keys() == {1, 2, 3}


def test_they_get_the_right_time_after_a_restart_within_the_boot(server, sender, clock):
    sender.start()
    began = now()
    sender.feed(undated(sender))
    wait_for(lambda: sender.pending() == 1, "the event to be in the spool")
    sender.end()
    assert not server.requests
    clock.set()
    sender.start()
    server.wait_for_events(1)
    assert_near(times(server)[1], began)


def test_they_keep_waiting_through_reboots_without_a_clock(server, sender, clock):
    for number in (1, 2):
        clock.boot(number)
        sender.start()
        sender.feed(undated(sender))
        wait_for(lambda: sender.pending() == number, "the event to be in the spool")
        sender.end()
    assert not server.requests and "waiting for the clock to be set: 2\n" in sender.status()
    # That boot lasted 1000 s longer; when the first one was is not known, but it was before.
    clock.set(boottime=0)
    sender.start()
    server.wait_for_events(2)
    sender.wait_for("clock_unknown")
    assert times(server)[1] <= times(server)[2] <= now()


def test_a_retry_sends_the_same_time_though_the_clock_was_corrected(server, sender, clock):
    from scripted import error
    sender.start()
    sender.feed(undated(sender))
    wait_for(lambda: sender.pending() == 1, "the event to be in the spool")
    server.answer(error(503, "unavailable", {"Retry-After": "600"}))
    clock.set()
    server.wait(1)
    clock.shift(30)
    sender.end()
    sender.start()
    first, second = server.wait(2)[:2]
    assert first.body == second.body


def test_the_end_of_the_input_does_not_wait_for_the_clock(server, sender, clock):
    sender.start()
    sender.feed(undated(sender))
    sender.process.stdin.close()
    assert sender.end(None) == 0
    assert sender.pending() == 1 and not server.requests
