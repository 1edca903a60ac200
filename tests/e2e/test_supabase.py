"""An installation on Supabase, taken over by the commands of deploy/supabase.md while monitors send."""

import os
import secrets
import subprocess

import psycopg
import pytest

from conftest import query_with
from database import made_database
from monitor import Monitor
from stack import ROOT, SLOWNESS, wait_for, without_progress
from test_readme import examples
from wire import SECRETS

GUIDE = "deploy/supabase.md"
# With SUPABASE_EVENTS=1000000: a million.
EVENTS = int(os.environ.get("SUPABASE_EVENTS", "20000"))

# Over 40 days; none near the edge of a window, which moves between the two questions.
FILL = """
    INSERT INTO public.events (id, source, timestamp, event_type, payload)
    SELECT 'evt_' || %(mark)s || number, (%(sources)s::text[])[1 + number %% 3], instant,
      (ARRAY['session', 'activity', 'tool', 'agent', 'summary', 'error'])[1 + number %% 6],
      jsonb_build_object('number', number, 'text', E'\\\\ " \\n é \\u0001 \\t \\\\N \\\\.')
    FROM generate_series(0, %(count)s - 1) AS number
    CROSS JOIN LATERAL (SELECT date_trunc('second', now()) - number * (interval '40 days' / %(count)s)
      - CASE WHEN number * (interval '40 days' / %(count)s) BETWEEN interval '165 hours' AND interval '171 hours'
          OR number * (interval '40 days' / %(count)s) BETWEEN interval '717 hours' AND interval '723 hours'
        THEN interval '6 hours' ELSE interval '0' END) AS time (instant)"""


@pytest.fixture
def original(cluster):
    """The data model's own database."""
    with made_database(cluster) as made:
        with made.connect() as connection:
            connection.execute((ROOT / "tests" / "bench" / "seed.sql").read_text())
        yield made


@pytest.fixture
def guide(stack, original, tmp_path):
    """Run a section's shell block in one folder; its output."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "steepctl").symlink_to(ROOT / "deploy" / "steepctl")
    dsn = psycopg.conninfo.make_conninfo(**(original.cluster | {"dbname": original.name}))

    def run(title, *numbers, **more):
        script = "\n".join(examples(title, GUIDE)[number] for number in numbers)
        script = script.replace("/var/run/postgresql", stack.pg["PGHOST"])
        environment = stack.environment(STEEP_BUILD=str(stack.program("ingest").parent), SUPABASE=dsn,
                                        PATH=f"{tmp_path}/bin:{os.environ['PATH']}", **more)
        done = subprocess.run(["sh", "-eu"], input=script, text=True, capture_output=True, cwd=tmp_path, env=environment,
                              timeout=600 * SLOWNESS)
        assert (done.returncode, without_progress(done.stderr)) == (0, "")
        return done.stdout

    yield run
    with stack.connect(dbname="postgres") as connection:
        connection.execute("DROP DATABASE IF EXISTS supabase WITH (FORCE)")


def aggregates(connection, source, days):
    return connection.execute("SELECT source, date::text, hour, event_count FROM public.get_hourly_aggregates(%s, %s)"
                              " ORDER BY date DESC, hour DESC", (days, source)).fetchall()


@pytest.mark.parametrize(("form", "blocks"), [("plain", (0, 1)), ("custom", (2,))])
def test_an_installation_on_supabase_is_taken_over(form, blocks, guide, original, stack, db, client):
    mark = secrets.token_hex(6)
    monitors = [Monitor(f"{mark} {number}") for number in range(3)]
    sources = [monitor.source for monitor in monitors]
    token = secrets.token_hex(24)
    SECRETS.add(token)
    with original.connect({"TimeZone": "UTC"}) as supabase:
        supabase.execute(FILL, {"mark": mark, "sources": sources, "count": EVENTS})
        columns = ("SELECT id, source, timestamp, event_type, payload FROM public.events"
                   " WHERE source = ANY(%s) ORDER BY id COLLATE \"C\"")
        some = [{"id": row[0], "source": row[1], "timestamp": row[2].isoformat(), "type": row[3], "payload": row[4]}
                for row in supabase.execute(columns + " LIMIT 900", (sources,)).fetchall()]
        try:
            keys = ",".join(f"{monitor.source}:{monitor.public_base64}" for monitor in monitors)
            stack.steepctl("token", "remove", "dashboard", check=False)
            guide("The credentials", 0, VIBETEA_PUBLIC_KEYS=keys, VIBETEA_SUBSCRIBER_TOKEN=token)
            wait_for(lambda: query_with(client, token).status_code == 200, "the token to be taken up")

            # What monitors sent to both, and an event that only steep has; by the URLs that the guide gives them.
            for monitor in monitors:
                own = [event for event in some if event["source"] == monitor.source]
                wait_for(lambda: monitor.post(client, own, path="/functions/v1/ingest").status_code == 200, f"the key of {monitor.source} to be taken up")
            late = monitors[0].event(timestamp="2026-01-01T00:00:00Z")
            assert monitors[0].post(client, [late]).status_code == 200

            guide("The events", *blocks)
            last = len(examples("The events", GUIDE)) - 1
            assert guide("The events", last) == (f"events read: {EVENTS}, inserted: {EVENTS - 900}, duplicates: 900, rejected: 0\n")
            assert guide("The events", last) == f"events read: {EVENTS}, inserted: 0, duplicates: {EVENTS}, rejected: 0\n"

            differences = [line for line in guide("The counts", 0).splitlines() if mark in line]
            assert differences == []
            for days in (7, 30):
                for source in sources:
                    expected = aggregates(supabase, source, days)
                    assert len(expected) > 100 and aggregates(db, source, days) == expected
                    answer = query_with(client, token, f"?days={days}&source={source.replace(' ', '+')}", path="/functions/v1/query").json()["aggregates"]
                    assert [tuple(row.values()) for row in answer] == expected
            rows = db.execute(columns, (sources,)).fetchall()
            assert [row for row in rows if row[0] != late["id"]] == supabase.execute(columns, (sources,)).fetchall()
        finally:
            stack.steepctl("token", "remove", "dashboard", check=False)
            for source in sources:
                stack.steepctl("monitor", "remove", source, check=False)
            db.execute("DELETE FROM public.events WHERE source = ANY(%s)", (sources,))
