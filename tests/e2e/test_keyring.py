"""Keys and tokens are added and removed while the programs run."""

import contextlib
import re
import secrets
import time

import psycopg
import pytest

from conftest import query_with
from fastcgi import ingest_params, program
from monitor import Monitor
from stack import wait_for
from wire import SECRETS, check_error

# The contract says one second; the rest is for a slow machine. Without notifications it would be
# close to five from the second change on, as each is made right after a poll.
SOON = 4
ROUNDS = 3


def seconds_until(condition):
    started = time.monotonic()
    wait_for(condition, "a change of keys to be taken up", 15, every=0.02)
    return time.monotonic() - started


@pytest.fixture
def name():
    return f"ring-{secrets.token_hex(6)}"


def knows(client, sender):
    """Whether a key is known; an empty batch changes nothing."""
    return sender.post(client, "[]").json()["error"] == "empty_batch"


def test_adding_or_removing_a_key_takes_effect_within_a_second(stack, client, name):
    sender = Monitor(name)
    times = []
    for _ in range(ROUNDS):
        stack.steepctl("monitor", "add", name, sender.public_base64)
        times.append(seconds_until(lambda: knows(client, sender)))
        stack.steepctl("monitor", "remove", name)
        times.append(seconds_until(lambda: not knows(client, sender)))
    assert max(times) < SOON
    assert min(times) < 1
    check_error(sender.post(client, "[]"), 401, "unknown_source")


def test_adding_or_revoking_a_token_takes_effect_within_a_second(stack, client, name):
    times = []
    for _ in range(ROUNDS):
        token = stack.steepctl("token", "add", name).stdout.split()[-1]
        SECRETS.add(token)
        times.append(seconds_until(lambda: query_with(client, token).status_code == 200))
        stack.steepctl("token", "remove", name)
        times.append(seconds_until(lambda: query_with(client, token).status_code == 401))
    assert max(times) < SOON
    assert min(times) < 1
    check_error(query_with(client, token), 401, "invalid_token")


def test_a_change_made_in_sql_takes_effect_too(db, client, name):
    sender = Monitor(name)
    db.execute("INSERT INTO public.monitor_keys (source, public_key) VALUES (%s, %s)", (name, sender.public))
    assert seconds_until(lambda: knows(client, sender)) < SOON
    db.execute("DELETE FROM public.monitor_keys WHERE source = %s", (name,))
    assert seconds_until(lambda: not knows(client, sender)) < SOON


@contextlib.contextmanager
def beginning_with(db, function, statement):
    """Let a function that is one SQL statement run another one first."""
    definition = db.execute(f"SELECT pg_get_functiondef('public.{function}'::regproc)").fetchone()[0]
    db.execute(re.sub(r"AS \$\w*\$", lambda m: f"{m[0]} {statement};", definition, count=1))
    try:
        yield
    finally:
        db.execute(definition)


# Fails if everything is read, by a division by zero.
ONLY_CHANGES = "SELECT 1 / (since IS NOT NULL)::integer"


@pytest.fixture
def slow_reader(db):
    """Make reading the keys slow, so that a change can be made during it."""
    with beginning_with(db, "list_monitor_keys", "SELECT pg_sleep(0.5)"):
        yield


def test_a_change_made_during_a_read_of_the_keys_takes_effect_as_soon(db, client, name, slow_reader):
    # Its notification arrives with the answer of a read that does not include it yet.
    senders = [Monitor(f"{name}-{n}") for n in range(2)]
    for sender in senders:
        db.execute("INSERT INTO public.monitor_keys (source, public_key) VALUES (%s, %s)",
                   (sender.source, sender.public))
        wait_for(lambda: db.execute("SELECT count(*) FROM pg_stat_activity WHERE usename = 'steep_ingest'"
                                    " AND wait_event = 'PgSleep'").fetchone() == (1,), "the keys to be read")
    assert seconds_until(lambda: knows(client, senders[1])) < SOON


# What may fail after valid rows: the body of the function that lists them, in PL/pgSQL.
HALF_A_READ = {
    "an error": "RETURN QUERY {rows}; RAISE EXCEPTION 'no more'",
    "a row that is none": "RETURN QUERY {rows}; RETURN QUERY {bad}",
    "the end of its connection": "RETURN QUERY {rows}; PERFORM pg_sleep(60)",
}
# What is read: a program asks for everything if the function returns nothing for its mark.
READS = {"the changes": "RETURN QUERY {mark}", "everything": "IF since IS NOT NULL THEN RETURN; END IF; RETURN QUERY {mark}"}
LISTS = {
    "ingest": ("list_monitor_keys", "SELECT gen_random_uuid(), NULL::text, NULL::bytea",
               "SELECT NULL::uuid, k.source, k.public_key FROM public.monitor_keys AS k",
               "SELECT NULL::uuid, '~'::text, '\\x00'::bytea"),
    "query": ("list_access_tokens", "SELECT gen_random_uuid(), NULL::text, NULL::bytea, NULL::timestamptz, NULL::text[], NULL::text[]",
              "SELECT NULL::uuid, t.label, t.token_sha256, t.expires_at, NULL::text[], NULL::text[] FROM public.access_tokens AS t",
              "SELECT NULL::uuid, '~'::text, '\\x00'::bytea, NULL::timestamptz, NULL::text[], NULL::text[]"),
}


@pytest.fixture
def half_reads(stack, db):
    """Let every read of a program's list fail halfway until the block ends."""
    @contextlib.contextmanager
    def fail(name, how, what):
        function, mark, rows, bad = LISTS[name]
        definition = db.execute(f"SELECT pg_get_functiondef('public.{function}'::regproc)").fetchone()[0]
        body = f"{READS[what].format(mark=mark)}; {HALF_A_READ[how].format(rows=rows, bad=bad)}"
        broken = re.sub(r"AS (\$\w*\$).*", lambda m: f"AS {m[1]} BEGIN {body}; END {m[1]}", definition, flags=re.DOTALL)
        size = stack.log(name).stat().st_size
        db.execute(broken.replace("LANGUAGE sql", "LANGUAGE plpgsql"))

        def end_sleepers():
            db.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %s AND wait_event = 'PgSleep'",
                       (f"steep_{name}",))

        def failed():
            end_sleepers()
            return b"could not read" in stack.log(name).read_bytes()[size:]

        try:
            yield lambda: wait_for(failed, "a read to fail")
        finally:
            db.execute(definition)
            end_sleepers()
    return fail


@pytest.mark.parametrize("what", READS)
@pytest.mark.parametrize("how", HALF_A_READ)
def test_a_read_of_the_keys_that_fails_halfway_changes_nothing(how, what, half_reads, db, client, name):
    kept, newcomer = Monitor(name), Monitor(f"{name}-new")
    add = "INSERT INTO public.monitor_keys (source, public_key) VALUES (%s, %s)"
    db.execute(add, (kept.source, kept.public))
    wait_for(lambda: knows(client, kept), "the key")
    with half_reads("ingest", how, what) as failed:
        db.execute(add, (newcomer.source, newcomer.public))
        failed()
        assert kept.post(client, [kept.event()]).status_code == 200
        check_error(newcomer.post(client, [newcomer.event()]), 401, "unknown_source")
        check_error(Monitor(name).post(client, "[]"), 401, "invalid_signature")
    wait_for(lambda: knows(client, newcomer), "the new key, once it can be read")


@pytest.mark.parametrize("what", READS)
@pytest.mark.parametrize("how", HALF_A_READ)
def test_a_read_of_the_tokens_that_fails_halfway_changes_nothing(how, what, half_reads, db, client, token, name):
    added = f"{name}-token"
    SECRETS.add(added)
    with half_reads("query", how, what) as failed:
        db.execute("INSERT INTO public.access_tokens (label, token_sha256) VALUES (%s, sha256(%s))", (name, added.encode()))
        failed()
        assert query_with(client, token).status_code == 200
        check_error(query_with(client, added), 401, "invalid_token")
    wait_for(lambda: query_with(client, added).status_code == 200, "the new token, once it can be read")


@pytest.mark.parametrize("name, function", [("ingest", "list_monitor_keys"), ("query", "list_access_tokens")])
def test_the_log_says_why_credentials_cannot_be_read(name, function, stack, db):
    db.execute(f"REVOKE EXECUTE ON FUNCTION public.{function}(uuid) FROM steep_{name}")
    try:
        with program(stack, name) as instance:
            line, = wait_for(lambda: re.findall("event=keyring .*", instance.errors.read_text()), "a line about the credentials")
    finally:
        db.execute(f"GRANT EXECUTE ON FUNCTION public.{function}(uuid) TO steep_{name}")
    assert "could not read the credentials" in line and "sqlstate=42501" in line


def test_a_change_of_keys_takes_effect_without_reading_every_key(db, client, name):
    kept, changed = Monitor(name), Monitor(f"{name}-changed")
    add = "INSERT INTO public.monitor_keys (source, public_key) VALUES (%s, %s)"
    db.execute(add, (kept.source, kept.public))
    wait_for(lambda: knows(client, kept), "the key")
    with beginning_with(db, "list_monitor_keys", ONLY_CHANGES):
        db.execute(add, (changed.source, changed.public))
        assert seconds_until(lambda: knows(client, changed)) < SOON
        second = Monitor(changed.source)
        db.execute(add, (second.source, second.public))
        assert seconds_until(lambda: knows(client, second)) < SOON
        assert knows(client, changed)
        db.execute("DELETE FROM public.monitor_keys WHERE public_key = %s", (changed.public,))
        assert seconds_until(lambda: not knows(client, changed)) < SOON
        check_error(changed.post(client, "[]"), 401, "invalid_signature")
        db.execute("UPDATE public.monitor_keys SET source = %s WHERE source = %s", (f"{name}-moved", second.source))
        assert seconds_until(lambda: not knows(client, second)) < SOON
        check_error(second.post(client, "[]"), 401, "unknown_source")
        second.source = f"{name}-moved"
        assert knows(client, second) and knows(client, kept)


def test_a_change_of_tokens_takes_effect_without_reading_every_token(db, client, token, name):
    def total():
        answer = query_with(client, added, "?group_by=source")
        return answer.json()["meta"]["totalCount"] if answer.status_code == 200 else answer.status_code

    added = f"{name}-token"
    SECRETS.add(added)
    db.execute("INSERT INTO public.hourly_counts (source, hour, event_count) SELECT unnest(%s::text[]), date_trunc('hour', now()) - interval '1 hour', 1",
               ([f"{name}-1", f"{name}-2"],))
    with beginning_with(db, "list_access_tokens", ONLY_CHANGES):
        db.execute("INSERT INTO public.access_tokens (label, token_sha256, sources) VALUES (%s, sha256(%s), %s)",
                   (name, added.encode(), [f"{name}-*"]))
        assert seconds_until(lambda: total() == 2) < SOON
        db.execute("UPDATE public.access_tokens SET sources = %s WHERE label = %s", ([f"{name}-2"], name))
        assert seconds_until(lambda: total() == 1) < SOON
        db.execute("UPDATE public.access_tokens SET expires_at = now() - interval '1 second' WHERE label = %s", (name,))
        assert seconds_until(lambda: total() == 401) < SOON
        db.execute("UPDATE public.access_tokens SET expires_at = NULL, label = %s WHERE label = %s", (f"{name}-x", name))
        assert seconds_until(lambda: total() == 1) < SOON
        db.execute("DELETE FROM public.access_tokens WHERE label = %s", (f"{name}-x",))
        assert seconds_until(lambda: total() == 401) < SOON
        assert query_with(client, token).status_code == 200
    db.execute("DELETE FROM public.hourly_counts WHERE source LIKE %s", (f"{name}-%",))


def test_a_change_takes_effect_when_the_history_of_changes_is_lost(db, client, name):
    sender = Monitor(name)
    db.execute("INSERT INTO public.monitor_keys (source, public_key) VALUES (%s, %s)", (name, sender.public))
    wait_for(lambda: knows(client, sender), "the key")
    db.execute("DELETE FROM public.credential_changes WHERE list = 'monitor_keys'")
    db.execute("DELETE FROM public.monitor_keys WHERE source = %s", (name,))
    assert seconds_until(lambda: not knows(client, sender)) < SOON
    db.execute("INSERT INTO public.monitor_keys (source, public_key) VALUES (%s, %s)", (name, sender.public))
    assert seconds_until(lambda: knows(client, sender)) < SOON


def test_a_key_is_refused_when_the_database_lost_the_change_that_added_it(db, client, name):
    """As after a restore, or a failover to a standby that did not have it yet: nothing records the way back."""
    sender, other = Monitor(name), Monitor(f"{name}-other")
    add = "INSERT INTO public.monitor_keys (source, public_key) VALUES (%s, %s)"
    db.execute(add, (name, sender.public))
    wait_for(lambda: knows(client, sender), "the key")
    with db.transaction():
        db.execute("ALTER TABLE public.monitor_keys DISABLE TRIGGER record_delete")
        db.execute("DELETE FROM public.monitor_keys WHERE source = %s", (name,))
        db.execute("ALTER TABLE public.monitor_keys ENABLE ALWAYS TRIGGER record_delete")
        db.execute(add, (other.source, other.public))
        # The version that the lost change had, with another mark.
        lost = db.execute("DELETE FROM public.credential_changes WHERE names && %s RETURNING version", ([name, other.source],)).fetchone()[0]
        db.execute("INSERT INTO public.credential_changes (list, version, names) OVERRIDING SYSTEM VALUE VALUES ('monitor_keys', %s, %s)",
                   (lost, [other.source]))
    assert seconds_until(lambda: not knows(client, sender)) < SOON
    assert knows(client, other)


def test_a_key_that_a_restored_dump_lacks_is_refused(stack, new_cluster, name):
    cluster = new_cluster("restored-keys")
    cluster.start()
    database = cluster.make_database("steep")
    database.migrate()
    kept, lost, added = (Monitor(f"{name}-{each}") for each in ("kept", "lost", "added"))
    dump = cluster.folder / "dump"

    def add(sender):
        with database.connect() as db:
            db.execute("INSERT INTO public.monitor_keys (source, public_key) VALUES (%s, %s)", (sender.source, sender.public))

    with program(stack, "ingest", PGHOST=str(cluster.folder), PGPORT="5432", PGDATABASE="steep") as ingest:
        def is_known(sender):
            return ingest.ask(ingest_params(b"[]", sender), b"[]").status_code == 400

        add(kept)
        cluster.run("pg_dump", "-Fc", "-f", dump, "steep")
        add(lost)
        wait_for(lambda: is_known(kept) and is_known(lost), "the keys")
        cluster.run("dropdb", "--force", "steep")
        cluster.run("pg_restore", "--exit-on-error", "--create", "-d", "postgres", dump)
        # Its change has the version that the lost one had.
        add(added)
        wait_for(lambda: is_known(added), "the key that was added since")
        assert is_known(kept) and not is_known(lost)


def test_more_changes_than_the_database_tells_apart_all_take_effect(db, client, name):
    first, last = Monitor(f"{name}-0001"), Monitor(f"{name}-1200")
    db.execute("INSERT INTO public.monitor_keys (source, public_key, slot)"
               " SELECT %s || lpad(n::text, 4, '0'), CASE n WHEN 1 THEN %s ELSE %s END, 1 FROM generate_series(1, 1200) AS n",
               (f"{name}-", first.public, last.public))
    assert seconds_until(lambda: knows(client, first)) < SOON
    assert knows(client, last)
    db.execute("DELETE FROM public.monitor_keys WHERE source LIKE %s", (f"{name}-%",))
    assert seconds_until(lambda: not knows(client, first)) < SOON
    assert not knows(client, last)


def test_many_changes_at_once_all_take_effect(db, client, name):
    senders = [Monitor(f"{name}-{n}") for n in range(200)]
    for sender in senders:
        db.execute("INSERT INTO public.monitor_keys (source, public_key) VALUES (%s, %s)",
                   (sender.source, sender.public))
    assert seconds_until(lambda: knows(client, senders[-1])) < SOON
    assert all(knows(client, sender) for sender in senders)
    db.execute("DELETE FROM public.monitor_keys WHERE source LIKE %s", (f"{name}-%",))
    assert seconds_until(lambda: not knows(client, senders[0])) < SOON


def test_a_key_is_rotated_without_a_refused_batch(stack, client, name):
    old, new = Monitor(name), Monitor(name)
    stack.steepctl("monitor", "add", name, old.public_base64)
    wait_for(lambda: knows(client, old), "the old key")
    stack.steepctl("monitor", "add", name, new.public_base64)
    wait_for(lambda: knows(client, new), "the new key")
    assert old.post(client, [old.event()]).status_code == 200
    assert new.post(client, [new.event()]).status_code == 200
    stack.steepctl("monitor", "remove", name, old.public_base64)
    wait_for(lambda: not knows(client, old), "the old key to go")
    check_error(old.post(client, [old.event()]), 401, "invalid_signature")
    assert new.post(client, [new.event()]).status_code == 200


@pytest.mark.contract
def test_a_key_may_be_given_as_spki(stack, client, name):
    sender = Monitor(name)
    stack.steepctl("monitor", "add", name, sender.spki_base64)
    wait_for(lambda: knows(client, sender), "the key")
    stack.steepctl("monitor", "remove", name, sender.public_base64)
    wait_for(lambda: not knows(client, sender), "the key to go, named by its other form")


def test_eight_keys_of_one_monitor_all_sign_and_a_ninth_is_refused(stack, client, db, name):
    senders = [Monitor(name) for _ in range(9)]
    for sender in senders[:8]:
        stack.steepctl("monitor", "add", name, sender.public_base64)
    wait_for(lambda: knows(client, senders[7]), "the eighth key")
    assert all(knows(client, sender) for sender in senders[:8])
    refusal = stack.steepctl("monitor", "add", name, senders[8].public_base64, check=False)
    assert refusal.returncode == 1 and refusal.stderr.strip()
    assert senders[8].public_base64 not in refusal.stderr
    with pytest.raises(psycopg.Error):
        db.execute("INSERT INTO public.monitor_keys (source, public_key) VALUES (%s, %s)", (name, senders[8].public))
    check_error(senders[8].post(client, "[]"), 401, "invalid_signature")
    assert all(knows(client, sender) for sender in senders[:8])


@pytest.mark.contract
def test_one_key_may_belong_to_two_monitors_under_their_own_names(stack, client, name):
    # The contract allows it; each signs for the name it was registered with.
    first = Monitor(name)
    second = Monitor(f"{name}-2", bytes(first.key))
    for sender in (first, second):
        stack.steepctl("monitor", "add", sender.source, sender.public_base64)
    wait_for(lambda: knows(client, first) and knows(client, second), "both names")


@pytest.mark.contract
def test_removing_the_last_key_makes_the_source_unknown(stack, client, name):
    # After that the name is unknown, not its signature invalid.
    sender = Monitor(name)
    stack.steepctl("monitor", "add", name, sender.public_base64)
    wait_for(lambda: knows(client, sender), "the key")
    stack.steepctl("monitor", "remove", name, sender.public_base64)
    wait_for(lambda: sender.post(client, "[]").json()["error"] == "unknown_source", "the name to be unknown")
