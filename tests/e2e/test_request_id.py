"""A failed request is found by its id in the logs of nginx, of the program and of PostgreSQL."""

import contextlib
import json
import re

import pytest

from conftest import stored, stored_all
from fastcgi import begin, ingest_params, program, read_answer
from monitor import encode
from stack import SLOWNESS, wait_for
from test_health import BOTH
from test_metrics import scrape
from test_outage import locked, post_later
from test_overload import at
from wire import check_error, check_rejected, header


def lines(stack, log, request_id):
    return [line for line in stack.log_text(log).splitlines() if request_id in line]


def check_found(stack, name, answer, sqlstate):
    """One line of each log has the request's id; those of the program and PostgreSQL have the SQLSTATE."""
    request_id = header(answer, "X-Request-ID")
    access, = wait_for(lambda: lines(stack, "access", request_id), "the access log's line")
    assert json.loads(access)["status"] == answer.status_code
    program, = wait_for(lambda: lines(stack, name, request_id), f"{name}'s line")
    assert f" status={answer.status_code} " in program and f" sqlstate={sqlstate} " in program
    database, = wait_for(lambda: lines(stack, "postgresql", request_id), "PostgreSQL's line")
    assert database.endswith(f" LOG:  request {request_id} failed with SQLSTATE {sqlstate}")
    return program


def test_a_batch_that_waits_too_long_for_a_lock_is_503_and_not_stored(stack, db, monitor):
    event = monitor.event()
    with contextlib.closing(locked(stack)) as lock:
        answer, seconds = post_later(stack, monitor, [event]).result(60 * SLOWNESS)
        lock.rollback()
    check_error(answer, 503, "unavailable")
    assert seconds < 30 and stored(db, event["id"]) is None
    check_found(stack, "ingest", answer, "55P03")


def test_a_batch_that_only_the_database_refuses_is_in_all_logs(stack, db, client, monitor):
    db.execute("ALTER TABLE public.events ADD CONSTRAINT e2e_id CHECK (NOT payload ? 'forbidden')")
    try:
        answer = monitor.post(client, [monitor.event(payload={"forbidden": True})])
    finally:
        db.execute("ALTER TABLE public.events DROP CONSTRAINT e2e_id")
    check_rejected(answer, [(0, "invalid_event")])
    check_found(stack, "ingest", answer, "23514")


def test_a_batch_that_fails_at_its_commit_is_not_acknowledged(stack, db, client, monitor):
    db.execute("CREATE FUNCTION public.e2e_fail() RETURNS trigger LANGUAGE plpgsql AS"
               " $$BEGIN RAISE disk_full USING MESSAGE = 'no room for this commit'; END$$")
    db.execute("CREATE CONSTRAINT TRIGGER e2e_fail AFTER INSERT ON public.events DEFERRABLE INITIALLY DEFERRED"
               " FOR EACH ROW EXECUTE FUNCTION public.e2e_fail()")
    events = [monitor.event()]
    try:
        answer = monitor.post(client, events)
    finally:
        db.execute("DROP TRIGGER e2e_fail ON public.events")
        db.execute("DROP FUNCTION public.e2e_fail()")
    check_error(answer, 503, "unavailable")
    check_found(stack, "ingest", answer, "53100")
    assert monitor.post(client, events).json()["inserted"] == 1


def test_a_missing_grant_is_internal_error_and_in_all_logs(stack, db, query):
    db.execute("REVOKE EXECUTE ON FUNCTION public.get_hourly_aggregates(integer, text) FROM steep_query")
    try:
        answer = query()
    finally:
        db.execute("GRANT EXECUTE ON FUNCTION public.get_hourly_aggregates(integer, text) TO steep_query")
    check_error(answer, 500, "internal_error")
    check_found(stack, "query", answer, "42501")


def test_a_failure_that_cannot_be_logged_is_answered_all_the_same(db, query):
    grants = ["FUNCTION public.get_hourly_aggregates(integer, text)", "FUNCTION public.log_failure(text[], text)"]
    for grant in grants:
        db.execute(f"REVOKE EXECUTE ON {grant} FROM steep_query")
    try:
        check_error(query(), 500, "internal_error")
        check_error(query(), 500, "internal_error")
    finally:
        for grant in grants:
            db.execute(f"GRANT EXECUTE ON {grant} TO steep_query")
    assert query().status_code == 200


def test_a_success_leaves_no_line_in_the_log_of_postgresql(stack, client, monitor, query):
    for answer in (monitor.post(client, [monitor.event()]), query()):
        assert answer.status_code == 200
        assert lines(stack, "postgresql", header(answer, "X-Request-ID")) == []


def waiting_statements(db):
    return db.execute("SELECT pid, query FROM pg_stat_activity WHERE application_name = 'ingest.fcgi'"
                      " AND wait_event_type = 'Lock'").fetchall()


def test_a_running_statement_is_the_same_for_every_request(stack, db, monitor):
    """It is prepared once, so it cannot name its requests."""
    with contextlib.closing(locked(stack)) as lock:
        sent = post_later(stack, monitor, [monitor.event()])
        (_, query), = wait_for(lambda: waiting_statements(db), "the statement to wait")
        lock.rollback()
    answer, _ = sent.result(60 * SLOWNESS)
    assert query == "SELECT inserted_count FROM public.bulk_insert_events($1::text::jsonb)"
    assert answer.status_code == 200


@pytest.fixture
def patient_sessions(db):
    """New sessions of ingest.fcgi wait for a lock as long as the request may take, and count the calls of functions."""
    db.execute("ALTER ROLE steep_ingest SET lock_timeout = 0")
    db.execute("ALTER ROLE steep_ingest SET track_functions = 'pl'")
    yield
    db.execute("ALTER ROLE steep_ingest SET lock_timeout = '5s'")
    db.execute("ALTER ROLE steep_ingest RESET track_functions")


def calls_of_log_failure(db):
    return db.execute("SELECT coalesce(sum(calls), 0) FROM pg_stat_user_functions WHERE funcname = 'log_failure'").fetchone()[0]


def test_one_statement_logs_the_failure_of_a_group_with_the_ids_of_all(stack, db, monitor, patient_sessions):
    """Also the id of one whose own deadline had passed. Each is a line, as that of a batch alone."""
    calls = calls_of_log_failure(db)
    events = [monitor.event() for _ in range(5)]
    ids = [f"{n:032x}" for n in range(0xfa11ed00, 0xfa11ed05)]
    leaves_after = 4 * SLOWNESS
    with program(stack, "ingest", passed=BOTH, STEEP_CONNECTIONS="1", STEEP_DEADLINE="120") as instance, \
            contextlib.closing(locked(stack)) as lock, contextlib.ExitStack() as opened:
        wait_for(lambda: instance.ask_health("/readyz/ingest").status_code == 200, "the keys to be read")

        def send(number, **more):
            body = encode([events[number]])
            params = ingest_params(body, monitor, REQUEST_ID=ids[number], **more)
            return opened.enter_context(begin(instance.path, params, body, timeout=120))

        alone = send(0)
        (pid, _), = wait_for(lambda: waiting_statements(db), "the first to wait for the lock")
        group = [send(1, REQUEST_MSEC=at(leaves_after - 120)), *map(send, (2, 3, 4))]
        wait_for(lambda: scrape(instance, "ingest")["steep_workers_busy"] == 5, "the others to wait for the connection")
        db.execute("SELECT pg_cancel_backend(%s)", (pid,))
        assert read_answer(alone).status_code == 503
        (_, query), = wait_for(lambda: waiting_statements(db), "the group to wait for the lock")
        assert "bulk_insert_batches" in query
        assert read_answer(group[0]).status_code == 503
        assert waiting_statements(db) == [(pid, query)], "the others go on"
        db.execute("SELECT pg_cancel_backend(%s)", (pid,))
        assert [read_answer(each).status_code for each in group[1:]] == [503] * 3
        for request_id in ids:
            line, = wait_for(lambda: lines(stack, "postgresql", request_id), "PostgreSQL's line")
            assert line.endswith(f" LOG:  request {request_id} failed with SQLSTATE 57014")
        lock.rollback()
        wait_for(lambda: scrape(instance, "ingest")["steep_workers_busy"] == 0, "all to be counted")
        assert scrape(instance, "ingest")["steep_database_duration_seconds_count"] == 5
    assert stored_all(db, [event["id"] for event in events]) == []
    wait_for(lambda: calls_of_log_failure(db) >= calls + 2, "the calls to be counted")
    assert calls_of_log_failure(db) == calls + 2


def test_failures_are_logged_while_all_connections_are_in_use(stack, db, monitor):
    """On the connection of the statement that failed: others may wait for longer than a failure is worth."""
    ids = [f"{n:032x}" for n in range(0xfa11ee00, 0xfa11ee04)]
    with program(stack, "ingest", passed=BOTH, STEEP_CONNECTIONS="2") as instance, contextlib.closing(locked(stack)) as lock, \
            contextlib.ExitStack() as opened:
        wait_for(lambda: instance.ask_health("/readyz/ingest").status_code == 200, "the keys to be read")
        # Too large to share a statement: after the first two, the next two wait for the lock.
        body = encode([monitor.event() for _ in range(600)])
        sent = [opened.enter_context(begin(instance.path, ingest_params(body, monitor, REQUEST_ID=each), body)) for each in ids]
        answers = [read_answer(each) for each in sent]
        lock.rollback()
        assert {answer.status_code for answer in answers} <= {200, 503}
        failed = re.findall(r"request_id=(\w+) status=503 error=unavailable sqlstate=55P03", instance.errors.read_text())
        assert len(failed) >= 2
        for request_id in failed:
            wait_for(lambda: lines(stack, "postgresql", request_id), "PostgreSQL's line")


def test_an_id_that_nginx_would_not_make_is_kept_out_of_the_sql(stack, monitor):
    with program(stack, "ingest") as instance:
        wait_for(lambda: instance.ask(ingest_params(b"[]", monitor), b"[]").status_code == 400, "the keys to be read")
        for request_id in ("*/, pg_sleep(60) --", "x*/", "'", "a b", "\u00e9", "a" * 65):
            body = encode([monitor.event()])
            answer = instance.ask(ingest_params(body, monitor, REQUEST_ID=request_id), body)
            assert answer.status_code == 200 and answer.json()["inserted"] == 1, request_id
