"""What monitors and dashboards rely on, whatever an installation consists of: one machine or several."""

import collections
import concurrent.futures
import datetime
import secrets
import time

import pytest

from conftest import query_with
from fastcgi import ingest_params
from monitor import Monitor, encode, now, rfc3339
from stack import SLOWNESS, addresses, wait_for
from wire import SECRETS, check_error, check_json

pytestmark = pytest.mark.contract

HOUR = datetime.timedelta(hours=1)

# The contract says 5 s where the database can't notify; the rest is for a slow machine.
SOON = 5 + 3 * SLOWNESS
ENOUGH = 40  # answers, so that each front end gives some


def counted(client, token, query):
    answer = query_with(client, token, query)
    assert answer.status_code == 200, answer.text
    return check_json(answer)["aggregates"]


def by_source(client, token, names):
    rows = counted(client, token, "?days=7&group_by=source")
    return {row["source"]: row["eventCount"] for row in rows if row["source"] in names}


@pytest.fixture(scope="module")
def fleet(stack):
    """Twelve monitors, so that wherever sources are divided some are on each side."""
    made = [Monitor(f"fleet-{secrets.token_hex(6)}") for _ in range(12)]
    for each in made:
        stack.steepctl("monitor", "add", each.source, each.public_base64)
    for each in made:
        with stack.client(next(addresses)) as client:
            wait_for(lambda sender=each: sender.post(client, "[]").status_code == 400, "a key to be taken up")
    stack.settle("ingest", ingest_params(b"[]", made[-1]), b"[]", 400)
    return made


def test_what_is_acknowledged_is_counted_by_the_next_query(fleet, client, token):
    sent = collections.Counter()
    for turn in range(3):
        for number, monitor in enumerate(fleet):
            answer = monitor.post(client, [monitor.event() for _ in range(number % 4 + 1)])
            assert (answer.status_code, answer.json()["inserted"]) == (200, number % 4 + 1)
            sent[monitor.source] += number % 4 + 1
            row, = counted(client, token, f"?days=7&source={monitor.source}&group_by=source")
            assert row["eventCount"] == sum_of(client, token, monitor.source)
        assert all(count >= sent[source] for source, count in by_source(client, token, sent).items()), turn
        assert len(by_source(client, token, sent)) == len(fleet)


def sum_of(client, token, source):
    return sum(row["eventCount"] for row in counted(client, token, f"?days=7&source={source}"))


def test_the_rows_of_all_sources_are_those_of_each_in_the_order_of_the_contract(fleet, client, token):
    for number, monitor in enumerate(fleet):
        events = [monitor.event(timestamp=rfc3339(now() - back * HOUR)) for back in range(1 + number % 5, 40, 7)]
        assert monitor.post(client, events).json()["inserted"] == len(events)
    rows = counted(client, token, "?days=7")
    keys = [(row["date"], row["hour"]) for row in rows]
    assert keys == sorted(keys, reverse=True)
    for key in set(keys):
        names = [row["source"].encode() for row, its in zip(rows, keys) if its == key]
        assert names == sorted(names) and len(set(names)) == len(names)
    for monitor in fleet:
        assert [row for row in rows if row["source"] == monitor.source] == counted(client, token, f"?days=7&source={monitor.source}")


def test_the_totals_by_hour_and_by_source_are_the_sums_of_the_rows(fleet, client, token):
    assert fleet[0].post(client, [fleet[0].event()]).status_code == 200
    rows = counted(client, token, "?days=30")
    hours, sources = collections.Counter(), collections.Counter()
    for row in rows:
        hours[row["date"], row["hour"]] += row["eventCount"]
        sources[row["source"]] += row["eventCount"]
    by_hour = counted(client, token, "?days=30&group_by=hour")
    assert [(row["date"], row["hour"], row["eventCount"]) for row in by_hour] == [
        (*key, count) for key, count in sorted(hours.items(), reverse=True)]
    totals = counted(client, token, "?days=30&group_by=source")
    assert {row["source"]: row["eventCount"] for row in totals} == sources
    assert [row["eventCount"] for row in totals] == sorted(sources.values(), reverse=True)


def test_a_batch_that_is_sent_again_is_stored_once(fleet, client, token):
    for monitor in fleet[:4]:
        before = sum_of(client, token, monitor.source)
        batch = [monitor.event() for _ in range(20)]
        answers = [monitor.post(client, batch).json() for _ in range(6)]
        assert [(each["inserted"], each["duplicates"]) for each in answers] == [(20, 0), *[(0, 20)] * 5]
        mixed = monitor.post(client, batch[:5] + [monitor.event() for _ in range(3)]).json()
        assert (mixed["inserted"], mixed["duplicates"]) == (3, 5)
        assert sum_of(client, token, monitor.source) == before + 23


def test_batches_of_many_monitors_at_the_same_time_are_each_stored_once(stack, fleet, token):
    with stack.client(next(addresses)) as client:
        before = {each.source: sum_of(client, token, each.source) for each in fleet}
    batches = [(monitor, encode([monitor.event() for _ in range(size)]), size)
               for monitor in fleet for size in (1, 1, 1, 2, 5, 30)] * 2

    def send(batch):
        monitor, body, size = batch
        with stack.client(next(addresses)) as client:
            answer = monitor.post(client, body)
        assert answer.status_code == 200, answer.text
        assert answer.json()["inserted"] + answer.json()["duplicates"] == size
        return answer.json()["inserted"]

    with concurrent.futures.ThreadPoolExecutor(16) as threads:
        assert sum(threads.map(send, batches)) == 40 * len(fleet)
    with stack.client(next(addresses)) as client:
        assert {each.source: sum_of(client, token, each.source) - before[each.source] for each in fleet} == {each.source: 40 for each in fleet}


def test_a_batch_with_a_bad_event_is_refused_whole_and_says_which(fleet, client, token):
    monitor = fleet[0]
    before = sum_of(client, token, monitor.source)
    answer = monitor.post(client, [monitor.event(), monitor.event(payload={"text": "a\0b"}), monitor.event(id="x"), monitor.event()])
    body = check_error(answer, 422, "invalid_payload")
    assert [(each["index"], each["error"]) for each in body["rejected"]] == [(1, "invalid_payload"), (2, "invalid_event_id")]
    assert sum_of(client, token, monitor.source) == before


def seconds_until_all(stack, ask, status):
    """How long until so many answers in a row have a status: each front end takes up a change by itself."""
    began = time.monotonic()

    def all_of_them():
        with stack.client(next(addresses)) as client:
            return all(ask(client).status_code == status for _ in range(ENOUGH))

    wait_for(all_of_them, "a change to take effect", 30, every=0.1)
    return time.monotonic() - began


def test_a_key_takes_effect_within_5_seconds_and_so_does_its_removal(stack):
    monitor = Monitor(f"contract-{secrets.token_hex(6)}")
    stack.steepctl("monitor", "add", monitor.source, monitor.public_base64)
    assert seconds_until_all(stack, lambda client: monitor.post(client, "[]"), 400) < SOON
    stack.steepctl("monitor", "remove", monitor.source)
    assert seconds_until_all(stack, lambda client: monitor.post(client, "[]"), 401) < SOON


def test_a_token_takes_effect_within_5_seconds_and_so_does_its_removal(stack):
    label = f"contract-{secrets.token_hex(6)}"
    made = stack.steepctl("token", "add", label).stdout.split()[-1]
    SECRETS.add(made)
    assert seconds_until_all(stack, lambda client: query_with(client, made, "?group_by=hour"), 200) < SOON
    stack.steepctl("token", "remove", label)
    assert seconds_until_all(stack, lambda client: query_with(client, made), 401) < SOON


def test_a_token_with_a_scope_sees_its_sources_alone(stack, fleet):
    own, other = fleet[:3], fleet[3]
    options = [part for each in own for part in ("--source", each.source)]
    made = stack.steepctl("token", "add", f"contract-{secrets.token_hex(6)}", *options).stdout.split()[-1]
    SECRETS.add(made)
    assert seconds_until_all(stack, lambda client: query_with(client, made, "?group_by=hour"), 200) < SOON
    with stack.client(next(addresses)) as client:
        for each in (*own, other):
            assert each.post(client, [each.event()]).status_code == 200
        rows = counted(client, made, "?days=30")
        assert {row["source"] for row in rows} == {each.source for each in own}
        total = sum(row["eventCount"] for row in rows)
        assert sum(row["eventCount"] for row in counted(client, made, "?days=30&group_by=hour")) == total
        assert sum(row["eventCount"] for row in counted(client, made, "?days=30&group_by=source")) == total
        assert counted(client, made, f"?days=30&source={other.source}") == []
