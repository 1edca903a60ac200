"""The programs through PgBouncer in transaction mode, where each transaction may have another session of PostgreSQL."""

import concurrent.futures
import contextlib
import os
import re
import secrets
import signal
import subprocess

import pytest

from conftest import registered, stored_all
from fastcgi import ingest_params, program, query_params
from monitor import Monitor, encode
from pooler import Pooler, can_track_prepared_statements
from stack import ROOT, SLOWNESS, wait_for
from test_health import BOTH
from test_metrics import scrape
from test_outage import locked
from test_sources import counted, fill
from wire import SECRETS

TOKEN = "pooled-token"


@pytest.fixture
def pooler(stack):
    made = Pooler(stack)
    try:
        yield made
    finally:
        made.stop()


@contextlib.contextmanager
def served(stack, pooler, name="ingest", **more):
    """A program that reaches the database through the pooler, once it has read its credentials."""
    with program(stack, name, passed=BOTH, **(pooler.environment | more)) as instance:
        wait_for(lambda: instance.ask_health(f"/readyz/{name}").status_code == 200, "the credentials to be read")
        yield instance


def post(instance, monitor, events, **more):
    body = encode(events)
    return instance.ask(ingest_params(body, monitor, **more), body)


def unprepared(instance):
    return re.findall(r" event=unprepared sqlstate=(\w+) ", instance.errors.read_text())


# A session that another client has prepared the same statement in, and one that forgets them.
@pytest.mark.parametrize("sqlstate, settings", [("42P05", {}), ("26000", {"server_reset_query_always": 1})], ids=["42P05", "26000"])
def test_prepared_statements_that_are_another_sessions_are_given_up_and_every_batch_is_stored(sqlstate, settings, stack, db, pooler, monitor):
    pooler.configure(default_pool_size=1, **settings)
    pooler.start()
    batches = [[monitor.event() for _ in range(3)] for _ in range(60)]
    with served(stack, pooler, STEEP_CONNECTIONS="4") as instance:
        with concurrent.futures.ThreadPoolExecutor(12) as threads:
            answers = list(threads.map(lambda events: post(instance, monitor, events), batches))
        assert [answer.status_code for answer in answers] == [200] * 60, {answer.text for answer in answers}
        assert [answer.json()["inserted"] for answer in answers] == [3] * 60
        assert unprepared(instance) == [sqlstate]
        assert "level=error" not in instance.errors.read_text()
    assert len(stored_all(db, [event["id"] for events in batches for event in events])) == 180


def test_queries_are_answered_through_a_pooler(stack, pooler):
    pooler.configure(default_pool_size=1)
    pooler.start()
    with served(stack, pooler, "query", VIBETEA_SUBSCRIBER_TOKEN=TOKEN) as instance:
        with concurrent.futures.ThreadPoolExecutor(8) as threads:
            answers = list(threads.map(lambda _: instance.ask(query_params(TOKEN, "days=7")), range(40)))
        assert [answer.status_code for answer in answers] == [200] * 40
        assert unprepared(instance) == ["42P05"]


def test_no_batch_is_lost_when_several_connections_find_out_at_once(stack, db, pooler, monitor):
    """As when the pooler's mode is changed while the programs run."""
    connections = 6
    pooler.configure("session", default_pool_size=20)
    pooler.start()
    with served(stack, pooler, STEEP_CONNECTIONS=str(connections), STEEP_DEADLINE="60") as instance, \
            concurrent.futures.ThreadPoolExecutor(connections) as threads:
        def on_every_connection():
            with contextlib.closing(locked(stack)) as lock:
                sent = [threads.submit(post, instance, monitor, [monitor.event()]) for _ in range(connections)]
                wait_for(lambda: db.execute("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'ingest.fcgi'"
                                            " AND wait_event_type = 'Lock'").fetchone()[0] == connections, "all to wait for the lock")
                lock.rollback()
            assert {each.result(60 * SLOWNESS).status_code for each in sent} <= {200, 503}

        on_every_connection()
        assert unprepared(instance) == []
        pooler.configure("transaction", default_pool_size=20, server_reset_query_always=1)
        pooler.signal(signal.SIGHUP)
        # The sessions are reset after this.
        on_every_connection()
        pooler.signal(signal.SIGSTOP)
        try:
            sent = [threads.submit(post, instance, monitor, [monitor.event()]) for _ in range(connections)]
            wait_for(lambda: scrape(instance, "ingest")["steep_workers_busy"] == connections, "all to be sent")
        finally:
            pooler.signal(signal.SIGCONT)
        answers = [each.result(60 * SLOWNESS) for each in sent]
        assert [answer.status_code for answer in answers] == [200] * connections, [answer.text for answer in answers]
        assert unprepared(instance) == ["26000"]


def test_a_statement_ends_with_its_request_and_leaves_no_limit_to_the_next(stack, db, pooler, monitor):
    pooler.configure(default_pool_size=1)
    pooler.start()
    with served(stack, pooler, STEEP_DEADLINE="2") as instance, contextlib.closing(locked(stack)) as lock:
        answer = post(instance, monitor, [monitor.event()], REQUEST_ID="5e7c0f19" * 4)
        # By the server: the program alone would have no SQLSTATE, and the lock's own limit is 55P03.
        line, = wait_for(lambda: [line for line in stack.log_text("postgresql").splitlines() if "5e7c0f19" * 4 in line], "PostgreSQL's line")
        lock.rollback()
        assert answer.status_code == 503 and line.endswith(" failed with SQLSTATE 57014")
        wait_for(lambda: post(instance, monitor, [monitor.event()]).status_code == 200, "a batch to be stored")
        with pooler.connect() as next_client:
            assert next_client.execute("SHOW statement_timeout").fetchone() == ("10s",)


def test_keys_are_looked_for_where_notifications_may_not_arrive(stack, pooler, monitor):
    pooler.configure(default_pool_size=1)
    pooler.start()
    with served(stack, pooler) as instance:
        # The first looks are over, so that only one to come can find the key.
        assert post(instance, monitor, [monitor.event()]).status_code == 200
        late = registered(stack, "e2e-pooled")
        try:
            wait_for(lambda: post(instance, late, [late.event()]).status_code == 200, "the key to be found")
        finally:
            stack.steepctl("monitor", "remove", "e2e-pooled")
        wait_for(lambda: post(instance, late, [late.event()]).status_code == 401, "the key to be forgotten")


@pytest.fixture
def rotation(stack, pooler, database):
    """A pooler that gives each transaction of an administrator another of three sessions, each with settings of others."""
    pooler.configure(database=database.name, default_pool_size=3, server_round_robin=1)
    pooler.start()
    with contextlib.ExitStack() as opened:
        clients = [opened.enter_context(pooler.connect(stack.pg["PGUSER"])) for _ in range(3)]
        for client in clients:
            client.execute("BEGIN")
        for client in clients:
            client.execute("SET timezone = 'Asia/Kolkata'; SET datestyle = 'German'; COMMIT")
        pids = [clients[0].execute("SELECT pg_backend_pid()").fetchone() for _ in range(6)]
        assert len(set(pids)) == 3 and pids[:3] == pids[3:]
    return pooler.environment | {"PGDATABASE": "steep"}


LOCKS = ("SELECT count(*) FROM pg_locks AS locks JOIN pg_database ON pg_database.oid = locks.database"
         " WHERE datname = current_database() AND locktype = 'advisory'")


def test_sources_are_listed_renamed_and_erased_and_events_removed_through_a_pooler(stack, database, rotation):
    def control(*arguments):
        done = stack.steepctl(*arguments, check=False, **rotation)
        return done.returncode, done.stdout, done.stderr

    with database.connect() as connection:
        for source in ("a", "b"):
            fill(connection, source, 12000)
        listed = [line.split("\t")[:4] for line in control("source", "list")[1].splitlines()]
        assert listed == [[source, "2026-02-03T12:59:59Z", "2026-02-03T14:59:59Z", "12000"] for source in ("a", "b")]
        assert control("source", "rename", "nobody", "new") == (1, "", "steepctl: there is no source nobody\n")
        assert connection.execute(LOCKS).fetchone() == (0,)
        assert control("source", "rename", "a", "new") == (0, "events moved: 12000\nkeys copied: 0\n", "")
        assert control("events", "remove", "--source", "new", "--from", "2026-02-03T14:00:00Z", "--dry-run") == (0, "new\t2026-02-03\t4000\n", "")
        assert control("events", "remove", "--source", "new", "--from", "2026-02-03T14:00:00Z") == (0, "events removed: 4000\n", "")
        assert control("source", "erase", "--yes", "new") == (0, "events deleted: 8000\nhourly counts deleted: 2\nkeys removed: 0\n", "")
        assert counted(connection) == {"b": 12000}
        assert connection.execute(LOCKS).fetchone() == (0,)


def test_a_step_that_fails_in_a_poolers_session_leaves_no_lock(stack, database, rotation):
    def rename():
        return subprocess.Popen([str(ROOT / "deploy" / "steepctl"), "source", "rename", "a", "new"], text=True, start_new_session=True,
                                env=stack.environment(**rotation), stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    with database.connect() as connection, database.connect(autocommit=False) as holding:
        fill(connection, "a", 12000)
        for end in ("pg_cancel_backend(pid)", "pg_terminate_backend(pid)", None):
            holding.execute("SELECT FROM public.events WHERE id = 'evt_a_2' FOR UPDATE")  # of the last step
            process = rename()
            waiting = "FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
            wait_for(lambda: connection.execute(f"SELECT pid {waiting}").fetchone(), "the rename to wait")
            if end is None:
                os.killpg(process.pid, signal.SIGKILL)
            else:
                connection.execute(f"SELECT {end} {waiting}")
            assert process.communicate(timeout=60 * SLOWNESS)[0] == "" and process.returncode != 0
            holding.rollback()
            wait_for(lambda: connection.execute(LOCKS).fetchone() == (0,), "the lock to end")
        process = rename()
        assert process.communicate(timeout=60 * SLOWNESS)[1] == "" and process.returncode == 0
        assert counted(connection) == {"new": 12000}


def test_statements_stay_prepared_where_the_pooler_keeps_track_of_them(stack, db, pooler, monitor):
    """As PgBouncer does from 1.21 on; older ones know no such setting."""
    tracks = can_track_prepared_statements()
    pooler.configure(default_pool_size=2, **pooler.default_preparing())
    pooler.start()
    batches = [[monitor.event() for _ in range(3)] for _ in range(60)]
    with served(stack, pooler, STEEP_CONNECTIONS="4") as instance, served(stack, pooler, STEEP_CONNECTIONS="4") as another:
        with concurrent.futures.ThreadPoolExecutor(12) as threads:
            answers = list(threads.map(lambda pair: post(pair[0], monitor, pair[1]), zip([instance, another] * 30, batches)))
        assert [answer.json()["inserted"] for answer in answers] == [3] * 60
        assert (unprepared(instance) + unprepared(another) == []) == tracks
    assert None not in stored_all(db, [event["id"] for events in batches for event in events])


def test_programs_log_in_through_a_pooler_that_is_configured_as_documented(stack, pooler, new_cluster):
    made = new_cluster("pooled")
    (made.data / "pg_hba.conf").write_text("local all steep_ingest,steep_query scram-sha-256\nlocal all all trust\n")
    made.start()
    database = made.make_database("steep")
    database.migrate()
    passwords = {role: secrets.token_hex(16) for role in ("steep_ingest", "steep_query")}
    SECRETS.update(passwords.values())
    with database.connect() as admin:
        for role, password in passwords.items():
            admin.execute(f"ALTER ROLE {role} PASSWORD '{password}'")
        listed = admin.execute(re.search(r"\"(SELECT format.*?)\" postgres >", (ROOT / "deploy" / "SCALING.md").read_text(), re.S)[1]
                               .replace('\\"', '"')).fetchall()
        pooler.configure_as_documented(made.folder, 5432, "".join(f"{line}\n" for line, in listed))
        pooler.start()
        monitor = Monitor("pooled")
        environment = {"PGHOST": str(made.folder), "PGPORT": "5432", "PGUSER": "postgres"}
        stack.steepctl("monitor", "add", "pooled", monitor.public_base64, **environment)
        with served(stack, pooler, PGDATABASE="steep", PGPASSWORD=passwords["steep_ingest"]) as instance:
            wait_for(lambda: post(instance, monitor, [monitor.event()]).status_code == 200, "a batch to be stored")
        with served(stack, pooler, "query", PGDATABASE="steep", PGPASSWORD=passwords["steep_query"], VIBETEA_SUBSCRIBER_TOKEN=TOKEN) as instance:
            assert "pooled" in instance.ask(query_params(TOKEN, "group_by=source")).text
        with program(stack, "ingest", passed=BOTH, **(pooler.environment | {"PGPASSWORD": "wrong"})) as instance:
            wait_for(lambda: "event=database_away" in instance.errors.read_text(), "the wrong password to be refused")
            assert instance.ask_health("/readyz/ingest").status_code == 503
