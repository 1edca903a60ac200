"""Pruning deletes exactly the old events, or their payloads, in steps and while monitors send."""

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


@pytest.fixture(params=["prune_events('300 days')", "empty_payloads('300 days')"])
def step(request):
    return f"SELECT * FROM public.{request.param}"


def test_monitors_send_while_a_step_is_open(step, stack, db, monitor, client):
    long_ago = db.execute("SELECT date_trunc('hour', now(), 'UTC') - interval '400 days'").fetchone()[0]
    for _ in range(3):
        db.execute("INSERT INTO public.events (id, source, timestamp, event_type, payload) VALUES (%s, %s, %s, 'tool', '{\"n\": 1}')",
                   (new_id(), monitor.source, long_ago))
    late = monitor.event(timestamp=long_ago.isoformat())
    with stack.connect(autocommit=False) as pruning:
        assert pruning.execute(step).fetchone()[0] >= 3
        # Of the present, of an hour whose count the step has locked, and of a new hour.
        for events in ([monitor.event()], [late], [monitor.event(timestamp="2024-02-03T14:00:00Z")], [monitor.event()] * 2):
            assert monitor.post(client, events).json()["inserted"] == 1
        assert db.execute("SELECT count(*) FROM pg_locks WHERE NOT granted").fetchone() == (0,)
        assert pruning.info.transaction_status.name == "INTRANS"
        pruning.commit()
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
                          ["--payloads-only", "--payloads-only"]):
            done = stack.steepctl("prune", *arguments, PGDATABASE=database.name, check=False)
            assert done.returncode in (1, 2) and done.stderr and not done.stdout, arguments
        assert connection.execute(LEFT["payloads"]).fetchone() == (3,)
