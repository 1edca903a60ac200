"""The hourly counts: whatever happens to the events, the answer matches the data model's own query."""

import concurrent.futures
import contextlib
import json
import os
import random
import secrets
import signal
import subprocess
import threading
import time
from pathlib import Path

import psycopg

from stack import ROOT, alive, wait_for

# The data model's query over the events, in a session whose TimeZone is UTC. It leaves open in which order the
# sources of an hour come; ours is that of bytes.
DATA_MODEL = """
    SELECT e.source, DATE(e.timestamp AT TIME ZONE 'UTC') AS date,
      EXTRACT(HOUR FROM e.timestamp AT TIME ZONE 'UTC')::INTEGER AS hour, COUNT(*)::BIGINT AS event_count
    FROM public.events e
    WHERE e.timestamp >= NOW() - (%(days)s || ' days')::INTERVAL
      AND (%(source)s::text IS NULL OR e.source = %(source)s)
    GROUP BY e.source, DATE(e.timestamp AT TIME ZONE 'UTC'), EXTRACT(HOUR FROM e.timestamp AT TIME ZONE 'UTC')
    ORDER BY date DESC, hour DESC, e.source COLLATE "C"
"""
OURS = "SELECT * FROM public.get_hourly_aggregates(%(days)s, %(source)s)"
# The same events by hour and by source, and a limit: all sources whose name begins with a and B.
TOTALS = {
    "get_hourly_totals": f"""
        SELECT date::text, hour, sum(event_count)::bigint FROM ({DATA_MODEL}) AS counts
        WHERE %(names)s::text[] IS NULL OR source = 'B' OR source LIKE 'a%%'
        GROUP BY date, hour ORDER BY counts.date DESC, hour DESC NULLS FIRST
    """,
    "get_source_totals": f"""
        SELECT source, sum(event_count)::bigint FROM ({DATA_MODEL}) AS counts
        WHERE %(names)s::text[] IS NULL OR source = 'B' OR source LIKE 'a%%'
        GROUP BY source ORDER BY 2 DESC, source COLLATE "C"
    """,
}
OUR_TOTALS = {"get_hourly_totals": "date::text, hour, event_count", "get_source_totals": "source, event_count"}
LIMITS = {"names": ["B"], "prefixes": ["a"]}
# Python has no date for infinity.
AS_TEXT = "SELECT source, date::text, hour, event_count FROM ({}) AS aggregates"

READERS = ["get_hourly_aggregates", "get_hourly_totals", "get_source_totals"]

SOURCES = ["a", "B", "é", "a b", "it's %"]
TIMEZONES = ["Asia/Kolkata", "Pacific/Kiritimati", "America/St_Johns", "Europe/Berlin", "UTC"]
DATESTYLES = ["SQL, DMY", "German", "Postgres, MDY", "ISO, YMD"]
INSERT = ("INSERT INTO public.events (id, source, timestamp, event_type, payload)"
          " VALUES (%s, %s, to_timestamp(%s), 'tool', '{}')")

# Every instant where something begins or ends, as SQL.
EDGES = [f"{instant} + {offset} * interval '1 second'"
         for offset in (-1, -0.000001, 0, 0.000001, 1)
         for instant in ["now()", "date_trunc('hour', now(), 'UTC')", "date_trunc('hour', now(), 'UTC') + interval '1 hour'",
                         "now() + interval '400 days'"]
         + [edge for days in (7, 30) for start in [f"(now() - interval '{days * 24} hours')"]
            for edge in (start, f"date_trunc('hour', {start}, 'UTC')", f"date_trunc('hour', {start}, 'UTC') + interval '1 hour'")]]


def assert_exact(database, note=""):
    """Our function returns the data model's rows for each window and filter, also with events at every edge."""
    with database.connect({"TimeZone": "UTC"}) as connection:
        assert connection.execute("SELECT source, hour::text, stored, counted FROM public.check_hourly_counts()").fetchall() == [], note
        connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        for edges in (False, True):
            if edges:
                for number, edge in enumerate(EDGES):
                    connection.execute("INSERT INTO public.events (id, source, timestamp, event_type, payload)"
                                       f" VALUES (%s, %s, {edge}, 'tool', '{{}}')",
                                       (f"evt_edge_{number}", SOURCES[number % 2]))
            for days in (7, 30, 0, 365):
                for source in [None, *SOURCES, "nobody", ""]:
                    given = {"days": days, "source": source}
                    wanted = connection.execute(AS_TEXT.format(DATA_MODEL), given).fetchall()
                    assert connection.execute(AS_TEXT.format(OURS), given).fetchall() == wanted, f"{given} edges={edges} {note}"
                    for limits in ({"names": None, "prefixes": None}, LIMITS):
                        assert_exact_totals(connection, {**given, **limits}, f"edges={edges} {note}")
        connection.execute("ROLLBACK")


def assert_exact_totals(connection, given, note):
    for function, wanted in TOTALS.items():
        ours = f"SELECT {OUR_TOTALS[function]} FROM public.{function}(%(days)s, %(source)s, %(names)s, %(prefixes)s)"
        assert connection.execute(ours, given).fetchall() == connection.execute(wanted, given).fetchall(), f"{function} {given} {note}"


class Writer:
    """Changes the events at random, through a connection with settings and a role of its own."""

    def __init__(self, database, seed):
        self.random = random.Random(seed)
        # Writers deadlock over events now and then, and should not wait a second each time.
        self.connection = database.connect({"TimeZone": self.random.choice(TIMEZONES),
                                            "DateStyle": self.random.choice(DATESTYLES), "deadlock_timeout": "10ms"})
        self.role = self.random.choice(["service_role", "steep_owner"])
        self.isolation = self.random.choice(["READ COMMITTED"] * 3 + ["REPEATABLE READ", "SERIALIZABLE"])
        self.done = 0

    def id(self):
        return f"evt_{self.random.randrange(600)}"

    def source(self):
        return self.random.choice(SOURCES)

    def instant(self):
        """Seconds of the epoch: mostly in a few hours, where writers meet, or about the windows' edges."""
        now = time.time()
        day = 86400
        return self.random.choice([now - self.random.uniform(0, 3 * 3600), now - 7 * day + self.random.uniform(-3600, 3600),
                                   now - 30 * day + self.random.uniform(-3600, 3600), now + self.random.uniform(0, 40 * day),
                                   now - self.random.uniform(0, 35 * day)])

    def events(self, most):
        return json.dumps([{"id": self.id(), "source": self.source(), "eventType": "tool", "payload": {},
                            "timestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self.instant()))}
                           for _ in range(self.random.randrange(most))])

    def batch(self):
        self.send("SELECT inserted_count FROM public.bulk_insert_events(%s::jsonb)", self.events(60))

    def batches(self):
        batches = [self.events(10) for _ in range(self.random.randrange(8))]
        self.send("SELECT position, inserted_count FROM public.bulk_insert_batches(%s::integer[], %s::jsonb[])",
                  list(range(len(batches))), batches)

    def send(self, statement, *values):
        self.connection.execute("SET SESSION AUTHORIZATION steep_ingest")
        try:
            self.connection.execute(statement, values)
        finally:
            if self.connection.info.transaction_status != psycopg.pq.TransactionStatus.INERROR:
                self.connection.execute(f"RESET SESSION AUTHORIZATION; SET ROLE {self.role}")

    def insert(self):
        self.connection.execute(INSERT + " ON CONFLICT (id) DO UPDATE SET timestamp = excluded.timestamp",
                                (self.id(), self.source(), self.instant()))

    def delete(self):
        self.connection.execute("DELETE FROM public.events WHERE source = %s AND hashtext(id) %% 3 = %s",
                                (self.source(), self.random.randrange(3)))

    def delete_old(self):
        self.connection.execute("DELETE FROM public.events WHERE timestamp < to_timestamp(%s)", (self.instant() - 10 * 86400,))

    def move_hour(self):
        self.connection.execute("UPDATE public.events SET timestamp = timestamp + %s * interval '1 minute' WHERE id > %s"
                                " AND source = %s", (self.random.choice([-60, -7, 7, 60, 1440]), self.id(), self.source()))

    def move_source(self):
        self.connection.execute("UPDATE public.events SET source = %s WHERE source = %s AND hashtext(id) %% 2 = 0",
                                (self.source(), self.source()))

    def touch(self):
        self.connection.execute("UPDATE public.events SET payload = '{\"a\": 1}' WHERE id < %s", (self.id(),))

    def merge(self):
        self.connection.execute("MERGE INTO public.events AS e USING (SELECT id FROM public.events WHERE source = %s) AS s"
                                " ON e.id = s.id WHEN MATCHED AND hashtext(e.id) %% 2 = 0 THEN DELETE"
                                " WHEN MATCHED THEN UPDATE SET timestamp = e.timestamp - interval '1 hour'", (self.source(),))

    def infinite(self):
        self.connection.execute("INSERT INTO public.events (id, source, timestamp, event_type, payload) VALUES"
                                " (%s, %s, %s, 'tool', '{}') ON CONFLICT DO NOTHING",
                                (self.id(), self.source(), self.random.choice(["infinity", "-infinity"])))

    def truncate(self):
        if self.random.random() < 0.2:
            self.connection.execute("TRUNCATE public.events")

    def several(self):
        """A transaction that stays open for a moment and may be rolled back in part or whole."""
        self.connection.execute(f"BEGIN ISOLATION LEVEL {self.isolation}")
        for _ in range(self.random.randrange(4)):
            self.step()
            if self.random.random() < 0.3:
                self.connection.execute("SAVEPOINT part")
                self.step()
                self.connection.execute("ROLLBACK TO part")
                self.connection.execute(f"RESET SESSION AUTHORIZATION; SET ROLE {self.role}")
        time.sleep(self.random.uniform(0, 0.02))
        self.connection.execute(self.random.choice(["COMMIT", "ROLLBACK"]))

    def step(self):
        self.random.choice([self.batch, self.batches] * 2 + [self.insert, self.delete, self.delete_old, self.move_hour, self.move_source,
                                               self.touch, self.merge, self.infinite, self.truncate])()

    def work(self, steps):
        for _ in range(steps):
            try:
                self.connection.execute(f"RESET SESSION AUTHORIZATION; SET ROLE {self.role}")
                self.random.choice([self.step, self.step, self.several])()
                self.done += 1
            except (psycopg.errors.DeadlockDetected, psycopg.errors.CardinalityViolation, psycopg.errors.SerializationFailure):
                # Writers that change the same events in another order deadlock; so they would without counts.
                # A writer with an old snapshot may fail, but must not miscount.
                self.connection.execute("ROLLBACK")


def batch(source, size, instant=None):
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(instant or time.time()))
    return json.dumps([{"id": f"evt_{secrets.token_hex(10)}", "source": source, "timestamp": at, "eventType": "tool",
                        "payload": {}} for _ in range(size)])


def await_waiting(database, number):
    """Until so many sessions wait for a lock."""
    with database.connect() as connection:
        wait_for(lambda: connection.execute("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
                                            " AND wait_event_type = 'Lock'").fetchone() == (number,),
                 f"{number} senders to wait for the count")


def meet_at_the_counts(database):
    """Two senders store events of now and of the windows' edges; the second waits for the first one's counts."""
    now = time.time()

    def store(connection):
        events = [event for days in (0, 6.95, 7, 29.95, 30) for source in SOURCES[:3]
                  for event in json.loads(batch(source, 2, now - days * 86400))]
        connection.execute("SELECT public.bulk_insert_events(%s::jsonb)", (json.dumps(events),))

    with database.connect() as first, database.connect() as second, concurrent.futures.ThreadPoolExecutor(1) as pool:
        store(first)
        first.execute("BEGIN")
        store(first)
        storing = pool.submit(store, second)
        try:
            await_waiting(database, 1)
        finally:
            first.execute("COMMIT")
        storing.result()


def test_the_answer_matches_the_data_model_whatever_happens_to_the_events(database):
    seed = int(os.environ.get("SEED", secrets.randbelow(10**9)))
    writers = [Writer(database, seed + n) for n in range(5)]
    with concurrent.futures.ThreadPoolExecutor(len(writers)) as pool:
        for turn in range(6):
            for working in [pool.submit(writer.work, 20) for writer in writers]:
                working.result()
            assert_exact(database, f"SEED={seed} turn={turn}")
            meet_at_the_counts(database)
            assert_exact(database, f"SEED={seed} turn={turn}, after two that met at the counts")
    assert sum(writer.done for writer in writers) > 300
    for writer in writers:
        writer.connection.close()


def test_many_senders_of_one_source_get_no_error(database):
    now = time.time()

    def send(_):
        with database.connect() as connection:
            connection.execute("SET SESSION AUTHORIZATION steep_ingest")
            for _ in range(10):
                connection.execute("SELECT public.bulk_insert_events(%s::jsonb)", (batch("hot", 50, now),))

    with concurrent.futures.ThreadPoolExecutor(8) as pool, database.connect() as holder:
        holder.execute("BEGIN")
        holder.execute("SELECT public.bulk_insert_events(%s::jsonb)", (batch("hot", 50, now),))
        senders = [pool.submit(send, n) for n in range(8)]
        try:
            await_waiting(database, 8)
        finally:
            holder.execute("ROLLBACK")
        for sender in senders:
            sender.result()
    assert_exact(database)
    with database.connect() as connection:
        counted = connection.execute("SELECT sum(event_count) FROM public.get_hourly_aggregates(7, 'hot')")
        assert counted.fetchone() == (8 * 10 * 50,)


def test_a_reader_sees_counts_and_events_of_one_snapshot(database):
    finished = threading.Event()

    def write(n):
        writer = Writer(database, n)
        while not finished.is_set():
            writer.work(1)
        writer.connection.close()

    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        writing = [pool.submit(write, n) for n in range(3)]
        try:
            with database.connect() as connection:
                for _ in range(150):
                    # One statement, at READ COMMITTED, is one snapshot.
                    *counted, stored = connection.execute(
                        "SELECT (SELECT sum(event_count) FROM public.get_hourly_aggregates(30)),"
                        " (SELECT sum(event_count) FROM public.get_hourly_totals(30)),"
                        " (SELECT sum(event_count) FROM public.get_source_totals(30)),"
                        " (SELECT NULLIF(count(*), 0) FROM public.events WHERE timestamp >= now() - interval '720 hours')"
                    ).fetchone()
                    assert counted == [stored] * 3
        finally:
            finished.set()
        for each in writing:
            each.result()


def test_an_older_snapshot_sees_no_counts_of_truncated_events(database):
    with database.connect() as old, database.connect() as connection:
        connection.execute(INSERT, ("evt_1", "a", time.time()))
        old.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        old.execute("SELECT now()")
        connection.execute("TRUNCATE public.events")
        assert old.execute("SELECT count(*) FROM public.events").fetchone() == (0,)
        for function in READERS:
            assert old.execute(f"SELECT * FROM public.{function}()").fetchall() == []


def test_batches_of_several_sources_in_any_order_do_not_deadlock(database):
    now = time.time()

    def send(n):
        chooser = random.Random(n)
        with database.connect({"deadlock_timeout": "10ms"}) as connection:
            connection.execute("SET ROLE service_role")
            for turn in range(30):
                # All create the counts of this hour.
                instant = now - turn * 3600
                chooser.shuffle(sources := [f"source {number}" for number in range(40)])
                events = [event for source in sources for event in json.loads(batch(source, 2, instant))]
                connection.execute("SELECT public.bulk_insert_events(%s::jsonb)", (json.dumps(events),))

    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        list(pool.map(send, range(6)))
    assert_exact(database)


def test_a_reader_and_a_truncate_do_not_deadlock(database):
    def read(n):
        with database.connect({"deadlock_timeout": "10ms"}) as connection:
            for _ in range(200):
                connection.execute(f"SELECT count(*) FROM public.{READERS[n]}(30)")

    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        reading = [pool.submit(read, n) for n in range(3)]
        with database.connect({"deadlock_timeout": "10ms"}) as connection:
            for _ in range(40):
                connection.execute("TRUNCATE public.events")
        for each in reading:
            each.result()


def test_counts_check_finds_what_bypassed_the_triggers_and_rebuild_corrects_it(stack, database):
    assert stack.steepctl("counts", "check", PGDATABASE=database.name).returncode == 0
    with database.connect() as connection:
        connection.execute("SET session_replication_role = replica")
        connection.execute(INSERT, ("evt_1", "a b", 1770127200))
    done = stack.steepctl("counts", "check", PGDATABASE=database.name, check=False)
    assert (done.returncode, done.stdout) == (1, "a b\t2026-02-03T14:00:00Z\t1\t0\n")
    assert "steepctl counts rebuild" in done.stderr
    stack.steepctl("counts", "rebuild", PGDATABASE=database.name)
    assert stack.steepctl("counts", "check", PGDATABASE=database.name).returncode == 0
    assert_exact(database)


def test_a_rebuild_that_is_killed_changes_nothing(stack, database):
    counts = "SELECT source, hour, event_count FROM public.hourly_counts ORDER BY 1, 2"
    with database.connect() as connection, database.connect(autocommit=False) as holding:
        for source in SOURCES[:3]:
            connection.execute("SELECT public.bulk_insert_events(%s::jsonb)", (batch(source, 5),))
        connection.execute("UPDATE public.hourly_counts SET event_count = event_count + 1")
        wrong = connection.execute(counts).fetchall()
        # It has deleted a part of the counts when it comes to one that is held.
        holding.execute("SELECT FROM public.hourly_counts WHERE source = %s FOR UPDATE", (wrong[-1][0],))
        process = subprocess.Popen([str(ROOT / "deploy" / "steepctl"), "counts", "rebuild"], env=stack.environment(PGDATABASE=database.name),
                                   start_new_session=True)
        await_waiting(database, 1)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        holding.rollback()
        wait_for(lambda: connection.execute("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query ~ 'rebuild'"
                                            " AND pid <> pg_backend_pid()").fetchone() == (0,), "its session to end")
        assert connection.execute(counts).fetchall() == wrong
    assert stack.steepctl("counts", "rebuild", PGDATABASE=database.name).stdout == "events counted: 15\n"
    assert_exact(database)


def test_counts_equal_events_after_a_crash(new_cluster):
    cluster = new_cluster()
    postmaster = cluster.start()
    database = cluster.make_database("crash")
    database.migrate()
    acknowledged = [0] * 4

    def send(n):
        with contextlib.suppress(psycopg.OperationalError), database.connect() as connection:
            while True:
                connection.execute("SELECT public.bulk_insert_events(%s::jsonb)", (batch(SOURCES[n % 2], 30),))
                acknowledged[n] += 30

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        sending = [pool.submit(send, n) for n in range(4)]
        wait_for(lambda: min(acknowledged) >= 300, "some batches to be stored")
        children = [int(pid) for pid in Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split()]
        os.kill(postmaster, signal.SIGKILL)
        for pid in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for each in sending:
            each.result()
    wait_for(lambda: not any(map(alive, [postmaster, *children])), "PostgreSQL to be gone")
    # Where no process reaps zombies, PostgreSQL would find its predecessor alive.
    for lock in ("data/postmaster.pid", ".s.PGSQL.5432.lock"):
        (cluster.folder / lock).unlink()
    cluster.start()
    with database.connect() as connection:
        stored = connection.execute("SELECT count(*) FROM public.events").fetchone()[0]
    assert stored >= sum(acknowledged)
    assert_exact(database)
