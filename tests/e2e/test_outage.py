"""What happens when a part is unavailable, and when it returns."""

import concurrent.futures
import contextlib
import os
import signal
import threading
import time

import httpx
import pytest

from conftest import fingerprint, query_with, registered, stored
from monitor import Monitor
from stack import SLOWNESS, addresses, alive, wait_for
from wire import check_error, check_rejected

pytestmark = pytest.mark.outage


def post_later(stack, monitor, events):
    """Post from a separate thread; the result, and the seconds it took."""
    def send():
        with stack.client(next(addresses)) as client:
            started = time.monotonic()
            answer = monitor.post(client, events)
            return answer, time.monotonic() - started
    pool = concurrent.futures.ThreadPoolExecutor(1)
    future = pool.submit(send)
    pool.shutdown(wait=False)
    return future


@pytest.fixture
def killed(stack):
    """Kill a program; its former pid is gone and another serves when the block ends."""
    @contextlib.contextmanager
    def kill(name):
        before = stack.pid(name)
        os.kill(before, signal.SIGKILL)
        yield
        wait_for(lambda: stack.pid(name) not in (None, before) and alive(stack.pid(name)), f"{name} to be started again")
    return kill


@pytest.mark.parametrize("name", ["ingest", "query"])
def test_a_killed_program_is_restarted(name, killed, client, monitor, query):
    with killed(name):
        pass
    good = (lambda: monitor.post(client, [monitor.event()])) if name == "ingest" else query
    wait_for(lambda: good().status_code == 200, f"{name} to serve again")


def test_requests_that_arrive_while_a_program_is_being_started_wait_in_its_queue(killed, client, monitor):
    answers = []
    with killed("ingest"):
        answers += [monitor.post(client, [monitor.event()]) for _ in range(5)]
    # The first may have been lost with the process; a source is never unknown.
    assert answers[0].status_code in (200, 503), answers[0].text
    assert [answer.status_code for answer in answers[1:]] == [200] * 4


def test_a_restart_refuses_no_batch(stack, client, monitor):
    before = stack.pid("ingest")
    os.kill(before, signal.SIGTERM)
    answers = []
    while stack.pid("ingest") in (None, before) or len(answers) < 5:
        answers.append(monitor.post(client, [monitor.event()]).status_code)
    assert set(answers) == {200}


def test_events_that_only_the_database_refuses_are_listed_too(db, client, monitor):
    db.execute("ALTER TABLE public.events ADD CONSTRAINT e2e CHECK (NOT payload ? 'forbidden')")
    try:
        bad = {"payload": {"forbidden": True}}
        events = [monitor.event(), monitor.event(**bad), monitor.event(), monitor.event(**bad)]
        check_rejected(monitor.post(client, events), [(1, "invalid_event"), (3, "invalid_event")])
        assert [stored(db, event["id"]) for event in events] == [None] * 4
        assert monitor.post(client, [events[0], events[2]]).json()["inserted"] == 2
    finally:
        db.execute("ALTER TABLE public.events DROP CONSTRAINT e2e")


def locked(stack, table="public.events"):
    connection = stack.connect(autocommit=False)
    connection.execute(f"LOCK TABLE {table} IN SHARE ROW EXCLUSIVE MODE")
    return connection


def waits(db):
    return db.execute("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'ingest.fcgi'"
                      " AND wait_event_type = 'Lock'").fetchone()[0] > 0


def test_a_program_killed_with_a_batch_in_hand_is_503_and_the_batch_can_be_sent_again(stack, db, killed, client, monitor):
    event = monitor.event()
    with contextlib.closing(locked(stack)) as lock:
        sent = post_later(stack, monitor, [event])
        wait_for(lambda: waits(db), "the insert to wait")
        with killed("ingest"):
            answer, _ = sent.result(40 * SLOWNESS)
            check_error(answer, 503, "unavailable")
        lock.rollback()
    answer = wait_for(lambda: (got := monitor.post(client, [event])).status_code == 200 and got, "the batch to be taken")
    body = answer.json()
    assert body["inserted"] + body["duplicates"] == 1 and stored(db, event["id"])


def test_terminated_backends_cost_no_batch(db, client, monitor, query):
    for _ in range(3):
        db.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename LIKE 'steep\\_%'")
        assert monitor.post(client, [monitor.event()]).status_code == 200
        assert query().status_code == 200


def test_a_backend_terminated_with_a_batch_in_hand_loses_nothing(stack, db, client, monitor):
    event = monitor.event()
    with contextlib.closing(locked(stack)) as lock:
        sent = post_later(stack, monitor, [event])
        wait_for(lambda: waits(db), "the insert to wait")
        db.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'ingest.fcgi'"
                   " AND wait_event_type = 'Lock'")
        time.sleep(0.2)
        lock.rollback()
        answer, _ = sent.result(40 * SLOWNESS)
    # The program does not know the outcome: it may retry by itself or leave that to the sender.
    if answer.status_code != 200:
        check_error(answer, 503, "unavailable")
        assert monitor.post(client, [event]).status_code == 200
    assert stored(db, event["id"])


def test_changes_of_keys_are_noticed_after_the_listening_backend_was_terminated(stack, db, client):
    db.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename LIKE 'steep\\_%'")
    sender = registered(stack, "outage-listener")
    # The first change may come while nothing listens; later ones are noticed.
    started = time.monotonic()
    stack.steepctl("monitor", "remove", sender.source)
    wait_for(lambda: sender.post(client, "[]").status_code == 401, "the key to go")
    assert time.monotonic() - started < 4 * SLOWNESS


class TestWhileTheDatabaseIsAway:
    @pytest.fixture(scope="class")
    def away(self, stack, db, monitor, token):
        keeper = stack.stop_database()
        yield
        stack.start_database(keeper)

    def test_unauthenticated_batches_are_answered_401(self, away, client, monitor):
        check_error(client.post("/ingest", content=b"[]"), 401, "missing_auth")
        stranger = Monitor("nobody-knows")
        check_error(stranger.post(client, [stranger.event()]), 401, "unknown_source")
        forger = Monitor(monitor.source)
        check_error(forger.post(client, [forger.event()]), 401, "invalid_signature")

    def test_unauthenticated_queries_are_answered_401(self, away, client):
        check_error(client.get("/query"), 401, "missing_auth")
        check_error(query_with(client, "nobodys"), 401, "invalid_token")

    def test_an_invalid_batch_is_refused_at_once(self, away, client, monitor):
        check_error(monitor.post(client, "x"), 400, "invalid_request")
        check_error(monitor.post(client, "[]"), 400, "empty_batch")
        check_rejected(monitor.post(client, [monitor.event(id="x")]), [(0, "invalid_event_id")])

    def test_an_invalid_query_is_refused_at_once(self, away, client, token):
        check_error(query_with(client, token, "?days=8"), 400, "invalid_days")
        check_error(query_with(client, token, "?source="), 400, "invalid_source")

    def test_preflights_and_the_page_are_answered(self, away, client):
        assert client.options("/query").status_code == 204
        assert client.get("/").status_code == 200

    def test_a_query_is_503(self, away, client, token):
        check_error(query_with(client, token), 503, "unavailable")

    def test_half_the_workers_wait_and_the_others_answer_503_at_once(self, away, stack, monitor):
        workers = stack.workers_of("ingest")
        sent = [post_later(stack, monitor, [monitor.event()]) for _ in range(workers + 2)]
        # Meanwhile a request without credentials is answered: not every worker waits.
        time.sleep(1)
        with stack.client(next(addresses)) as client:
            started = time.monotonic()
            check_error(client.post("/ingest", content=b"[]"), 401, "missing_auth")
            assert time.monotonic() - started < 4 * SLOWNESS
        results = [each.result(60 * SLOWNESS) for each in sent]
        for answer, seconds in results:
            check_error(answer, 503, "unavailable")
            assert seconds < 30
        waited = [seconds for _, seconds in results if seconds > 6]
        assert 1 <= len(waited) <= workers // 2


def test_a_batch_sent_during_the_outage_is_stored_when_the_database_returns(stack, monitor):
    event = monitor.event()
    keeper = stack.stop_database()
    try:
        sent = post_later(stack, monitor, [event])
        time.sleep(1)
        assert not sent.done()
    finally:
        stack.start_database(keeper)
    answer, _ = sent.result(40 * SLOWNESS)
    assert answer.status_code == 200 and answer.json()["inserted"] == 1
    with stack.connect() as fresh:
        assert stored(fresh, event["id"])


def test_nothing_that_was_acknowledged_is_lost_when_the_database_crashes(stack, client, monitor):
    events = [monitor.event() for _ in range(50)]
    assert monitor.post(client, events).status_code == 200
    keeper = stack.stop_database(signal.SIGKILL)
    stack.start_database(keeper)
    with stack.connect() as fresh:
        ids = [event["id"] for event in events]
        assert fresh.execute("SELECT count(*) FROM public.events WHERE id = ANY(%s)", (ids,)).fetchone() == (50,)


def test_acknowledgements_and_rows_agree_while_programs_and_database_are_killed(stack, monitor):
    acknowledged, stop = [], threading.Event()

    def send():
        with stack.client(next(addresses)) as client:
            while not stop.is_set():
                events = [monitor.event() for _ in range(20)]
                with contextlib.suppress(httpx.TransportError):
                    if monitor.post(client, events).status_code == 200:
                        acknowledged.extend(event["id"] for event in events)

    senders = [threading.Thread(target=send) for _ in range(3)]
    for each in senders:
        each.start()
    time.sleep(0.5)
    os.kill(stack.pid("ingest"), signal.SIGKILL)
    time.sleep(1)
    keeper = stack.stop_database(signal.SIGKILL)
    stack.start_database(keeper)
    before = len(acknowledged)
    wait_for(lambda: len(acknowledged) > before, "batches to be taken again", 30)
    stop.set()
    for each in senders:
        each.join()
    with stack.connect() as fresh:
        found = fresh.execute("SELECT count(*) FROM public.events WHERE id = ANY(%s)", (acknowledged,)).fetchone()
    assert found == (len(acknowledged),) and acknowledged


def test_everything_works_afterwards(stack, client, monitor, query, new_monitor):
    assert monitor.post(client, [monitor.event()]).status_code == 200
    assert query().status_code == 200
    sender = new_monitor()
    assert sender.post(client, [sender.event()]).status_code == 200
    with stack.connect() as fresh:
        assert fingerprint(fresh)[0] > 0
