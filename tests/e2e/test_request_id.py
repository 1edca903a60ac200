"""A failed request is found by its id in the logs of nginx, of the program and of PostgreSQL."""

import contextlib
import json

from conftest import stored
from fastcgi import ingest_params, program
from monitor import encode
from stack import SLOWNESS, wait_for
from test_outage import locked, post_later
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
    grants = ["FUNCTION public.get_hourly_aggregates(integer, text)", "FUNCTION public.log_failure(text, text)"]
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


def test_a_running_statement_names_its_request(stack, db, monitor):
    with contextlib.closing(locked(stack)) as lock:
        sent = post_later(stack, monitor, [monitor.event()])
        found = wait_for(lambda: db.execute("SELECT substring(query FROM '/\\* request ([0-9a-f]{32}) \\*/$') FROM pg_stat_activity"
                                            " WHERE application_name = 'ingest.fcgi' AND wait_event_type = 'Lock'").fetchone(),
                         "the statement to wait")
        lock.rollback()
    answer, _ = sent.result(60 * SLOWNESS)
    assert found == (header(answer, "X-Request-ID"),)


def test_an_id_that_nginx_would_not_make_is_kept_out_of_the_sql(stack, monitor):
    with program(stack, "ingest") as instance:
        wait_for(lambda: instance.ask(ingest_params(b"[]", monitor), b"[]").status_code == 400, "the keys to be read")
        for request_id in ("*/, pg_sleep(60) --", "x*/", "'", "a b", "\u00e9", "a" * 65):
            body = encode([monitor.event()])
            answer = instance.ask(ingest_params(body, monitor, REQUEST_ID=request_id), body)
            assert answer.status_code == 200 and answer.json()["inserted"] == 1, request_id
