"""Sources are listed, renamed and erased, and events removed: exactly, in steps, and while monitors send."""

import concurrent.futures
import contextlib
import os
import random
import re
import secrets
import signal
import subprocess
import threading

import pytest

from conftest import query_with, registered
from fastcgi import ingest_params, program
from monitor import Monitor, encode
from stack import ROOT, SLOWNESS, wait_for, without_progress
from test_health import BOTH
from wire import SECRETS

# Of three hours for each source, some to the end of an hour.
FILL = ("INSERT INTO public.events (id, source, timestamp, event_type, payload)"
        " SELECT 'evt_' || %s || '_' || n, %s, timestamptz '2026-02-03 12:59:59.999999Z' + n %% 3 * interval '1 hour', 'tool',"
        " jsonb_build_object('n', n) FROM generate_series(1, %s) AS n")
EVERYTHING = "SELECT id, source, timestamp, event_type, payload::text, created_at FROM public.events ORDER BY id"
WAITING = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"


def fill(connection, source, number):
    connection.execute(FILL, (source, source, number))


def counted(connection):
    """The events of each source; the hourly counts agree with them."""
    assert connection.execute("SELECT * FROM public.check_hourly_counts()").fetchall() == []
    return dict(connection.execute("SELECT source, count(*) FROM public.events GROUP BY source").fetchall())


def keys_of(connection, source):
    return {key for key, in connection.execute("SELECT public_key FROM public.monitor_keys WHERE source = %s", (source,))}


@pytest.fixture
def control(stack, database):
    """steepctl with the test's database and a time zone other than UTC: its exit status, output and errors."""
    def run(*arguments, **more):
        done = stack.steepctl(*arguments, check=False, PGDATABASE=database.name, PGTZ="Asia/Tokyo", **more)
        return done.returncode, done.stdout, without_progress(done.stderr)
    return run


@pytest.fixture
def start(stack, database):
    """steepctl with the test's database, in a session of its own that can be killed."""
    with contextlib.ExitStack() as started:
        def run(*arguments, **more):
            settings = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.DEVNULL, "text": True} | more
            process = subprocess.Popen([str(ROOT / "deploy" / "steepctl"), *arguments], start_new_session=True,
                                       env=stack.environment(PGDATABASE=database.name), **settings)
            started.callback(lambda: process.poll() is None and process.kill())
            return process
        yield run


@pytest.fixture
def connection(database):
    with database.connect() as connected:
        yield connected


@pytest.fixture
def leaver(stack, db):
    """A registered monitor for one test, which may remove it."""
    made = registered(stack, f"leaver-{secrets.token_hex(6)}")
    yield made
    db.execute("DELETE FROM public.events WHERE starts_with(source, %s)", (made.source,))
    db.execute("DELETE FROM public.monitor_keys WHERE starts_with(source, %s)", (made.source,))


def add_key(connection, source, count=1):
    for _ in range(count):
        connection.execute("INSERT INTO public.monitor_keys (source, public_key) VALUES (%s, %s)", (source, secrets.token_bytes(32)))


# list

def test_the_list_shows_each_source_with_its_first_and_newest_event(control, connection):
    assert control("source", "list") == (0, "", "")
    fill(connection, "b", 30)
    fill(connection, "a", 2)
    fill(connection, "a\tb\né", 10)
    add_key(connection, "b", 2)
    add_key(connection, "only keys")
    status, output, errors = control("source", "list")
    assert (status, errors) == (0, "")
    rows = [line.split("\t") for line in output.splitlines()]
    first, later, last = (f"2026-02-03T{hour}:59:59Z" for hour in (12, 13, 14))
    assert [row[:5] for row in rows] == [
        ["a", later, last, "2", "0"], ["a?b?é", first, last, "10", "0"], ["b", first, last, "30", "2"], ["only keys", "-", "-", "0", "1"]]
    # The table and its indexes, divided by the number of events.
    size = connection.execute("SELECT pg_total_relation_size('public.events')").fetchone()[0]
    assert [int(row[5]) for row in rows] == [round(size * share / 42) for share in (2, 10, 30, 0)]


# rename

def test_a_rename_moves_events_counts_and_keys_and_keeps_the_old_key(control, connection):
    fill(connection, "old", 12345)
    fill(connection, "other", 10)
    add_key(connection, "old", 2)
    before = connection.execute(EVERYTHING).fetchall()
    assert control("source", "rename", "old", "new name") == (
        0, "events moved: 12345\nkeys copied: 2\n"
        "monitor old is still registered; when it sends the new name, run this again and steepctl monitor remove\n", "")
    assert counted(connection) == {"new name": 12345, "other": 10}
    assert connection.execute(EVERYTHING).fetchall() == [
        (row[0], "new name" if row[1] == "old" else row[1], *row[2:]) for row in before]
    assert keys_of(connection, "new name") == keys_of(connection, "old") != set()


def test_a_rename_that_is_run_again_moves_what_arrived_since(control, connection):
    fill(connection, "old", 10)  # without a key in the database, as with VIBETEA_PUBLIC_KEYS
    assert control("source", "rename", "old", "new") == (0, "events moved: 10\nkeys copied: 0\n", "")
    connection.execute("INSERT INTO public.events (id, source, timestamp, event_type, payload) VALUES ('evt_x', 'old', now(), 'tool', '{}')")
    assert control("source", "rename", "old", "new") == (0, "events moved: 1\nkeys copied: 0\n", "")
    assert control("source", "rename", "old", "new") == (0, "events moved: 0\nkeys copied: 0\n", "")
    assert counted(connection) == {"new": 11}


def test_a_name_that_has_events_is_taken_only_with_merge(control, connection):
    fill(connection, "a", 5)
    fill(connection, "b", 7)
    before = connection.execute(EVERYTHING).fetchall()
    assert control("source", "rename", "a", "b") == (
        1, "", "steepctl: b has events already. To add those of the other source, use --merge.\n")
    assert connection.execute(EVERYTHING).fetchall() == before
    for arguments in (["a", "b", "--merge"], ["--merge", "b", "a"]):
        assert control("source", "rename", *arguments)[0] == 0
    assert counted(connection) == {"a": 12}


BAD_NAMES = {"nothing": "", "a space at the start": " x", "a space at the end": "x ", "a tab": "a\tb", "not ASCII": "é",
             "256 letters": "x" * 256, "a hyphen at the start": "-x"}


@pytest.mark.parametrize("kind", BAD_NAMES)
def test_an_invalid_new_name_is_refused(kind, control, connection):
    fill(connection, "old", 3)
    status, output, errors = control("source", "rename", "--", "old", BAD_NAMES[kind])
    assert (status, output) == (1, "") and "monitor's name must" in errors
    assert counted(connection) == {"old": 3}


def test_what_has_an_invalid_name_can_be_renamed(control, connection):
    for number, name in enumerate((" é\t", "-x", "--help", "--merge", "' || 'x", "\\")):
        fill(connection, name, 3)
        assert control("source", "rename", "--", name, "good", "x")[0] == 2
        assert control("source", "rename", "--", name, f"good{number}") == (0, "events moved: 3\nkeys copied: 0\n", ""), name
    assert counted(connection) == {f"good{number}": 3 for number in range(6)}


def test_a_rename_to_itself_or_of_nothing_is_refused(control, connection):
    fill(connection, "old", 3)
    assert control("source", "rename", "old", "old") == (1, "", "steepctl: a source cannot be renamed to itself\n")
    assert control("source", "rename", "none", "new") == (1, "", "steepctl: there is no source none\n")
    for arguments in ([], ["old"], ["old", "new", "more"], ["old", "--new"], ["old", "new", "--yes"]):
        assert control("source", "rename", *arguments)[0] == 2
    assert counted(connection) == {"old": 3}
    add_key(connection, "old", 5)
    add_key(connection, "full", 4)
    assert control("source", "rename", "old", "full") == (
        1, "", "steepctl: a source has at most 8 public keys. Remove a key that is no longer used.\n")
    assert counted(connection) == {"old": 3}


def test_a_step_that_is_smaller_than_the_one_before_is_not_taken_for_the_last(control, connection):
    """A step reads at most 100 hours, of which the later ones may have fewer events."""
    fill(connection, "a", 18000)
    connection.execute("INSERT INTO public.events (id, source, timestamp, event_type, payload)"
                       " SELECT 'evt_' || n, 'a', timestamptz '2026-02-04Z' + n * interval '1 hour', 'tool', '{}' FROM generate_series(1, 450) AS n")
    assert control("source", "rename", "a", "b") == (0, "events moved: 18450\nkeys copied: 0\n", "")
    assert control("events", "remove", "--source", "b", "--to", "2027-01-01") == (0, "events removed: 18450\n", "")


def test_an_administrator_may_have_another_isolation_level_or_only_read_by_default(control, connection):
    fill(connection, "a", 12000)
    for level in ("repeatable read", "serializable"):
        settings = {"PGOPTIONS": f"-c default_transaction_isolation={level.replace(' ', chr(92) + ' ')} -c default_transaction_read_only=on"}
        assert control("source", "rename", "a", "b", **settings) == (0, "events moved: 12000\nkeys copied: 0\n", "")
        assert control("source", "rename", "b", "a", **settings)[0] == 0
    assert control("events", "remove", "--from", "2026-02-03T14:00:00Z", **settings) == (0, "events removed: 4000\n", "")
    assert control("source", "erase", "--yes", "a", **settings)[0] == 0
    assert counted(connection) == {}


# Holds a step at an event of the newest hour while somebody has an advisory lock, which no lock_timeout ends.
GATE = 20260203
HOLD = f"""
    CREATE FUNCTION public.hold() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
      WHILE EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND objid = {GATE} AND granted) LOOP PERFORM pg_sleep(0.01); END LOOP;
      RETURN NEW;
    END $$;
    CREATE TRIGGER hold BEFORE UPDATE ON public.events FOR EACH ROW WHEN (OLD.id = 'evt_a_2') EXECUTE FUNCTION public.hold()"""
HELD = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'"


def test_two_renames_at_once_do_not_meet_in_one_name(control, start, database, connection):
    fill(connection, "a", 12000)
    fill(connection, "b", 5)
    with database.connect(autocommit=False) as holding:
        connection.execute(HOLD)
        holding.execute("SELECT pg_advisory_xact_lock(%s)", (GATE,))
        first = start("source", "rename", "a", "new")
        wait_for(lambda: connection.execute(HELD).fetchone(), "the first rename to be in its second step")
        assert counted(connection) == {"a": 7000, "new": 5000, "b": 5}  # a step is a transaction
        others = [start(*arguments) for arguments in (
            ["source", "rename", "b", "new"], ["source", "rename", "a", "new"], ["source", "erase", "b", "--yes"],
            ["events", "remove", "--from", "2000-01-01"])]
        for other in others:
            assert other.communicate(timeout=60 * SLOWNESS) == (
                "", "steepctl: another steepctl is renaming or erasing a source or removing events. Wait until it has ended.\n")
            assert other.returncode == 1
        holding.rollback()
    output, errors = first.communicate(timeout=60 * SLOWNESS)
    assert (output, without_progress(errors)) == ("events moved: 12000\nkeys copied: 0\n", "")
    assert control("source", "rename", "b", "new")[0] == 1
    assert counted(connection) == {"new": 12000, "b": 5}


COMMANDS = [["source", "rename", "a", "new", "--quiet"], ["source", "erase", "a", "--yes", "--quiet"],
            ["events", "remove", "--source", "a", "--from", "2026-02-03", "--quiet"]]
SESSION = "FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'psql'"


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: " ".join(command[:2]))
def test_what_was_interrupted_at_a_random_point_ends_as_if_it_had_not_been(command, control, start, connection):
    """steepctl is killed, or interrupted as from a keyboard, or its session is ended, or its statement."""
    fill(connection, "a", 40000)
    fill(connection, "b", 100)
    if "rename" in command:
        add_key(connection, "a")
    add_key(connection, "b")
    add_tokens(connection, exact=["a"])
    ends = ["killed", "interrupted", "pg_terminate_backend", "pg_cancel_backend"]
    random.shuffle(ends)
    for end in [random.choice(ends), *ends]:
        process = start(*command)
        left = connection.execute("SELECT count(*) FROM public.events WHERE source = 'a'").fetchone()[0]
        limit = random.randint(0, left)
        wait_for(lambda: process.poll() is not None
                 or connection.execute("SELECT count(*) FROM public.events WHERE source = 'a'").fetchone()[0] <= limit, "some steps", every=0.01)
        if end.startswith("pg_"):
            connection.execute(f"SELECT {end}(pid) {SESSION}")
        else:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL if end == "killed" else signal.SIGINT)
        process.communicate(timeout=60 * SLOWNESS)
        wait_for(lambda: connection.execute(f"SELECT count(*) {SESSION}").fetchone() == (0,), "the session to end")
        assert sum(counted(connection).values()) <= 40100
    status, _, errors = control(*command)
    assert status == 0 or errors == "steepctl: there is no source a\n"
    assert counted(connection) == {"b": 100} | ({"new": 40000} if "rename" in command else {})
    assert [len(keys_of(connection, source)) for source in ("a", "b", "new")] == [int("rename" in command), 1, int("rename" in command)]
    assert scopes_of(connection) == {"exact": ["a", "new"] if "rename" in command else ["a"]}


def test_a_rename_goes_on_after_a_crash_of_postgresql(second_stack):
    """Which ends all sessions and recovers if one of them is killed."""
    name = f"crash-{secrets.token_hex(6)}"
    left = "SELECT count(*) FROM public.events WHERE source = %s"
    command = [str(ROOT / "deploy" / "steepctl"), "source", "rename", name, f"{name}-new"]
    with second_stack.connect() as connection:
        fill(connection, name, 40000)
        process = subprocess.Popen(command, env=second_stack.environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        limit = random.randint(5000, 40000)
        wait_for(lambda: connection.execute(left, (name,)).fetchone()[0] <= limit, "some steps", every=0.01)
        for pid, in connection.execute(f"SELECT pid {SESSION}"):
            os.kill(pid, signal.SIGKILL)
    process.communicate(timeout=60 * SLOWNESS)
    wait_for(lambda: subprocess.run(command, env=second_stack.environment(), capture_output=True, timeout=60 * SLOWNESS).returncode == 0,
             "PostgreSQL to recover")
    with second_stack.connect() as connection:
        assert connection.execute(left, (name,)).fetchone() == (0,)
        assert counted(connection)[f"{name}-new"] == 40000
        connection.execute("DELETE FROM public.events WHERE starts_with(source, %s)", (name,))


def test_a_monitor_sends_while_its_source_is_renamed(stack, db, leaver, client):
    """All is stored, under one of the names, and a second run moves the rest."""
    new = f"{leaver.source}-new"
    fill(db, leaver.source, 30000)
    sent = []
    with contextlib.ExitStack() as ending:
        process = subprocess.Popen([str(ROOT / "deploy" / "steepctl"), "source", "rename", leaver.source, new], env=stack.environment(),
                                   stdout=subprocess.PIPE, text=True)
        ending.callback(process.communicate)
        while process.poll() is None:
            # Of an hour that the rename moves, and of the present.
            events = [leaver.event(timestamp="2026-02-03T13:10:00Z"), leaver.event()]
            assert leaver.post(client, events).json()["inserted"] == 2
            sent += events
    assert process.returncode == 0 and len(sent) >= 2
    assert stack.steepctl("source", "rename", leaver.source, new).returncode == 0
    stored = dict(db.execute("SELECT source, count(*) FROM public.events WHERE source IN (%s, %s) GROUP BY 1", (leaver.source, new)).fetchall())
    assert stored == {new: 30000 + len(sent)}
    assert db.execute("SELECT * FROM public.check_hourly_counts() WHERE source IN (%s, %s)", (leaver.source, new)).fetchall() == []
    # Both names are accepted until the old one is removed.
    renamed = Monitor(new, bytes(leaver.key))
    assert renamed.post(client, [renamed.event()]).json()["inserted"] == 1
    assert leaver.post(client, [leaver.event()]).json()["inserted"] == 1
    stack.steepctl("monitor", "remove", leaver.source)
    assert renamed.post(client, [renamed.event()]).json()["inserted"] == 1


# tokens whose scope a rename or an erasure concerns

def add_tokens(connection, **scopes):
    for label, sources in scopes.items():
        connection.execute("INSERT INTO public.access_tokens (label, token_sha256, sources) VALUES (%s, sha256(%s::bytea), %s)", (label, label, sources))


def scopes_of(connection):
    return dict(connection.execute("SELECT label, sources FROM public.access_tokens").fetchall())


def about_tokens(output):
    """The lines of a command's output that are about tokens."""
    return [line for line in output.splitlines() if " token " in f" {line}"]


def run_command(stack, database, line):
    """Run the command that such a line ends with, as a shell reads it."""
    done = subprocess.run(["sh", "-c", line.split(": ", 1)[1]], text=True, capture_output=True,
                          env=stack.environment(PGDATABASE=database.name, PATH=f"{ROOT / 'deploy'}:{os.environ['PATH']}"))
    assert done.returncode == 0, done.stderr


def test_a_token_that_names_a_source_sees_it_by_its_new_name_too(control, connection):
    fill(connection, "old", 3)
    add_key(connection, "old", 1)
    add_tokens(connection, all=None, exact=["old"], among=["x", "old"], covered=["old", "ne*"], other=["older"], beginning=["o*"])
    output = control("source", "rename", "old", "new")[1]
    assert about_tokens(output) == [
        "new was added to the scope of token among", "new was added to the scope of token exact",
        "token beginning sees old and not new; to change that: steepctl token scope beginning --source 'o*' --source new"]
    expected = {"all": None, "exact": ["old", "new"], "among": ["x", "old", "new"], "covered": ["old", "ne*"], "other": ["older"], "beginning": ["o*"]}
    assert scopes_of(connection) == expected
    # What an administrator takes away is not added again, but reported.
    assert control("token", "scope", "exact", "--source", "old")[0] == 0
    assert about_tokens(control("source", "rename", "old", "new")[1])[1:] == [
        "token exact sees old and not new; to change that: steepctl token scope exact --source old --source new"]
    assert scopes_of(connection) == expected | {"exact": ["old"]}


def test_a_rename_shows_no_token_what_another_machine_sent(control, stack, database, connection):
    """It says which tokens see one of the names alone, and the command that it prints changes that."""
    odd = ["old", "it's", "a b", "$(id)", "`id`", "\\", "--source", "lab-*", "~"]
    add_tokens(connection, odd=odd, names=["new"], beginning=["n*"], both=["old", "n*"], full=["old"] * 500, expired=["old"])
    connection.execute("UPDATE public.access_tokens SET expires_at = now() WHERE label = 'expired'")
    before = scopes_of(connection)
    fill(connection, "old", 3)
    add_key(connection, "new", 1)  # which has sent nothing yet
    for arguments, events in (([], "0"), (["--merge"], "2")):
        fill(connection, "new", int(events))
        connection.execute("TRUNCATE public.source_renames")
        output = control("source", "rename", "old", "new", *arguments)[1]
        lines = about_tokens(output)
        assert lines[:3] + lines[4:] == [
            "token beginning does not see old, but now sees its events, as its scope has new",
            "token full sees old and not new, which cannot be added to its scope",
            "token names does not see old, but now sees its events, as its scope has new"]
        assert lines[3].startswith("token odd sees old and not new; to change that: steepctl token scope odd --source old --source 'it'")
        assert scopes_of(connection) == before
        connection.execute("UPDATE public.events SET source = 'old' WHERE source = 'new'")
    run_command(stack, database, lines[3])
    assert scopes_of(connection) == before | {"odd": [*odd, "new"]}


@pytest.mark.parametrize("new", ["ne*", "n*w", "*"])
def test_a_new_name_with_an_asterisk_is_added_to_no_scope(new, control, connection):
    """There it would be the beginning of other names, or be refused."""
    fill(connection, "old", 3)
    add_tokens(connection, exact=["old"])
    assert about_tokens(control("source", "rename", "old", new)[1]) == [
        f"token exact sees old and not {new}, which cannot be added to its scope"]
    assert counted(connection) == {new: 3} and scopes_of(connection) == {"exact": ["old"]}


def test_an_erasure_names_the_tokens_whose_scope_has_the_source(control, stack, database, connection):
    """A machine that gets the name later would be seen by them."""
    for source in ("a", "a*"):
        fill(connection, source, 3)
    add_tokens(connection, alone=["a"], among=["a b", "a", "c"], beginning=["a*"], other=["b"], all=None)
    before = scopes_of(connection)
    output = control("source", "erase", "--yes", "a")[1]
    lines = about_tokens(output)
    assert lines == ["token alone still names a; to change that: steepctl token remove alone",
                     "token among still names a; to change that: steepctl token scope among --source 'a b' --source c"]
    assert scopes_of(connection) == before
    # An erasure that was interrupted did not say so.
    assert control("source", "erase", "--yes", "a") == (1, "".join(f"{line}\n" for line in lines), "steepctl: there is no source a\n")
    for line in lines:
        run_command(stack, database, line)
    assert scopes_of(connection) == {label: scope for label, scope in before.items() if label != "alone"} | {"among": ["a b", "c"]}
    assert about_tokens(control("source", "erase", "--yes", "a*")[1]) == []


def test_a_dashboard_keeps_its_machine_when_that_is_renamed(stack, db, leaver, client):
    new = f"{leaver.source}-new"
    label = f"scope-{secrets.token_hex(6)}"
    token = stack.steepctl("token", "add", label, "--source", leaver.source).stdout.split()[-1]
    SECRETS.add(token)
    for source in (leaver.source, f"{leaver.source}-other"):
        db.execute("INSERT INTO public.events (id, source, timestamp, event_type, payload)"
                   " SELECT 'evt_' || %s || n, %s, now() - n * interval '1 minute', 'tool', '{}' FROM generate_series(1, 60) AS n", (source, source))

    def seen():
        answer = query_with(client, token, "?group_by=source")
        return answer.status_code == 200 and {row["source"]: row["eventCount"] for row in answer.json()["aggregates"]}

    wait_for(lambda: seen() == {leaver.source: 60}, "the token to be taken up")
    stack.steepctl("source", "rename", leaver.source, new)
    wait_for(lambda: seen() == {new: 60}, "the scope to be taken up")
    leaver.post(client, [leaver.event()])
    assert seen() == {new: 60, leaver.source: 1}
    stack.steepctl("token", "remove", label)


# what others do meanwhile

@pytest.fixture
def outsider(stack, db):
    """A monitor whose key only an ingest.fcgi of its own has, from its environment, where no erasure removes it."""
    made = Monitor(f"outsider-{secrets.token_hex(6)}")
    key = f"{made.source}:{made.public_base64}"
    with program(stack, "ingest", passed=BOTH, STEEP_DEADLINE="60", PGOPTIONS="-c lock_timeout=60s", VIBETEA_PUBLIC_KEYS=key) as made.ingest:
        wait_for(lambda: made.ingest.ask_health("/readyz/ingest").status_code == 200, "the keys to be read")
        yield made
    db.execute("DELETE FROM public.events WHERE starts_with(source, %s)", (made.source,))


def send(outsider, *hours):
    """The status of a batch of one event for each of these hours of 3 February."""
    body = encode([outsider.event(timestamp=f"2026-02-03T{hour}:10:00Z") for hour in hours])
    return outsider.ingest.ask(ingest_params(body, outsider), body).status_code


@pytest.mark.parametrize("command, step", [("rename", 5000), ("erase", 10000)])
def test_only_who_sends_for_an_hour_of_a_step_waits_and_only_for_this_step(command, step, stack, db, outsider, other_monitor, client, token):
    """A step is held where it changes the last of its two hours, and the next one where it begins."""
    fill(db, outsider.source, 2 * step + 2000)
    arguments = [f"{outsider.source}-new"] if command == "rename" else ["--yes"]
    left = ("SELECT count(*) FROM public.events WHERE source = %s AND timestamp::text NOT LIKE '%%:10:00+00'", (outsider.source,))

    def all_others_are_answered():
        assert other_monitor.post(client, [other_monitor.event(), other_monitor.event(timestamp="2026-02-03T12:10:00Z")]).status_code == 200
        assert send(outsider, 11, 14, 15) == 200
        for question in ("", "?days=30", f"?source={outsider.source}", "?group_by=hour", "?group_by=source"):
            assert query_with(client, token, question).status_code == 200

    with contextlib.ExitStack() as ending:
        next_step = ending.enter_context(stack.connect(autocommit=False))
        this_step = ending.enter_context(stack.connect(autocommit=False))
        pool = ending.enter_context(concurrent.futures.ThreadPoolExecutor(1))
        next_step.execute("SELECT FROM public.events WHERE id = %s FOR UPDATE", (f"evt_{outsider.source}_2",))
        this_step.execute("SELECT FROM public.hourly_counts WHERE source = %s AND hour = '2026-02-03 13:00Z' FOR UPDATE", (outsider.source,))
        process = subprocess.Popen([str(ROOT / "deploy" / "steepctl"), "source", command, outsider.source, *arguments], env=stack.environment(),
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        ending.callback(process.communicate)
        wait_for(lambda: db.execute(WAITING).fetchone() == (1,), "the first step to wait")
        all_others_are_answered()
        waiting = pool.submit(send, outsider, 12)
        wait_for(lambda: db.execute(WAITING).fetchone() == (2,), "the batch to wait for the step")
        all_others_are_answered()
        assert not waiting.done()
        this_step.rollback()
        assert waiting.result(60 * SLOWNESS) == 200
        wait_for(lambda: db.execute(WAITING).fetchone() == (1,), "the second step to wait")
        assert db.execute(*left).fetchone() == (step + 2000,) and process.poll() is None
        all_others_are_answered()
        next_step.rollback()
        process.communicate(timeout=60 * SLOWNESS)
    assert db.execute(*left).fetchone() == (0,)
    assert db.execute("SELECT * FROM public.check_hourly_counts() WHERE starts_with(source, %s)", (outsider.source,)).fetchall() == []


def test_an_erasure_names_the_environment_if_its_key_still_sends(stack, db, outsider):
    fill(db, outsider.source, 20000)
    sent, ended = [], threading.Event()

    def keep_sending():
        while not ended.is_set():
            assert send(outsider, 12, 15) == 200
            sent.append(2)

    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        sending = pool.submit(keep_sending)
        wait_for(lambda: sent, "the first batch")
        done = stack.steepctl("source", "erase", "--yes", outsider.source, check=False)
        so_far = len(sent)
        wait_for(lambda: len(sent) > so_far + 1 or sending.done(), "another batch")
        ended.set()
        sending.result()
    assert (done.returncode, done.stderr) == (1, f"steepctl: {outsider.source} still sends events; remove its key from VIBETEA_PUBLIC_KEYS in the"
                                              " environment of ingest.fcgi, and erase it again\n")
    deleted = int(re.match(r"events deleted: (\d+)\n", done.stdout)[1])
    again = stack.steepctl("source", "erase", "--yes", outsider.source).stdout
    assert deleted >= 20000 and deleted + int(re.match(r"events deleted: (\d+)\n", again)[1]) == 20000 + sum(sent)
    assert db.execute("SELECT count(*) FROM public.hourly_counts WHERE source = %s", (outsider.source,)).fetchone() == (0,)


# erase

def test_an_erasure_asks_for_the_name_again(control, start, connection):
    fill(connection, "a", 10)
    add_key(connection, "a", 2)
    question = ("This deletes 10 events, 3 hourly counts and 2 keys of a.\nTo go on, type the name again: "
                "steepctl: a was not erased: the name typed is another\n")
    for answer in ("", "\n", "b\n", "A\n", "a \n", "yes\n"):
        assert control("source", "erase", "a", input=answer) == (1, "", question)
    assert (counted(connection), len(keys_of(connection, "a"))) == ({"a": 10}, 2)
    process = start("source", "erase", "a", stdin=subprocess.PIPE)
    process.stdin.write("a\n")
    process.stdin.flush()
    wait_for(lambda: (counted(connection), keys_of(connection, "a")) == ({}, set()), "the source to be erased")
    # What a program stores that does not know yet that the keys are gone.
    connection.execute("INSERT INTO public.events (id, source, timestamp, event_type, payload) VALUES ('evt_x', 'a', now(), 'tool', '{}')")
    output, _ = process.communicate(timeout=60 * SLOWNESS)
    assert (process.returncode, output) == (0, "events deleted: 11\nhourly counts deleted: 3\nkeys removed: 2\n")
    assert counted(connection) == {}


def test_an_erasure_deletes_one_source_alone(control, connection):
    for source in ("a", "a%", "A", "ab"):
        fill(connection, source, 12000)
    assert control("source", "erase", "--yes", "a") == (0, "events deleted: 12000\nhourly counts deleted: 3\nkeys removed: 0\n", "")
    assert counted(connection) == {"a%": 12000, "A": 12000, "ab": 12000}
    assert control("source", "erase", "--yes", "a") == (1, "", "steepctl: there is no source a\n")
    for arguments in ([], ["a", "b"], ["a", "--merge"]):
        assert control("source", "erase", *arguments)[0] == 2


def test_an_erasure_reports_events_that_are_not_counted(control, connection):
    connection.execute("SET session_replication_role = replica")
    fill(connection, "a", 10)
    connection.execute("RESET session_replication_role")
    sentence = "steepctl: a has events that are not counted; run steepctl counts rebuild, and erase it again\n"
    assert control("source", "erase", "a", "--yes") == (1, "", sentence)
    connection.execute("INSERT INTO public.events (id, source, timestamp, event_type, payload) VALUES ('evt_x', 'a', now(), 'tool', '{}')")
    assert control("source", "erase", "a", "--yes") == (1, "events deleted: 1\nhourly counts deleted: 1\nkeys removed: 0\n", sentence)
    assert control("counts", "rebuild")[0] == 0
    assert control("source", "erase", "a", "--yes")[:2] == (0, "events deleted: 10\nhourly counts deleted: 3\nkeys removed: 0\n")


def test_an_erased_monitor_leaves_nothing_although_it_sends(stack, db, leaver, client):
    answers = []

    def send():
        while not answers or "inserted" in answers[-1]:
            answers.append(leaver.post(client, [leaver.event()]).json())

    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        sending = pool.submit(send)
        wait_for(lambda: answers, "the first batch")
        stack.steepctl("source", "erase", "--yes", leaver.source)
        sending.result()
    assert answers[-1]["error"] == "unknown_source"
    assert db.execute("SELECT count(*) FROM public.events WHERE source = %s", (leaver.source,)).fetchone() == (0,)
    assert leaver.source not in stack.steepctl("source", "list").stdout


# events remove

def test_a_dry_run_counts_by_source_and_day_what_would_be_removed(control, connection):
    for source in ("b", "a", "c"):
        connection.execute("INSERT INTO public.events (id, source, timestamp, event_type, payload)"
                           " SELECT 'evt_' || %s || n, %s, timestamptz '2026-02-03 00:00Z' + n * interval '8 hours', 'tool', '{}'"
                           " FROM generate_series(0, 8) AS n", (source, source))
    bounds = ["--from", "2026-02-03T08:00:00Z", "--to", "2026-02-05"]
    assert control("events", "remove", *bounds, "--dry-run") == (0, "".join(
        f"{source}\t2026-02-0{day}\t{number}\n" for source in "abc" for day, number in ((3, 2), (4, 3))), "")
    assert control("events", "remove", "--from", "2026-02-02T23:00:00Z", "--to", "2026-02-03", "--dry-run") == (0, "", "")
    assert control("events", "remove", "--source", "b", "--to", "2026-02-03T09:00:00+01:00", "--dry-run") == (0, "b\t2026-02-03\t1\n", "")
    assert counted(connection) == {"a": 9, "b": 9, "c": 9}
    assert control("events", "remove", "--source", "b", *bounds) == (0, "events removed: 5\n", "")
    assert counted(connection) == {"a": 9, "b": 4, "c": 9}
    assert control("events", "remove", "--from", "2026-02-05T16:00:00.000001Z") == (0, "events removed: 0\n", "")
    assert control("events", "remove", *bounds) == (0, "events removed: 10\n", "")
    assert counted(connection) == {"a": 4, "b": 4, "c": 4}


def test_future_events_are_removed(control, connection):
    for number, shift in enumerate(("-1 minute", "5 minutes", "3 days", "80 years")):
        connection.execute("INSERT INTO public.events (id, source, timestamp, event_type, payload)"
                           " VALUES (%s, 'a', now() + %s::interval, 'tool', '{}')", (f"evt_{number}", shift))
    connection.execute("INSERT INTO public.events (id, source, timestamp, event_type, payload) VALUES ('evt_b', 'b', 'infinity', 'tool', '{}')")
    assert control("events", "remove", "--future", "--source", "a") == (0, "events removed: 3\n", "")
    assert control("events", "remove", "--future", "--dry-run") == (0, "b\tinfinity\t1\n", "")
    assert control("events", "remove", "--future") == (0, "events removed: 1\n", "")
    assert connection.execute("SELECT id FROM public.events").fetchall() == [("evt_0",)]


@pytest.mark.parametrize("arguments, status", [
    ([], 1), (["--source", "a"], 1), (["--source", "", "--future"], 1), (["--future", "--from", "2026-02-03"], 1), (["--quiet", "--yes"], 2),
    (["a", "--future"], 2), (["--from", "2026-02-30"], 1), (["--from", "now"], 1), (["--to", "infinity"], 1), (["--to", ""], 1),
    (["--from", "2026-02-03T00:00:00"], 1), (["--from", "2026-02-03T25:00:00Z"], 1), (["--from", "2026-02-03\n2026-02-04"], 1),
    (["--from", "2026-02-03", "--to", "2026-02-03"], 1), (["--from", "2026-02-04", "--to", "2026-02-03"], 1)])
def test_invalid_bounds_are_refused(arguments, status, control, connection):
    fill(connection, "a", 10)
    for more in ([], ["--dry-run"]):
        done = control("events", "remove", *arguments, *more)
        assert done[:2] == (status, "") and done[2], done
        assert status == 2 or re.fullmatch(r"steepctl: [^\n]+\n", done[2]), done
    assert counted(connection) == {"a": 10}
