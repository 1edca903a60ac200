"""Pruning deletes exactly the old events, or their payloads, in steps and while monitors send."""

import concurrent.futures
import contextlib
import os
import random
import re
import signal
import subprocess
import threading

import pytest

from monitor import new_id
from stack import ROOT, SLOWNESS, wait_for

FILL = ("INSERT INTO public.events (id, source, timestamp, event_type, payload)"
        " SELECT 'evt_' || n, 'm' || n %% 3, now() - interval '100 days' - n * interval '1 second', 'tool', '{\"n\": 1}'"
        " FROM generate_series(1, %s) AS n")
COMMANDS = {"events": ["prune", "90"], "payloads": ["prune", "90", "--payloads-only"]}
LEFT = {"events": "SELECT count(*) FROM public.events WHERE timestamp < now() - interval '90 days'",
        "payloads": "SELECT count(*) FROM public.events WHERE timestamp < now() - interval '90 days' AND payload <> '{}'"}
WAITING = "SELECT count(*) FROM pg_locks WHERE NOT granted"


@pytest.fixture(params=["prune_events('300 days')", "empty_payloads('300 days')"])
def step(request):
    return f"SELECT * FROM public.{request.param}"


def test_monitors_send_while_a_step_is_open(step, stack, db, monitor, client):
    long_ago = db.execute("SELECT date_trunc('hour', now(), 'UTC') - interval '400 days'").fetchone()[0]
    for _ in range(3):
        db.execute("INSERT INTO public.events (id, source, timestamp, event_type, payload) VALUES (%s, %s, %s, 'tool', '{\"n\": 1}')",
                   (new_id(), monitor.source, long_ago))
    late = monitor.event(timestamp=long_ago.isoformat())
    with concurrent.futures.ThreadPoolExecutor(1) as pool, stack.connect(autocommit=False) as pruning:
        assert pruning.execute(step).fetchone()[0] >= 3
        # Of the present, and of a new hour.
        for events in ([monitor.event()], [monitor.event(timestamp="2024-02-03T14:00:00Z")], [monitor.event()] * 2):
            assert monitor.post(client, events).json()["inserted"] == 1
        assert db.execute(WAITING).fetchone() == (0,)
        # Of an hour that the step deletes from, whose count it has locked.
        sending = pool.submit(monitor.post, client, [late])
        if "prune_events" in step:
            wait_for(lambda: db.execute(WAITING).fetchone() == (1,), "the batch to wait for the step")
        else:
            sending.result()
        assert pruning.info.transaction_status.name == "INTRANS"
        pruning.commit()
        assert sending.result().json()["inserted"] == 1
    assert db.execute("SELECT count(*) FROM public.events WHERE id = %s", (late["id"],)).fetchone() == (1,)
    assert db.execute("SELECT * FROM public.check_hourly_counts() WHERE source = %s", (monitor.source,)).fetchall() == []


@pytest.mark.parametrize("kind", COMMANDS)
def test_each_step_is_a_transaction_of_its_own(kind, stack, database):
    with database.connect() as connection, database.connect(autocommit=False) as holding:
        connection.execute(FILL, (25000,))
        holding.execute("SELECT FROM public.events WHERE id = 'evt_1' FOR UPDATE")  # the newest, so that it is in the last step
        command = subprocess.Popen([str(ROOT / "deploy" / "steepctl"), *COMMANDS[kind]], text=True, stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE, env=stack.environment(PGDATABASE=database.name))
        try:
            wait_for(lambda: connection.execute(LEFT[kind]).fetchone() == (5000,), "two of the three steps to be committed")
            assert command.poll() is None
        finally:
            holding.rollback()
            output, errors = command.communicate(timeout=60 * SLOWNESS)
        assert (command.returncode, errors) == (0, "")
        assert output == f"{'events deleted' if kind == 'events' else 'payloads emptied'}: 25000\n"
        assert connection.execute(LEFT[kind]).fetchone() == (0,)
        assert connection.execute("SELECT * FROM public.check_hourly_counts()").fetchall() == []


@pytest.mark.parametrize("kind", COMMANDS)
def test_concurrent_prunes_take_turns_and_end_when_all_is_done(kind, stack, database):
    results = []

    def prune():
        deleted = stack.steepctl(*COMMANDS[kind], PGDATABASE=database.name).stdout.split()[-1]
        with database.connect() as connection:
            results.append((int(deleted), connection.execute(LEFT[kind]).fetchone()[0]))

    with database.connect() as connection:
        connection.execute(FILL, (65000,))
    both = [threading.Thread(target=prune) for _ in range(2)]
    for each in both:
        each.start()
    for each in both:
        each.join()
    assert sum(deleted for deleted, _ in results) == 65000
    assert [left for _, left in results] == [0, 0]


@pytest.mark.parametrize("kind", COMMANDS)
def test_a_prune_that_was_killed_at_a_random_point_is_run_again(kind, stack, database):
    with database.connect() as connection:
        connection.execute(FILL, (60000,))
        connection.execute("INSERT INTO public.events (id, source, timestamp, event_type, payload) VALUES ('evt_new', 'm0', now(), 'tool', '{\"n\": 1}')")
        for limit in sorted(random.sample(range(60000), 3), reverse=True):
            command = subprocess.Popen([str(ROOT / "deploy" / "steepctl"), *COMMANDS[kind], "--quiet"], env=stack.environment(PGDATABASE=database.name),
                                       start_new_session=True, stdout=subprocess.DEVNULL)
            wait_for(lambda: connection.execute(LEFT[kind]).fetchone()[0] <= limit or command.poll() is not None, "some steps")
            with contextlib.suppress(ProcessLookupError):
                os.killpg(command.pid, signal.SIGKILL)
            command.wait()
            assert connection.execute("SELECT * FROM public.check_hourly_counts()").fetchall() == []
        # The server may still be at the last step, which is of the same lock.
        assert stack.steepctl(*COMMANDS[kind], PGDATABASE=database.name).returncode == 0
        assert connection.execute(LEFT[kind]).fetchone() == (0,)
        assert connection.execute("SELECT count(*) FROM public.events").fetchone() == (1 if kind == "events" else 60001,)
        assert connection.execute("SELECT payload FROM public.events WHERE id = 'evt_new'").fetchone() == ({"n": 1},)
        assert connection.execute("SELECT * FROM public.check_hourly_counts()").fetchall() == []


def days_of_events(connection, days, since=0):
    """An event a day, of so many days."""
    connection.execute("INSERT INTO public.events (id, source, timestamp, event_type, payload)"
                       " SELECT 'evt_d' || n, 'm', now() - n * interval '24 hours', 'tool', '{\"n\": 1}'"
                       " FROM generate_series(%s::integer, %s) AS n", (since, since + days - 1))


def test_prune_refuses_most_of_all_events_as_with_a_wrong_clock(stack, database):
    with database.connect() as connection:
        days_of_events(connection, 40)
        # What it would find if the clock of the database were ten years ahead. The last hour of a day is still that day.
        connection.execute("UPDATE public.events SET timestamp = date_trunc('day', timestamp) - interval '10 years' + interval '23 hours'")
        stored, first, last, clock = connection.execute(
            "SELECT count(*), min(timestamp)::date, max(timestamp)::date, to_char(now(), 'YYYY-MM-DD') FROM public.events").fetchone()
        done = stack.steepctl("prune", "90", PGDATABASE=database.name, PGOPTIONS="-c role=steep_prune", check=False)
        assert (done.returncode, done.stdout) == (1, "")
        assert re.fullmatch(f"steepctl: refused to delete 40 of 40 events, those from {first} to {last}, which is more than half"
                            " and more than seven days. The clock of the database is at "
                            rf"{clock}T[0-9:]{{8}}Z; if that is right, run steepctl prune 90 --force\n", done.stderr), done.stderr
        assert connection.execute("SELECT count(*) FROM public.events").fetchone() == (stored,)
        assert stack.steepctl("prune", "90", "--force", PGDATABASE=database.name).stdout == "events deleted: 40\n"
        assert connection.execute("SELECT count(*) FROM public.events").fetchone() == (0,)


@pytest.mark.parametrize("since, days, is_refused", [
    (0, 40, True), (0, 38, False),  # 21 of 40, 19 of 38
    (12, 7, False), (12, 8, False), (12, 15, True), (19, 8, True), (19, 7, False),  # all but a few
    (0, 19, False),  # none
])
def test_only_more_than_half_and_more_than_seven_days_is_too_much(since, days, is_refused, stack, database):
    with database.connect() as connection:
        days_of_events(connection, days, since)
        kept = max(0, min(days, 19 - since))
        done = stack.steepctl("prune", "19", PGDATABASE=database.name, check=False)
        assert (done.returncode, done.stdout) == ((1, "") if is_refused else (0, f"events deleted: {days - kept}\n")), done.stderr
        left = connection.execute("SELECT count(*) FROM public.events").fetchone()[0]
        assert left == (days if is_refused else kept)
        assert stack.steepctl("prune", "--force", "19", PGDATABASE=database.name).stdout == f"events deleted: {left - kept}\n"


def test_the_payloads_of_most_events_may_be_emptied(stack, database):
    """Payloads that are kept for 7 of 40 days: each day most of all events are older."""
    with database.connect() as connection:
        days_of_events(connection, 40)
        assert stack.steepctl("prune", "7", "--payloads-only", PGDATABASE=database.name).stdout == "payloads emptied: 33\n"


@pytest.mark.parametrize("kind", COMMANDS)
def test_pruning_needs_no_superuser(kind, stack, database):
    with database.connect() as connection:
        connection.execute(FILL, (10,))
        done = stack.steepctl(*COMMANDS[kind], PGDATABASE=database.name, PGOPTIONS="-c role=service_role")
        assert done.stdout.endswith(": 10\n")
        refused = stack.steepctl(*COMMANDS[kind], PGDATABASE=database.name, PGOPTIONS="-c role=steep_ingest", check=False)
        assert (refused.returncode, refused.stdout) == (1, "")
        assert refused.stderr == "steepctl: permission denied; set PGUSER to a role that may administer the database\n"


def test_payloads_only_keeps_everything_but_the_payloads(stack, db, monitor, client, query):
    old, new = monitor.event(), monitor.event()
    old["timestamp"] = db.execute("SELECT to_char(now() AT TIME ZONE 'UTC' - interval '20 days', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')").fetchone()[0]
    assert monitor.post(client, [old, new]).json()["inserted"] == 2
    before = query(days=30, source=monitor.source).json()["aggregates"]
    columns = "id, source, timestamp, event_type, created_at"
    stored = db.execute(f"SELECT {columns} FROM public.events WHERE id IN (%s, %s) ORDER BY id", (old["id"], new["id"])).fetchall()
    stack.steepctl("prune", "--payloads-only", "7")
    assert db.execute(f"SELECT {columns} FROM public.events WHERE id IN (%s, %s) ORDER BY id", (old["id"], new["id"])).fetchall() == stored
    payloads = dict(db.execute("SELECT id, payload FROM public.events WHERE id IN (%s, %s)", (old["id"], new["id"])).fetchall())
    assert payloads == {old["id"]: {}, new["id"]: new["payload"]}
    assert query(days=30, source=monitor.source).json()["aggregates"] == before
    answer = monitor.post(client, [old, new]).json()
    assert (answer["inserted"], answer["duplicates"]) == (0, 2)
    assert db.execute("SELECT payload FROM public.events WHERE id = %s", (old["id"],)).fetchone() == ({},)
    assert stack.steepctl("prune", "7", "--payloads-only").stdout == "payloads emptied: 0\n"


def test_invalid_arguments_prune_nothing(stack, database):
    with database.connect() as connection:
        connection.execute(FILL, (3,))
        for arguments in (["7", "--nonsense"], ["--payloads-only"], [""], ["0"], ["7", "--payloads-only", "8"],
                          ["--payloads-only", "--payloads-only"], ["--force"], ["--force", "--force"], ["7", "--force", "--payloads-only"]):
            done = stack.steepctl("prune", *arguments, PGDATABASE=database.name, check=False)
            assert done.returncode in (1, 2) and done.stderr and not done.stdout, arguments
        assert connection.execute(LEFT["payloads"]).fetchone() == (3,)
