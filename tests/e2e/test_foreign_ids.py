"""An id that is stored under another source is skipped, counted and logged."""

import pytest

from conftest import stored
from stack import wait_for
from wire import header


@pytest.fixture
def foreign_lines(stack):
    """The log lines about foreign ids for a request."""
    def find(answer):
        request_id = header(answer, "X-Request-ID")
        return [line.partition(" event=")[2] for line in stack.log_text("ingest").splitlines()
                if "event=foreign_ids" in line and request_id in line]
    return find


def test_only_ids_of_another_source_are_counted_in_the_log(client, monitor, other_monitor, foreign_lines, db):
    theirs = [monitor.event(), monitor.event()]
    own = other_monitor.event()
    assert monitor.post(client, theirs).json()["inserted"] == 2
    assert other_monitor.post(client, [own]).json()["inserted"] == 1
    taken = [other_monitor.event(id=event["id"]) for event in theirs]
    answer = other_monitor.post(client, [*taken, own, other_monitor.event()])
    assert (answer.json()["inserted"], answer.json()["duplicates"]) == (1, 3)
    request_id = header(answer, "X-Request-ID")
    lines = wait_for(lambda: foreign_lines(answer), "the line in ingest.log")
    assert lines == [f"foreign_ids request_id={request_id} source={other_monitor.source} count=2"]
    assert [stored(db, event["id"]).source for event in theirs] == [monitor.source] * 2


def test_resending_a_batch_logs_no_foreign_ids(client, monitor, other_monitor, foreign_lines):
    events = [monitor.event()]
    monitor.post(client, events)
    again = monitor.post(client, events)
    assert again.json()["duplicates"] == 1
    # Once the next request's line is there, this one's would be.
    after = other_monitor.post(client, [other_monitor.event(id=events[0]["id"])])
    wait_for(lambda: foreign_lines(after), "the line in ingest.log")
    assert foreign_lines(again) == []


def test_a_comparison_that_fails_is_logged_with_its_sqlstate(client, monitor, foreign_lines, db):
    events = [monitor.event()]
    monitor.post(client, events)
    db.execute("REVOKE EXECUTE ON FUNCTION public.count_foreign_ids(jsonb) FROM steep_ingest")
    try:
        answer = monitor.post(client, events)
        assert answer.json()["duplicates"] == 1
        line, = wait_for(lambda: foreign_lines(answer), "the line in ingest.log")
    finally:
        db.execute("GRANT EXECUTE ON FUNCTION public.count_foreign_ids(jsonb) TO steep_ingest")
    assert "could not compare the duplicates" in line and line.endswith(" sqlstate=42501")
