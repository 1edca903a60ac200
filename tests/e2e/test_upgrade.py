"""A database of every earlier migration level, and the data model's own, become one of today with all that is in them."""

import json
import re
import shutil
import subprocess

import pytest

from database import made_database
from stack import ROOT

MIGRATIONS = sorted((ROOT / "sql" / "migrations").glob("*.sql"))

EVENTS = json.dumps([{"id": f"evt_{n}", "source": ["a", "B", "é"][n % 3], "timestamp": f"2026-02-{n % 9 + 1:02}T{n % 24:02}:30:00.123456Z",
                      "eventType": "tool", "payload": {"n": n}} for n in range(500)])
ROWS = "SELECT id, source, timestamp, event_type, payload, created_at FROM public.events"
COUNTED = ("SELECT source, (timestamp AT TIME ZONE 'UTC')::date, extract(hour FROM timestamp AT TIME ZONE 'UTC')::integer, count(*)"
           " FROM public.events GROUP BY 1, 2, 3")


@pytest.fixture
def old(cluster):
    """A database without a table in it."""
    with made_database(cluster) as made:
        yield made


@pytest.fixture(scope="module")
def tool(stack):
    """Run one of PostgreSQL's programs on a database; what it says."""
    def run(name, database, *arguments, **more):
        return subprocess.run([name, *arguments, "-d", database.name], env=stack.environment(), text=True, check=True,
                              stdout=subprocess.PIPE, **more).stdout
    return run


def schema(tool, database):
    return re.sub(r"^\\(un)?restrict .*$", "", tool("pg_dump", database, "--schema-only"), flags=re.MULTILINE)


@pytest.fixture(scope="module")
def schema_of_today(stack, tool):
    cluster = {"host": stack.pg["PGHOST"], "port": stack.pg["PGPORT"], "user": stack.pg["PGUSER"]}
    with made_database(cluster) as fresh:
        fresh.migrate()
        return schema(tool, fresh)


def rows(connection, statement=ROWS):
    return sorted(connection.execute(statement).fetchall(), key=str)


def check_upgraded(connection, before):
    """Each event is there as it was, counted exactly, and its id known."""
    assert rows(connection) == before
    assert connection.execute("SELECT * FROM public.check_hourly_counts()").fetchall() == []
    # A window that begins before the first event has no partial hour that could be cut.
    assert rows(connection, "SELECT * FROM public.get_hourly_aggregates(100000)") == rows(connection, COUNTED)
    connection.execute("SET SESSION AUTHORIZATION steep_ingest")
    again = "SELECT public.bulk_insert_events(%s::jsonb)"
    assert connection.execute(again, (EVENTS,)).fetchone() == (0,)
    assert connection.execute(again, (EVENTS.replace("evt_", "evt_new_"),)).fetchone() == (500,)
    connection.execute("RESET SESSION AUTHORIZATION")
    assert connection.execute("SELECT count(*) FROM public.events").fetchone() == (len(before) + 500,)
    assert connection.execute("SELECT * FROM public.check_hourly_counts()").fetchall() == []


@pytest.mark.parametrize("level", range(1, len(MIGRATIONS)))
def test_a_database_of_an_earlier_level(level, old, schema_of_today, tool, tmp_path):
    for migration in MIGRATIONS[:level]:
        shutil.copy(migration, tmp_path)
    old.migrate(STEEP_MIGRATIONS=str(tmp_path))
    with old.connect({"TimeZone": "UTC"}) as connection:
        connection.execute("SELECT public.bulk_insert_events(%s::jsonb)", (EVENTS,))
        credentials = {}
        if connection.execute("SELECT to_regclass('public.monitor_keys') IS NOT NULL").fetchone()[0]:
            connection.execute("INSERT INTO public.monitor_keys (source, public_key)"
                               " SELECT 'a', decode(repeat('0' || n, 32), 'hex') FROM generate_series(1, 8) AS n")
            connection.execute("INSERT INTO public.access_tokens (label, token_sha256, expires_at)"
                               " VALUES ('wall', decode(repeat('02', 32), 'hex'), now())")
            credentials = {table: rows(connection, f"TABLE public.{table}") for table in ("monitor_keys", "access_tokens")}
        before = rows(connection)
        assert len(before) == 500

        old.migrate()
        check_upgraded(connection, before)
        for table, stored in credentials.items():
            assert rows(connection, f"TABLE public.{table}") == stored
        assert connection.execute("SELECT count(*) FROM public.schema_migrations").fetchone() == (len(MIGRATIONS),)
    assert schema(tool, old) == schema_of_today


@pytest.fixture
def data_model(old, tool):
    """The data model's own tables and functions, as an installation on Supabase has them, with events in them."""
    tool("psql", old, "-X", "-q", "-v", "ON_ERROR_STOP=1", "-f", str(ROOT / "tests" / "bench" / "seed.sql"))
    with old.connect({"TimeZone": "UTC"}) as connection:
        connection.execute("SELECT public.bulk_insert_events(%s::jsonb)", (EVENTS,))
        yield connection


def test_the_data_models_own_events_are_taken_over(data_model, old, database, tool):
    before = rows(data_model)
    dump = tool("pg_dump", old, "--data-only", "--table=public.events")
    tool("psql", database, "-X", "-q", "-v", "ON_ERROR_STOP=1", input=dump)
    with database.connect({"TimeZone": "UTC"}) as connection:
        check_upgraded(connection, before)


def test_the_data_models_own_database_is_refused_and_left_as_it_is(data_model, old, tool):
    before, was = schema(tool, old), rows(data_model)
    with pytest.raises(subprocess.CalledProcessError) as refused:
        old.migrate()
    assert 'relation "events" already exists' in refused.value.stderr
    assert "20260203_create_events_table.sql failed, and nothing of it is left" in refused.value.stderr
    assert (schema(tool, old), rows(data_model)) == (before, was)
