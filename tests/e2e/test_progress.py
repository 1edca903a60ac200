"""What takes long shows its progress: a line every ten seconds, or one that is drawn on a terminal; none with --quiet."""

import contextlib
import os
import pty
import re
import shutil
import signal
import subprocess
import threading
import time

import pytest

from database import made_database
from monitor import encode
from stack import ROOT, SLOWNESS, wait_for

# What the steps of a test are held up by, so that it can look at the progress.
GATE = 20260203
WAIT = """
    CREATE FUNCTION public.pass(n integer, last integer) RETURNS integer LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog AS $$
    BEGIN
      IF n > last THEN PERFORM pg_advisory_xact_lock_shared(%s); END IF;
      RETURN n;
    END $$""" % GATE
FILL = ("INSERT INTO public.events (id, source, timestamp, event_type, payload)"
        " SELECT 'evt_' || n, 'a', now() - interval '100 days' - n * interval '1 second', 'tool', '{\"n\": 1}' FROM generate_series(1, %s) AS n")
WIPE = "\r\x1b[K"
# How it may be shown.
FORMS = ["lines", "terminal", "quiet"]


class Run:
    """A running steepctl; its errors go to a terminal, or to a pipe."""

    def __init__(self, stack, arguments, terminal, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, start_new_session=False, **more):
        self.errors = ""
        self.terminal = terminal
        self.reader, writer = pty.openpty() if terminal else os.pipe()
        self.process = subprocess.Popen([str(ROOT / "deploy" / "steepctl"), *arguments], stderr=writer, env=stack.environment(
            STEEP_BUILD=str(stack.program("ingest").parent), **more), stdin=stdin, stdout=stdout, start_new_session=start_new_session)
        os.close(writer)
        self.thread = threading.Thread(target=self.read, daemon=True)
        self.thread.start()

    def read(self):
        # A terminal that nobody has open any more fails with EIO.
        with contextlib.suppress(OSError):
            while data := os.read(self.reader, 65536):
                self.errors += data.decode()

    def end(self):
        """Its exit status, output and errors."""
        output, _ = self.process.communicate(timeout=120 * SLOWNESS)
        self.thread.join()
        os.close(self.reader)
        return self.process.returncode, (output or b"").decode(), self.errors

    def shows(self, pattern):
        """Wait for a text of progress."""
        before, after = ("\r", "\x1b[K") if self.terminal else ("steepctl: ", "\n")
        wait_for(lambda: re.search(re.escape(before) + pattern + re.escape(after), self.errors) or self.process.poll() is not None,
                 f"{pattern} in the progress")
        assert re.search(re.escape(before) + pattern + re.escape(after), self.errors), self.errors


@pytest.fixture
def hurried(tmp_path):
    """A PATH on which each look at the time is so many seconds after the one before, and nobody sleeps for long."""
    folder = tmp_path / "bin"
    folder.mkdir()

    def make(seconds):
        (tmp_path / "now").write_text("1000\n")
        (folder / "date").write_text(f"#!/bin/sh\nread -r now <'{tmp_path}/now'\necho $((now + {seconds})) | tee '{tmp_path}/now'\n")
        (folder / "sleep").write_text(f"#!/bin/sh\nexec {shutil.which('sleep')} 0.05\n")
        for script in folder.iterdir():
            script.chmod(0o755)
        return f"{folder}:{os.environ['PATH']}"
    return make


@pytest.fixture
def start(stack):
    def run(database, *arguments, terminal=False, **more):
        return Run(stack, arguments, terminal, PGDATABASE=database.name, **more)
    return run


def expect_shown(shown, *texts):
    """What is printed if these are the texts, and nothing else is shown."""
    if shown == "quiet":
        return ""
    if shown == "lines":
        return "".join(f"steepctl: {text}\n" for text in texts)
    return "".join(f"\r{text}\x1b[K" for text in texts) + WIPE


def options(shown):
    return ["--quiet"] if shown == "quiet" else []


# steps

def test_prune_shows_the_share_of_the_old_events(start, hurried, database):
    texts = ["10000 of 25000 events (40 %), 833 a second, 19 s left", "20000 of 25000 events (80 %), 833 a second, 7 s left",
             "25000 events, 694 a second", "25000 events, 520 a second"]
    with database.connect() as connection:
        for shown in FORMS:
            connection.execute(FILL, (25000,))
            run = start(database, "prune", "90", "--force", *options(shown), terminal=shown == "terminal", PATH=hurried(12))
            assert run.end() == (0, "events deleted: 25000\n", expect_shown(shown, *texts))


def test_prune_of_payloads_shows_the_share_of_all_old_events(start, hurried, database):
    # A step has passed those that are older than its newest.
    texts = ["18999 of 25000 events (75 %), 1583 a second, 4 s left", "24999 of 25000 events (99 %), 1041 a second, 1 s left"]
    with database.connect() as connection:
        connection.execute(FILL, (25000,))
        for shown in FORMS:
            # The oldest are empty, as after an earlier run.
            connection.execute("UPDATE public.events SET payload = CASE WHEN substr(id, 5)::integer > 16000 THEN '{}' ELSE '{\"n\": 1}' END::jsonb")
            run = start(database, "prune", *options(shown), "90", "--payloads-only", terminal=shown == "terminal", PATH=hurried(12))
            assert run.end() == (0, "payloads emptied: 16000\n", expect_shown(shown, *texts))


def test_a_rename_shows_the_share_of_the_events_of_its_source(start, hurried, database):
    # Steps of 5000 events, 4 s each: on a terminal each is drawn, else there is a line at 12 s and at 24 s.
    steps = ["5000 of 33333 events (15 %), 1250 a second, 23 s left", "10000 of 33333 events (30 %), 1250 a second, 19 s left",
             "15000 of 33333 events (45 %), 1250 a second, 15 s left", "20000 of 33333 events (60 %), 1250 a second, 11 s left",
             "25000 of 33333 events (75 %), 1250 a second, 7 s left", "30000 of 33333 events (90 %), 1250 a second, 3 s left",
             "33333 events, 1190 a second"]
    with database.connect() as connection:
        connection.execute(FILL, (33333,))
        for shown, names in zip(FORMS, (("a", "b"), ("b", "c"), ("c", "d"))):
            run = start(database, "source", "rename", *names, *options(shown), terminal=shown == "terminal", PATH=hurried(4))
            assert run.end() == (0, "events moved: 33333\nkeys copied: 0\n", expect_shown(shown, *(steps if shown == "terminal" else steps[2:6:3])))


def test_the_check_and_the_rebuilding_of_counts_show_the_share_of_the_events(start, hurried, database):
    # The first step is the time before all counts.
    check = ["0 events, 0 a second", "70000 of 210000 events (33 %), 2916 a second, 49 s left",
             "140000 of 210000 events (66 %), 3888 a second, 19 s left", "210000 events, 4375 a second"]
    rebuild = ["140000 of 213000 events (65 %), 11666 a second, 7 s left"]
    with database.connect() as connection:
        connection.execute("INSERT INTO public.events (id, source, timestamp, event_type, payload)"
                           " SELECT 'evt_' || n, 'a', timestamptz '2026-02-03 12:00Z' + (n - 1) / 70000 * interval '1 hour', 'tool', '{}'"
                           " FROM generate_series(1, 210000) AS n")
        for shown in FORMS:
            run = start(database, "counts", "check", *options(shown), terminal=shown == "terminal", PATH=hurried(12))
            assert run.end() == (0, "The hourly counts are correct.\n", expect_shown(shown, *check))
            connection.execute("UPDATE public.hourly_counts SET event_count = event_count + 1000")
            # Each difference once, also of hours before and after all that are counted.
            connection.execute("SET session_replication_role = replica")
            connection.execute("INSERT INTO public.events (id, source, timestamp, event_type, payload) VALUES"
                               " ('evt_first', 'a', '2026-02-01Z', 'tool', '{}'), ('evt_last', 'a', '2026-02-05Z', 'tool', '{}')")
            wrong = [f"a\t2026-02-03T{hour}:00:00Z\t70000\t71000\n" for hour in (12, 13, 14)]
            assert start(database, "counts", "check").end()[:2] == (
                1, "".join(["a\t2026-02-01T00:00:00Z\t1\t0\n", *wrong, "a\t2026-02-05T00:00:00Z\t1\t0\n"]))
            connection.execute("DELETE FROM public.events WHERE id IN ('evt_first', 'evt_last')")
            connection.execute("RESET session_replication_role")
            run = start(database, "counts", "rebuild", *options(shown), terminal=shown == "terminal", PATH=hurried(12))
            assert run.end() == (0, "events counted: 210000\n", expect_shown(shown, *rebuild))
            assert connection.execute("SELECT * FROM public.check_hourly_counts()").fetchall() == []


# what PostgreSQL reports of a running statement

@contextlib.contextmanager
def closed_gate(database):
    with database.connect() as connection:
        connection.execute("SELECT pg_advisory_lock(%s)", (GATE,))
        yield


def check_end(shown, errors):
    """Progress ends with a whole line, or is wiped away."""
    assert errors.endswith({"lines": "\n", "terminal": WIPE, "quiet": ""}[shown]) and (errors == "") == (shown == "quiet"), errors


@pytest.fixture
def slow(cluster):
    """A database whose source a has 100 events, of which the last 40 are held up, and counts of more than those."""
    with made_database(cluster) as made:
        with made.connect() as connection:
            connection.execute(WAIT)
            connection.execute("CREATE VIEW public.events AS SELECT 'evt_' || n AS id, 'a' AS source, timestamptz '2026-02-03 12:00Z' AS timestamp,"
                               " 'tool' AS event_type, jsonb_build_object('n', public.pass(n, 60)) AS payload FROM generate_series(1, 100) AS n")
            connection.execute("CREATE TABLE public.hourly_counts (source text, hour timestamptz, event_count bigint)")
            connection.execute("INSERT INTO public.hourly_counts VALUES ('a', '2026-02-03 12:00Z', 100), ('b', '2026-02-03 12:00Z', 100),"
                               " ('a', '2026-02-03 11:00Z', 100)")
        yield made


@pytest.fixture
def export(slow, start, hurried, tmp_path):
    """An export of source a to a file."""
    def run(shown):
        with open(tmp_path / "events", "wb") as file:
            return start(slow, "events", "export", "--source", "a", "--from", "2026-02-03T12:00:00Z", *options(shown),
                         terminal=shown == "terminal", PATH=hurried(2 if shown == "terminal" else 4), stdout=file)
    return run


def test_an_export_to_a_file_shows_how_many_events_it_has_written(export, slow, tmp_path):
    for text in (r"60 of 100 events \(60 %\), \d+ a second, \d+ s left", r"60 events, \d+ a second"):
        for shown in FORMS:
            with closed_gate(slow):
                run = export(shown)
                if shown != "quiet":
                    run.shows(text)
            status, _, errors = run.end()
            assert status == 0 and (tmp_path / "events").read_text().count("\n") == 100
            check_end(shown, errors)
        # As the database of an installation on Supabase.
        with slow.connect() as connection:
            connection.execute("DROP TABLE IF EXISTS public.hourly_counts")


def test_an_export_to_a_pipe_shows_no_progress(slow, start, hurried, tmp_path):
    with closed_gate(slow), slow.connect() as connection:
        run = start(slow, "events", "export", PATH=hurried(4))
        wait_for(lambda: connection.execute("SELECT tuples_processed FROM pg_stat_progress_copy").fetchone() == (60,), "the export to be held up")
        assert (tmp_path / "now").read_text() == "1000\n"  # nobody looks at the time
    assert run.end()[::2] == (0, "")


def test_a_failed_export_leaves_its_error_on_a_line_of_its_own(slow, export):
    with closed_gate(slow), slow.connect() as connection:
        run = export("terminal")
        run.shows("60 .*")
        connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_progress_copy")
        status, _, errors = run.end()
    assert status == 1 and re.search(re.escape(WIPE) + "steepctl: [^\r]+\r\n$", errors), errors


def test_the_watch_ends_with_a_steepctl_that_is_killed(slow, export):
    with closed_gate(slow), slow.connect() as connection:
        run = export("lines")
        run.shows("60 .*")
        run.process.kill()
        run.process.wait()
        connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_progress_copy")
    # The pipe of its errors ends when nobody has it open any more.
    run.thread.join(20 * SLOWNESS)
    assert not run.thread.is_alive()
    os.close(run.reader)


@pytest.fixture
def migrations(tmp_path):
    """Add to the migrations; the folder."""
    folder = tmp_path / "migrations"
    shutil.copytree(ROOT / "sql" / "migrations", folder)

    def add(name, text):
        (folder / name).write_text(text)
        return str(folder)
    return add


def test_migrate_shows_which_migration_is_running_and_how_far_an_index_is_built(migrations, start, hurried, database):
    lock = f"DO $$ BEGIN PERFORM pg_advisory_xact_lock({GATE}); END $$;"
    index = (WAIT + "; CREATE TABLE public.numbers AS SELECT n FROM generate_series(1, 10000) AS n;"
             " CREATE INDEX ON public.numbers (public.pass(n, 7500)); DROP TABLE public.numbers; DROP FUNCTION public.pass;")
    for number, (work, text) in enumerate(((lock, ""), (index, r", building index: scanning table \(\d\d %\)"))):
        for shown in FORMS:
            name = f"2099010{number}_{FORMS.index(shown)}_slow.sql"
            with closed_gate(database):
                run = start(database, "migrate", *options(shown), terminal=shown == "terminal", STEEP_MIGRATIONS=migrations(name, work),
                            PATH=hurried(2 if shown == "terminal" else 4))
                if shown != "quiet":
                    run.shows(rf"{re.escape(name)}, waiting for a lock{text}, running for \d+ s")
            status, output, errors = run.end()
            assert (status, output) == (0, f"applied {name}\ndone: {database.name} has every migration\n"), errors
            check_end(shown, errors)


def test_a_migration_that_was_killed_is_run_again(migrations, start, hurried, database):
    folder = migrations("20990101_slow.sql", f"CREATE TABLE public.made (); DO $$ BEGIN PERFORM pg_advisory_xact_lock({GATE}); END $$;")
    with closed_gate(database):
        run = start(database, "migrate", STEEP_MIGRATIONS=folder, PATH=hurried(4), start_new_session=True)
        run.shows(r"20990101_slow\.sql, waiting for a lock, running for \d+ s")
        os.killpg(run.process.pid, signal.SIGKILL)
        run.end()
    with database.connect() as connection:
        # Whether or not the server has noticed: this waits for its lock.
        assert start(database, "migrate", STEEP_MIGRATIONS=folder).end()[:2] == (
            0, f"applied 20990101_slow.sql\ndone: {database.name} has every migration\n")
        assert connection.execute("SELECT count(*) FROM public.schema_migrations WHERE name = '20990101_slow.sql'").fetchone() == (1,)


def test_a_migration_that_fails_is_reported_with_its_status_and_on_lines_of_its_own(migrations, start, hurried, database):
    folder = migrations("20990101_bad.sql", f"DO $$ BEGIN PERFORM pg_advisory_xact_lock({GATE}); END $$; SELECT 1 / 0;")
    for terminal, before, end in ((True, WIPE, "\r\n"), (False, "\n", "\n")):
        with closed_gate(database):
            run = start(database, "migrate", terminal=terminal, STEEP_MIGRATIONS=folder, PATH=hurried(2 if terminal else 4))
            run.shows("20990101_bad.*")
        status, output, errors = run.end()
        assert (status, output) == (1, "")
        assert re.search(f"{re.escape(before)}psql:[^\r\n]* division by zero{end}migrate: 20990101_bad.sql failed and was rolled back{end}$", errors), errors
    folder = migrations("20260203_create_events_table.sql", "")
    for terminal in (True, False):
        status, output, errors = start(database, "migrate", terminal=terminal, STEEP_MIGRATIONS=folder).end()
        assert (status, output) == (3, "") and errors.startswith("migrate: 20260203_create_events_table.sql has changed")


# import

def test_an_import_shows_on_a_terminal_how_far_it_is(start, database, tmp_path):
    lines = [encode({"id": f"evt_{number}", "source": "a", "timestamp": "2026-02-03T14:30:00Z", "eventType": "tool",
                     "payload": {"number": number}}).decode() + "\n" for number in range(6000)]
    (tmp_path / "events").write_text("".join(lines))
    (tmp_path / "one bad").write_text("".join([*lines[:5500], "{}\n", *lines[5501:]]))
    file, pipe = r"\d{3} of 7\d\d KiB \(\d\d %\), \d+ a second, \d+ s left", r"1000 events, \d+ a second"
    for form, quiet in ((file, []), (pipe, []), (file, ["--quiet"])):
        with contextlib.ExitStack() as started, database.connect(autocommit=False) as holding, database.connect() as connection:
            if form == file:
                given = started.enter_context(open(tmp_path / "one bad", "rb"))
            else:
                given = started.enter_context(subprocess.Popen(["cat", tmp_path / "events"], stdout=subprocess.PIPE)).stdout
            connection.execute("TRUNCATE public.events")
            holding.execute(FILL, (1000,))  # with an event of the first batch, and one of the second
            run = start(database, "events", "import", *quiet, terminal=True, stdin=given)
            wait_for(lambda: connection.execute("SELECT count(*) FROM pg_locks WHERE NOT granted").fetchone() == (2,), "both batches to wait")
            time.sleep(2)  # shown from then on
            holding.rollback()
            status, output, errors = run.end()
        bad, message = (1, r"line 5501: invalid_event_id: [^\r]*\r\n") if form == file else (0, "")
        assert (status, output) == (bad, f"events read: 6000, inserted: {6000 - bad}, duplicates: 0, rejected: {bad}\n")
        # Wiped away before the message, or at the end.
        progress = "" if quiet else rf"\r{form}\x1b\[K(?:\r[^\r]*\x1b\[K)*\r\x1b\[K"
        assert re.fullmatch(rf"{progress}{message}(?:\r[^\r]*\x1b\[K)*", errors), errors
