"""Upgrades: a migration while programs run, the data model's own events and database, and state of older files."""

import concurrent.futures
import json
import os
import re
import shutil
import subprocess
import threading

import pytest

from database import made_database
from fastcgi import ingest_params, program, query_params
from monitor import Monitor, encode
from stack import ROOT, SLOWNESS, running, wait_for

# Batches and queries have to wait for its lock.
MIGRATION = """
SET ROLE steep_owner;
ALTER TABLE public.events ADD COLUMN host text;
COMMENT ON COLUMN public.events.host IS 'Name of the machine';
CREATE INDEX idx_events_host ON public.events (host);
DO 'BEGIN PERFORM pg_sleep(1); END';
"""

EVENTS = json.dumps([{"id": f"evt_{n}", "source": ["a", "B", "é"][n % 3], "timestamp": f"2026-02-{n % 9 + 1:02}T{n % 24:02}:30:00.123456Z",
                      "eventType": "tool", "payload": {"n": n}} for n in range(500)])
ROWS = "SELECT id, source, timestamp, event_type, payload, created_at FROM public.events WHERE source <> 'laptop'"
COUNTED = ("SELECT source, (timestamp AT TIME ZONE 'UTC')::date, extract(hour FROM timestamp AT TIME ZONE 'UTC')::integer, count(*)"
           " FROM public.events GROUP BY 1, 2, 3")
STORE = "SELECT public.bulk_insert_events(%s::jsonb)"


def rows(connection, statement=ROWS):
    return sorted(connection.execute(statement).fetchall(), key=str)


def check_counts(connection):
    assert connection.execute("SELECT * FROM public.check_hourly_counts()").fetchall() == []
    # This window begins before the first event, so that it has no partial hour.
    assert rows(connection, "SELECT * FROM public.get_hourly_aggregates(100000)") == rows(connection, COUNTED)


@pytest.fixture
def installed(new_cluster):
    """A migrated database in a cluster of its own, in which the programs may log in."""
    cluster = new_cluster("upgraded")
    cluster.configure(fsync="off")
    cluster.start()
    made = cluster.make_database("steep")
    made.migrate()
    return made


def test_a_migration_is_applied_to_a_database_with_data_while_programs_run(stack, installed, tmp_path):
    monitor, token, sent, finished = Monitor("laptop"), "a token", [], threading.Event()
    migrations = shutil.copytree(ROOT / "sql" / "migrations", tmp_path / "migrations")
    (migrations / "29990101_add_host.sql").write_text(MIGRATION)
    where = {"PGHOST": installed.cluster["host"], "PGPORT": "5432", "PGDATABASE": installed.name}

    with installed.connect({"TimeZone": "UTC"}) as connection, program(stack, "ingest", **where) as ingest, \
            program(stack, "query", **where) as query, concurrent.futures.ThreadPoolExecutor(3) as pool:
        connection.execute(STORE, (EVENTS,))
        connection.execute("INSERT INTO public.monitor_keys (source, public_key) VALUES ('laptop', %s)", (monitor.public,))
        connection.execute("INSERT INTO public.access_tokens (label, token_sha256) VALUES ('wall', sha256(%s::bytea))", (token.encode(),))
        before = rows(connection)
        credentials = [rows(connection, f"TABLE public.{table}") for table in ("monitor_keys", "access_tokens")]
        assert len(before) == 500

        def post(events):
            body = encode(events)
            return ingest.ask(ingest_params(body, monitor), body)

        def ask():
            return query.ask(query_params(token, "days=30&source=laptop"))

        def send():
            while not finished.is_set():
                batch = [monitor.event() for _ in range(20)]
                answer = post(batch)
                assert answer.status_code == 200, answer.text
                sent.extend(batch)

        def read():
            while not finished.is_set():
                assert ask().status_code == 200

        wait_for(lambda: post("[]").status_code == 400 and ask().status_code == 200, "the programs to know the credentials")
        busy = [pool.submit(each) for each in (send, send, read)]
        try:
            wait_for(lambda: len(sent) >= 100, "some batches to be stored")
            done = installed.migrate(STEEP_MIGRATIONS=str(migrations))
            reached = len(sent)
            wait_for(lambda: len(sent) >= reached + 100, "more batches to be stored")
        finally:
            finished.set()
        for each in busy:
            each.result()

        assert done.stdout == "applied 29990101_add_host.sql\ndone: steep has every migration\n"
        assert connection.execute("SELECT public.schema_level()").fetchone() == ("29990101_add_host.sql",)
        assert ingest.process.poll() is None and query.process.poll() is None
        assert sum(row["eventCount"] for row in ask().json()["aggregates"]) == len(sent)
        assert post(sent[:50]).json() | {"message": ""} == {"inserted": 0, "duplicates": 50, "message": ""}
        assert rows(connection) == before
        assert [rows(connection, f"TABLE public.{table}") for table in ("monitor_keys", "access_tokens")] == credentials
        check_counts(connection)


@pytest.fixture
def tool(stack):
    """Run one of PostgreSQL's programs on a database and return its output."""
    def run(name, database, *arguments, **more):
        return subprocess.run([name, *arguments, "-d", database.name], env=stack.environment(), text=True, check=True,
                              stdout=subprocess.PIPE, **more).stdout
    return run


def schema(tool, database):
    return re.sub(r"^\\(un)?restrict .*$", "", tool("pg_dump", database, "--schema-only"), flags=re.MULTILINE)


@pytest.fixture
def old(cluster):
    """A database without tables."""
    with made_database(cluster) as made:
        yield made


@pytest.fixture
def data_model(old, tool):
    """The data model's own tables and functions, as an installation on Supabase has them, with events in them."""
    tool("psql", old, "-X", "-q", "-v", "ON_ERROR_STOP=1", "-f", str(ROOT / "tests" / "bench" / "seed.sql"))
    with old.connect({"TimeZone": "UTC"}) as connection:
        connection.execute(STORE, (EVENTS,))
        yield connection


def test_the_data_models_own_events_are_taken_over(data_model, old, database, tool):
    before = rows(data_model)
    dump = tool("pg_dump", old, "--data-only", "--table=public.events")
    tool("psql", database, "-X", "-q", "-v", "ON_ERROR_STOP=1", input=dump)
    with database.connect({"TimeZone": "UTC"}) as connection:
        assert rows(connection) == before
        check_counts(connection)
        connection.execute("SET SESSION AUTHORIZATION steep_ingest")
        assert connection.execute(STORE, (EVENTS,)).fetchone() == (0,)
        assert connection.execute(STORE, (EVENTS.replace("evt_", "evt_new_"),)).fetchone() == (500,)
        connection.execute("RESET SESSION AUTHORIZATION")
        assert len(rows(connection)) == len(before) + 500
        check_counts(connection)


def test_the_data_models_own_database_is_refused_and_not_changed(data_model, old, tool):
    before, stored = schema(tool, old), rows(data_model)
    with pytest.raises(subprocess.CalledProcessError) as refused:
        old.migrate()
    assert 'relation "events" already exists' in refused.value.stderr
    assert "20260203_create_events_table.sql failed and was rolled back" in refused.value.stderr
    assert (schema(tool, old), rows(data_model)) == (before, stored)


def test_a_state_folder_of_older_files_is_refused_by_name():
    with running("older") as stack:
        with stack.connect() as connection:
            connection.execute("UPDATE public.schema_migrations SET sha256 = repeat('0', 64)")
        assert stack.stop() == 0
        done = subprocess.run([str(ROOT / "deploy" / "run")], text=True, capture_output=True, stdin=subprocess.DEVNULL, timeout=120 * SLOWNESS,
                              env=os.environ | {"STEEP_STATE": str(stack.state), "STEEP_PORT": str(stack.port)})
        assert done.returncode == 1
        assert done.stderr == (f"steep: the database in {stack.state} was made by other migrations than this version's;"
                               f" to start again, remove the folder {stack.state} and the events in it\n")
        assert not (stack.state / "run.env").exists() and (stack.state / "pg").exists()
