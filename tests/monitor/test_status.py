"""steep-monitor status: pending, sent and rejected events, the last response, the age of the oldest event."""

import json
import re
import signal
import time

from scripted import error
from stack import wait_for


def test_before_the_first_run_it_prints_something(sender):
    done = sender.run("status")
    assert done.returncode in (0, 1) and (done.stdout + done.stderr).strip()


def test_it_counts_pending_sent_and_rejected_events(server, sender):
    sender.start()
    sender.feed(*sender.lines(3), "bad")
    server.wait_for_events(3)
    wait_for(lambda: sender.pending() == 0, "nothing to be pending")
    server.always = error(503, "unavailable", {"Retry-After": "600"})
    sender.feed(*sender.lines(4))
    sender.wait_for("batch", status=503)
    assert (sender.pending(), sender.counted("sent"), sender.counted("rejected")) == (4, 3, 1)
    assert "503" in sender.status()


def test_events_that_the_server_rejected_are_counted_at_once(server, sender):
    listed = [{"index": index, "error": "invalid_payload", "message": "."} for index in range(3)]
    server.answer(error(422, "invalid_payload", index=0, rejected=listed))
    sender.start()
    sender.feed(*sender.lines(3))
    sender.wait_for("rejected")
    wait_for(lambda: sender.counted("rejected") == 3, "the count of rejected events")
    sender.end(signal.SIGKILL)
    assert sender.counted("rejected") == 3


def test_it_prints_the_same_when_no_process_runs(server, sender):
    server.always = error(401, "unknown_source")
    sender.start()
    sender.feed(*sender.lines(4))
    sender.wait_for("batch", status=401)
    wait_for(lambda: "401" in sender.status(), "the last response")
    sender.end(signal.SIGKILL)
    assert sender.pending() == 4 and "401" in sender.status()


def test_the_age_of_the_oldest_event_grows(server, sender):
    server.always = error(503, "unavailable", {"Retry-After": "600"})
    sender.start()
    sender.feed(*sender.lines(1))
    sender.wait_for("batch")
    ages = []
    for _ in range(2):
        time.sleep(1.2)
        ages.append(sender.counted("oldest pending"))
    assert ages[0] < ages[1] < 60, sender.status()


def test_the_number_of_sent_events_survives_restarts(server, sender):
    for number in (1, 2, 3):
        sender.start()
        sender.feed(*sender.lines(2))
        server.wait_for_events(2 * number)
        wait_for(lambda: sender.pending() == 0, "nothing to be pending")
        sender.end()
    assert sender.counted("sent") == 6


def test_a_missing_state_folder_is_an_error(sender, tmp_path):
    done = sender.run("status", STEEP_MONITOR_STATE=str(tmp_path / "nothing"))
    assert done.returncode == 1 and len(done.stderr.strip()) > 10
    assert not (tmp_path / "nothing").exists()


def test_it_needs_neither_a_key_nor_a_url(server, sender):
    sender.start()
    sender.end()
    (sender.state / "key.priv").unlink()
    assert sender.run("status", STEEP_URL=None, STEEP_CA=None, STEEP_SOURCE=None).returncode == 0


def test_it_works_while_the_state_changes(server, sender):
    sender.start()
    for _ in range(20):
        sender.feed(*sender.lines(500))
        assert re.search(r"\d", sender.status())


def test_rejected_events_keep_their_text_and_reason(server, sender):
    sender.start()
    sender.feed('{"type":"party","payload":{}}', "ünïcode \\ \" \x07")
    wait_for(lambda: len(sender.rejected()) == 2, "both bad lines")
    first, second = sender.rejected()
    assert (first["line"], second["line"]) == (1, 2)
    assert second["event"] == "ünïcode \\ \" \x07"
    assert first["event"] in ('{"type":"party","payload":{}}', json.loads('{"type":"party","payload":{}}'))
